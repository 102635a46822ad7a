"""A recorder without a manager connection: everything over the calls' own AGI sessions, and hangups learned late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import pytest_asyncio

from fastagi import Cause, Error, Hangup, State
from fastagi.domain.recording import Segment
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Phase
from fastagi.errors import AsteriskDown
from fastagi.recording import service as service_module
from fastagi.recording.asterisk import control
from fastagi.recording.asterisk.control import AgiControl
from fastagi.testing import AmiSession, AsteriskServer
from fastagi.testing.asterisk import Originated
from fastagi.testing.ports import free_port
from fastagi.testing.server_settings import settings_for
from support.recorder_calls import of_call, place, route_for
from support.recorder_harness import Scene

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
        assert call.linkedid == call.uniqueid
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


async def test_a_stop_that_finds_the_session_taken_does_not_wait_for_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "TOLD_SECONDS", 0.5)

    async def handler(call: Any) -> Any:
        assert await call.WholeCallRecorder.start("taken/{uniqueid}")
        taken = asyncio.create_task(call.exec("Wait", 30))
        await scene.until(lambda: call.current_command)
        begin = time.monotonic()
        with pytest.raises(Error, match="cannot be told to stop now"):
            await call.WholeCallRecorder.stop()
        with pytest.raises(Error, match="cannot be told to stop now"):
            await call.record_stop()
        taken.cancel()
        return time.monotonic() - begin

    call = await place(scene, handler)
    assert await call.done() < 10
    await scene.asterisk.cli(f"channel request hangup {call.channel}")
    (told,) = await call.told()
    assert told.extra["cause"] == "ABORTED"


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
    await scene.until(
        lambda: any(j.started for j in scene.recorder.parts.context.jobs.on_channel("pbx", call.other_uniqueid))
    )
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


SHIPPED = Path(__file__).parents[2] / "dialplan" / "record.conf"

CALLS = """
[note]
exten => s,1,Set(LOCAL(said)=State: ${RECORDING_STATE},Cause: ${RECORDING_CAUSE},Paused: ${RECORDING_PAUSED})
 same => n,UserEvent(Note,Label: ${ARG1},${said},Error: ${FILTER(a-zA-Z0-9 ,${RECORDING_ERROR})})
 same => n,Return()

[calls]
exten => stop,1,Answer()
 same => n,AGI(${FASTAGI}/record/start,filename=stop/${UNIQUEID})
 same => n,Wait(1)
 same => n,AGI(${FASTAGI}/record/stop)
 same => n,Gosub(note,s,1(stopped))
 same => n,Wait(60)
exten => pause,1,Answer()
 same => n,Gosub(sub-record-start,s,1(pause/${UNIQUEID}))
 same => n,Wait(0.4)
 same => n,Gosub(sub-record-pause-toggle,s,1)
 same => n,Gosub(note,s,1(first))
 same => n,Wait(0.4)
 same => n,Gosub(sub-record-pause-toggle,s,1)
 same => n,Gosub(note,s,1(second))
 same => n,Wait(0.4)
 same => n,Gosub(sub-record-stop,s,1)
 same => n,Gosub(note,s,1(stopped))
 same => n,Wait(60)
exten => whole,1,Answer()
 same => n,Gosub(sub-record-whole-call,s,1(whole/${UNIQUEID}))
 same => n,Gosub(note,s,1(started))
 same => n,Wait(60)
exten => later,1,Answer()
 same => n,Gosub(sub-record-start,s,1(later/${UNIQUEID}))
 same => n,Gosub(note,s,1(started))
 same => n,Wait(1)
 same => n,Gosub(sub-record-status,s,1)
 same => n,Gosub(note,s,1(looked))
 same => n,Wait(60)
