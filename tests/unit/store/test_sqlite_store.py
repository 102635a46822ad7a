"""The SQLite store: units, group commit, its lock, and what happens when the database cannot be written."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from fastagi.errors import StoreDown, StoreError
from fastagi.store import Store, after_commit, open_store
from fastagi.store.queries import journal
from fastagi.store.sqlite import SqliteStore


def note(conn: sa.Connection, recording_id: str, event: str = "noted") -> str:
    journal.write(conn, recording_id, at=1.0, event=event)
    return recording_id


def note_and_fail(conn: sa.Connection, recording_id: str) -> None:
    journal.write(conn, recording_id, at=1.0, event="lost")
    raise ValueError(recording_id)


@pytest.fixture
async def store(tmp_path: Path):
    opened = SqliteStore(tmp_path / "fastagi.db", node="one", busy_seconds=0.2)
    await opened.start()
    yield opened
    await opened.stop()


async def test_unit_is_durable_after_run(store: SqliteStore) -> None:
    assert await store.run(note, "rec-1") == "rec-1"
    with closing(sqlite3.connect(store.path)) as other, other:
        assert other.execute("select recording_id, event from journal").fetchall() == [("rec-1", "noted")]
    assert store.healthy
    assert store.last_error == ""
    pragmas = await store.run(
        lambda conn: [conn.exec_driver_sql(f"pragma {p}").scalar() for p in ("journal_mode", "synchronous")]
    )
    assert pragmas == ["wal", 2]


async def test_the_file_is_its_owners_alone(store: SqliteStore) -> None:
    await store.run(note, "rec-1")
    for suffix in ("", "-wal", "-shm", ".lock"):
        assert os.stat(str(store.path) + suffix).st_mode & 0o077 == 0, suffix


async def test_many_units_share_a_commit(store: SqliteStore) -> None:
    hold, entered = threading.Event(), threading.Event()

    def wait(conn: sa.Connection) -> None:
        entered.set()
        hold.wait(10)

    before = store.commits
    first = asyncio.create_task(store.run(wait))
    await asyncio.to_thread(entered.wait, 10)
    others = [asyncio.create_task(store.run(note, f"rec-{n}")) for n in range(100)]
    await asyncio.sleep(0)
    hold.set()
    assert await asyncio.gather(*others) == [f"rec-{n}" for n in range(100)]
    await first
    assert store.commits - before <= 2


async def test_failing_unit_affects_no_other(store: SqliteStore) -> None:
    results = await asyncio.gather(
        store.run(note, "rec-1"),
        store.run(note_and_fail, "rec-2"),
        store.run(note, "rec-3"),
        return_exceptions=True,
    )
    assert results[0] == "rec-1"
    assert isinstance(results[1], ValueError)
    assert results[2] == "rec-3"
    assert [await store.read(journal.history, r) != [] for r in ("rec-1", "rec-2", "rec-3")] == [True, False, True]
    assert store.healthy


async def test_sql_error_is_one_line(store: SqliteStore) -> None:
    def refused(conn: sa.Connection) -> None:
        conn.execute(sa.text("insert into journal (recording_id) values ('x')"))

    with pytest.raises(StoreError, match=r"^[^\n]*NOT NULL[^\n]*$") as caught:
        await store.run(refused)
    assert not isinstance(caught.value, StoreDown)
    assert store.healthy


async def test_cancelled_caller_keeps_the_write(store: SqliteStore) -> None:
    """Cancelling the caller does not undo the write."""
    hold, entered = threading.Event(), threading.Event()

    def slow(conn: sa.Connection) -> None:
        journal.write(conn, "rec-1", at=1.0, event="slow")
        entered.set()
        hold.wait(10)

    running = asyncio.create_task(store.run(slow))
    await asyncio.to_thread(entered.wait, 10)
    queued = asyncio.create_task(store.run(note, "rec-2"))
    await asyncio.sleep(0)
    running.cancel()
    queued.cancel()
    await asyncio.wait([running, queued])
    assert running.cancelled()
    assert queued.cancelled()
    hold.set()
    await store.run(note, "rec-3")
    assert [len(await store.read(journal.history, r)) for r in ("rec-1", "rec-2", "rec-3")] == [1, 1, 1]


async def test_reads_run_beside_long_write(store: SqliteStore) -> None:
    """Reads do not wait for a long write, and see all that is committed."""
    await store.run(note, "rec-1")
    hold, entered = threading.Event(), threading.Event()

    def wait(conn: sa.Connection) -> None:
        journal.write(conn, "rec-2", at=1.0, event="unseen")
        entered.set()
        hold.wait(10)

    writing = asyncio.create_task(store.run(wait))
    await asyncio.to_thread(entered.wait, 10)
    assert await store.read(journal.last_seq) == 1
    hold.set()
    await writing
    assert await store.read(journal.last_seq) == 2


async def test_a_reader_cannot_write(store: SqliteStore) -> None:
    with pytest.raises(StoreError, match="readonly"):
        await store.read(note, "rec-1")
    assert await store.read(journal.last_seq) == 0


ENDLESS = sa.text("with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n")


def endless(conn: sa.Connection) -> object:
    return conn.execute(ENDLESS).scalar()


async def test_an_endless_read_is_broken_off(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastagi.store.connection_threads.Reader.seconds", 0.1)
    with pytest.raises(StoreDown, match=r"broken off after 0\.1 s"):
        await store.read(endless)
    assert await store.read(journal.last_seq) == 0


async def test_endless_searches_hold_no_read(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless searches hold up no read, and end."""
    monkeypatch.setattr("fastagi.store.connection_threads.Searcher.seconds", 1.2)
    searching = [asyncio.create_task(store.search(endless)) for _ in range(2)]
    ran: list[str] = []
    given_up = asyncio.create_task(store.search(lambda conn: ran.append("given up")))
    await asyncio.sleep(0)
    async with asyncio.timeout(1.0):
        for _ in range(5):
            await store.run(note, "rec-1")
            await store.read(journal.last_seq)
    assert not any(task.done() for task in searching)
    given_up.cancel()
    for task in searching:
        with pytest.raises(StoreDown, match="broken off"):
            await task
    assert await store.search(journal.last_seq) == 5
    assert ran == [], "one that nobody waits for is not run"


