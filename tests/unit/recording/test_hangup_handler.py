"""Which of Asterisk's events end a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lifecycle_harness import NOW, Scene, closed_file, rendered

from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Cause, Phase
from fastagi.recording.asterisk import external
from fastagi.recording.lifecycle import following, hangups, stopping
from fastagi.recording.lifecycle.following import Move


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(external, "finish", lambda recording, plan: rendered())
    monkeypatch.setattr(stopping, "UNSEEN_SECONDS", 0.01)
    monkeypatch.setattr(following, "ARRIVES_SECONDS", 0.02)
    monkeypatch.setattr(hangups, "HANGUP_FOLLOWS_SECONDS", 0.01)
    return Scene(tmp_path)


def tell(scene: Scene, name: str, uniqueid: str = "1.1", channel: Any = None) -> None:
    scene.hangups.event(scene.pbx, name, {"Uniqueid": uniqueid}, channel)  # type: ignore[arg-type]


async def test_hangup_ends_it(scene: Scene) -> None:
    job = scene.job()
    scene.live("1.1")
    tell(scene, "Hangup", channel=scene.part("1.1"))
    tell(scene, "Hangup", "1.2")
    await scene.settled()
    assert (job.phase, job.recording.cause, job.recording.ended_at) == (Phase.FINISHED, Cause.HANGUP, NOW)
    assert scene.asterisk.told == []


async def test_hangup_of_another_channel(scene: Scene) -> None:
    job = scene.job()
    tell(scene, "Hangup", "1.2")
    await scene.settled()
    assert job.recording.active


@pytest.mark.parametrize(("follow", "pieces"), [(True, 2), (False, 1)])
async def test_call_goes_on_elsewhere(scene: Scene, follow: bool, pieces: int) -> None:
    """The party that was left is in another bridge, with somebody else."""
    job = scene.job(spec=RecordingSpec(follow=follow))
    scene.live("1.2", bridge="new")
    scene.live("1.3", bridge="new")
    gone = scene.live("1.1")
    gone.recent_peers = {"1.2": ("old", NOW)}
    tell(scene, "Hangup", channel=scene.part("1.1"))
    await scene.settled()
    assert len(job.recording.pieces) == pieces
    assert job.recording.active is follow


async def test_move_known_already(scene: Scene) -> None:
    job = scene.job()
    scene.live("1.2")
    assert await scene.hangups.goes_on(job, scene.pbx, "1.1", None) is False  # type: ignore[arg-type]
    await scene.follower.follow(job, Move("1.1", "1.2"), "x")
    assert await scene.hangups.goes_on(job, scene.pbx, "1.1", None) is True  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["HangupRequest", "SoftHangupRequest"])
@pytest.mark.parametrize("asked", [True, False, None])
async def test_requested_hangup_stops(scene: Scene, name: str, asked: bool | None) -> None:
    """Asterisk is told: an AGI session or a hangup handler may keep the channel."""
    job = scene.job()
    channel = None if asked is None else scene.live("1.1", hangup_requested=asked)
    tell(scene, name, channel=channel)
    scene.now = NOW + 1
    await scene.settled()
    if asked:
        assert (job.recording.cause, job.recording.ended_at) == (Cause.HANGUP, NOW)
        assert len(scene.asterisk.told) == 1
    else:
        assert job.recording.active


async def test_question_decides(scene: Scene) -> None:
    asked: list[bool] = []

    async def over(answer: bool) -> bool:
        asked.append(answer)
        return answer

    job = scene.job()
    scene.hangups.perhaps_over("pbx", "1.2", lambda: over(True))
    await scene.settled()
    assert asked == [], "no recording is made on that channel"
    scene.hangups.perhaps_over("pbx", "1.1", lambda: over(False))
    await scene.settled()
    assert job.recording.active
    scene.hangups.perhaps_over("pbx", "1.1", lambda: over(True))
    await scene.settled()
    assert (asked, job.phase) == ([False, True], Phase.FINISHED)


@pytest.mark.parametrize("phase", [Phase.STOPPING, Phase.CLOSING])
async def test_ending_recording_asks_nothing(scene: Scene, phase: Phase) -> None:
    scene.job(phase)

    async def never() -> bool:
        raise AssertionError("asked")

    scene.hangups.perhaps_over("pbx", "1.1", never)
    await scene.settled()
    assert scene.journal.entries == []


async def test_moved_call_is_not_over(scene: Scene) -> None:
    job = scene.job()
    scene.live("1.2", bridge="new")
    scene.live("1.3", bridge="new")
    scene.live("1.1").recent_peers = {"1.2": ("old", NOW)}
    scene.hangups.perhaps_over("pbx", "1.1")
    await scene.settled()
    assert job.recording.active
    assert job.recording.pieces[-1].uniqueid == "1.2"


@pytest.mark.parametrize("name", ["MixMonitorStop", "MonitorStop"])
async def test_closed_file_was_stopped(scene: Scene, name: str) -> None:
    job = scene.job()
    closed_file(job.recording.pieces[0].mixed)
    tell(scene, name)
    await scene.settled()
    assert (job.phase, job.recording.cause) == (Phase.FINISHED, Cause.ABORTED)
    assert scene.journal.entries[0] == "stopped"


async def test_open_file_goes_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event does not say which MixMonitor of the channel was stopped."""
    monkeypatch.setattr(hangups, "STOP_LOOKS", 1)
    job = scene.job()
    tell(scene, "MixMonitorStop")
    await scene.settled()
    assert job.recording.active


async def test_file_that_closes_late(scene: Scene) -> None:
    """Asterisk publishes the event before the last bytes are written."""
    job = scene.job()
    tell(scene, "MixMonitorStop")
    await job.wait_for_a_way(0.02)
    closed_file(job.recording.pieces[0].mixed)
    await scene.settled()
    assert job.phase is Phase.FINISHED


@pytest.mark.parametrize(
    ("phase", "changes"), [(Phase.ACTIVE, {"adopted": True}), (Phase.STOPPING, {}), (Phase.PAUSED, {})]
)
async def test_stop_of_others_means_nothing(scene: Scene, phase: Phase, changes: dict[str, Any]) -> None:
    job = scene.job(phase, **changes)
    closed_file(job.recording.pieces[0].mixed)
    tell(scene, "MixMonitorStop")
    assert len(scene.tasks) == 0


async def test_own_pause_is_no_stop(scene: Scene) -> None:
    job = scene.job()
    tell(scene, "MixMonitorStop")
    await scene.pauser.pause(job)
    await scene.settled()
    assert job.recording.paused


async def test_monitor_waits_for_the_hangup(scene: Scene) -> None:
    """Its MonitorStop comes before the Hangup, too."""
    job = scene.job(spec=RecordingSpec(engine="monitor"))
    closed_file(job.recording.pieces[0].mixed)
    tell(scene, "MonitorStop")
    tell(scene, "Hangup")
    await scene.settled()
    assert job.recording.cause is Cause.HANGUP