"""


class Deaf:
    """An Asterisk with the shipped subroutines that does not let the recorder in: its secret is wrong."""

    def __init__(self, scene: Scene, ami: AmiSession) -> None:
        self.scene, self.ami = scene, ami

    async def call(self, place: str) -> Originated:
        return await self.scene.asterisk.originate(f"Local/{place}@calls/n", application="Milliwatt", data="o")

    async def note(self, call: Originated, label: str) -> dict[str, str]:
        return await self.ami.wait_event(
            "UserEvent", lambda e: (e.get("Label"), e["Uniqueid"]) == (label, call.other_uniqueid)
        )

    async def gone(self, call: Originated) -> None:
        await self.ami.wait_event("Hangup", lambda e: e["Uniqueid"] == call.other_uniqueid)

    async def told(self, call: Originated) -> Any:
        await self.scene.until(lambda: of_call(self.scene, call.other_uniqueid), 30)
        (told,) = of_call(self.scene, call.other_uniqueid)
        return told


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[22, 16], ids=["asterisk22", "asterisk16"])
async def deaf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deaf]:
    async with AsteriskServer(request.param, dialplan=[SHIPPED, CALLS]) as pbx, pbx.ami() as ami:
        folder = tmp_path_factory.mktemp("shut-out")
        settings = settings_for(pbx, folder, agi={"port": pbx.agi_port}, asterisk={"secret": "wrong"})
        scene = Scene(pbx, folder, settings)
        await scene.app.start()
        yield Deaf(scene, ami)
        await pbx.cli("channel request hangup all")
        await scene.app.stop(5)


async def test_a_later_session_of_the_call_stops_it(deaf: Deaf) -> None:
    begin = time.monotonic()
    call = await deaf.call("stop")
    note = await deaf.note(call, "stopped")
    assert (note["State"], note["Cause"], note["Error"]) == ("IDLE", "ABORTED", "")
    assert time.monotonic() - begin < 8
    told = await deaf.told(call)
    assert told.extra["audio_seconds"] > 0.6


async def test_later_sessions_pause_and_resume_it(deaf: Deaf) -> None:
    call = await deaf.call("pause")
    notes = [await deaf.note(call, label) for label in ("first", "second", "stopped")]
    assert [(n["State"], n["Paused"], n["Error"]) for n in notes] == [
        ("RECORDING", "yes", ""), ("RECORDING", "", ""), ("IDLE", "", ""),
    ]  # fmt: skip
    told = await deaf.told(call)
    ((paused, resumed),) = told.extra["paused"]
    assert resumed - paused > 0.3
    assert told.extra["audio_seconds"] > 0.9


async def test_a_refused_pause_never_looks_paused(deaf: Deaf, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any) -> NoReturn:
        raise AsteriskDown("nobody there")

    with monkeypatch.context() as patched:
        patched.setattr(deaf.scene.recorder.parts.pauser, "pause", refuse)
        call = await deaf.call("pause")
        first = await deaf.note(call, "first")
    assert (first["State"], first["Paused"], first["Error"]) == ("RECORDING", "", "nobody there")
    with monkeypatch.context() as patched:
        patched.setattr(deaf.scene.recorder.parts.pauser, "resume", refuse)
        call = await deaf.call("pause")
        second = await deaf.note(call, "second")
    assert (second["State"], second["Paused"], second["Error"]) == ("RECORDING", "yes", "nobody there")


async def test_the_hangup_handler_does_not_hold_the_ended_call(deaf: Deaf) -> None:
    call = await deaf.call("whole")
    assert (await deaf.note(call, "started"))["State"] == "RECORDING"
    await asyncio.sleep(0.5)
    begin = time.monotonic()
    await deaf.ami.action("Hangup", Channel=call.channel)
    await deaf.gone(call)
    assert time.monotonic() - begin < 5
    # the handler's session has stopped it: the file was there before the channel went
    recording = await deaf.scene.recorder.remembered(("pbx", call.other_uniqueid, ""))
    assert (recording.state, recording.cause) == (State.IDLE, Cause.HANGUP)
    assert (await deaf.told(call)).extra["audio_seconds"] > 0.2


@pytest.mark.parametrize("place", ["stop", "whole"])
async def test_who_cannot_tell_asterisk_does_not_hold_the_call(
    deaf: Deaf, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Neither in the dialplan nor in the hangup handler; what was decided comes about with the end of the channel."""

    async def lost(*_: Any) -> NoReturn:
        raise AsteriskDown("nobody there")

    monkeypatch.setattr(AgiControl, "stop", lost)
    monkeypatch.setattr(service_module, "TOLD_SECONDS", 0.5)
    call = await deaf.call(place)
    if place == "stop":
        note = await deaf.note(call, "stopped")
        assert note["State"] == "RECORDING"
        assert note["Error"].startswith("Asterisk pbx cannot be told to stop now")
    else:
        await deaf.note(call, "started")
    begin = time.monotonic()
    await deaf.ami.action("Hangup", Channel=call.channel)
    await deaf.gone(call)
    assert time.monotonic() - begin < 6
    assert (await deaf.told(call)).extra["cause"] == ("ABORTED" if place == "stop" else "HANGUP")


async def test_any_new_session_of_the_call_carries_a_stop_out(deaf: Deaf) -> None:
    call = await deaf.call("later")
    await deaf.note(call, "started")
    (job,) = deaf.scene.recorder.parts.context.jobs.on_channel("pbx", call.other_uniqueid)
    assert await deaf.scene.recorder.parts.stopper.stop(job, Cause.ABORTED)
    assert not await job.wait(0.3)
    assert job.phase is Phase.STOPPING
    await deaf.note(call, "looked")
    assert await job.wait(5)
    assert (await deaf.told(call)).extra["cause"] == "ABORTED"


async def test_a_further_file_that_had_to_be_given_up_is_not_recorded_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler takes the session just when a further file was begun, and the old one cannot be ended."""
    begun = asyncio.Event()
    start = AgiControl.start

    async def start_and_wait(self: AgiControl, piece: Segment, spec: RecordingSpec) -> str:
        got = await start(self, piece, spec)
        if piece.reason == "still":
            begun.set()
            await asyncio.sleep(0.1)
        return got

    monkeypatch.setattr(AgiControl, "start", start_and_wait)
    monkeypatch.setattr(control, "SESSION_SECONDS", 1.0)

    async def handler(call: Any) -> Any:
        rec = call.WholeCallRecorder
        assert await rec.start("given-up", milliseconds_max_silence=25_000, dtmf_elim=False)
        await begun.wait()
        await call.exec("Wait", 4)
        both = (await scene.asterisk.cli(f"mixmonitor list {call.channel}")).count(rec.recording.id)
        assert await rec.stop()
        return both, (await scene.asterisk.cli(f"mixmonitor list {call.channel}")).count(rec.recording.id)

    call = await place(scene, handler, far_end="Local/nothing@fastagi-testing/n")
    assert await asyncio.wait_for(call.done(), 40) == (2, 0)
    await call.told(1)
