"""The journal on a real SQLite ledger that is slow or says no: order, side files, and nothing twice."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fastagi.domain.recording import Recording, Segment
from fastagi.domain.states import Event, Phase
from fastagi.errors import TakenOver
from fastagi.recording.ledger import write_behind
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.ledger.bounds import Bounds
from fastagi.recording.ledger.journal import Journal
from fastagi.recording.ledger.spill_file import SpillFolder
from fastagi.store.queries import journal as lines
from fastagi.store.queries import recordings
from fastagi.store.sqlite import SqliteStore
from support.crash_harness import until
from support.delivery_harness import recording
from support.journal_entries import move, note


class NoCourier:
    """Nothing is delivered here."""

    def wake(self) -> None:
        return None

    def enqueue(self, conn: sa.Connection, made: object, recording: object = None) -> None:
        return None


class Ledger:
    """A journal on a store, both real, and what happens to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SqliteStore(folder / "fastagi.db", node="one", busy_seconds=0.2)
        self.sides = SpillFolder(folder / "side", bytes(32))
        bounds = Bounds(folder, {"pbx": folder})
        self.journal = Journal(self.store, NoCourier(), self.sides, bounds)  # type: ignore[arg-type]

    async def job(self, n: int) -> ActiveRecording:
        """One that Asterisk records, of a call of its own."""
        job = ActiveRecording(self.requested(n))
        await self.journal.enter(job.recording)
        await move(self.journal, job, Event.STARTED, started_at=1.0)
        return job

    def requested(self, n: int, call: int | None = None, **fields: Any) -> Recording:
        """The row of a recording, of a call of its own where none is given."""
        recording_id = f"rec-{n:026d}"
        raw = Segment(str(self.folder / f"{recording_id}.wav"))
        path, uniqueid = str(self.folder / f"{n}.wav"), f"1.{n if call is None else call}"
        row = recording(n, node="one", uniqueid=uniqueid, phase=Phase.REQUESTED, pieces=(raw,), file_path=path)
        return replace(row, id=recording_id, **fields)

    async def row(self, job: ActiveRecording) -> Recording:
        found: Recording = await self.store.read(recordings.get, job.id)
        return found

    async def events(self, job: ActiveRecording) -> list[str]:
        return [line.event for line in await self.store.read(lines.history, job.id)]

    def foreign(self, statement: str) -> None:
        with closing(sqlite3.connect(self.store.path)) as other, other:
            other.execute(statement)

    def side_files(self) -> list[str]:
        return sorted(path.name for path in self.sides.path.glob("rec-*"))


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    made = Ledger(tmp_path)
    await made.store.start()
    yield made
    await made.store.stop()


async def test_what_the_database_refuses_waits_and_holds_up_no_other_call(ledger: Ledger) -> None:
    """More than being away: a right that was taken from the user, a trigger of somebody's."""
    ledger.store.side_by_side = 1
    one, other = await ledger.job(1), await ledger.job(2)
    ledger.foreign(
        f"create trigger no before update on recording when old.id = '{one.id}' begin select raise(abort, 'no'); end"
    )
    await move(ledger.journal, one, Event.HUNG_UP, ended_at=2.0)
    await move(ledger.journal, one, Event.CLOSED)
    await move(ledger.journal, other, Event.HUNG_UP, ended_at=2.0)
    assert not await ledger.journal.flush()
    assert (await ledger.row(one)).phase is Phase.ACTIVE
    assert (await ledger.row(other)).phase is Phase.CLOSING
    assert ledger.side_files() == [f"{one.id}.journal"]
    assert ledger.sides.read(one.id).recording.phase is Phase.FINISHING
    ledger.foreign("drop trigger no")
    assert await ledger.journal.flush()
    assert (await ledger.row(one)).phase is Phase.FINISHING
    assert await ledger.events(one) == ["requested", "started", "hung_up", "closed"]
    assert ledger.side_files() == []


