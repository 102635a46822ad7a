"""The journal writes into the ledger, and beside it while the ledger takes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastagi.domain.lifecycle import decide, events
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.states import Cause, Phase
from fastagi.errors import StoreDown, StoreError, TakenOver
from fastagi.recording.ledger import backlog, spill_index, write_behind
from fastagi.recording.ledger.active import ActiveRecording, ActiveRecordings
from fastagi.recording.ledger.bounds import Bounds
from fastagi.recording.ledger.journal import Journal
from fastagi.recording.ledger.spill_file import SpillFile, SpillFolder
from fastagi.store.queries import keys as key_units
from fastagi.store.queries import recordings as units
from fastagi.store.sqlite import SqliteStore

NOW = 1_800_000_000.0
ID = "rec-01jd3000000000000000000001"


class Courier:
    """Counts what it is handed."""

    def __init__(self) -> None:
        self.woken = 0
        self.enqueued: list[Any] = []

    def wake(self) -> None:
        self.woken += 1

    def enqueue(self, conn: Any, deliveries: Any, recording: Any = None) -> None:
        self.enqueued.extend(deliveries)


class Ledger:
    """A journal on a small SQLite ledger that can be taken away.

    :ivar down: raised by each write while it is set
    """

    def __init__(self, folder: Path) -> None:
        self.spool, self.directory = folder / "spool", folder / "recordings"
        self.spool.mkdir()
        self.directory.mkdir()
        self.store = SqliteStore(folder / "fastagi.db", node="one")
        self.down: Exception | None = None
        self.courier, self.jobs = Courier(), ActiveRecordings()
        self.sides = SpillFolder(folder / "sides", b"k" * 32)
        self.told: list[tuple[str, str]] = []
        self.lost: list[str] = []
        self.caught_up = 0
        run = self.store.run

        async def guarded(*args: Any) -> Any:
            if self.down is not None:
                raise self.down
            return await run(*args)

        self.store.run = guarded  # type: ignore[method-assign]
        self.journal = Journal(
            self.store,
            self.courier,  # type: ignore[arg-type]
            self.sides,
            Bounds(self.directory, {"pbx": self.spool}),
            lambda: NOW,
            on_lost=lambda job: self.lost.append(job.id),
            listeners=(lambda recording, event, detail: self.told.append((recording.id, event)),),
        )

    def row(self, id: str = ID, **changes: Any) -> Recording:
        made = Recording(
            id=id,
            node="one",
            asterisk="pbx",
            channel="PJSIP/a-1",
            uniqueid="1.1",
            name="x",
            file_path=str(self.directory / f"{id}.wav"),
            pieces=(Segment(str(self.spool / f"{id}.wav"), channel="PJSIP/a-1", uniqueid="1.1", started_at=NOW),),
            sinks=("crm",),
            requested_at=NOW,
        )
        return made.changed(**changes)

    async def known(self, recording_id: str = ID) -> Recording | None:
        found: Recording | None = await self.store.read(units.get, recording_id)
        return found

    async def happens(self, job: ActiveRecording, *what: Any) -> None:
        for event in what:
            await self.journal.record(job, decide(job.recording, event, NOW + 5))


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    made = Ledger(tmp_path)
    await made.store.start()
    yield made
    await made.store.stop()


LIFE = (
    events.Started(Segment("/x", uniqueid="1.1", started_at=NOW)),
    events.StopRequested(Cause.ABORTED),
    events.StopConfirmed(),
    events.FilesClosed(),
    events.Rendered(1.0, 2, "ab"),
)


async def test_life_in_the_ledger(ledger: Ledger) -> None:
    row = ledger.row()
    await ledger.journal.enter(row)
    job = ActiveRecording(row)
    await ledger.happens(job, *LIFE)
    known = await ledger.known()
    assert known == job.recording
    assert job.recording.finished
    assert [event for _, event in ledger.told] == ["requested", "started", "stop", "stopped", "closed", "finished"]
    assert [d.sink for d in ledger.courier.enqueued] == ["crm"]
    assert ledger.courier.woken == 1
    assert (ledger.journal.behind, ledger.journal.refused, ledger.sides.ids()) == (0, 0, [])
    assert ledger.journal.full == ""


async def test_adopted_is_told_as_such(ledger: Ledger) -> None:
    await ledger.journal.enter(ledger.row(adopted=True))
    assert ledger.told == [(ID, "adopted")]


async def test_nothing_changes_nothing(ledger: Ledger) -> None:
    row = ledger.row()
    await ledger.journal.enter(row)
    job = ActiveRecording(row)
    await ledger.happens(job, LIFE[0])
    ledger.down = AssertionError("written")
    await ledger.happens(job, events.MuteRequested("sent", False))
    assert [event for _, event in ledger.told] == ["requested", "started"]


async def test_raising_listener_stops_nothing(ledger: Ledger) -> None:
    def raising(*args: Any) -> None:
        raise ValueError("no")

    ledger.journal.listen(raising)
    ledger.journal.tell(ledger.row(), "held", {})
    assert ledger.told == [(ID, "held")]


async def test_key_goes_with_the_intent(ledger: Ledger) -> None:
    await ledger.journal.enter(ledger.row(), key=("aes", b"wrapped"))
    assert tuple(await ledger.store.read(key_units.get, ID)) == ("aes", b"wrapped")


async def test_life_beside_the_ledger(ledger: Ledger) -> None:
    """Each step is on disk before it is done, and in the ledger, in order, once it is back."""
    ledger.down = StoreDown("away")
    row = ledger.row()
    await ledger.journal.enter(row, key=("aes", b"wrapped"))
    job = ActiveRecording(row)
    await ledger.happens(job, *LIFE[:3])
    journal = ledger.journal
    assert (journal.behind, journal.refused, journal.stuck, journal.waits(ID)) == (4, 4, True, True)
    side = ledger.sides.read(ID)
    assert (side.recording, side.key) == (job.recording, ("aes", b"wrapped"))
    assert await journal.flush() is False
    assert (journal.behind, journal.stuck) == (4, True)
    ledger.down = None
    assert await journal.flush() is True
    assert (journal.behind, journal.stuck, journal.waits(ID), ledger.sides.ids()) == (0, False, False, [])
    assert await ledger.known() == job.recording
    assert tuple(await ledger.store.read(key_units.get, ID)) == ("aes", b"wrapped")
    await ledger.happens(job, *LIFE[3:])
    assert journal.refused == 4
    assert (await ledger.known()) == job.recording


async def test_refusal_holds_its_call_only(ledger: Ledger) -> None:
    ledger.down = StoreError("refused")
    await ledger.journal.enter(ledger.row())
    assert await ledger.journal.flush() is False
    assert ledger.journal.stuck is False
    ledger.down = None
    other = ledger.row(id=ID[:-1] + "2", uniqueid="1.2")
    await ledger.journal.enter(other)
    assert (await ledger.known(other.id)) == other
    assert await ledger.journal.flush() is True
    assert await ledger.known() is not None


async def test_taken_over_job_is_lost(ledger: Ledger) -> None:
    row = ledger.row()
    await ledger.journal.enter(row)
    job = ActiveRecording(row)
    ledger.down = TakenOver("by two")
    with pytest.raises(TakenOver):
        await ledger.happens(job, LIFE[0])
    assert (ledger.lost, job.recording) == ([ID], row)


async def test_lost_row_is_written_again(ledger: Ledger) -> None:
    """An old copy of the ledger was put back."""
    job = ActiveRecording(ledger.row())
    await ledger.happens(job, LIFE[0])
    assert await ledger.known() == job.recording


async def test_row_of_another_is_not_ours(ledger: Ledger) -> None:
    assert await ledger.journal.held_here(ID) is True
    await ledger.journal.enter(ledger.row())
    assert await ledger.journal.held_here(ID) is True
    await ledger.store.run(units.insert, ledger.row(id=ID[:-1] + "3", node="two"), {})
    assert await ledger.journal.held_here(ID[:-1] + "3") is False


async def test_side_files_of_a_dead_process(ledger: Ledger) -> None:
    mine = ledger.row(phase=Phase.ACTIVE, started_at=NOW)
    fault = replace(mine, id=ID[:-1] + "4", file_path="/etc/x.wav")
    theirs = ledger.row(id=ID[:-1] + "5", node="two")
    for row in (mine, fault, theirs):
        await asyncio.to_thread(ledger.sides.write, SpillFile(row, NOW, ("aes", b"wrapped")))
    ids = await ledger.journal.side_files_of_others()
    assert ids == [mine.id, fault.id, theirs.id]
    assert await ledger.journal.left.read(ids, lambda node: node == "one") == 1
    assert ledger.journal.left.refused == 1
    assert await ledger.known() == mine
    assert (await ledger.known(fault.id), await ledger.known(theirs.id)) == (None, None)
    assert ledger.sides.ids() == [theirs.id]


def test_bounds_say_what_is_wrong(tmp_path: Path) -> None:
    spool, directory = tmp_path / "spool", tmp_path / "recordings"
    bounds = Bounds(directory, {"pbx": spool})
    row = Recording(
        id=ID,
        node="one",
        asterisk="pbx",
        channel="c",
        uniqueid="1.1",
        name="x",
        file_path=str(directory / "a/x.wav"),
        pieces=(Segment(str(spool / f"{ID}.wav")),),
    )
    assert bounds.fault(row) == ""
    assert bounds.fault(row.changed(asterisk="other")) == "there is no [[asterisk]] named 'other' in the settings"
    for path in ("x.wav", str(directory / "../x.wav"), str(tmp_path / "x.wav"), str(directory) + "/\0x"):
        assert "is not in the recordings directory" in bounds.fault(row.changed(file_path=path))
    outside = row.changed(pieces=(Segment(str(tmp_path / f"{ID}.wav")),))
    assert f"is not in the spool {spool} of pbx" in bounds.fault(outside)
    adopted = outside.changed(adopted=True)
    assert "is not in the spool" in bounds.fault(adopted)
    assert bounds.fault(adopted, adopted_anywhere=True) == ""
    assert bounds.fault(outside, adopted_anywhere=True) != ""
    named = row.changed(pieces=(Segment(str(spool / "rec-other.wav")),))
    assert f"is no raw file of {ID}" in bounds.fault(named)
    assert bounds.fault(named.changed(adopted=True)) == ""


async def test_active_recordings_are_found(ledger: Ledger) -> None:
    jobs = ledger.jobs
    job = ActiveRecording(ledger.row(phase=Phase.ACTIVE))
    jobs.add(job)
    assert (len(jobs), list(jobs), jobs.get(ID), jobs.get("x")) == (1, [job], job, None)
    assert (jobs.on_channel("pbx", "1.1"), jobs.on_asterisk("pbx"), jobs.on_asterisk("other")) == ([job], [job], [])
    assert jobs.current(job.key) is job
    closing = ActiveRecording(ledger.row(id=ID[:-1] + "6", phase=Phase.CLOSING))
    jobs.add(closing)
    assert jobs.current(job.key) is job, "one that is only finished takes no place"
    jobs.close(job)
    assert jobs.last(job.key) is job.recording
    jobs.supersede(closing)
    assert jobs.on_channel("pbx", "1.1") == []
    jobs.lose(closing)
    assert (len(jobs), await closing.wait(0), jobs.last(job.key)) == (0, True, closing.recording)
    assert await job.wait(0) is False
    job.set_ended()
    assert await job.wait(None) is True


async def test_full_backlog_keeps_side_files(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what memory is to hold only the newest row is kept, in its side file."""
    monkeypatch.setattr(backlog, "MOST_ENTRIES", 1)
    monkeypatch.setattr(spill_index, "MOST_ASIDE", 2)
    monkeypatch.setattr(write_behind, "MOST_ASIDE", 2)
    ledger.down = StoreDown("away")
    jobs = [ActiveRecording(ledger.row(f"{ID[:-1]}{n}", uniqueid=f"1.{n}", sinks=())) for n in range(3)]
    for job in jobs:
        await ledger.journal.enter(job.recording)
    await ledger.happens(jobs[1], *LIFE)
    await ledger.happens(jobs[2], *LIFE[:2])
    journal = ledger.journal
    assert journal.behind == 3
    assert journal.full == "2 recordings wait for the ledger in side files: bring the database back"
    assert [journal.waits(job.id) for job in jobs] == [True, True, True]
    assert ledger.sides.ids() == [job.id for job in jobs]
    assert await journal.flush() is False
    ledger.down = None
    assert await journal.flush() is True
    assert (journal.behind, journal.full, journal.stuck, ledger.sides.ids()) == (0, "", False, [])
    for job in jobs:
        assert await ledger.known(job.id) == job.recording


