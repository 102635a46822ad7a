"""A recorder starts only in a channel that does nothing (seed), from the first moment in which it does something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from fastagi import Error
from fastagi.testing import AsteriskServer
from fastagi.testing.sip import SippCall
from support.recorder_calls import on_call, route_for
from support.recorder_harness import Scene, recording_scene

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[22, 16], ids=["asterisk22", "asterisk16"])
async def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    asterisk: AsteriskServer = request.getfixturevalue(f"asterisk{request.param}")
    async with recording_scene(asterisk, tmp_path_factory.mktemp("busy")) as scene:
        yield scene


# What has only begun: Asterisk has told of no bridge yet, or never tells
BEGUN = {
    "joining": ("ConfBridge", "recorder-tests-joining", "in a conference"),
    "tones": ("Playtones", "dial", "playing"),
    "conditional": ("ExecIf", "1?Playback(demo-congrats)", "playing"),
    "conditional room": ("ExecIf", "1?ConfBridge(recorder-tests-conditional)", "in a conference"),
    "subroutine": ("GOSUB", "", "playing"),
}


@pytest.mark.parametrize("how", BEGUN)
async def test_start_is_refused_at_once(scene: Scene, how: str) -> None:
    """ConfBridge was accepted until its prompt was over, tones behind the session and wrapped applications always."""
    application, argument, text = BEGUN[how]
    await scene.asterisk.cli('dialplan add extension "s,1,Playback(demo-congrats)" into recorder-tests-plays replace')

    async def handler(call: Any) -> str:
        rec = call.WholeCallRecorder
        work = (
            call.gosub("recorder-tests-plays", "s", 1) if application == "GOSUB" else call.exec(application, argument)
        )
        task = asyncio.create_task(work)
        if how == "tones":
            await task
        else:
            await asyncio.sleep(0)  # the command is out
        with pytest.raises(Error, match=text) as info:
            await rec.start("begun")
        assert await rec.start("begun", mid_call=True)
        assert await rec.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return str(info.value)

    assert "mid_call=True" in await on_call(scene, handler)


async def test_start_is_accepted_after_tones(scene: Scene) -> None:
    """Tones that were stopped, or that a prompt has ended, keep no call from being recorded."""

    async def handler(call: Any) -> list[bool]:
        rec, began = call.WholeCallRecorder, []
        for ends in (call.exec("StopPlaytones"), call.stream_file("beep"), call.exec("ExecIf", "1?StopPlaytones()")):
            await call.exec("Playtones", "dial")
            await ends
            began.append(await rec.start("after-tones"))
            await rec.stop()
        task = asyncio.create_task(call.exec("ExecIf", "1?Wait(20)"))
        await asyncio.sleep(0)
        began.append(await rec.start("after-tones"))
        await rec.stop()
        task.cancel()
        return began

    assert await on_call(scene, handler) == [True] * 4


TONES = {
    "sounding": (["Playtones(dial)"], False),
    "never": (["NoOp()"], True),
    "stopped": (["Playtones(dial)", "StopPlaytones()"], True),
    "ended by a prompt": (["Playtones(dial)", "Playback(beep)"], True),
}


@pytest.mark.parametrize("how", TONES)
async def test_tones_of_the_dialplan_refuse(scene: Scene, how: str) -> None:
    """No command of the session began them: the packets that go out to a phone tell."""
    before, expected = TONES[how]

    async def handler(call: Any) -> bool:
        if not expected:
            with pytest.raises(Error, match="the channel is playing"):
                await call.WholeCallRecorder.start("tones-before")
            return False
        return bool(await call.WholeCallRecorder.start("tones-before"))

    route, result = route_for(scene, handler)
    lines = ("Answer()", *before, f"AGI({scene.url(route)})", "Wait(60)")
    for number, line in enumerate(lines, 1):
        await scene.asterisk.cli(f'dialplan add extension "{route},{number},{line}" into from-sipp replace')
    async with SippCall(scene.asterisk.sip_port, route, seconds=60):
        assert await asyncio.wait_for(result, 20) is expected


async def test_outside_starts_are_refused_while_playing(scene: Scene) -> None:
    """HTTP and UserEvents with mid_call=no saw bridges and hold music only."""

    async def handler(call: Any) -> str:
        live = call.pbx.channels.get(call.uniqueid)
        commands = scene.app.parts.commands
        task = asyncio.create_task(call.exec("Playback", "demo-congrats"))
        await asyncio.sleep(0)
        with pytest.raises(Error, match="is playing: pass mid_call=yes") as info:
            await commands.start_on_channel(live.name, "outside", mid_call=False)
        task.cancel()
        return str(info.value)

    assert await on_call(scene, handler)