async def test_a_write_that_is_slow_is_made_once_and_overtakes_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_behind, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(write_behind, "FLUSH_PATIENCE_SECONDS", 0.1)
    job = await ledger.job(1)
    hold, entered = threading.Event(), threading.Event()

    def wait(conn: sa.Connection) -> None:
        entered.set()
        hold.wait(20)

    holding = asyncio.create_task(ledger.store.run(wait))
    await asyncio.to_thread(entered.wait, 10)
    await note(ledger.journal, job, "first", facts={"n": 1})
    await note(ledger.journal, job, "second", facts={"n": 2})
    for _ in range(3):
        assert not await ledger.journal.flush()
    assert ledger.journal.behind == 2
    assert ledger.store.waiting == 1, "it is not sent again while it is under way"
    hold.set()
    await holding
    assert await ledger.journal.flush()
    assert (await ledger.row(job)).facts == {"n": 2}
    assert (await ledger.events(job))[2:] == ["first", "second"]
    assert ledger.side_files() == []


async def test_a_call_waits_a_second_for_a_slow_ledger_and_the_next_row_not_at_all(ledger: Ledger) -> None:
    hold, entered = threading.Event(), threading.Event()

    def wait(conn: sa.Connection) -> None:
        entered.set()
        hold.wait(30)

    holding = asyncio.create_task(ledger.store.run(wait))
    await asyncio.to_thread(entered.wait, 10)
    begun = time.monotonic()
    job = await ledger.job(1)  # its intent and its start
    assert time.monotonic() - begun < 2.9
    assert ledger.sides.read(job.id).recording.phase is Phase.ACTIVE
    hold.set()
    await holding
    assert await ledger.journal.flush()
    assert await ledger.events(job) == ["requested", "started"]


async def test_an_answer_that_was_lost_changes_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's connection can break in a commit: it was written, and the journal does not know."""
    job = await ledger.job(1)
    run = ledger.store.run
    lost = 0

    async def losing(unit: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal lost
        value = await run(unit, *args, **kwargs)
        if lost == 0:
            lost += 1
            raise write_behind.StoreDown("the connection broke")
        return value

    monkeypatch.setattr(ledger.store, "run", losing)
    await move(ledger.journal, job, Event.PAUSED)
    assert ledger.journal.behind == 1
    await move(ledger.journal, job, Event.RESUMED)
    assert await ledger.journal.flush()
    assert (await ledger.row(job)).phase is Phase.ACTIVE
    assert (await ledger.events(job))[2:] == ["paused", "resumed"]


async def test_what_another_server_took_over_while_it_waited_is_let_go(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[ActiveRecording] = []
    ledger.journal._on_lost = lost.append
    job, other = await ledger.job(1), await ledger.job(2)
    with closing(sqlite3.connect(ledger.store.path, isolation_level=None)) as away:
        away.execute("begin immediate")
        await move(ledger.journal, job, Event.HUNG_UP, ended_at=2.0)
        await move(ledger.journal, other, Event.HUNG_UP, ended_at=2.0)
        away.execute("rollback")
    await ledger.store.run(recordings.take_over, job.id, "one", "successor", 3.0)
    assert await ledger.journal.flush()
    assert lost == [job]
    row = await ledger.row(job)
    assert (row.node, row.phase) == ("successor", Phase.ACTIVE)
    assert (await ledger.row(other)).phase is Phase.CLOSING
    with pytest.raises(TakenOver):
        await move(ledger.journal, job, Event.CLOSED)


async def test_a_newer_side_file_is_not_removed_with_the_older_one(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older entry is in the ledger, and its file about to go, when the next one is written."""
    job, other = await ledger.job(1), await ledger.job(2)
    remove, unlinking, go_on = ledger.sides.remove, threading.Event(), threading.Event()

    def slow_remove(recording_id: str) -> None:
        if not unlinking.is_set():
            unlinking.set()
            go_on.wait(20)
        remove(recording_id)

    monkeypatch.setattr(ledger.sides, "remove", slow_remove)
    with closing(sqlite3.connect(ledger.store.path, isolation_level=None)) as away:
        away.execute("begin immediate")
        await move(ledger.journal, job, Event.HUNG_UP, ended_at=2.0)
        away.execute("rollback")
        flushing = asyncio.create_task(ledger.journal.flush())
        await until(unlinking.is_set)
        away.execute("begin immediate")
        await move(ledger.journal, other, Event.HUNG_UP, ended_at=2.0)  # the ledger is away again
        newer = asyncio.create_task(move(ledger.journal, job, Event.CLOSED))
        await until(lambda: ledger.journal.behind == 2)
        go_on.set()
        await newer
        assert ledger.sides.read(job.id).recording.phase is Phase.FINISHING
        away.execute("rollback")
    await flushing
    await until(lambda: ledger.journal.flush(), 20)
    assert ledger.side_files() == []
