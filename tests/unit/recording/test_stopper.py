"""An ending takes its road from the decision to closed files, whatever Asterisk answers."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from lifecycle_harness import BEGAN, ID, NOW, Scene, closed_file, place, rendered

from fastagi.domain.lifecycle.events import CallOver
from fastagi.domain.recording import Segment
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Cause, Phase
from fastagi.errors import ActionRefused, AsteriskDown, IllegalTransition, TakenOver
from fastagi.recording.asterisk import external
from fastagi.recording.lifecycle import stopping


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(external, "finish", lambda recording, plan: rendered())
    monkeypatch.setattr(stopping, "UNSEEN_SECONDS", 0.03)
    return Scene(tmp_path)


async def test_stop_takes_the_whole_road(scene: Scene) -> None:
    job = scene.job()
    assert await scene.stopper.stop(job, Cause.TIMEOUT) is True
    assert (job.phase, job.recording.cause, job.recording.ended_at) == (Phase.STOPPING, Cause.TIMEOUT, NOW)
    assert await scene.stopper.stop(job, Cause.SIZE) is False
    await scene.settled()
    assert scene.journal.entries == ["stop", "stopped", "closed", "finished"]
    assert scene.asterisk.told == [f"stop {ID}.wav"]
    assert (job.phase, job.recording.cause) == (Phase.FINISHED, Cause.TIMEOUT)
    assert not (scene.spool / f"{ID}.wav").exists()
    assert await job.wait(0) is True
    assert len(scene.jobs) == 0


async def test_closed_files_need_no_order(scene: Scene) -> None:
    job = scene.job()
    closed_file(job.recording.pieces[0].mixed)
    await scene.stopper.stop(job, Cause.ABORTED)
    await scene.settled()
    assert (scene.asterisk.told, job.phase) == ([], Phase.FINISHED)


async def test_refused_stop_is_repeated(scene: Scene) -> None:
    """Another way to Asterisk, when one comes, is tried at once."""
    job = scene.job()
    scene.asterisk.refuse["stop"] = [AsteriskDown("away")]
    job.new_way.set()
    await scene.stopper.stop(job, Cause.ABORTED)
    while not scene.asterisk.told:
        await job.wait(0.001)
    assert not job.new_way.is_set()
    assert job.phase is Phase.STOPPING
    job.new_way.set()
    await scene.settled()
    assert scene.asterisk.told == [f"stop {ID}.wav"] * 2
    assert job.phase is Phase.FINISHED


async def test_gone_channel_is_stopped(scene: Scene) -> None:
    job = scene.job()
    scene.asterisk.refuse["stop"] = ActionRefused("No such channel")
    await scene.stopper.stop(job, Cause.ABORTED)
    await scene.settled()
    assert scene.asterisk.told == [f"stop {ID}.wav"]
    assert job.phase is Phase.FINISHED


async def test_stop_without_its_asterisk_ends(scene: Scene) -> None:
    """An Asterisk that left the settings can be told nothing."""
    job = scene.job(asterisk="other")
    await scene.stopper.stop(job, Cause.ABORTED)
    await scene.settled()
    assert (scene.asterisk.told, job.phase) == ([], Phase.FINISHED)


async def test_given_up_segments_end_first(scene: Scene) -> None:
    job = scene.job()
    other = Segment(str(scene.spool / "rec-other.wav"), channel="PJSIP/b-1", uniqueid="1.2")
    job.given_up = [other]
    await scene.stopper.stop(job, Cause.ABORTED)
    await scene.settled()
    assert scene.asterisk.told == ["stop rec-other.wav", f"stop {ID}.wav"]
    assert job.given_up == []


async def test_stop_uses_the_present_name(scene: Scene) -> None:
    scene.live("1.1", "PJSIP/renamed-1")
    await scene.stopper.stop(scene.job(), Cause.ABORTED)
    await scene.settled()
    assert scene.asterisk.orders == [("stop", f"{ID}.wav", "PJSIP/renamed-1")]


async def test_hangup_waits_for_the_file(scene: Scene) -> None:
    job = scene.job()
    scene.now = NOW + 1
    assert await scene.stopper.on_hangup(job, CallOver(at=NOW, uniqueid="1.1")) is True
    assert await scene.stopper.on_hangup(job, CallOver(at=NOW)) is False
    assert (job.phase, job.recording.cause, job.recording.ended_at) == (Phase.CLOSING, Cause.HANGUP, NOW)
    closed_file(job.recording.pieces[0].mixed)
    await scene.settled()
    assert scene.asterisk.told == []
    assert scene.journal.entries == ["hung_up", "closed", "finished"]


async def test_hangup_of_another_leg(scene: Scene) -> None:
    job = scene.job()
    assert await scene.stopper.on_hangup(job, CallOver(uniqueid="1.2")) is False
    assert await scene.stopper.on_hangup_pending(job, uniqueid="1.2") is False
    assert job.phase is Phase.ACTIVE


async def test_pending_hangup_is_told(scene: Scene) -> None:
    job = scene.job()
    assert await scene.stopper.on_hangup_pending(job, uniqueid="1.1", at=NOW - 3) is True
    assert (job.recording.cause, job.recording.ended_at) == (Cause.HANGUP, NOW - 3)
    await scene.settled()
    assert scene.asterisk.told == [f"stop {ID}.wav"]


async def test_hangup_overtakes_a_stop(scene: Scene) -> None:
    """The task of the stop ends quietly: that of the hangup goes on with the files."""
    job = scene.job()
    scene.asterisk.refuse["stop"] = AsteriskDown("away")
    await scene.stopper.stop(job, Cause.SILENCE)
    while not scene.asterisk.told:
        await job.wait(0.001)
    await scene.stopper.on_hangup(job, CallOver())
    job.new_way.set()
    await scene.settled()
    assert scene.journal.entries == ["stop", "hung_up", "closed", "finished"]
    assert job.recording.cause is Cause.SILENCE


async def test_external_stop_has_its_time(scene: Scene) -> None:
    job = scene.job()
    assert await scene.stopper.on_external_stop(job, ended_at=NOW - 7) is True
    assert (job.recording.cause, job.recording.ended_at) == (Cause.ABORTED, NOW - 7)
    await scene.settled()
    assert scene.journal.entries == ["stopped", "closed", "finished"]


@pytest.mark.parametrize(("ago", "ended"), [(20, NOW - 20), (70, NOW), (-5, NOW)])
async def test_file_tells_the_end(scene: Scene, ago: float, ended: float) -> None:
    """A time before the recording began, or one that is still to come, is not believed."""
    job = scene.job()
    at = time.time() - ago
    os.utime(job.recording.pieces[0].mixed, (at, at))
    await scene.stopper.on_external_stop(job, Cause.HANGUP)
    assert job.recording.ended_at == pytest.approx(ended, abs=1)
    await scene.settled()


async def test_file_tells_a_start_unseen(scene: Scene) -> None:
    job = scene.job(Phase.REQUESTED)
    at = time.time() - 30
    os.utime(job.recording.pieces[0].mixed, (at, at))
    await scene.stopper.on_missed_end(job)
    assert job.recording.ended_at == pytest.approx(NOW - 30, abs=1)
    await scene.settled()


@pytest.mark.parametrize(
    ("timeout", "cause", "ended"),
    [(None, Cause.HANGUP, NOW - 10), (51, Cause.HANGUP, NOW - 10), (40, Cause.TIMEOUT, BEGAN + 40)],
)
async def test_missed_end_heeds_the_limit(scene: Scene, timeout: int | None, cause: Cause, ended: float) -> None:
    """Nobody was there to stop it: it ends where its limit was, if that came first."""
    job = scene.job(spec=RecordingSpec(seconds_timeout=timeout))
    at = time.time() - 10
    os.utime(job.recording.pieces[0].mixed, (at, at))
    assert await scene.stopper.on_missed_end(job, {"asterisk_unreached": True}) is True
    assert (job.unseen, job.recording.cause) == (True, cause)
    assert job.recording.ended_at == pytest.approx(ended, abs=1)
    assert job.recording.facts["asterisk_unreached"] is True
    await scene.settled()
    assert (scene.spool / f"{ID}.wav").exists(), "kept: nobody saw that the call was over"


@pytest.mark.parametrize("phase", [Phase.STOPPING, Phase.CLOSING, Phase.FINISHING])
async def test_restart_takes_the_road_up(scene: Scene, phase: Phase) -> None:
    job = scene.job(phase)
    scene.stopper.resume(job)
    await scene.settled()
    assert job.phase is Phase.FINISHED
    assert scene.asterisk.told == ([f"stop {ID}.wav"] if phase is Phase.STOPPING else [])


async def test_taken_over_is_no_answer(scene: Scene) -> None:
    scene.journal.lost = TakenOver("by two")
    with pytest.raises(TakenOver):
        await scene.stopper.stop(scene.job(), Cause.ABORTED)


async def test_engine_writes_nothing_illegal(scene: Scene) -> None:
    job = scene.job(Phase.FINISHED)
    with pytest.raises(IllegalTransition):
        await scene.engine.apply(job, CallOver())
    assert await scene.engine.offer(job, CallOver()) is None
    assert scene.journal.entries == []
    assert not job.lock.locked()


async def waited(scene: Scene, monkeypatch: pytest.MonkeyPatch, frames: int, **changes: object) -> float:
    """Seconds that an unclosed file of so many samples is waited for, with the limits of the server."""
    monkeypatch.setattr(stopping, "UNSEEN_SECONDS", 2.0)
    job = scene.job(Phase.CLOSING)
    for name, value in changes.items():
        setattr(job, name, value)
    path = job.recording.pieces[0].mixed
    closed_file(path, frames)
    sizes = (place(path).stat().st_size,)
    return await scene.stopper._patience(job, (path,), sizes, False)


@pytest.mark.parametrize(
    ("frames", "unseen", "old", "expected"),
    [(800, False, 0, 10.0), (800, True, 0, 10.0), (800, True, 4, 6.0), (800, True, 60, 2.0), (0, False, 0, 2.0)],
)
async def test_patience_with_open_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: int, unseen: bool, old: float, expected: float
) -> None:
    """A file that stood still long before its end was noticed has had its time; one without sound never closes."""
    scene = Scene(tmp_path, close_seconds=10)
    monkeypatch.setattr(stopping.raw_files, "last_write", lambda paths: time.time() - old)
    assert await waited(scene, monkeypatch, frames, unseen=unseen) == pytest.approx(expected, abs=0.5)


async def test_silent_file_after_a_told_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path, close_seconds=10)
    job = scene.job(Phase.CLOSING)
    assert await scene.stopper._patience(job, (), (44,), True) == 0.0
    assert await scene.stopper._patience(job, (), (45,), True) == 10.0
    assert await scene.stopper._patience(job, (), (), False) == 2.0


async def test_unclosed_file_is_given_up(scene: Scene) -> None:
    job = scene.job()
    await scene.stopper.on_hangup(job, CallOver())
    await scene.settled()
    assert job.phase is Phase.FINISHED


async def test_growing_file_is_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each growth gives it half of its time again."""
    job, grown = scene.job(Phase.CLOSING), 0
    path = job.recording.pieces[0].mixed
    scene.stopper._close_seconds = 1.0
    monkeypatch.setattr(stopping, "CLOSE_POLL_SECONDS", 0.001)
    clock = [0.0]
    monkeypatch.setattr(stopping, "time", type("T", (), {"monotonic": lambda: clock[0], "time": time.time}))

    async def passing(seconds: float) -> None:
        nonlocal grown
        clock[0] += 0.4
        if grown < 5:
            grown += 1
            place(path).write_bytes(place(path).read_bytes() + b"\0" * 320)

    monkeypatch.setattr(stopping.asyncio, "sleep", passing)
    await scene.stopper._closed_or_given_up(job, False)
    assert grown == 5
    assert 2.4 <= clock[0] <= 2.9


async def test_vanished_file_is_not_waited_for(tmp_path: Path) -> None:
    scene = Scene(tmp_path, close_seconds=60)
    job = scene.job(Phase.CLOSING, files=False)
    await scene.stopper._closed_or_given_up(job, False)


async def test_adopted_closing_counts_from_its_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(external, "closed", lambda paths, ended: asked.append(ended) or True)
    for phase, ended in ((Phase.CLOSING, 5.0), (Phase.STOPPING, 0.0), (Phase.ACTIVE, 0.0)):
        job = scene.job(phase, adopted=True)
        assert await scene.stopper._closed(job) is True
        assert asked.pop() == ended


async def test_last_segment_tells_the_end(scene: Scene) -> None:
    """Of several segments the last one written to counts."""
    first = Segment(str(scene.spool / f"{ID}.wav"), channel="a", uniqueid="1.1", started_at=BEGAN)
    second = replace(first, mixed=str(scene.spool / f"{ID}-1.wav"))
    job = scene.job(pieces=(first, second))
    for path, ago in ((first.mixed, 50), (second.mixed, 20)):
        os.utime(path, (time.time() - ago,) * 2)
    assert await scene.stopper._last_written(job) == pytest.approx(NOW - 20, abs=1)
