"""A ledger that is away for long: memory has a limit, side files take the rest, nothing is lost."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import structlog
from test_lost_journal import Ledger

from fastagi.app.doctor import ledger as doctor
from fastagi.cipher import AesGcmCipher
from fastagi.domain.states import Cause, Event, Phase
from fastagi.errors import StoreDown, TakenOver
from fastagi.recording.ledger import backlog, spill_file, spill_index
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.store.queries import deliveries, keys, recordings
from support.journal_entries import finish, move
from support.web_harness import web_scene

MOST = 12


@pytest.fixture
async def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ledger]:
    monkeypatch.setattr(backlog, "MOST_ENTRIES", MOST)
    made = Ledger(tmp_path)
    await made.store.start()
    yield made
    await made.store.stop()


@contextmanager
def away(ledger: Ledger):  # type: ignore[no-untyped-def]
    """The database is locked as long as the block lasts."""
    with closing(sqlite3.connect(ledger.store.path, isolation_level=None)) as other:
        other.execute("begin immediate")
        yield
        other.execute("rollback")


async def whole(ledger: Ledger, n: int, call: int | None = None) -> ActiveRecording:
    """A recording from its request to its end."""
    job = ActiveRecording(ledger.requested(n, call, sinks=("crm",)))
    await ledger.journal.enter(job.recording)
    await move(ledger.journal, job, Event.STARTED, started_at=1.0)
    await over(ledger, job)
    return job


async def over(ledger: Ledger, job: ActiveRecording) -> None:
    await move(ledger.journal, job, Event.HUNG_UP, ended_at=2.0, cause=Cause.HANGUP)
    await move(ledger.journal, job, Event.CLOSED)
    await finish(ledger.journal, job, finished_at=3.0, bytes=1, sha256="a" * 64)


async def test_memory_has_a_limit_and_every_recording_is_in_the_ledger_afterwards(ledger: Ledger) -> None:
    running = await ledger.job(100)
    with away(ledger), structlog.testing.capture_logs() as lines:
        done = [await whole(ledger, n) for n in range(1, 16)]
        await move(ledger.journal, running, Event.PAUSED)
        assert len(ledger.journal._backlog) == MOST
        assert ledger.journal.behind == MOST + 15 - MOST // 5 + 1, "one for each recording that memory has no room for"
        assert not await ledger.journal.flush()
        assert all(ledger.journal.waits(job.id) for job in [*done, running])
        assert len(ledger.side_files()) == 16
        assert [kept.side for kept in ledger.journal._overflow._kept.values()].count(None) == 13, (
            "only the open is held"
        )
    assert [line["event"] for line in lines].count("ledger_backlog_full") == 1
    assert await ledger.journal.flush()
    for job in done:
        assert (await ledger.row(job)) == job.recording
        (made,) = await ledger.store.read(deliveries.of_recording, job.id)
        assert made.sink == "crm"
    assert (await ledger.row(running)).phase is Phase.PAUSED
    assert ledger.side_files() == []
    assert ledger.journal._aside._written == set()
    assert await ledger.events(done[0]) == ["requested", "started", "hung_up", "closed", "finished"]
    assert await ledger.events(done[2]) == ["requested", "started", "restored"], "its last steps had no room"
    assert await ledger.events(done[-1]) == ["restored"]
    await move(ledger.journal, running, Event.RESUMED)
    assert ledger.journal.behind == 0
    assert (await ledger.events(running))[-1] == "resumed"


async def test_recordings_of_a_call_stay_in_their_order(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later one that was in the ledger before would be delivered before."""
    written: list[str] = []
    monkeypatch.setattr(
        ledger.journal._courier,
        "enqueue",
        lambda conn, made, recording=None: written.extend(d.recording_id for d in made),
    )
    with away(ledger):
        jobs = [await whole(ledger, n, call=n % 2) for n in range(1, 14)]
    read = ledger.journal._aside.read

    def slow_read(recording_id: str) -> spill_file.SpillFile:
        if recording_id < jobs[7].id:
            time.sleep(0.1)
        return read(recording_id)

    monkeypatch.setattr(ledger.journal._aside, "read", slow_read)
    assert await ledger.journal.flush()
    for first in (0, 1):
        ids = [job.id for job in jobs[first::2]]
        assert [recording_id for recording_id in written if recording_id in ids] == ids