async def test_side_file_that_went(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody can read any more is told, and holds nothing up."""
    monkeypatch.setattr(backlog, "MOST_ENTRIES", 0)
    ledger.down = StoreDown("away")
    jobs = [ActiveRecording(ledger.row(f"{ID[:-1]}{n}", uniqueid=f"1.{n}")) for n in range(2)]
    for job in jobs:
        await ledger.journal.enter(job.recording)
        await ledger.happens(job, *LIFE)
    ledger.sides.remove(jobs[0].id)
    ledger.down = None
    assert await ledger.journal.flush() is True
    assert await ledger.known(jobs[0].id) is None
    assert await ledger.known(jobs[1].id) == jobs[1].recording


async def test_unreadable_side_file_waits(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MOST_ENTRIES", 0)
    ledger.down = StoreDown("away")
    job = ActiveRecording(ledger.row())
    await ledger.journal.enter(job.recording)
    await ledger.happens(job, *LIFE)
    place = ledger.sides.path / f"{ID}.journal"
    good = place.read_bytes()
    place.write_bytes(good[:-1])
    ledger.down = None
    assert await ledger.journal.flush() is False
    assert (ledger.journal.behind, ledger.journal.stuck) == (1, False)
    place.write_bytes(good)
    assert await ledger.journal.flush() is True


async def test_deleted_recording_keeps_no_key(ledger: Ledger) -> None:
    row = ledger.row(phase=Phase.FAILED, deleted_at=NOW)
    await ledger.store.run(ledger.journal._restore_side, SpillFile(row, NOW, ("aes", b"wrapped")))
    assert await ledger.store.read(key_units.get, row.id) is None
    other = ledger.row(f"{ID[:-1]}2", file_path=str(ledger.directory / "y.wav"))
    for key in (b"first", b"second"):
        await ledger.store.run(ledger.journal._restore_side, SpillFile(other, NOW, ("aes", key)))
    assert tuple(await ledger.store.read(key_units.get, other.id)) == ("aes", b"first")


def test_side_file_of_another_version(tmp_path: Path) -> None:
    sides = SpillFolder(tmp_path / "sides", b"k" * 32)
    sides.path.mkdir(mode=0o700)
    assert sides.fault() == ""
    for text, error in (
        (b"fastagi-side-file-3 a b\n{}", OSError),
        (b"fastagi-side-file-x a b\n{}", ValueError),
        (b"somebody-else-4 a b\n{}", ValueError),
        (b"fastagi-side-file-2 other b\n{}", OSError),
    ):
        (sides.path / "rec-1.journal").write_bytes(text)
        with pytest.raises(error):
            sides.read("rec-1")
    assert (sides.has("rec-1"), sides.has("rec-2")) == (True, False)


def test_unusable_folder_is_told(tmp_path: Path) -> None:
    assert SpillFolder(tmp_path / "a/b/c", b"k" * 32).fault() == ""
    (tmp_path / "file").write_text("")
    assert "chmod 700" in SpillFolder(tmp_path / "file", b"k" * 32).fault()


async def test_ended_job_has_no_clocks(ledger: Ledger) -> None:
    job = ActiveRecording(ledger.row())
    loop = asyncio.get_running_loop()
    job.timer, job.resume_timer = loop.call_later(60, print), loop.call_later(60, print)
    timers = (job.timer, job.resume_timer)
    job.set_ended()
    assert [timer.cancelled() for timer in timers] == [True, True]
    assert (job.timer, job.resume_timer) == (None, None)
