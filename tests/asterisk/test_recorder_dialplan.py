"""The files in dialplan/ as they are shipped, with calls through each and the real recorder behind them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog.testing

from fastagi import State
from fastagi.domain.states import Phase
from fastagi.testing import AmiSession, AsteriskServer, SippAgent, SippCall
from fastagi.testing.asterisk import Originated
from fastagi.testing.sip import Digits, Wait
from fastagi.testing.sound import load, rms, share_found, speech
from support.recorder_calls import of_call
from support.recorder_harness import Scene, recording_scene

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="module")]

SHIPPED = Path(__file__).parents[2] / "dialplan"
INCLUDED = [SHIPPED / name for name in ("record.conf", "queue.conf", "conference.conf")]

VARIABLES = ("STATE", "CAUSE", "ID", "FILE", "ERROR")

CALLS = """
[note]
; tells the test where the call is, and lets it look
exten => s,1,Set(LOCAL(outcome)=State: ${RECORDING_STATE},Cause: ${RECORDING_CAUSE},Status: ${AGISTATUS})
 same => n,UserEvent(Note,Label: ${ARG1},${outcome},Id: ${RECORDING_ID},File: ${RECORDING_FILE})
 same => n,UserEvent(Fault,Label: ${ARG1},Text: ${FILTER(a-zA-Z0-9=_ ,${RECORDING_ERROR})})
 same => n,Return()

[calls]
exten => road,1,Answer()
 same => n,Gosub(sub-record-start,s,1(calls/{date:%Y}/${UNIQUEID},file_format=ulaw,rate=8000))
 same => n,Gosub(note,s,1(started))
 same => n,Gosub(sub-record-status,s,1)
 same => n,Gosub(note,s,1(status))
 same => n,Gosub(sub-record-wait,s,1(1))
 same => n,Gosub(note,s,1(waited))
 same => n,Gosub(sub-record-pause,s,1)
 same => n,Gosub(note,s,1(paused))
 same => n,Gosub(sub-record-resume,s,1)
 same => n,Gosub(note,s,1(resumed))
 same => n,Gosub(sub-record-stop,s,1)
 same => n,Gosub(note,s,1(stopped))
 same => n,Gosub(sub-record-start,s,1)
 same => n,Gosub(note,s,1(unnamed))
 same => n,Gosub(sub-record-stop,s,1)
 same => n,Gosub(note,s,1(end))
 same => n,Wait(60)
exten => whole,1,Answer()
 same => n,Gosub(sub-record-whole-call,s,1(whole/${UNIQUEID}))
 same => n,Gosub(note,s,1(started))
 same => n,Wait(60)
exten => unanswered,1,Gosub(sub-record-start,s,1(x))
 same => n,Gosub(note,s,1(refused))
 same => n,Wait(60)
exten => blocks,1,Answer()
 same => n,AGI(${FASTAGI}/record,filename=blocks/${UNIQUEID},seconds_timeout=0.5,file_format=s16bit)
 same => n,Gosub(note,s,1(record))
 same => n,AGI(${FASTAGI}/record/start?filename=query%2F${UNIQUEID}&recording_mode=separate&dtmf_elim=no)
 same => n,Gosub(note,s,1(query))
 same => n,AGI(${FASTAGI}/record/start,recorder=second,filename=second/${UNIQUEID})
 same => n,Gosub(note,s,1(second))
 same => n,AGI(${FASTAGI}/record/stop,recorder=second)
 same => n,Gosub(note,s,1(second-stopped))
 same => n,AGI(${FASTAGI}/record/stop)
 same => n,Gosub(note,s,1(stopped))
 same => n,Wait(60)
exten => wrong,1,Answer()
 same => n,AGI(${FASTAGI}/record/start,filname=x)
 same => n,Gosub(note,s,1(unknown))
 same => n,AGI(${FASTAGI}/record/start,max_bytes=many)
 same => n,Gosub(note,s,1(value))
 same => n,AGI(${FASTAGI}/record,file_format=g729)
 same => n,Gosub(note,s,1(format))
 same => n,AGI(${FASTAGI}/record/start,filename=../../etc/passwd)
 same => n,Gosub(note,s,1(path))
 same => n,AGI(${FASTAGI}/record/start,calls/1)
 same => n,Gosub(note,s,1(positional))
 same => n,AGI(${FASTAGI}/record/stop,now=yes)
 same => n,Gosub(note,s,1(stop))
 same => n,AGI(${FASTAGI}/record/pause)
 same => n,Gosub(note,s,1(pause))
 same => n,AGI(${FASTAGI}/recrod/start)
 same => n,Gosub(note,s,1(route))
 same => n,Gosub(sub-record-start,s,1(fine/{extension}-{linkedid}))
 same => n,Gosub(note,s,1(fine))
 same => n,AGI(${FASTAGI}/record/start,filename=twice)
 same => n,Gosub(note,s,1(twice))
 same => n,Wait(60)
