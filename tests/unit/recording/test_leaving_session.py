"""An AGI session that ends gives a stop that only it can carry out its moment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lifecycle_harness import Scene

from fastagi.domain.states import Phase
from fastagi.recording import service as recording_service
from fastagi.recording.service import RecordingService


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def service(scene: Scene) -> RecordingService:
    """The one door, with nothing behind it but the context."""
    parts: Any = SimpleNamespace(context=scene.context)
    return RecordingService(parts, SimpleNamespace())  # type: ignore[arg-type]


async def leaves(scene: Scene) -> bool:
    """Whether the session is let go at once."""
    task = asyncio.create_task(service(scene).before_leaving(scene.pbx, "1.1"))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    done = task.done()
    task.cancel()
    await asyncio.wait([task])
    return done


@pytest.mark.parametrize(
    ("up", "phase", "at_once"),
    [(True, Phase.STOPPING, True), (False, Phase.ACTIVE, True), (False, Phase.STOPPING, False)],
)
async def test_session_waits_for_a_stop(scene: Scene, up: bool, phase: Phase, at_once: bool) -> None:
    scene.job(phase)
    scene.pbx.up = up
    assert await leaves(scene) is at_once


async def test_session_waits_no_longer(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_service, "LEAVING_SECONDS", 0.01)
    scene.job(Phase.STOPPING)
    scene.pbx.up = False
    async with asyncio.timeout(5):
        await service(scene).before_leaving(scene.pbx, "1.1")  # type: ignore[arg-type]


async def test_untold_stop_is_an_error(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call may be held by who waits."""
    monkeypatch.setattr(recording_service, "TOLD_SECONDS", 0.01)
    job = scene.job(Phase.STOPPING)
    with pytest.raises(Exception, match="cannot be told to stop now"):
        await service(scene)._told(job)
    job.recording = job.recording.changed(phase=Phase.FINISHED)
    job.set_ended()
    await service(scene)._told(job)