async def test_abandoned_search_ends(store: SqliteStore) -> None:
    searching = asyncio.create_task(store.search(endless))
    while store._searcher is None or store._searcher.waiting:  # noqa: ASYNC110 - until its thread has it
        await asyncio.sleep(0.01)
    searching.cancel()
    async with asyncio.timeout(3.0):
        assert await store.search(journal.last_seq) == 0


async def test_foreign_writes_are_noticed(store: SqliteStore) -> None:
    """Writes of other processes are noticed, and its own are not."""
    await store.changed_elsewhere()
    assert not await store.changed_elsewhere()
    await store.run(note, "rec-1")
    assert not await store.changed_elsewhere()
    with closing(sqlite3.connect(store.path)) as other, other:
        other.execute("insert into journal (recording_id, at, event, detail) values ('rec-2', 1, 'retried', '{}')")
    assert await store.changed_elsewhere()
    assert not await store.changed_elsewhere()


async def test_long_write_makes_store_slow(store: SqliteStore) -> None:
    assert not store.pace.slow
    hold, entered = threading.Event(), threading.Event()

    def wait(conn: sa.Connection) -> None:
        entered.set()
        hold.wait(10)

    writing = asyncio.create_task(store.run(wait))
    while not store.pace.slow:  # noqa: ASYNC110 - nothing tells of time that passes
        await asyncio.sleep(0.05)
    assert not writing.done(), "one that is under way counts"
    hold.set()
    await writing
    assert store.pace.slow
    assert 1.0 <= store.pace.seconds(60) < 10.0


