"""Pause, resume and mute: what Asterisk is told, and what is journalled when it does not do it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from lifecycle_harness import BEGAN, ID, NOW, Scene, place

from fastagi.domain.lifecycle import RESUME_AT
from fastagi.domain.recording import Segment, Span
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Phase
from fastagi.errors import AsteriskDown, AsteriskError, BadArgument, Error
from fastagi.recording.lifecycle import pausing
from fastagi.recording.lifecycle.segments import asterisk_direction, muted


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_pause_ends_the_file(scene: Scene) -> None:
    job = scene.job()
    assert await scene.pauser.pause(job) is True
    assert (job.phase, job.recording.pauses, job.recording.facts) == (Phase.PAUSED, (Span(60.0),), {})
    assert (scene.asterisk.told, scene.journal.entries) == ([f"stop {ID}.wav"], ["paused"])
    assert job.resume_timer is None
    assert await scene.pauser.pause(job) is True
    assert scene.asterisk.told == [f"stop {ID}.wav"]


async def test_failed_pause_records_on(scene: Scene) -> None:
    job = scene.job()
    before = job.recording
    scene.asterisk.refuse["stop"] = AsteriskDown("away")
    with pytest.raises(AsteriskDown):
        await scene.pauser.pause(job, 5)
    assert scene.journal.entries == ["paused", "resumed"]
    assert job.recording == before
    assert job.resume_timer is None


@pytest.mark.parametrize("phase", [Phase.REQUESTED, Phase.STOPPING, Phase.FINISHED])
async def test_nothing_to_pause(scene: Scene, phase: Phase) -> None:
    job = scene.job(phase)
    with pytest.raises(Error, match="no recording to pause"):
        await scene.pauser.pause(job)
    with pytest.raises(Error, match="no recording to resume"):
        await scene.pauser.resume(job)
    with pytest.raises(Error, match="no recording to mute"):
        await scene.pauser.mute(job, "sent")
    assert scene.journal.entries == scene.asterisk.told == []


@pytest.mark.parametrize("seconds", [0, -1, 86_401, True, "5"])
async def test_pause_needs_a_time(scene: Scene, seconds: object) -> None:
    with pytest.raises(BadArgument, match="seconds"):
        await scene.pauser.pause(scene.job(), seconds)  # type: ignore[arg-type]


async def test_day_is_the_longest_pause(scene: Scene) -> None:
    job = scene.job()
    await scene.pauser.pause(job, 86_400)
    assert job.recording.facts[RESUME_AT] == NOW + 86_400
    job.stop_clocks()


async def test_pause_ends_by_itself(scene: Scene) -> None:
    job, resumed = scene.job(), asyncio.Event()
    await scene.pauser.pause(job, 0.01)
    start = scene.asterisk.start

    async def noting(piece: Segment, spec: RecordingSpec) -> str:
        resumed.set()
        return await start(piece, spec)

    scene.asterisk.start = noting  # type: ignore[method-assign]
    assert job.resume_timer is not None
    scene.now = NOW + 0.02
    async with asyncio.timeout(5):
        await resumed.wait()
    await scene.settled()
    assert scene.asterisk.told == [f"stop {ID}.wav", f"start {ID}-1.wav"]
    assert (job.recording.facts, job.resume_timer) == ({}, None)


async def test_longer_pause_replaces_the_clock(scene: Scene) -> None:
    job = scene.job()
    await scene.pauser.pause(job, 30)
    first = job.resume_timer
    await scene.pauser.pause(job, 60)
    assert first is not None
    assert first.cancelled()
    assert job.resume_timer is not first
    loop = asyncio.get_running_loop()
    assert job.resume_timer is not None
    assert job.resume_timer.when() - loop.time() == pytest.approx(60, abs=1)
    await scene.pauser.pause(job)
    assert job.resume_timer is None


async def test_early_alarm_waits_on(scene: Scene) -> None:
    job = scene.job(Phase.PAUSED, facts={RESUME_AT: NOW + 30})
    await scene.pauser._resume_by_itself(job)
    assert job.phase is Phase.PAUSED
    assert job.resume_timer is not None
    job.stop_clocks()


@pytest.mark.parametrize(("phase", "facts"), [(Phase.PAUSED, {}), (Phase.ACTIVE, {RESUME_AT: NOW - 1})])
async def test_alarm_without_a_pause(scene: Scene, phase: Phase, facts: dict[str, float]) -> None:
    job = scene.job(phase, facts=facts)
    await scene.pauser._resume_by_itself(job)
    assert scene.journal.entries == []
    assert job.resume_timer is None


async def test_failed_alarm_rings_again(scene: Scene) -> None:
    """The call that is not recorded is what the clock is there to end."""
    job = scene.job(Phase.PAUSED, facts={RESUME_AT: NOW})
    scene.asterisk.refuse["start"] = AsteriskError("no room")
    await scene.pauser._resume_by_itself(job)
    assert job.phase is Phase.PAUSED
    assert job.resume_timer is not None
    left = job.resume_timer.when() - asyncio.get_running_loop().time()
    assert left == pytest.approx(pausing.RESUME_AGAIN_SECONDS, abs=0.5)
    job.stop_clocks()


async def test_resume_begins_a_file(scene: Scene) -> None:
    job = scene.job(Phase.PAUSED)
    last = job.recording.pieces[-1]
    job.recording = job.recording.changed(pieces=(replace(last, sides_swapped=True),))
    assert await scene.pauser.resume(job) is True
    new = job.recording.pieces[-1]
    assert (job.phase, len(job.recording.pieces)) == (Phase.ACTIVE, 2)
    assert (new.reason, new.sides_swapped, new.uniqueid, new.confirmed) == ("pause", True, "1.1", True)
    assert scene.journal.entries == ["piece", "resumed"]
    assert await scene.pauser.resume(job) is True
    assert scene.asterisk.told == [f"start {ID}-1.wav"]


async def test_resume_stops_the_clock(scene: Scene) -> None:
    job = scene.job(Phase.PAUSED, facts={RESUME_AT: NOW + 30})
    scene.pauser.arm(job)
    assert job.resume_timer is not None
    await scene.pauser.resume(job)
    assert job.resume_timer is None


async def test_failed_resume_stays_paused(scene: Scene) -> None:
    job = scene.job(Phase.PAUSED)
    before = job.recording
    scene.asterisk.refuse["start"] = AsteriskError("no room")
    with pytest.raises(AsteriskError):
        await scene.pauser.resume(job)
    assert (job.recording, job.failed_pieces) == (before, 1)
    scene.asterisk.refuse.clear()
    await scene.pauser.resume(job)
    assert scene.asterisk.told[-1] == f"start {ID}-2.wav", "the first name may be written to yet"


async def test_adopted_recording_is_muted(scene: Scene) -> None:
    """What others began cannot be ended and begun here."""
    job = scene.job(adopted=True)
    await scene.pauser.pause(job, 40)
    job.stop_clocks()
    assert job.recording.pieces[-1].ended_at == 0
    assert scene.asterisk.told == ["mute both"]
    await scene.pauser.settle(job)
    job.stop_clocks()
    await scene.pauser.resume(job)
    assert scene.asterisk.told == ["mute both", "mute both", "unmute both"]
    assert (job.phase, scene.journal.entries[-2:]) == (Phase.ACTIVE, ["resume_asked", "resumed"])


async def test_failed_unmute_keeps_its_clock(scene: Scene) -> None:
    job = scene.job(Phase.PAUSED, adopted=True, facts={RESUME_AT: NOW + 9})
    job.recording = job.recording.changed(pieces=(replace(job.recording.pieces[0], ended_at=0.0),))
    scene.asterisk.refuse["unmute"] = AsteriskDown("away")
    with pytest.raises(AsteriskDown):
        await scene.pauser.resume(job)
    assert scene.journal.entries == ["resume_asked", "resume_failed"]
    assert (job.phase, job.recording.facts) == (Phase.PAUSED, {RESUME_AT: NOW + 9})


@pytest.mark.parametrize(
    ("word", "side", "order"),
    [
        ("received", "received", "read"),
        ("write", "sent", "write"),
        ("both", "both", "both"),
        ("read", "received", "read"),
    ],
)
async def test_mute_tells_asterisk(scene: Scene, word: str, side: str, order: str) -> None:
    scene.live("1.1", "PJSIP/renamed-1")
    job = scene.job()
    assert await scene.pauser.mute(job, word) is True
    assert job.recording.facts == {"muted": {side: [[60.0, None]]}}
    assert await scene.pauser.mute(job, word, False) is True
    assert scene.asterisk.orders == [("mute", order, "PJSIP/renamed-1"), ("unmute", order, "PJSIP/renamed-1")]


async def test_failed_mute_is_taken_back(scene: Scene) -> None:
    job = scene.job()
    scene.asterisk.refuse["mute"] = AsteriskError("no")
    with pytest.raises(AsteriskError):
        await scene.pauser.mute(job, "sent")
    assert (scene.journal.entries, job.recording.facts) == (["muted", "mute_failed"], {})


async def test_mute_refusals(scene: Scene) -> None:
    with pytest.raises(BadArgument, match="direction='left'"):
        await scene.pauser.mute(scene.job(), "left")
    with pytest.raises(Error, match="engine='monitor'"):
        await scene.pauser.mute(scene.job(spec=RecordingSpec(engine="monitor")), "sent")


@pytest.mark.parametrize(("major", "others", "good"), [(20, 1, False), (0, 1, False), (21, 1, True), (20, 0, True)])
async def test_old_asterisk_mutes_the_first(scene: Scene, major: int, others: int, good: bool) -> None:
    """Up to 20 the MixMonitor that was started first is muted, whichever was meant."""
    for number in range(others):
        scene.job(id=f"rec-{number}", recorder="other")
    job = scene.job()
    scene.pbx.major = major
    if good:
        assert await scene.pauser.mute(job, "sent") is True
    else:
        with pytest.raises(Error, match="one of several"):
            await scene.pauser.mute(job, "sent")
    assert len(scene.asterisk.told) == good


async def test_restart_ends_the_paused_file(scene: Scene) -> None:
    job = scene.job(Phase.PAUSED, facts={RESUME_AT: NOW + 5})
    await scene.pauser.settle(job)
    assert scene.asterisk.told == [f"stop {ID}.wav"]
    assert job.resume_timer is not None
    job.stop_clocks()


async def test_restart_finds_a_resumed_file(scene: Scene) -> None:
    """The last server died between the order and the journal."""
    job = scene.job(Phase.PAUSED)
    intended = Segment(
        str(scene.spool / f"{ID}-1.wav"),
        channel="PJSIP/a-1",
        uniqueid="1.1",
        started_at=NOW,
        reason="pause",
        confirmed=False,
    )
    job.recording = job.recording.changed(pieces=(*job.recording.pieces, intended))
    place(intended.mixed).write_bytes(b"RIFF")
    await scene.pauser.settle(job)
    assert (job.phase, job.recording.pieces[-1].monitor_id) == (Phase.ACTIVE, "0xfound")
    assert scene.journal.entries == ["resumed"]


async def test_restart_tries_a_resume_again(scene: Scene) -> None:
    job = scene.job(Phase.PAUSED)
    intended = replace(
        job.recording.pieces[0],
        mixed=str(scene.spool / f"{ID}-1.wav"),
        ended_at=0.0,
        started_at=NOW,
        reason="pause",
        confirmed=False,
    )
    job.recording = job.recording.changed(pieces=(*job.recording.pieces, intended))
    scene.asterisk.refuse["start"] = AsteriskError("not now")
    await scene.pauser.settle(job)
    assert scene.journal.entries == ["piece_failed", "resume_asked"]
    assert (job.phase, job.recording.facts) == (Phase.PAUSED, {RESUME_AT: NOW})
    assert job.resume_timer is not None
    job.stop_clocks()


def test_sides_follow_the_leg() -> None:
    here, there = Segment("/x"), Segment("/x", sides_swapped=True)
    assert [asterisk_direction(side, here) for side in ("received", "sent", "both")] == ["read", "write", "both"]
    assert [asterisk_direction(side, there) for side in ("received", "sent", "both")] == ["write", "read", "both"]


async def test_new_segment_begins_muted(scene: Scene) -> None:
    job = scene.job(Phase.PAUSED, facts={"muted": {"sent": [[1.0, None]], "received": [[1.0, 2.0]]}})
    assert muted(job.recording, job.recording.pieces[0]) == ["write"]
    await scene.pauser.resume(job)
    assert scene.asterisk.told == [f"start {ID}-1.wav", "mute write"]
    assert job.recording.started_at == BEGAN
