"""A recording that runs is followed: its time limit, its files, and what a restart still owes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lifecycle_harness import BEGAN, NOW, Scene, rendered

from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Cause, Phase
from fastagi.recording.asterisk import external
from fastagi.recording.lifecycle import stopping
from fastagi.recording.tracking import Tracker


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(external, "finish", lambda recording, plan: rendered())
    monkeypatch.setattr(stopping, "UNSEEN_SECONDS", 0.01)
    return Scene(tmp_path)


def tracker(scene: Scene) -> tuple[Tracker, list[Any]]:
    """The tracker, and the recordings whose files it had watched."""
    watched: list[Any] = []
    watch: Any = SimpleNamespace(follow=watched.append)
    return Tracker(scene.context, scene.stopper, scene.pauser, scene.participants, watch), watched


def left(job: Any) -> float:
    """Seconds until the time limit."""
    return float(job.timer.when() - asyncio.get_running_loop().time())


@pytest.mark.parametrize(("started", "expected"), [(BEGAN, 40.0), (BEGAN - 100, 0.0), (NOW + 50, 100.0)])
async def test_limit_counts_from_the_start(scene: Scene, started: float, expected: float) -> None:
    job = scene.job(spec=RecordingSpec(seconds_timeout=100), started_at=started)
    track, watched = tracker(scene)
    track.track(job)
    timer = job.timer
    assert left(job) == pytest.approx(expected, abs=0.5)
    track.track(job)
    assert (job.timer, watched) == (timer, [job, job])
    job.stop_clocks()


async def test_limit_stops_the_recording(scene: Scene) -> None:
    job = scene.job(spec=RecordingSpec(seconds_timeout=60))
    tracker(scene)[0].track(job)
    async with asyncio.timeout(5):
        await job.wait(None)
    assert (job.phase, job.recording.cause) == (Phase.FINISHED, Cause.TIMEOUT)


async def test_no_limit_no_clock(scene: Scene) -> None:
    job = scene.job()
    tracker(scene)[0].track(job)
    assert (job.timer, len(scene.tasks)) == (None, 0)


async def test_peers_are_noted_at_once(scene: Scene) -> None:
    scene.live("1.1", bridge="b")
    scene.live("1.2", bridge="b")
    job, stray = scene.job(), scene.job(id="rec-2", asterisk="other")
    track, watched = tracker(scene)
    track.track(job)
    track.track(stray)
    assert (list(job.participants), watched) == (["PJSIP/1.2"], [job, stray])


async def test_paused_recording_is_settled(scene: Scene) -> None:
    job = scene.job(Phase.PAUSED)
    tracker(scene)[0].track(job)
    await scene.settled()
    assert len(scene.asterisk.told) == 1


async def test_intended_segment_is_settled(scene: Scene) -> None:
    job = scene.job()
    first = job.recording.pieces[0]
    further = replace(first, mixed=str(scene.spool / "rec-1-1.wav"), reason="still", confirmed=False)
    job.recording = job.recording.changed(pieces=(first, further))
    tracker(scene)[0].track(job)
    await scene.settled()
    assert job.recording.pieces[-1].confirmed
