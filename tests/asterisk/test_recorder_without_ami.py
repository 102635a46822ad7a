"""A recorder without a manager connection: everything over the calls' own AGI sessions, and hangups learned late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from recorder_calls import of_call, place, route_for
from recording_scene import Scene

from fastagi import Cause, Error, Hangup, State
from fastagi.testing import AsteriskServer
from fastagi.testing.ports import free_port
from fastagi.testing.server_settings import settings_for

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[22, 16], ids=["asterisk22", "asterisk16"])
async def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """Nobody listens where its settings say that the manager interface is."""
    asterisk: AsteriskServer = request.getfixturevalue(f"asterisk{request.param}")
    folder = tmp_path_factory.mktemp("deaf")
    scene = Scene(asterisk, folder, settings_for(asterisk, folder, asterisk={"port": free_port()}))
    await scene.app.start()
    yield scene
    await asterisk.cli("channel request hangup all")
    await scene.app.stop(5)


async def test_start_and_stop_over_the_session(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        assert not call.pbx.up
        rec, other = call.WholeCallRecorder, call.recorder("other")
        assert await rec.start("deaf/one", recording_mode="separate")
        assert await other.start("deaf/two")
        await call.exec("Wait", 1)
        assert await rec.stop()  # by its id: the other one goes on
        middle = rec.cause(), other.state()
        assert await other.stop()
        return middle, other.cause(), await rec.record("deaf/three", seconds_timeout=0.4)

    call = await place(scene, handler)
    assert await call.done() == ((Cause.ABORTED, State.RECORDING), Cause.ABORTED, Cause.TIMEOUT)
    told = await call.told(3)
    assert {t.extra["linkedid"] for t in told} == {call.uniqueid}
    assert all(t.extra["audio_seconds"] > 0.2 for t in told)


async def test_the_call_state_is_asked_over_the_session(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        with pytest.raises(Error, match="not answered"):
            await call.WholeCallRecorder.start("early")
        await call.answer()
        with pytest.raises(Error, match="playing"):
            await asyncio.gather(call.stream_file("beep"), call.WholeCallRecorder.start("early"))
        return True

    route, result = route_for(scene, handler)
    await scene.asterisk.cli(f"dialplan add extension {route},1,AGI,{scene.url(route)} into recorder-deaf")
    await scene.asterisk.originate(f"Local/{route}@recorder-deaf/n")
    assert await asyncio.wait_for(result, 20)


async def test_a_session_that_is_taken_is_not_waited_for(scene: Scene) -> None:
    """A Dial may hold the session for hours; without a manager connection nothing can be asked meanwhile."""

    async def handler(call: Any) -> Any:
        taken = asyncio.create_task(call.exec("Wait", 30))
        await scene.until(lambda: call.current_command)
        begin = time.monotonic()
        with pytest.raises(Error, match="EXEC Wait is running, and there is no AMI connection"):
            await call.WholeCallRecorder.start("taken")
        taken.cancel()
        return time.monotonic() - begin

    call = await place(scene, handler)
    assert await call.done() < 10


@pytest.mark.parametrize("how", ["hangup", "redirect"])
async def test_a_session_told_of_a_hangup_finds_out_what_it_was(scene: Scene, how: str) -> None:
    async def handler(call: Any) -> Any:
        try:
            return await call.WholeCallRecorder.record("{uniqueid}")
        except Hangup:
            return call.WholeCallRecorder.state()

    route, result = route_for(scene, handler)
    context = f"recorder-{route}"
    for step in (f"s,1,Answer into {context}", f"s,2,AGI,{scene.url(route)} into {context}",
                 f"elsewhere,1,Wait,1 into {context}"):  # fmt: skip
        await scene.asterisk.cli(f"dialplan add extension {step}")
    call = await scene.asterisk.originate(f"Local/s@{context}/n")
    await scene.until(lambda: any(j.started for j in scene.recorder.jobs.on_channel("pbx", call.other_uniqueid)))
    async with scene.asterisk.ami() as ami:
        channel = call.channel[:-1] + "2"
        if how == "hangup":
            await ami.action("Hangup", Channel=channel)
            assert await asyncio.wait_for(result, 20) is Cause.HANGUP
        else:
            await ami.action("Redirect", Channel=channel, Context=context, Exten="elsewhere", Priority="1")
            assert await asyncio.wait_for(result, 20) is State.RECORDING
            assert of_call(scene, call.other_uniqueid) == []
    # redirected, it ends a second later: its file is seen to be closed
    await scene.until(lambda: of_call(scene, call.other_uniqueid), 30)
    (told,) = of_call(scene, call.other_uniqueid)
    assert told.extra["cause"] == "HANGUP"


async def test_a_hangup_after_the_session_is_seen_by_the_file(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        return await call.WholeCallRecorder.start("late/{uniqueid}")

    route, result = route_for(scene, handler)
    context = f"recorder-{route}"
    for step in (f"s,1,Answer into {context}", f"s,2,AGI,{scene.url(route)} into {context}",
                 f"s,3,Milliwatt into {context}"):  # fmt: skip
        await scene.asterisk.cli(f"dialplan add extension {step}")
    call = await scene.asterisk.originate(f"Local/s@{context}/n")
    assert await asyncio.wait_for(result, 20)
    await asyncio.sleep(1)
    await scene.asterisk.cli(f"channel request hangup {call.channel}")
    await scene.until(lambda: of_call(scene, call.other_uniqueid), 30)
    (told,) = of_call(scene, call.other_uniqueid)
    assert told.extra["cause"] == "HANGUP"
    assert told.extra["audio_seconds"] > 0.5