async def test_after_commit_runs_after_success(store: SqliteStore) -> None:
    """The callback runs on the loop, and only after success."""
    called: list[tuple[str, bool]] = []
    loop_thread = threading.get_ident()

    def unit(conn: sa.Connection, name: str, fail: bool) -> None:
        after_commit(conn, lambda: called.append((name, threading.get_ident() == loop_thread)))
        if fail:
            raise ValueError(name)

    await asyncio.gather(
        store.run(unit, "a", False), store.run(unit, "b", True), store.run(unit, "c", False), return_exceptions=True
    )
    assert called == [("a", True), ("c", True)]


async def test_rerun_batch_writes_nothing_twice(store: SqliteStore) -> None:
    """A batch that is run again for a unit that failed writes nothing twice."""
    hold, entered = threading.Event(), threading.Event()
    called: list[str] = []

    def wait(conn: sa.Connection) -> None:
        entered.set()
        hold.wait(10)

    def told(conn: sa.Connection, recording_id: str) -> str:
        after_commit(conn, lambda: called.append(recording_id))
        return note(conn, recording_id)

    first = asyncio.create_task(store.run(wait))
    await asyncio.to_thread(entered.wait, 10)
    units = ((told, "rec-1"), (note_and_fail, "rec-2"), (told, "rec-3"))
    others = [asyncio.create_task(store.run(unit, name)) for unit, name in units]
    await asyncio.sleep(0)
    hold.set()
    answers = await asyncio.gather(first, *others, return_exceptions=True)
    assert [answers[1], answers[3]] == ["rec-1", "rec-3"]
    assert isinstance(answers[2], ValueError)
    assert called == ["rec-1", "rec-3"]
    assert [e.recording_id for e in await store.read(journal.after, 0)] == ["rec-1", "rec-3"]


async def test_locked_database_is_down(store: SqliteStore) -> None:
    """A locked database is down and comes back."""
    await store.run(note, "rec-1")
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("begin immediate")
    failed = await asyncio.gather(*(store.run(note, f"rec-{n}") for n in range(20)), return_exceptions=True)
    assert all(isinstance(e, StoreDown) and "locked" in str(e) for e in failed)
    assert not store.healthy
    assert "locked" in store.last_error
    assert await store.read(journal.last_seq) == 1
    other.execute("rollback")
    other.close()
    await store.run(note, "rec-2")
    assert store.healthy
    assert store.last_error == ""


async def test_full_disk_loses_no_answered_write(store: SqliteStore) -> None:
    """On a full disk the store is down, and no answered write is lost."""
    await store.run(note, "rec-1")
    pages = await store.run(lambda conn: conn.exec_driver_sql("pragma page_count").scalar())
    await store.run(lambda conn: conn.exec_driver_sql(f"pragma max_page_count = {pages + 1}").scalar())

    def large(conn: sa.Connection) -> None:
        journal.write(conn, "rec-2", at=1.0, event="x" * 100_000)

    with pytest.raises(StoreDown, match="full"):
        await store.run(large)
    await store.run(lambda conn: conn.exec_driver_sql("pragma max_page_count = 1000000").scalar())
    await store.run(large)
    assert [len(await store.read(journal.history, r)) for r in ("rec-1", "rec-2")] == [1, 1]
    assert store.healthy


async def test_removed_file_is_noticed(store: SqliteStore) -> None:
    """A removed database file is reported at once, and a restored one is opened."""
    await store.run(note, "rec-1")
    kept = store.path.with_name("kept.db")
    with closing(sqlite3.connect(store.path)) as source, source, closing(sqlite3.connect(kept)) as target, target:
        source.backup(target)
    for suffix in ("", "-wal", "-shm"):
        os.unlink(str(store.path) + suffix)
    for _ in range(2):
        with pytest.raises(StoreDown, match="unable to open"):
            await store.run(note, "rec-2")
        with pytest.raises(StoreDown, match="unable to open"):
            await store.read(journal.last_seq)
    assert not store.healthy
    assert not store.path.exists(), "an empty ledger in its place would hide the loss"
    kept.rename(store.path)
    await store.run(note, "rec-3")
    assert store.healthy
    assert await store.read(journal.last_seq) == 2
    with closing(sqlite3.connect(store.path)) as other, other:
        assert other.execute("select recording_id from journal").fetchall() == [("rec-1",), ("rec-3",)]