async def test_a_process_that_dies_with_all_that_has_lost_nothing(ledger: Ledger) -> None:
    with away(ledger):
        jobs = [await whole(ledger, n) for n in range(1, 10)]
    await ledger.store.stop()
    after = Ledger(ledger.folder)
    after.store.side_by_side = 4  # in three parts
    await after.store.start()
    try:
        with away(after), pytest.raises(StoreDown):
            await after.journal.left.read(await after.journal.side_files_of_others(), lambda node: True)
        assert await after.journal.left.read(await after.journal.side_files_of_others(), lambda node: True) == 9
        assert [(await after.row(job)).phase for job in jobs] == [Phase.FINISHED] * 9
        assert after.side_files() == []
    finally:
        await after.store.stop()


async def test_what_changes_while_it_is_put_into_the_ledger_is_not_lost(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await ledger.job(1)
    run = ledger.store.run
    changed = False

    async def changing(unit, *args, **kwargs):  # type: ignore[no-untyped-def]
        nonlocal changed
        value = await run(unit, *args, **kwargs)
        if unit == ledger.journal._restore_ours and not changed:
            changed = True
            await move(ledger.journal, job, Event.CLOSED)
        return value

    with away(ledger):
        for n in range(2, 5):
            await whole(ledger, n)
        await move(ledger.journal, job, Event.HUNG_UP, ended_at=2.0)
        assert job.id in ledger.journal._overflow
    monkeypatch.setattr(ledger.store, "run", changing)
    assert await ledger.journal.flush(), "however much comes while it is at it"
    assert changed
    assert (await ledger.row(job)).phase is Phase.FINISHING
    assert ledger.side_files() == []


async def test_without_room_for_the_side_file_the_row_is_in_memory(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(side: spill_file.SpillFile) -> None:
        raise OSError(28, "No space left on device")

    with away(ledger):
        for n in range(1, 4):
            await whole(ledger, n)
        with monkeypatch.context() as patch:
            patch.setattr(ledger.sides, "write", no_room)
            job = await whole(ledger, 9)
        assert not ledger.sides.has(job.id)
    assert await ledger.journal.flush()
    assert (await ledger.row(job)).phase is Phase.FINISHED


async def test_a_side_file_that_somebody_made_unreadable_holds_up_no_other(ledger: Ledger) -> None:
    with away(ledger):
        jobs = [await whole(ledger, n) for n in range(1, 8)]
    broken = ledger.sides.path / f"{jobs[4].id}.journal"
    kept = broken.read_text()
    broken.write_text("{")
    with structlog.testing.capture_logs() as lines:
        assert not await ledger.journal.flush()
        assert not await ledger.journal.flush()
    assert [line["event"] for line in lines].count("side_file_unreadable") == 1, "said once"
    assert ledger.journal.behind == 1
    broken.write_text(kept)
    assert await ledger.journal.flush()
    assert (await ledger.row(jobs[4])).phase is Phase.FINISHED


async def test_a_side_file_that_somebody_removed_holds_up_no_other(ledger: Ledger) -> None:
    with away(ledger):
        jobs = [await whole(ledger, n) for n in range(1, 8)]
    ledger.sides.remove(jobs[4].id)
    with structlog.testing.capture_logs() as lines:
        assert await ledger.journal.flush()
    assert [line["recording_id"] for line in lines if line["event"] == "side_file_gone"] == [jobs[4].id]
    assert [await ledger.row(job) is None for job in jobs] == [job is jobs[4] for job in jobs]


@pytest.mark.parametrize("where", ["memory", "side file"])
async def test_what_the_ledger_refuses_of_one_call_holds_up_no_other(ledger: Ledger, where: str) -> None:
    refused = await ledger.job(100)
    with away(ledger):
        if where == "memory":
            await move(ledger.journal, refused, Event.HUNG_UP, ended_at=2.0)
        done = [await whole(ledger, n) for n in range(1, 8)]
        if where == "side file":
            await move(ledger.journal, refused, Event.HUNG_UP, ended_at=2.0)
    when = f"before update on recording when old.id = '{refused.id}'"
    ledger.foreign(f"create trigger no {when} begin select raise(abort, 'no'); end")
    assert not await ledger.journal.flush()
    assert (ledger.journal.behind, ledger.journal.stuck) == (1, False)
    later = await whole(ledger, 20)
    assert (ledger.journal.behind, len(ledger.side_files())) == (1, 1), "at once"
    for job in [*done, later]:
        assert (await ledger.row(job)).phase is Phase.FINISHED
    assert "restored" not in await ledger.events(later)
    ledger.foreign("drop trigger no")
    assert await ledger.journal.flush()
    assert (await ledger.row(refused)).phase is Phase.CLOSING
    assert ledger.side_files() == []


async def test_what_another_server_has_taken_over_is_not_written_over(ledger: Ledger) -> None:
    lost: list[ActiveRecording] = []
    ledger.journal._on_lost = lost.append
    job = await ledger.job(1)
    with away(ledger):
        for n in range(2, 5):
            await whole(ledger, n)
        await move(ledger.journal, job, Event.HUNG_UP, ended_at=2.0)
    await ledger.store.run(recordings.take_over, job.id, "one", "successor", 3.0)
    assert await ledger.journal.flush()
    assert lost == [job]
    row = await ledger.row(job)
    assert (row.node, row.phase) == ("successor", Phase.ACTIVE)
    assert ledger.side_files() == []
    with pytest.raises(TakenOver):
        await move(ledger.journal, job, Event.CLOSED)


async def test_the_key_of_one_that_was_never_in_the_ledger_comes_with_it(tmp_path: Path, ledger: Ledger) -> None:
    with away(ledger):
        for n in range(1, 4):
            await whole(ledger, n)
        job = ActiveRecording(ledger.requested(9))
        await ledger.journal.enter(job.recording, key=("aes-gcm", b"wrapped"))
        await move(ledger.journal, job, Event.STARTED, started_at=1.0)
        await over(ledger, job)
        assert job.id not in ledger.journal._aside.keys, "the side file has it"
    assert await ledger.journal.flush()
    assert await ledger.store.read(keys.get, job.id) == ("aes-gcm", b"wrapped")


async def test_beyond_the_last_limit_no_recording_is_begun_and_all_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MOST_ENTRIES", 5)
    monkeypatch.setattr(spill_index, "MOST_ASIDE", 3)
    async with web_scene(tmp_path) as scene:
        journal, store = scene.parts.recorder.parts.context.journal, scene.parts.store
        run = store.run

        async def gone(*args: object, **kwargs: object) -> None:
            raise StoreDown("the database is gone")

        monkeypatch.setattr(store, "run", gone)
        kept = [await scene.recorded(f"calls/{n}", cipher=AesGcmCipher(bytes(32))) for n in range(4)]
        job = await scene.record(scene.ami.call())
        assert job.phase is Phase.FAILED
        assert "wait for the ledger" in job.recording.error
        assert "bring the database back" in job.recording.error
        assert sorted(os.listdir(scene.spool / "..")) == sorted(os.listdir(tmp_path))
        assert not list(scene.spool.glob(f"{job.id}*"))
        assert not list(scene.directory.glob("calls/one*")), "no name is taken for it"
        status, body = await scene.get("/readyz")
        assert status == 503
        assert "no recording is begun" in next(p for p in body["problems"] if p["what"] == "store")["problem"]
        assert await scene.metric("fastagi_ledger_backlog") == journal.behind == 5 + 3
        said = [f async for f in doctor.examine(scene.app.settings)]
        assert "4 recordings wait for the ledger" in next(f.text for f in said if f.check == "side files")
        monkeypatch.setattr(store, "run", run)
        await scene.until(lambda: not journal.behind)
        await scene.until(lambda: len(scene.sink.got) == 4)
        assert sorted(m.extra["recording_id"] for m in scene.sink.got) == sorted(kept)
        assert (await scene.record(scene.ami.call())).phase is Phase.ACTIVE
        await scene.until(lambda: not scene.parts.recorder.parts.context.journal.sides.ids())


async def test_calls_that_come_all_the_time_do_not_keep_it_behind(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is always something new when the last is written, and all of it must wait behind what waits."""
    jobs = [await ledger.job(n) for n in range(1, 6)]
    with away(ledger):
        for job in jobs[:3]:
            await move(ledger.journal, job, Event.HUNG_UP, ended_at=2.0)
    coming = jobs[3:]
    dropped = ledger.journal._backlog.drop

    def drop(call: backlog.Call) -> None:
        dropped(call)
        if coming:
            after = coming.pop().recording.changed(name="another")
            unit, now = ledger.journal._change, 3.0
            ledger.journal._backlog.add(backlog.Entry(after, now, unit, (after.id, now, "named", {"name": "another"})))

    monkeypatch.setattr(ledger.journal._backlog, "drop", drop)
    assert await ledger.journal.flush()
    assert [(await ledger.row(job)).name for job in jobs[3:]] == ["another"] * 2
