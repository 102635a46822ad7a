"""The files in dialplan/ as they are shipped, on both Asterisks, against a server that only notes what it is asked.

That the recorder does what they ask for is shown where the recorder is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fastagi.testing import AmiSession, AsteriskServer, SippAgent, SippCall
from fastagi.testing.sip import Digits, Wait

pytestmark = pytest.mark.asterisk

SHIPPED = Path(__file__).parents[2] / "dialplan"
INCLUDED = [SHIPPED / name for name in ("record.conf", "queue.conf", "conference.conf")]

CALLS = """
[from-sipp]
exten => start,1,Answer()
 same => n,Gosub(sub-record-start,s,1(calls/{date:%Y/%m/%d}/${UNIQUEID},file_format=ulaw,rate=8000))
 same => n,Set(GLOBAL(OUTCOME)=${RECORDING_STATE}|${RECORDING_ID}|${RECORDING_ERROR})
 same => n,Wait(60)
exten => plain,1,Answer()
 same => n,Gosub(sub-record-start,s,1)
 same => n,Gosub(sub-record-pause,s,1)
 same => n,Gosub(sub-record-resume,s,1)
 same => n,Gosub(sub-record-status,s,1)
 same => n,Gosub(sub-record-wait,s,1(7))
 same => n,Gosub(sub-record-wait,s,1)
 same => n,Gosub(sub-record-stop,s,1)
 same => n,Gosub(sub-record-start,s,1(,max_bytes=9))
 same => n,Set(GLOBAL(OUTCOME)=through)
 same => n,Wait(60)
exten => whole,1,Answer()
 same => n,Gosub(sub-record-whole-call,s,1(x))
 same => n,Wait(60)