async def test_second_server_is_refused(store: SqliteStore) -> None:
    """The error names the server that has the ledger."""
    second = open_store(f"sqlite:///{store.path}", node="two")
    with pytest.raises(StoreError, match=rf"^[^\n]*server 'one', process {os.getpid()} uses this store[^\n]*$"):
        await second.start()
    assert not second.healthy
    await second.stop()
    await store.run(note, "rec-1")


async def test_the_lock_is_free_after_stop(tmp_path: Path) -> None:
    for node in ("one", "two"):
        opened = open_store(f"sqlite:///{tmp_path}/fastagi.db", node=node)
        await opened.start()
        await opened.run(note, node)
        await opened.stop()
        await opened.stop()
        with pytest.raises(StoreDown, match="not open"):
            await opened.run(note, node)


async def test_stop_finishes_what_waits(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "fastagi.db", node="one")
    await store.start()
    waiting = [asyncio.create_task(store.run(note, f"rec-{n}")) for n in range(1000)]
    await asyncio.sleep(0)
    await store.stop()
    assert len(await asyncio.gather(*waiting)) == 1000


async def test_full_queue_waits_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue makes callers wait, but not for ever."""
    monkeypatch.setattr("fastagi.store.connection_threads.ROOM_SECONDS", 0.1)
    store = SqliteStore(tmp_path / "fastagi.db", node="one", queue_units=2)
    await store.start()
    hold = threading.Event()
    held = asyncio.create_task(store.run(lambda conn: hold.wait(10)))
    queued = asyncio.create_task(store.run(note, "rec-1"))
    await asyncio.sleep(0)
    with pytest.raises(StoreDown, match="2 units wait already"):
        await store.run(note, "rec-2")
    hold.set()
    await asyncio.gather(held, queued)
    await store.run(note, "rec-3")
    await store.stop()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///:memory:", "in memory"),
        ("mysql://host/db", "must start with"),
        ("sqlite:////proc/nowhere/fastagi.db", "No such file"),
    ],
)
async def test_a_wrong_address_is_one_line(url: str, said: str) -> None:
    with pytest.raises(StoreError, match=said) as caught:
        await open_store(url, node="one").start()
    assert "\n" not in str(caught.value)


async def test_non_database_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "fastagi.db"
    path.write_bytes(b"this is a letter to my aunt, and it is longer than a header\n" * 50)
    store: Store = open_store(f"sqlite:///{path}", node="one")
    with pytest.raises(StoreError, match=r"^[^\n]*not a database[^\n]*$"):
        await store.start()
    assert path.read_bytes().startswith(b"this is a letter")


KILLED = """
import asyncio, sys
from pathlib import Path
from fastagi.store.sqlite import SqliteStore
from fastagi.store.queries import journal

async def main():
    store = SqliteStore(Path(sys.argv[1]), node="one")
    await store.start()
    async def one(lane):
        n = 0
        while True:
            await store.run(journal.write, f"rec-{lane}-{n}", at=1.0, event="noted")
            print(f"rec-{lane}-{n}", flush=True)
            n += 1
    await asyncio.gather(*(one(lane) for lane in range(20)))

asyncio.run(main())
"""


def test_kill_loses_no_answered_write(tmp_path: Path) -> None:
    """A kill -9 loses nothing that was answered."""
    path = tmp_path / "fastagi.db"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answered = [process.stdout.readline().strip() for _ in range(500)]
    process.kill()
    answered += [line.strip() for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.stdout.close()
    process.wait(10)

    async def after() -> None:
        store = SqliteStore(path, node="one")
        await store.start()  # the kernel dropped the dead one's lock
        kept = await store.read(lambda conn: set(conn.execute(sa.text("select recording_id from journal")).scalars()))
        assert set(answered) <= kept
        assert await store.read(lambda conn: conn.exec_driver_sql("pragma integrity_check").scalar()) == "ok"
        await store.stop()

    asyncio.run(after())
