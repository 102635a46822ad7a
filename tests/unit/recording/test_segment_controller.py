"""Segments begin and end while the recording goes on; a failure leaves the row as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from lifecycle_harness import ID, NOW, Scene, place

from fastagi.domain.recording import Segment
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Phase
from fastagi.errors import ActionRefused, AsteriskDown, AsteriskError, IllegalTransition
from fastagi.recording.lifecycle.segments import control_of


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def further(scene: Scene, reason: str, **changes: object) -> Segment:
    """An intended second segment."""
    made = Segment(
        str(scene.spool / f"{ID}-1.wav"),
        channel="PJSIP/b-1",
        uniqueid="1.2",
        started_at=NOW,
        reason=reason,
        confirmed=False,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


async def test_names_are_used_once(scene: Scene) -> None:
    job = scene.job()
    job.failed_pieces = 2
    made = scene.segments.next(job, "PJSIP/b-1", "1.2", reason="move", sides_swapped=True)
    assert made == Segment(
        *(str(scene.spool / f"{ID}-3{leg}.wav") for leg in ("", "-rx", "-tx")),
        channel="PJSIP/b-1",
        uniqueid="1.2",
        reason="move",
        sides_swapped=True,
    )


async def test_begin_journals_before_it_orders(scene: Scene) -> None:
    job = scene.job()
    wanted = scene.segments.next(job, "PJSIP/b-1", "1.2", reason="move", sides_swapped=True)
    began = await scene.segments.begin(job, wanted)
    assert scene.journal.entries == ["piece"]
    assert (began.monitor_id, began.started_at) == ("0x1", NOW)
    assert job.recording.pieces[-1].confirmed is False


@pytest.mark.parametrize(("reason", "beeps"), [("still", False), ("move", True)])
async def test_flush_makes_no_sound(scene: Scene, reason: str, beeps: bool) -> None:
    """For who listens, nothing starts where a further file is begun at a standstill."""
    job = scene.job(spec=RecordingSpec(beep_seconds=15, beep_start=True))
    seen: list[bool] = []
    start = scene.asterisk.start

    async def noting(piece: Segment, spec: RecordingSpec) -> str:
        seen.append(spec.beep_start)
        return await start(piece, spec)

    scene.asterisk.start = noting  # type: ignore[method-assign]
    await scene.segments.begin(job, further(scene, reason))
    assert seen == [beeps]


async def test_adopted_recording_takes_none(scene: Scene) -> None:
    with pytest.raises(IllegalTransition):
        await scene.segments.begin(scene.job(adopted=True), further(scene, "move"))
    assert scene.asterisk.told == scene.journal.entries == []


async def test_end_comes_after_the_given_up(scene: Scene) -> None:
    job = scene.job()
    await scene.segments.give_up(job, further(scene, "move"))
    assert job.given_up == []
    scene.asterisk.refuse["stop"] = [AsteriskDown("away"), AsteriskDown("away")]
    await scene.segments.give_up(job, further(scene, "move"))
    assert len(job.given_up) == 1
    with pytest.raises(AsteriskDown):
        await scene.segments.end(job, job.recording.pieces[0])
    assert len(job.given_up) == 1
    await scene.segments.end(job, job.recording.pieces[0])
    assert job.given_up == []
    assert scene.asterisk.told == [f"stop {ID}-1.wav"] * 4 + [f"stop {ID}.wav"]


async def test_gone_segment_has_ended(scene: Scene) -> None:
    job = scene.job()
    scene.asterisk.refuse["stop"] = ActionRefused("Could not stop MixMonitor")
    await scene.segments.end(job, job.recording.pieces[0])
    scene.asterisk.refuse["stop"] = ActionRefused("Permission denied")
    with pytest.raises(ActionRefused):
        await scene.segments.end(job, job.recording.pieces[0])


async def test_confirmed_segment_is_settled(scene: Scene) -> None:
    job = scene.job()
    await scene.segments.settle(job)
    assert scene.asterisk.told == scene.journal.entries == []


async def test_settle_finds_the_file(scene: Scene) -> None:
    job = scene.job()
    last = further(scene, "move")
    job.recording = job.recording.changed(pieces=(*job.recording.pieces, last))
    place(last.mixed).write_bytes(b"")
    await scene.segments.settle(job)
    assert scene.asterisk.told == [f"find {ID}-1.wav", f"stop {ID}.wav"]
    assert job.recording.pieces[-1] == replace(last, monitor_id="0xfound", confirmed=True)
    assert scene.journal.entries == ["moved"]


async def test_settle_begins_it_muted(scene: Scene) -> None:
    job = scene.job(facts={"muted": {"received": [[1.0, None]]}})
    last = further(scene, "move", sides_swapped=True)
    job.recording = job.recording.changed(pieces=(*job.recording.pieces, last))
    await scene.segments.settle(job)
    assert scene.asterisk.told == [f"start {ID}-1.wav", "mute write", f"stop {ID}.wav"]


async def test_settle_takes_a_failure_back(scene: Scene) -> None:
    """The recording is found under the channel of its last segment again."""
    job = scene.job()
    before = job.recording
    job.recording = before.changed(pieces=(*before.pieces, further(scene, "move")))
    scene.jobs.on_other_channel(job, "1.1")
    assert scene.jobs.on_channel("pbx", "1.2") == [job]
    scene.asterisk.refuse["start"] = AsteriskError("no")
    await scene.segments.settle(job)
    assert (job.recording, scene.journal.entries) == (before, ["piece_failed"])
    assert scene.jobs.on_channel("pbx", "1.1") == [job]
    assert scene.jobs.on_channel("pbx", "1.2") == []


async def test_refile_follows_the_leg(scene: Scene) -> None:
    job = scene.job()
    before = job.recording.pieces[0]
    job.recording = job.recording.changed(pieces=(before, further(scene, "move", confirmed=True)))
    scene.segments.refile(job, before)
    assert (scene.jobs.on_channel("pbx", "1.1"), scene.jobs.on_channel("pbx", "1.2")) == ([], [job])


async def test_session_reaches_its_own_channel(scene: Scene) -> None:
    """An AGI session is a way to the channel it runs on, and to no other leg."""
    job, ways = scene.job(Phase.ACTIVE), []
    job.agi = object()  # type: ignore[assignment]
    scene.pbx.control = lambda channel, agi: ways.append((channel, agi)) or scene.asterisk
    control_of(job, job.recording.pieces[0], scene.pbx)  # type: ignore[arg-type]
    control_of(job, further(scene, "move"), scene.pbx)  # type: ignore[arg-type]
    assert ways == [("PJSIP/a-1", job.agi), ("PJSIP/b-1", None)]