exten => nowhere,1,Answer()
 same => n,Set(FASTAGI=agi://127.0.0.1:1)
 same => n,Gosub(sub-record-start,s,1(x))
 same => n,Set(GLOBAL(OUTCOME)=${RECORDING_STATE}|${RECORDING_CAUSE}|${RECORDING_ERROR})
 same => n,Wait(60)
exten => feature,1,Answer()
 same => n,Set(DYNAMIC_FEATURES=record-caller#pause-caller)
 same => n,Dial(PJSIP/agent1,20,b(sub-record-callee^s^1(record-callee#pause-callee)))
"""


@dataclass
class Asked:
    """One AGI session: route, arguments, channel."""

    route: str
    args: list[str] = field(default_factory=list)
    channel: str = ""


class NotingServer:
    """Answers every route by setting the five variables as the real one does."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.recording: set[str] = set()
        self.news = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = Asked("")
        while line := (await reader.readline()).decode().rstrip("\n"):
            key, _, value = line.partition(": ")
            if key == "agi_network_script":
                asked.route = value
            elif key == "agi_channel":
                asked.channel = value
            elif key.startswith("agi_arg_"):
                asked.args.append(value)
        if asked.route == "record/start":
            self.recording.add(asked.channel)
        elif asked.route == "record/stop":
            self.recording.discard(asked.channel)
        state = "RECORDING" if asked.channel in self.recording else "IDLE"
        for name, value in (("STATE", state), ("ID", "rec-1"), ("ERROR", "")):
            writer.write(f'SET VARIABLE RECORDING_{name} "{value}"\n'.encode())
            while (await reader.readline()).startswith(b"HANGUP"):
                pass
        self.asked.append(asked)
        self.news.set()
        writer.close()

    async def routes(self, count: int) -> list[str]:
        """The first `count` routes, once they have been asked for."""
        async with asyncio.timeout(30):
            while len(self.asked) < count:
                self.news.clear()
                await self.news.wait()
        return [a.route for a in self.asked]


@dataclass
class Site:
    pbx: AsteriskServer
    server: NotingServer
    ami: AmiSession
    expected_complaints: int = 0

    async def outcome(self) -> str:
        return (await self.ami.wait_event("VarSet", lambda e: "OUTCOME" in e["Variable"]))["Value"]

    async def call(self, exten: str) -> str:
        return (await self.pbx.originate(f"Local/{exten}@from-sipp/n")).channel


@pytest.fixture(params=[22, 16], ids=["asterisk22", "asterisk16"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    queue = "".join(
        f"[{name}]\nstrategy = ringall\nmember => PJSIP/agent1\n{more}\n"
        for name, more in (("sales", ""), ("support", "membergosub = sub-queue-answered"))
    )
    extra = {"custom/features.conf": SHIPPED / "features.conf", "custom/queues.conf": queue}
    server = NotingServer()
    async with AsteriskServer(request.param, dialplan=[*INCLUDED, CALLS], extra_files=extra) as pbx:
        agi = await asyncio.start_server(server, "127.0.0.1", pbx.agi_port)
        async with pbx.ami() as ami:
            site = Site(pbx, server, ami)
            yield site
        agi.close()
        assert len(pbx.complaints()) == site.expected_complaints, pbx.complaints()


async def test_everything_loads(site: Site) -> None:
    for context in ("sub-record-start", "sub-record-whole-call", "sub-record-stop", "sub-record-wait", "hdlr-record",
                    "sub-record-pause", "sub-record-resume", "sub-record-status", "sub-record-toggle",
                    "sub-record-pause-toggle", "queue-recorded", "queue-recorded-talk", "conference-recorded",
                    "conference-guest", "conference-each-recorded"):  # fmt: skip
        assert f"Context '{context}'" in await site.pbx.cli(f"dialplan show {context}")
    features = await site.pbx.cli("features show")
    for name, digits in (
        ("record-callee", "*5"),
        ("record-caller", "*5"),
        ("pause-callee", "*6"),
        ("pause-caller", "*6"),
    ):
        assert any(line.split()[:1] == [name] and digits in line for line in features.splitlines())


async def test_start_hands_on_its_options_and_the_outcome_comes_back(site: Site) -> None:
    await site.call("start")
    assert await site.outcome() == "RECORDING|rec-1|"
    asked = site.server.asked[0]
    assert asked.route == "record/start"
    assert asked.args[0].startswith("filename=calls/{date:%Y/%m/%d}/1")
    assert asked.args[1:] == ["file_format=ulaw", "rate=8000"]


async def test_each_subroutine_asks_its_route_and_returns(site: Site) -> None:
    await site.call("plain")
    assert await site.outcome() == "through"
    assert [(a.route.removeprefix("record/"), a.args) for a in site.server.asked] == [
        ("start", []), ("pause", []), ("resume", []), ("status", []), ("wait", ["seconds_timeout=7"]),
        ("wait", ["seconds_timeout=120"]), ("stop", []), ("start", ["max_bytes=9"]),
    ]  # fmt: skip


async def test_the_hangup_handler_stops_before_the_channel_is_gone(site: Site) -> None:
    channel = await site.call("whole")
    assert await site.server.routes(1) == ["record/start"]
    other = channel[:-1] + "2"
    await site.ami.action("Hangup", Channel=other)
    await site.ami.wait_event("Hangup", lambda e: e["Channel"] == other)
    # the handler's session is over when the Hangup event is out: no waiting here
    assert [(a.route, a.channel) for a in site.server.asked] == [("record/start", other), ("record/stop", other)]


async def test_a_server_that_is_not_there_does_not_hold_the_call(site: Site) -> None:
    site.expected_complaints = 2
    await site.call("nowhere")
    outcome = await site.outcome()
    assert outcome == "ERROR|ERROR|no recording server at agi://127.0.0.1:1 (AGISTATUS FAILURE)"


async def test_one_touch_codes_always_mean_the_callers_channel(site: Site) -> None:
    steps = [
        Wait(0.5),
        Digits("*5"),
        Wait(1.5),
        Digits("*6"),
        Wait(1.5),
        Digits("*6"),
        Wait(1.5),
        Digits("*5"),
        Wait(2),
    ]
    async with SippAgent(site.pbx.agent_ports["agent1"]), SippCall(site.pbx.sip_port, "feature", steps=steps) as call:
        await call.wait()
    assert [a.route.removeprefix("record/") for a in site.server.asked] == [
        "status", "start", "pause", "resume", "status", "stop",
    ]  # fmt: skip
    assert {a.channel.split("-")[0] for a in site.server.asked} == {"PJSIP/sipp"}
    assert site.server.asked[1].args == ["filename={date:%Y/%m/%d}/{uniqueid}", "mid_call=yes"]


@pytest.mark.parametrize(
    ("called", "channel", "folder"),
    [("sales@queue-recorded", "Local/sales@", "queue/sales"), ("support@queue-recorded-talk", "PJSIP/agent1-", "talk")],
)
async def test_queue_records_the_caller_or_the_talk(site: Site, called: str, channel: str, folder: str) -> None:
    async with SippAgent(site.pbx.agent_ports["agent1"]) as agent:
        made = await site.pbx.originate(f"Local/{called}/n")
        await agent.answered()
        assert (await site.server.routes(1)) == ["record/start"]
        asked = site.server.asked[0]
        assert asked.channel.startswith(channel)
        assert asked.args == [f"filename={folder}/{{date:%Y/%m/%d}}/{{uniqueid}}"]
        await site.ami.action("Hangup", Channel=made.channel)
        await site.ami.wait_event("Hangup", lambda e: e["Uniqueid"] == made.other_uniqueid)


async def test_conference_brings_one_guest_who_leaves_with_the_last(site: Site) -> None:
    first = await site.pbx.originate("Local/room1@conference-recorded/n")
    assert await site.server.routes(1) == ["record/start"]
    guest = site.server.asked[0]
    assert "@conference-guest" in guest.channel
    assert guest.args == ["filename=conference/room1/{date:%Y/%m/%d}/{uniqueid}"]
    await site.ami.wait_event("ConfbridgeJoin", lambda e: e["Channel"] == guest.channel)
    second = await site.pbx.originate("Local/room1@conference-recorded/n")
    await site.ami.wait_event("ConfbridgeJoin", lambda e: e["Uniqueid"] == second.other_uniqueid)
    await site.ami.action("Hangup", Channel=first.channel)
    await site.ami.wait_event("Hangup", lambda e: e["Uniqueid"] == first.other_uniqueid)
    assert guest.channel in {row["Channel"] for row in await site.ami.listing("CoreShowChannels")}
    await site.ami.action("Hangup", Channel=second.channel)
    await site.ami.wait_event("Hangup", lambda e: e["Channel"] == guest.channel)
    assert await site.server.routes(2) == ["record/start", "record/stop"]


async def test_conference_records_each(site: Site) -> None:
    made = await site.pbx.originate("Local/room1@conference-each-recorded/n")
    await site.ami.wait_event("ConfbridgeJoin", lambda e: e["Uniqueid"] == made.other_uniqueid)
    assert site.server.asked[0].args == ["filename=conference/room1/{uniqueid}", "recording_mode=separate"]


PROBE = ("Answer()", "Gosub(sub-record-status,s,1)", "Set(GLOBAL(OUTCOME)=${FASTAGI})", "Wait(60)")


@pytest.mark.parametrize("version", [22, 16])
async def test_default_server_address(version: int) -> None:
    """FASTAGI is not set anywhere: the default address is asked, by the subroutines and by the starting dialplan."""
    shipped = "".join(f'#include "{SHIPPED / name}"\n' for name in ("record.conf", "extensions.conf"))
    async with AsteriskServer(version, extra_files={"extensions.conf": shipped}) as pbx, pbx.ami() as ami:
        for priority, application in enumerate(PROBE, 1):
            await pbx.cli(f"dialplan add extension s,{priority},{application} into probe")
        assert pbx.complaints() == []
        await pbx.originate("Local/s@probe/n")
        done = await ami.wait_event("VarSet", lambda e: "OUTCOME" in e["Variable"])
        assert done["Value"] == "agi://127.0.0.1:4573"
        call = await pbx.originate("Local/4711@recorded-calls/n", wait=False)
        own = {"Variable": "FASTAGI", "Uniqueid": call.other_uniqueid}
        done = await ami.wait_event("VarSet", lambda e: own.items() <= e.items())
        assert done["Value"] == "agi://127.0.0.1:4573"


class ShippedUser(AsteriskServer):
    """The manager user `fastagi` is the shipped file's own here; the test's is called otherwise."""

    ami_user = "testing"


@pytest.mark.parametrize("version", [22, 16])
async def test_the_manager_users_rights_are_enough_and_no_more(version: int) -> None:
    async with ShippedUser(version, extra_files={"custom/manager.conf": SHIPPED / "manager.conf"}) as pbx:
        made = await pbx.originate("Local/prompt@fastagi-testing/n")
        async with AmiSession(pbx.ami_host, pbx.ami_port, "fastagi", "change-me") as ami:
            for name in ("MixMonitor.*", "Hangup", "UserEvent"):
                assert (await ami.action("Filter", Operation="Add", Filter=f"Event: {name}"))["Response"] == "Success"
            await ami.action("MixMonitor", Channel=made.channel, File="least.wav", Options="i(X)")
            await ami.wait_event("MixMonitorStart")
            assert (await ami.command(f"mixmonitor list {made.channel}")).startswith("MixMonitor ID")
            assert await ami.getvar("X", made.channel) != ""
            allowed = [
                ("MixMonitorMute", {"Direction": "both", "State": "1"}), ("StopMixMonitor", {}),
                ("Setvar", {"Variable": "TALK_DETECT(set)", "Value": "1500,256"}),
                ("Getvar", {"Variable": "CHANNEL(linkedid)"}), ("CoreSettings", {}), ("CoreShowChannels", {}),
                ("Status", {}), ("UserEvent", {"UserEvent": "FastAGIRecording"}), ("Ping", {}),
            ]  # fmt: skip
            if version == 16:
                allowed += [(name, {}) for name in ("Monitor", "PauseMonitor", "UnpauseMonitor", "StopMonitor")]
            for name, headers in allowed:
                answer = await ami.action(name, headers, Channel=made.channel)
                assert answer["Response"] == "Success", (name, answer)
            await ami.wait_event("MixMonitorStop")
            await ami.wait_event("UserEvent")
            for name in ("Originate", "UpdateConfig"):
                answer = await ami.action(name, Channel="Local/tone@fastagi-testing/n", SrcFilename="manager.conf")
                assert answer["Message"] == "Permission denied", (name, answer)
        assert pbx.complaints() == []
