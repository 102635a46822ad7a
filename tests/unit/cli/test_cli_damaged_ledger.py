"""A ledger with flipped bytes: whoever meets it is told what to do, and not which codec failed."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fastagi.errors import StoreDamaged
from fastagi.store import open_store
from fastagi.store.queries import recordings

REMEDY = "put the last backup back"


def _damage(desk, old: bytes, new: bytes) -> None:
    path = Path(desk.folder / "ledger.db")
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"0221555", b"022\xb55\xff5"),  # text that is no UTF-8
        (b"PJSIP/a-1", b"\xffJSIP/a-1"),
        (b'"file_format"', b'"file_f\xffrmat"'),  # JSON with a byte that is none
        (b'{"file_format"', b'X"file_format"'),  # no JSON
        (b"HANGUP", b"HANG_P"),  # a word that is none
        (b"SQLite format 3", b"SQLite format X"),
    ],
)
def test_flipped_bytes_name_the_remedy(desk, old: bytes, new: bytes) -> None:
    shown = desk.recording("a").id
    with closing(sqlite3.connect(desk.folder / "ledger.db")) as ledger, ledger:
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.close()
    _damage(desk, old, new)
    done = desk("recordings", "show", shown)
    assert done.code == 1
    assert "is damaged" in done.err
    assert REMEDY in done.err

    async def read() -> None:
        store = open_store(desk.url, node="test")
        try:
            await store.start()
            await store.read(recordings.get, shown)
        finally:
            await store.stop()

    with pytest.raises(StoreDamaged, match=REMEDY):
        asyncio.run(read())


def test_doctor_finds_a_damaged_page(desk) -> None:
    for n in range(60):
        desk.recording(f"r{n}")
    path = desk.folder / "ledger.db"
    data = bytearray(path.read_bytes())
    first = data.index(b"PJSIP/r") // 4096 * 4096  # the head of a page with rows
    data[first : first + 8] = b"\xff" * 8
    path.write_bytes(data)
    done = desk("doctor", "--json")
    assert done.code == 1
    (found,) = [c for c in done.json["checks"] if c["area"] == "store" and c["status"] == "fail"]
    assert (found["check"], REMEDY in found["remedy"]) == ("damaged", True)
