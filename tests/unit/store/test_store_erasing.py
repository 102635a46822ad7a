"""A deleted key is in no file of the SQLite ledger, whoever deleted it, while the server is idle."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fastagi.store import open_store
from fastagi.store.offline import OfflineLedger
from fastagi.store.queries import keys
from fastagi.store.sqlite import SqliteStore


def wrapped(n: int) -> bytes:
    return f"WRAPPED-KEY-{n:04}-".encode() + b"k" * 30


def traces(folder: Path, n: int = 1) -> list[str]:
    """Names of the ledger's files that have the n-th key in them."""
    return sorted(p.name for p in folder.glob("ledger.db*") if wrapped(n) in p.read_bytes())


async def until_gone(folder: Path, n: int = 1) -> None:
    async with asyncio.timeout(20):
        while traces(folder, n):  # noqa: ASYNC110 - until its thread has done it
            await asyncio.sleep(0.01)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = open_store(f"sqlite:///{tmp_path}/ledger.db", node="one")
    assert isinstance(made, SqliteStore)
    await made.start()
    yield made
    await made.stop()


async def put(store: SqliteStore, n: int = 1) -> None:
    await store.run(keys.put, f"rec-{n:04}", "aes-256-gcm", wrapped(n))


async def test_deleted_key_is_nowhere(store: SqliteStore, tmp_path: Path) -> None:
    """Many of them, in an order that has SQLite move and merge its pages."""
    for n in range(400):
        await put(store, n)
    assert traces(tmp_path)
    for n in range(400):
        assert await store.run(keys.forget, f"rec-{n * 7 % 400:04}")
    for n in range(400):
        await until_gone(tmp_path, n)


async def test_replaced_key_is_nowhere(store: SqliteStore, tmp_path: Path) -> None:
    await put(store)
    await store.run(keys.put, "rec-0001", "aes-256-gcm", wrapped(2))
    await until_gone(tmp_path)
    assert traces(tmp_path, 2)


async def test_reader_only_delays_the_erasure(store: SqliteStore, tmp_path: Path) -> None:
    """The log cannot be truncated under a snapshot, and the server writes nothing afterwards."""
    await put(store)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM recording_key").fetchone()
        await store.run(keys.forget, "rec-0001")
        async with asyncio.timeout(20):
            while not store._writer or store._writer.erasure._tries < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert traces(tmp_path)
        async with asyncio.timeout(2):
            await put(store, 3)  # writes go on meanwhile
        other.execute("ROLLBACK")
    other.close()
    await until_gone(tmp_path)


async def test_long_reader_is_told_of(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fastagi.store.erasing.PAUSE_SECONDS", 0.0)
    await put(store)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM recording_key").fetchone()
        await store.run(keys.forget, "rec-0001")
        text = ""
        async with asyncio.timeout(20):
            while "deleted_still_in_log" not in text:
                await asyncio.sleep(0.01)
                text += "".join(capfd.readouterr())
        other.execute("ROLLBACK")
    other.close()


async def test_command_beside_the_server_erases(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command's own connection zeroes the page and truncates the log: the server does nothing here."""

    class Plain(sqlite3.Connection):
        """As an SQLite that was not built with SECURE_DELETE opens it."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.execute("PRAGMA secure_delete = OFF")

    await put(store)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Plain, **options))
    async with OfflineLedger(f"sqlite:///{store.path}") as ledger:
        assert await ledger.run(keys.forget, "rec-0001")
        assert traces(tmp_path) == []


async def test_killed_command_is_finished(store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command committed and did not truncate any more, the server does."""
    monkeypatch.setattr("fastagi.store.offline._truncate", lambda conn: None)
    await put(store)
    await store.changed_elsewhere()
    async with OfflineLedger(f"sqlite:///{store.path}") as ledger:
        await ledger.run(keys.forget, "rec-0001")
    assert traces(tmp_path)
    async with asyncio.timeout(20):
        while traces(tmp_path):
            await store.changed_elsewhere()
            await asyncio.sleep(0.01)


KILLED = """
import asyncio, os, sys
from fastagi.store import erasing, open_store
from fastagi.store.queries import keys
erasing.truncate_log = lambda conn: False
async def main():
    store = open_store(sys.argv[1], node="one")
    await store.start()
    await store.run(keys.put, "rec-0001", "aes-256-gcm", bytes.fromhex(sys.argv[2]))
    await store.run(keys.forget, "rec-0001")
    os._exit(9)
asyncio.run(main())
"""


async def test_killed_server_erases_at_start(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, url, wrapped(1).hex())
    assert await child.wait() == 9
    assert traces(tmp_path)
    store = open_store(url, node="one")
    await store.start()
    try:
        await until_gone(tmp_path)
    finally:
        await store.stop()