exten => feature,1,Answer()
 same => n,Set(DYNAMIC_FEATURES=record-caller#pause-caller)
 same => n,Dial(PJSIP/agent1,20,b(sub-record-callee^s^1(record-callee#pause-callee)))

[from-sipp]
include => calls
include => recorded-calls
"""


class Site:
    def __init__(self, pbx: AsteriskServer, scene: Scene, ami: AmiSession) -> None:
        self.pbx, self.scene, self.ami = pbx, scene, ami

    async def call(self, place: str) -> Originated:
        """A Local channel; its ``;2`` half (`other_uniqueid`) runs the dialplan."""
        return await self.pbx.originate(f"Local/{place}/n")

    async def note(self, label: str, uniqueid: str = "") -> dict[str, str]:
        event = await self.ami.wait_event("UserEvent", lambda e: self._is(e, "Note", label, uniqueid))
        fault = await self.ami.wait_event("UserEvent", lambda e: self._is(e, "Fault", label, uniqueid))
        return {**event, "Error": fault.get("Text", "")}

    async def notes(self, uniqueid: str, *labels: str) -> list[tuple[str, str]]:
        return [(n["State"], n["Cause"]) for n in [await self.note(label, uniqueid) for label in labels]]

    @staticmethod
    def _is(event: dict[str, str], name: str, label: str, uniqueid: str) -> bool:
        return (event["UserEvent"], event.get("Label")) == (name, label) and uniqueid in ("", event["Uniqueid"])

    async def told(self, uniqueid: str, count: int = 1) -> Any:
        await self.scene.until(lambda: len(of_call(self.scene, uniqueid)) >= count, 30)
        return of_call(self.scene, uniqueid)

    async def recording(self, folder: str) -> Any:
        """The running recording whose file lies there."""

        def found() -> list[Any]:
            return [
                j
                for j in self.scene.recorder.parts.context.jobs
                if f"/{folder}/" in j.recording.file_path and j.started
            ]

        await self.scene.until(found)
        return found()[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[22, 16], ids=["asterisk22", "asterisk16"])
async def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    queues = "".join(
        f"[{name}]\nstrategy = ringall\nmember => PJSIP/agent1\n{more}\n"
        for name, more in (("sales", ""), ("support", "membergosub = sub-queue-answered"))
    )
    extra = {"custom/features.conf": SHIPPED / "features.conf", "custom/queues.conf": queues}
    async with AsteriskServer(request.param, dialplan=[*INCLUDED, CALLS], extra_files=extra) as pbx:
        folder = tmp_path_factory.mktemp("dialplan")
        async with recording_scene(pbx, folder, agi={"port": pbx.agi_port}) as scene, pbx.ami() as ami:
            yield Site(pbx, scene, ami)


@pytest.fixture
async def agent(site: Site, tmp_path: Path) -> AsyncIterator[SippAgent]:
    audio = speech(tmp_path / "agent.wav", 6, 2)
    async with SippAgent(site.pbx.agent_ports["agent1"], audio=audio, loop=True) as agent:
        yield agent


async def press(site: Site, code: str) -> None:
    """The agent presses these keys."""
    book = site.scene.app.parts.pbxs["pbx"].channels
    agent = next(c for c in book if c.name.startswith("PJSIP/agent1") and c.bridge)
    for digit in code:
        done = await site.ami.action("PlayDTMF", Channel=agent.name, Digit=digit, Receive="true", Duration="100")
        assert done["Response"] == "Success", done
        await asyncio.sleep(0.2)


async def test_the_subroutines_from_start_to_stop(site: Site) -> None:
    call = await site.call("road@calls")
    assert await site.notes(
        call.other_uniqueid, "started", "status", "waited", "paused", "resumed", "stopped", "unnamed", "end"
    ) == [
        ("RECORDING", "NONE"), ("RECORDING", "NONE"), ("RECORDING", "NONE"), ("RECORDING", "NONE"),
        ("RECORDING", "NONE"), ("IDLE", "ABORTED"), ("RECORDING", "NONE"), ("IDLE", "ABORTED"),
    ]  # fmt: skip
    started, unnamed = await site.note("started", call.other_uniqueid), await site.note("unnamed", call.other_uniqueid)
    assert started["Error"] == ""
    first, second = await site.told(call.other_uniqueid, 2)
    assert (first.extra["recording_id"], first.file_path) == (started["Id"], started["File"])
    assert first.file_path.endswith(f"/{call.other_uniqueid}.wav")
    assert first.extra["file_format"] == "ulaw"
    assert len(first.extra["paused"]) == 1
    assert second.name == second.extra["recording_id"] == unnamed["Id"]


async def test_the_hangup_handler_gives_hangup_and_waits_for_the_file(site: Site) -> None:
    call = await site.call("whole@calls")
    started = await site.note("started", call.other_uniqueid)
    assert started["State"] == "RECORDING"
    await site.ami.action("Hangup", Channel=call.channel)
    await site.ami.wait_event("Hangup", lambda e: e["Uniqueid"] == call.other_uniqueid)
    # the handler has held the channel until the file was there: no waiting here
    (recording,) = [r for r in [await site.scene.recorder.remembered(("pbx", call.other_uniqueid, ""))] if r]
    assert (recording.state, recording.cause.value) == (State.IDLE, "HANGUP")
    assert recording.id == started["Id"]
    (told,) = await site.told(call.other_uniqueid)
    assert told.extra["cause"] == "HANGUP"


async def test_an_unanswered_call_is_told(site: Site) -> None:
    await site.pbx.originate("Local/unanswered@calls/n", wait=False)
    note = await site.note("refused")
    assert (note["State"], note["Cause"], note["Id"]) == ("ERROR", "ERROR", "")
    assert "not answered" in note["Error"]
    await site.pbx.cli("channel request hangup all")


async def test_arguments_by_comma_and_by_query(site: Site) -> None:
    call = await site.call("blocks@calls")
    assert await site.notes(
        call.other_uniqueid, "record", "query", "second", "second-stopped", "stopped"
    ) == [
        ("IDLE", "TIMEOUT"), ("RECORDING", "NONE"), ("RECORDING", "NONE"), ("IDLE", "ABORTED"), ("IDLE", "ABORTED"),
    ]  # fmt: skip
    timed, second, query = await site.told(call.other_uniqueid, 3)
    assert timed.extra["file_format"] == "s16bit"
    assert timed.extra["audio_seconds"] <= 0.6
    assert second.extra["recorder"] == "second"
    assert query.file_path.endswith(f"/query/{call.other_uniqueid}.wav")
    assert query.extra["mode"] == "separate"


async def test_what_is_wrong_is_said_and_the_call_goes_on(site: Site) -> None:
    with structlog.testing.capture_logs() as logs:
        call = await site.call("wrong@calls")
        await site.note("twice", call.other_uniqueid)
    for label, words in (
        ("unknown", "filname is no argument"), ("value", "max_bytes=many"), ("format", "file_format=g729"),
        ("path", "leaves the recordings directory"), ("positional", "calls1 is no argument"),
    ):  # fmt: skip
        note = await site.note(label, call.other_uniqueid)
        assert words in note["Error"], note
        assert (note["State"], note["Cause"], note["Status"]) == ("ERROR", "ERROR", "SUCCESS")
    for label, words in (("stop", "now is no argument"), ("pause", "no recording")):
        note = await site.note(label, call.other_uniqueid)
        assert (note["State"], note["Cause"]) == ("IDLE", "NONE")
        assert words in note["Error"]
    assert (await site.note("route", call.other_uniqueid))["Status"] == "FAILURE"
    fine = await site.note("fine", call.other_uniqueid)
    assert (fine["State"], Path(fine["File"]).name) == ("RECORDING", f"wrong-{call.uniqueid}.wav")
    twice = await site.note("twice", call.other_uniqueid)
    assert (twice["State"], twice["Cause"], twice["Id"], twice["File"]) == ("ERROR", "ERROR", "", "")
    assert "recorded already" in twice["Error"]
    assert len([e for e in logs if e["event"] == "record_refused"]) == 8
    (unknown,) = [e for e in logs if e["event"] == "route_unknown"]
    assert unknown["route"] == "recrod/start"
    assert "record/start" in unknown["known"]
    await site.ami.action("Hangup", Channel=call.channel)
    await site.told(call.other_uniqueid)


@pytest.mark.parametrize("presses", ["caller", "callee"])
async def test_one_touch_codes_record_and_pause_a_call_between_two(
    site: Site, agent: SippAgent, tmp_path: Path, presses: str
) -> None:
    said = speech(tmp_path / "caller.wav", 6, 1)
    book = site.scene.app.parts.pbxs["pbx"].channels
    codes = ("*5", "*6", "*6", "*5")
    gaps = (0.8, 0.7, 0.8, 60)

    steps: list[Any] = [Wait(0.4)]
    for code, gap in zip(codes, gaps, strict=True):
        steps += [Digits(code), Wait(gap)] if presses == "caller" else []
    caller = f"touch{presses}"
    async with SippCall(
        site.pbx.sip_port, "feature", audio=said, loop=True, steps=[*steps, Wait(60)], caller=caller
    ) as call:
        await call.answered()
        await agent.answered()
        await site.scene.until(lambda: any(c.caller == caller and c.bridge for c in book))
        uniqueid = next(c.uniqueid for c in book if c.caller == caller and c.name.startswith("PJSIP/sipp"))
        if presses == "callee":
            for code, gap in zip(codes, (*gaps[:3], 0), strict=True):
                await press(site, code)
                await asyncio.sleep(gap)
        (told,) = await site.told(uniqueid)
        await site.pbx.cli("channel request hangup all")  # who is killed says no BYE
        await site.scene.until(lambda: len(book) == 0)
    assert told.extra["cause"] == "ABORTED"  # it was stopped by the last code, the call was still up
    assert told.extra["channel"].startswith("PJSIP/sipp")
    ((begin, end),) = told.extra["paused"]
    heard = load(Path(told.file_path))
    assert share_found(heard, load(said)[: 5 * 8000]) > 0.1
    assert rms(heard[int((begin + 0.2) * 8000) : int((end - 0.2) * 8000)]) < 0.002
    assert rms(heard[: int(begin * 8000)]) > 0.01
    assert rms(heard[int((end + 0.2) * 8000) :]) > 0.01


async def test_a_queue_call_is_recorded_whole(site: Site, agent: SippAgent) -> None:
    call = await site.call("sales@queue-recorded")
    await agent.answered()
    job = await site.recording("queue/sales")
    assert (job.recording.uniqueid, job.recording.called) == (call.other_uniqueid, "sales")
    # the agent has the code, and what he pauses is the caller's recording
    book = site.scene.app.parts.pbxs["pbx"].channels
    await site.scene.until(lambda: any(c.name.startswith("PJSIP/agent1") and c.bridge for c in book))
    await press(site, "*6")
    await site.scene.until(lambda: job.phase is Phase.PAUSED)
    await site.ami.action("Hangup", Channel=call.channel)
    (told,) = await site.told(call.other_uniqueid)
    assert told.extra["cause"] == "HANGUP"
    assert len(told.extra["paused"]) == 1
    (taken_by,) = told.extra["talked_with"]  # found again by who took it
    assert taken_by.startswith("PJSIP/agent1-")


async def test_a_queues_talk_is_recorded_on_the_agents_channel(site: Site, agent: SippAgent) -> None:
    call = await site.pbx.originate("Local/support@queue-recorded-talk/n", caller_id="<02215551234>")
    await agent.answered()
    job = await site.recording("talk")
    assert job.recording.channel.startswith("PJSIP/agent1-")
    book = site.scene.app.parts.pbxs["pbx"].channels
    await site.scene.until(lambda: any(c.uniqueid == job.recording.uniqueid and c.bridge for c in book))
    await site.ami.action("Hangup", Channel=call.channel)
    (told,) = await site.told(job.recording.uniqueid)
    assert told.extra["cause"] == "HANGUP"
    # who called, not for which number the agent was rung
    assert told.extra["caller"] == "02215551234"
    assert [name.partition("/")[0] for name in told.extra["talked_with"]] == ["Local"]


async def test_a_conference_is_one_file_until_the_last_has_left(site: Site) -> None:
    calls = [await site.call("room1@conference-recorded")]
    job = await site.recording("conference/room1")
    assert "@conference-guest" in job.recording.channel
    calls.append(await site.call("room1@conference-recorded"))
    await site.ami.wait_event("ConfbridgeJoin", lambda e: e["Uniqueid"] == calls[1].other_uniqueid)
    await site.ami.action("Hangup", Channel=calls[0].channel)
    await site.ami.wait_event("Hangup", lambda e: e["Uniqueid"] == calls[0].other_uniqueid)
    assert job.recording.state is State.RECORDING
    assert len([j for j in site.scene.recorder.parts.context.jobs if "/conference/" in j.recording.file_path]) == 1
    await site.ami.action("Hangup", Channel=calls[1].channel)
    (told,) = await site.told(job.recording.uniqueid)
    assert told.extra["cause"] == "HANGUP"


async def test_each_in_a_conference_has_a_file(site: Site) -> None:
    calls = [await site.call("room2@conference-each-recorded") for _ in range(2)]
    for call in calls:
        await site.ami.wait_event("ConfbridgeJoin", lambda e, u=call.other_uniqueid: e["Uniqueid"] == u)
        await site.ami.action("Hangup", Channel=call.channel)
    for call in calls:
        (told,) = await site.told(call.other_uniqueid)
        assert (told.extra["cause"], told.extra["mode"]) == ("HANGUP", "separate")
        assert told.file_path.endswith(f"conference/room2/{call.other_uniqueid}.wav")


async def test_the_starting_dialplan_records_a_dialled_call(tmp_path: Path) -> None:
    """extensions.conf stands alone; only the server's address is told, as its comment says."""
    extra = {"extensions.conf": f'#include "{SHIPPED / "extensions.conf"}"\n'}
    async with AsteriskServer(22, extra_files=extra) as pbx, contextlib.AsyncExitStack() as stack:
        scene = await stack.enter_async_context(recording_scene(pbx, tmp_path, agi={"port": pbx.agi_port}))
        await pbx.cli(f"dialplan set global FASTAGI agi://127.0.0.1:{pbx.agi_port}")
        call = await pbx.originate("Local/4711@recorded-calls/n", wait=False)
        (told,) = await scene.delivered(1)  # nobody has 4711: the call ends, and so does its recording
        assert (told.session_id, told.extra["cause"]) == (call.other_uniqueid, "HANGUP")
        assert told.extra["called"] == "4711"


class ShippedUser(AsteriskServer):
    """The manager user `fastagi` is the shipped file's own here; the test's is called otherwise."""

    ami_user = "testing"


@pytest.mark.parametrize("version", [22, 16])
async def test_the_shipped_manager_users_rights_are_enough_for_the_recorder(version: int, tmp_path: Path) -> None:
    user = {"username": "fastagi", "secret": "change-me"}
    async with (
        ShippedUser(version, extra_files={"custom/manager.conf": SHIPPED / "manager.conf"}) as pbx,
        recording_scene(pbx, tmp_path, asterisk=user) as scene,
    ):

        async def handler(call: Any) -> None:
            rec = call.WholeCallRecorder
            assert await rec.start("least")
            assert await rec.pause()
            assert await rec.resume()
            assert await rec.stop()
            assert await rec.start("least")

        scene.app.route("least")(handler)
        await scene.call("least")
        assert [m.extra["cause"] for m in await scene.delivered(2)] == ["ABORTED", "HANGUP"]
        assert [x for x in pbx.complaints() if "manager" in x.lower()] == []


async def test_a_blocking_record_names_its_recording_while_it_runs(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    async with recording_scene(asterisk22, tmp_path) as scene, asterisk22.ami() as ami:
        call = await scene.call("record", " filename=while/it/runs", "dtmf_elim=no")
        await scene.until(lambda: scene.recorder.last(("pbx", call.uniqueid, "")))
        for _ in range(100):
            if await ami.getvar("RECORDING_CAUSE", call.channel):  # the last but one that is set
                break
            await asyncio.sleep(0.05)
        values = {n: await ami.getvar(f"RECORDING_{n}", call.channel) for n in ("ID", "FILE", "STATE", "CAUSE")}
        assert values["ID"].startswith("rec-")
        assert values["FILE"].endswith("/while/it/runs.wav")
        assert (values["STATE"], values["CAUSE"]) == ("RECORDING", "NONE")


async def test_arguments_that_mean_nothing_to_a_route_are_refused(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    async with recording_scene(asterisk22, tmp_path) as scene:
        said = {}
        for route in ("stop", "status", "pause", "resume", "wait"):
            with structlog.testing.capture_logs() as logs:
                await scene.call(f"record/{route}", "filename=x")
                await scene.until(lambda logs=logs: [e for e in logs if e["event"] == "record_refused"])
            said[route] = next(e["error"] for e in logs if e["event"] == "record_refused")
        assert said["stop"] == said["status"] == "filename is no argument here: there are recorder, asterisk"
        assert said["pause"] == "filename is no argument here: there are seconds, recorder, asterisk"
        assert said["wait"] == "filename is no argument here: there are seconds_timeout, recorder, asterisk"
