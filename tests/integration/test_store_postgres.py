"""What only PostgreSQL can do to a ledger: several servers, lost connections, deadlocks, and the move to it."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from fastagi.app.rekeying import rekey
from fastagi.cipher import MasterKey
from fastagi.domain.recording import Recording
from fastagi.errors import Error, StoreDown, StoreError
from fastagi.settings import Settings
from fastagi.store import open_store
from fastagi.store.copy import copy_ledger
from fastagi.store.queries import calls, journal, keys, recordings, servers
from support.postgres_server import PostgresServer, postgres_server, postgres_url  # noqa: F401

pytestmark = pytest.mark.postgres


def recording(n: int) -> Recording:
    return Recording(
        id=f"rec-{n:05}",
        node="one",
        asterisk="pbx",
        channel="SIP/a",
        uniqueid=f"1.{n}",
        name="a",
        file_path=f"/{n}.wav",
    )


async def until(condition, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_the_schema_is_the_same_and_two_may_start_at_once(postgres_url: str) -> None:  # noqa: F811
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from fastagi.store.schema import metadata

    stores = [open_store(postgres_url, node=f"node{n}") for n in range(4)]
    await asyncio.gather(*(store.start() for store in stores))
    assert all(store.healthy for store in stores)
    differences = await stores[0].run(
        lambda conn: list(compare_metadata(MigrationContext.configure(conn, opts={"compare_type": True}), metadata))
    )
    assert differences == []
    await asyncio.gather(*(store.stop() for store in stores))


async def test_a_newer_database_is_refused(postgres_url: str) -> None:  # noqa: F811
    store = open_store(postgres_url, node="one")
    await store.start()
    await store.run(lambda conn: conn.execute(sa.text("update alembic_version set version_num = '9999'")))
    await store.stop()
    with pytest.raises(StoreError, match=r"^[^\n]*newer fastagi \(schema 9999[^\n]*$"):
        await store.start()


async def test_two_servers_of_one_name_are_refused(postgres_url: str) -> None:  # noqa: F811
    first, second = open_store(postgres_url, node="one"), open_store(postgres_url, node="one")
    await first.start()
    with pytest.raises(StoreError, match=r"^[^\n]*server called 'one'[^\n]*$"):
        await second.start()
    await first.stop()
    await second.start()
    await second.stop()


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda url: url.replace("/t", "/no"), StoreError, "does not exist"),
        (lambda url: url.rpartition(":")[0] + ":1/db", StoreDown, "refused|Connect"),
        (lambda url: "postgresql://fastagi@host.invalid/db", StoreDown, "."),
    ],
)
async def test_what_cannot_be_reached_is_one_line(postgres_url: str, change, kind, said) -> None:  # noqa: F811
    store = open_store(change(postgres_url).replace("fastagi@", "fastagi:hunter2@"), node="one")
    with pytest.raises(kind, match=said) as caught:
        await store.start()
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert not store.healthy
    await store.stop()


async def test_a_restart_of_the_database_is_survived(postgres_server: PostgresServer, postgres_url: str) -> None:  # noqa: F811
    store = open_store(postgres_url, node="one")
    await store.start()
    await store.run(journal.write, "rec-1", at=1.0, event="before")
    await asyncio.to_thread(postgres_server.restart)
    # connections that died while they were idle: the unit is run again, and nobody notices
    await store.run(journal.write, "rec-1", at=2.0, event="after")
    assert [e.event for e in await store.read(journal.history, "rec-1")] == ["before", "after"]

    await asyncio.to_thread(postgres_server.stop)
    with pytest.raises(StoreDown):
        await store.run(journal.write, "rec-1", at=3.0, event="lost")
    assert not store.healthy
    await asyncio.to_thread(postgres_server.start)
    await store.run(journal.write, "rec-1", at=4.0, event="again")
    assert store.healthy
    assert [e.event for e in await store.read(journal.history, "rec-1")] == ["before", "after", "again"]

    async def locked() -> bool:
        held = await store.read(
            lambda c: c.scalar(sa.text("select count(*) from pg_locks where locktype = 'advisory'"))
        )
        return held == 1

    await until(locked)  # the node's name is guarded again
    await store.stop()


async def test_a_deadlock_is_run_again(postgres_url: str) -> None:  # noqa: F811
    store = open_store(postgres_url, node="one")
    await store.start()
    for n in (1, 2):
        await store.run(recordings.insert, recording(n))
    met = {"a": 0, "b": 0}

    def crossed(conn: sa.Connection, name: str, first: str, second: str) -> None:
        met[name] += 1
        recordings.change(conn, first, error=name)
        conn.execute(sa.text("select pg_sleep(0.2)"))
        recordings.change(conn, second, error=name)

    await asyncio.gather(
        store.run(crossed, "a", "rec-00001", "rec-00002"), store.run(crossed, "b", "rec-00002", "rec-00001")
    )
    assert sum(met.values()) >= 3, "they did deadlock"
    errors = [(await store.read(recordings.get, f"rec-0000{n}")).error for n in (1, 2)]
    assert errors[0] == errors[1]
    await store.stop()


async def test_searches_leave_connections_to_recordings(postgres_url: str) -> None:  # noqa: F811
    store = open_store(postgres_url, node="one")
    await store.start()

    def long(conn: sa.Connection) -> None:
        conn.execute(sa.text("select pg_sleep(8)"))

    searching = [asyncio.create_task(store.search(long)) for _ in range(12)]
    await asyncio.sleep(0.3)
    async with asyncio.timeout(2.5):
        await asyncio.gather(*(store.run(journal.write, "rec-1", at=1.0, event="noted") for _ in range(20)))
        assert len(await store.read(journal.history, "rec-1")) == 20
    assert not any(task.done() for task in searching)
    assert not store.pace.slow, "how long others search says nothing of the writes"
    for task in searching:
        task.cancel()
    await asyncio.wait(searching, timeout=3.0)
    assert all(task.cancelled() for task in searching)
    assert await store.search(journal.last_seq) == 20, "what nobody waits for is broken off"
    await store.stop()


async def test_a_search_that_takes_too_long_is_broken_off(
    postgres_url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastagi.store.postgres.SEARCH_SECONDS", 0.2)
    store = open_store(postgres_url, node="one")
    await store.start()
    with pytest.raises(StoreDown, match="statement timeout"):
        await store.search(lambda conn: conn.execute(sa.text("select pg_sleep(20)")))
    assert await store.search(journal.last_seq) == 0
    await store.run(lambda conn: conn.execute(sa.text("select pg_sleep(0.5)")))  # its limit was its own
    await store.stop()


async def test_two_databases_are_made_at_once(postgres_server: PostgresServer) -> None:  # noqa: F811
    stores = [open_store(postgres_server.create_database(), node="one") for _ in range(3)]
    stores.append(open_store(stores[0].dsn, node="two"))
    async with asyncio.timeout(40):
        await asyncio.gather(*(store.start() for store in stores))
    assert all(store.healthy for store in stores)
    await asyncio.gather(*(store.stop() for store in stores))


KILLED = """
import asyncio, sys
from fastagi.store import open_store
from fastagi.store.queries import journal

