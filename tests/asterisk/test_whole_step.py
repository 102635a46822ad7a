"""The sides of a stereo file in step: a marker in each leg of a call, through gaps in the one, the other and both.

The ten-minute call is `python -m benchmarks.soak step`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from fastagi.testing import AsteriskServer
from fastagi.testing.sound import save
from support.recorder_harness import Scene, recording_scene
from support.sync_check import DIALPLAN, MONITOR_MS, STEP_MS, Step, keep_marking, lay_markers, marker, places, step

OPTIONS: dict[str, Any] = {"file_format": "s16bit", "recording_mode": "separate", "dtmf_elim": False}

GAPPY = """
[gappy]
exten => s,1,Answer()
 same => n(again),Playback(in-step/steady)
 same => n,Goto(again)
"""

GAPS = (0.0, 0.01, 0.04, 0.02, 0.06, 0.07, 0.03)
"""Seconds between what is sent: shorter than the four frames from which on Monitor fills them."""


def sides(scene: Scene, name: str) -> Any:
    (told,) = [m for m in scene.sink.got if m.name == name]
    audio, _ = soundfile.read(told.file_path, dtype="float32")
    return audio[:, 0], audio[:, 1]


def made(folder: Path) -> Path:
    """That folder, for Asterisk to go through."""
    folder.mkdir()
    folder.chmod(0o755)
    return folder


async def marked_call(asterisk: AsteriskServer, folder: Path, engines: dict[str, str]) -> dict[str, Step]:
    """A call on which everything happens to the legs, first of all to one that begins two seconds late."""
    async with recording_scene(asterisk, made(folder)) as scene:

        @scene.app.route("marked")
        async def marked(call: Any) -> None:
            for name, engine in engines.items():
                assert await call.recorder(name).start(name, engine=engine, **OPTIONS)
            await keep_marking(call, 13.0, late=2.0)

        @scene.app.route("gappy")
        async def gappy(call: Any) -> None:
            """Many gaps in what is sent, none in what is received."""
            for name, engine in engines.items():
                assert await call.recorder(name).start(f"gappy-{name}", engine=engine, **OPTIONS)
            loop = asyncio.get_running_loop()
            end, number = loop.time() + 15.0, 0
            while loop.time() < end:
                await call.stream_file("in-step/marker")
                await asyncio.sleep(GAPS[number % len(GAPS)])
                number += 1

        both = [scene.call("marked", far_end="Local/late@in-step/n")]
        if "monitor" in engines:
            both.append(scene.call("gappy", far_end="Local/s@gappy/n"))
        await asyncio.gather(*both)
        await scene.delivered(len(both) * len(engines), 90)
        found = {name: step(*sides(scene, name)) for name in engines}
        if "monitor" in engines:
            found["gappy"] = against(sides(scene, "gappy-monitor"), sides(scene, "gappy-mixmonitor"))
        return found


def against(sides: Any, true: Any) -> Step:
    """How far each marker that was sent is from where it belongs beside what was received, by another recording."""
    (rx, tx), (true_rx, true_tx) = (tuple(places(side) for side in recording) for recording in (sides, true))
    assert len(tx) == len(true_tx) > 20
    lags, at = [], []
    for place, true_place in zip(tx, true_tx, strict=True):
        belongs = place - (true_place - true_rx[np.argmin(np.abs(true_rx - true_place))])
        lag = float(belongs - rx[np.argmin(np.abs(rx - belongs))]) / 8
        if abs(lag) < 400.0:  # else there is none: where Monitor goes on in mid-marker, it is none any more
            lags.append(lag)
            at.append(float(place) / 8000)
    assert len(lags) > 0.7 * len(tx)
    return Step(tuple(lags), tuple(at))


async def test_the_sides_are_in_step_through_gaps_in_either(tmp_path: Path) -> None:
    """On both Asterisks at once: most of this is waiting."""
    async with (
        AsteriskServer(22, dialplan=[DIALPLAN, GAPPY]) as new,
        AsteriskServer(16, dialplan=[DIALPLAN, GAPPY]) as old,
    ):
        for asterisk in (new, old):
            lay_markers(asterisk)
            once = np.concatenate([marker(), np.zeros(4400, np.float32)])
            save(asterisk.sounds / "in-step" / "steady.wav", np.tile(once, 40))
        engines = {"mixmonitor": "mixmonitor"}
        by_new, by_old = await asyncio.gather(
            marked_call(new, tmp_path / "22", engines),
            marked_call(old, tmp_path / "16", engines | {"monitor": "monitor"}),
        )
    print({"22": {n: s.told() for n, s in by_new.items()}, "16": {n: s.told() for n, s in by_old.items()}})
    for found in (by_new["mixmonitor"], by_old["mixmonitor"]):
        assert len(found.lags) >= 6
        assert found.holds(STEP_MS), found
    assert by_old["monitor"].holds(MONITOR_MS), by_old["monitor"]
    assert by_old["gappy"].farthest <= MONITOR_MS
