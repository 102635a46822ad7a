"""A call of ten minutes, each side in its own channel: how far they are out of step with each other."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import soundfile

from fastagi.testing import AsteriskServer
from support.recorder_harness import Scene, recording_scene
from support.sync_check import DIALPLAN, MONITOR_MS, SHORTEST_SECONDS, STEP_MS, keep_marking, lay_markers, step

MOST_MS = {"mixmonitor": STEP_MS, "monitor": MONITOR_MS}

ENGINES = {22: ("mixmonitor",), 16: ("mixmonitor", "monitor")}
"""Recorded side by side on the same call."""


async def both_steps(folder: Path, minutes: float, versions: tuple[int, ...]) -> dict[str, Any]:
    """`measure` on these Asterisks, side by side."""
    folders = [folder / str(version) for version in versions]
    for each in folders:
        each.mkdir()
        each.chmod(0o755)
    runs = (measure(each, minutes, version) for each, version in zip(folders, versions, strict=True))
    return {f"asterisk {version}": found for version, found in zip(versions, await asyncio.gather(*runs), strict=True)}


async def measure(folder: Path, minutes: float, version: int) -> dict[str, Any]:
    """Record a call of so many minutes with every engine that this Asterisk has; the figures of each.

    :raises AssertionError: the sides are more than a frame out of step
    """
    seconds = max(SHORTEST_SECONDS, 60 * minutes)
    async with AsteriskServer(version, dialplan=DIALPLAN) as asterisk:
        lay_markers(asterisk)
        async with recording_scene(asterisk, folder) as scene:
            told = await _recorded(scene, seconds, ENGINES[version])
            figures: dict[str, Any] = {"load": round(os.getloadavg()[0], 2)}
            for metadata in told:
                audio, _ = await asyncio.to_thread(soundfile.read, metadata.file_path, dtype="float32")
                found = await asyncio.to_thread(step, audio[:, 0], audio[:, 1])
                clock = metadata.duration_seconds
                figures[metadata.name] = {"seconds": round(len(audio) / 8000, 1), "clock": clock, **found.told()}
                assert found.holds(MOST_MS[metadata.name]), f"Asterisk {version}: out of step: {figures}"
            return figures


async def _recorded(scene: Scene, seconds: float, engines: tuple[str, ...]) -> list[Any]:
    @scene.app.route("step")
    async def marked(call: Any) -> None:
        for engine in engines:
            options: dict[str, Any] = {"file_format": "s16bit", "recording_mode": "separate", "dtmf_elim": False}
            assert await call.recorder(engine).start(engine, engine=engine, **options)
        await keep_marking(call, seconds)

    begun = time.monotonic()
    await scene.call("step", far_end="Local/s@in-step/n")
    return await scene.delivered(len(engines), seconds + 120 - (time.monotonic() - begun))