async def main():
    store = open_store(sys.argv[1], node="one")
    await store.start()
    async def one(lane):
        n = 0
        while True:
            await store.run(journal.write, f"rec-{lane}-{n}", at=1.0, event="noted")
            print(f"rec-{lane}-{n}", flush=True)
            n += 1
    await asyncio.gather(*(one(lane) for lane in range(8)))

asyncio.run(main())
"""


def test_kill_9_loses_nothing_that_was_answered(postgres_url: str) -> None:  # noqa: F811
    process = subprocess.Popen([sys.executable, "-c", KILLED, postgres_url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answered = [process.stdout.readline().strip() for _ in range(200)]
    process.kill()
    answered += [line.strip() for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.stdout.close()
    process.wait(10)

    async def kept() -> set[str]:
        store = open_store(postgres_url, node="one")
        await store.start()
        found = await store.read(lambda conn: set(conn.execute(sa.text("select recording_id from journal")).scalars()))
        await store.stop()
        return found

    assert set(answered) <= asyncio.run(kept())


async def test_a_ledger_moves_to_postgresql(tmp_path: Path, postgres_url: str) -> None:  # noqa: F811
    path = tmp_path / "old.db"
    old = open_store(f"sqlite:///{path}", node="one")
    await old.start()
    await asyncio.gather(*(old.run(recordings.insert, recording(n)) for n in range(2500)))
    await old.run(calls.answered, calls.AnsweredCall("pbx", "1.1", required=True))
    await old.run(keys.put, "rec-00001", "age", b"\x00\xff")
    with pytest.raises(StoreError, match="uses this store"):
        await copy_ledger(path, postgres_url, node="one")
    await old.stop()
    told: list[tuple[str, int]] = []
    counts = await copy_ledger(path, postgres_url, node="one", progress=lambda table, rows: told.append((table, rows)))
    assert counts == {
        "attempt": 0,
        "call": 1,
        "delivery": 0,
        "journal": 2500,
        "recording": 2500,
        "recording_key": 1,
        "sink_hold": 0,
    }
    assert ("recording", 2500) in told
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute("select count(*) from recording").fetchone() == (2500,)
    new = open_store(postgres_url, node="one")
    await new.start()
    assert await new.read(recordings.get, "rec-01234") == recording(1234)
    assert await new.read(keys.get, "rec-00001") == ("age", b"\x00\xff")
    before = await new.read(journal.last_seq)
    await new.run(journal.write, "rec-00001", at=1.0, event="goes on")
    assert await new.read(journal.last_seq) == before + 1
    assert await new.run(calls.answered, calls.AnsweredCall("pbx", "1.2"))
    assert await new.read(recordings.get, "rec-02499") == recording(2499)
    await new.stop()
    with pytest.raises(StoreError, match="not empty"):
        await copy_ledger(path, postgres_url, node="one")
    with pytest.raises(StoreError, match="no such ledger"):
        await copy_ledger(tmp_path / "none.db", postgres_url, node="one")
    assert not (tmp_path / "none.db").exists()


async def test_a_new_master_key_on_a_ledger_of_several(postgres_url: str, tmp_path: Path) -> None:  # noqa: F811
    master = MasterKey.load_or_create(tmp_path / "master.key")
    settings = Settings.model_validate(
        {"store": {"url": postgres_url}, "recordings": {"key_file": str(tmp_path / "master.key")}}
    )
    store = open_store(postgres_url, node="one")
    await store.start()
    await store.run(recordings.insert, recording(1))
    await store.run(keys.put, "rec-00001", "aes-256-gcm", master.wrap(b"k" * 32, b"rec-00001"))
    await store.run(servers.heartbeat, "one", 0.0, started_at=0.0)
    with pytest.raises(Error, match="stop the servers first: one"):
        await rekey(settings)
    await store.run(servers.goodbye, ["one"])
    assert (await rekey(settings)).count == 1
    _, wrapped = await store.read(keys.get, "rec-00001")
    assert MasterKey.load_or_create(tmp_path / "master.key").unwrap(wrapped, b"rec-00001") == b"k" * 32
    await store.stop()
