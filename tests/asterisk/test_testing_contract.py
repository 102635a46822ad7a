"""One suite for the real Asterisk and for the one that is played: what a recorder relies on, word for word."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastagi.testing import AmiSession, AsteriskServer, ScriptedAgi, ScriptedAmi
from fastagi.testing.fake_calls import STEP
from fastagi.testing.sound import load, rms

pytestmark = pytest.mark.asterisk

CHANNEL_KEYS = [
    "Channel", "ChannelState", "ChannelStateDesc", "CallerIDNum", "CallerIDName", "ConnectedLineNum",
    "ConnectedLineName", "Language", "AccountCode", "Context", "Exten", "Priority", "Uniqueid", "Linkedid",
]  # fmt: skip


class Pbx:
    """A real or a played Asterisk with one manager connection, and calls in which one side is heard."""

    def __init__(self, ami: AmiSession, spool: Path, major: int, real: AsteriskServer | None, fake: ScriptedAmi | None):
        self.ami, self.spool, self.major = ami, spool, major
        self._real, self._fake = real, fake
        self._made: list[str] = []

    async def call(self) -> str:
        """The name of an answered channel that is spoken on, and to which nothing is sent."""
        if self._fake is not None:
            channel = self._fake.call()
            channel.sent = None
            name = channel.name
        else:
            assert self._real is not None
            name = (await self._real.originate("Local/prompt@fastagi-testing/n")).channel
        self._made.append(name)
        return name

    async def listed(self, channel: str, row: str) -> bool:
        """Whether `mixmonitor list` comes to show this row: a file's name is there once its thread opened it."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            listing = (await self.ami.command(f"mixmonitor list {channel}")).split("\n")
            assert listing[0] == "MixMonitor ID\tFile\tReceive File\tTransmit File"
            if listing[2:] == [row]:
                return True
            await asyncio.sleep(0.02)
        return False

    async def clear(self) -> None:
        for name in self._made:
            with contextlib.suppress(ConnectionError):
                await self.ami.action("Hangup", Channel=name)


@pytest.fixture(params=["scripted22", "real22", "scripted16", "real16"])
async def pbx(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pbx]:
    major = int(request.param[-2:])
    if request.param.startswith("real"):
        real: AsteriskServer = request.getfixturevalue(f"asterisk{major}")
        async with real.ami() as ami:
            pbx = Pbx(ami, real.spool, major, real, None)
            yield pbx
            await pbx.clear()
    else:
        async with (
            ScriptedAmi(spool=tmp_path, major=major) as fake,
            AmiSession(fake.host, fake.port, fake.user, fake.secret) as ami,
        ):
            yield Pbx(ami, tmp_path, major, None, fake)


def sizes(path: Path) -> tuple[int, int]:
    """Bytes of audio that there are, and that the header says there are."""
    data = path.read_bytes()
    return len(data) - 44, struct.unpack("<I", data[40:44])[0]


async def until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        await asyncio.sleep(0.02)


async def grown(path: Path, to: int = STEP) -> None:
    await until(lambda: path.exists() and path.stat().st_size >= 44 + to)


async def test_banner_login_and_refusal(pbx: Pbx) -> None:
    assert pbx.ami.banner == f"Asterisk Call Manager/{'11.0.0' if pbx.major == 22 else '5.0.4'}"
    host, port = pbx.ami._where
    with pytest.raises(PermissionError, match="Authentication failed"):
        await AmiSession(host, port, "fastagi", "wrong").connect()
    assert (await pbx.ami.wait_event("FullyBooted"))["Status"] == "Fully Booted"


async def test_plain_answers(pbx: Pbx) -> None:
    assert (await pbx.ami.action("Ping")).items() >= {"Response": "Success", "Ping": "Pong"}.items()
    unknown = await pbx.ami.action("Nope")
    assert unknown["Message"] == "Invalid/unknown command: Nope. Use Action: ListCommands to show available commands."
    settings = await pbx.ami.action("CoreSettings")
    assert settings["AsteriskVersion"].startswith(f"{pbx.major}.")
    nothing = await pbx.ami.action("Command", Command="nosuch thing")
    assert nothing["Response"] == "Error"
    assert nothing["Output"].startswith("No such command 'nosuch thing'")
    bad = await pbx.ami.action("Filter", Operation="Add", Filter="(((")
    assert bad["Message"] == "Filter did not compile.  Check the syntax of the filter given."


async def test_filter_keeps_other_events_off_the_wire(pbx: Pbx) -> None:
    for name in ("MixMonitor.*", "Hangup$"):
        assert (await pbx.ami.action("Filter", Operation="Add", Filter=f"Event: {name}"))["Response"] == "Success"
    mark = pbx.ami.seen
    channel = await pbx.call()
    await pbx.ami.action("UserEvent", UserEvent="Unwanted")
    await pbx.ami.action("MixMonitor", Channel=channel, File="filter.wav")
    await pbx.ami.wait_event("MixMonitorStart", since=mark)
    assert {e["Event"] for e in list(pbx.ami.events)[mark:]} == {"MixMonitorStart"}


async def test_mixmonitor_from_start_to_stop(pbx: Pbx) -> None:
    channel = await pbx.call()
    name = f"contract/{channel.replace('/', '_')}.wav"
    path = pbx.spool / name
    started = await pbx.ami.action("MixMonitor", Channel=channel, File=name, Options="i(MMID)")
    assert started["MixMonitorID"].startswith("0x")
    event = await pbx.ami.wait_event("MixMonitorStart", lambda e: e["Channel"] == channel)
    assert [k for k in event if k not in ("Event", "Privilege", "SystemName")] == CHANNEL_KEYS
    await until(path.exists)
    assert await pbx.ami.getvar("MMID", channel) == started["MixMonitorID"]
    assert await pbx.ami.getvar("MIXMONITOR_FILENAME", channel) == str(path)
    assert await pbx.ami.getvar(f"MIXMONITOR({started['MixMonitorID']},filename)", channel) == str(path)
    assert await pbx.listed(channel, f"{started['MixMonitorID']}\t{path.with_suffix('')}\t\t")
    await grown(path)
    assert sizes(path) == (STEP, 0)
    stopped = await pbx.ami.action("StopMixMonitor", Channel=channel, MixMonitorID=started["MixMonitorID"])
    there, said = sizes(path)
    assert stopped["Response"] == "Success"
    assert there == said >= STEP
    await pbx.ami.wait_event("MixMonitorStop", lambda e: e["Channel"] == channel)
    again = await pbx.ami.action("StopMixMonitor", Channel=channel)
    assert again["Message"] == "Could not stop monitoring channel"
    assert rms(load(path)) > 0.01


async def test_hangup_closes_the_file_and_says_no_mixmonitorstop(pbx: Pbx) -> None:
    channel = await pbx.call()
    path = pbx.spool / f"{channel.replace('/', '_')}-hangup.wav"
    await pbx.ami.action("MixMonitor", Channel=channel, File=str(path))
    await grown(path)
    mark = pbx.ami.seen
    assert (await pbx.ami.action("Hangup", Channel=channel))["Message"] == "Channel Hungup"
    hangup = await pbx.ami.wait_event("Hangup", lambda e: e["Channel"] == channel)
    assert [k for k in hangup if k not in ("Event", "Privilege", "SystemName")] == [*CHANNEL_KEYS, "Cause", "Cause-txt"]
    await until(lambda: sizes(path)[1] > 0)
    assert sizes(path)[0] == sizes(path)[1] > STEP
    await pbx.ami.action("Ping")
    assert "MixMonitorStop" not in {e["Event"] for e in list(pbx.ami.events)[mark:]}
    assert (await pbx.ami.action("Hangup", Channel=channel))["Message"] == "No such channel"


async def test_legs_alone_and_in_step(pbx: Pbx) -> None:
    channel = await pbx.call()
    stem = f"{channel.replace('/', '_')}-legs"
    options = f"i(MMID)r({stem}-in.wav)t({stem}-out.wav)S"
    started = await pbx.ami.action("MixMonitor", Channel=channel, File="", Options=options)
    legs = [pbx.spool / f"{stem}-{leg}.wav" for leg in ("in", "out")]
    for leg in legs:
        await grown(leg)
    assert await pbx.ami.getvar("MIXMONITOR_FILENAME", channel) == ""
    row = "\t".join([started["MixMonitorID"], "", *(str(leg.with_suffix("")) for leg in legs)])
    assert await pbx.listed(channel, row)
    await pbx.ami.action("StopMixMonitor", Channel=channel)
    assert sizes(legs[0]) == sizes(legs[1])


async def test_a_file_that_cannot_be_opened_looks_like_a_success(pbx: Pbx) -> None:
    channel = await pbx.call()
    blocked = pbx.spool / f"{channel.replace('/', '_')}-blocked"
    blocked.write_text("a file where a folder should be")
    started = await pbx.ami.action("MixMonitor", Channel=channel, File=f"{blocked}/x.wav", Options="i(MMID)")
    assert started["Response"] == "Success"
    await pbx.ami.wait_event("MixMonitorStart", lambda e: e["Channel"] == channel)
    assert await pbx.listed(channel, f"{started['MixMonitorID']}\t\t\t")


async def test_mute_replaces_sound_by_silence(pbx: Pbx) -> None:
    channel = await pbx.call()
    path = pbx.spool / f"{channel.replace('/', '_')}-mute.wav"
    await pbx.ami.action("MixMonitor", Channel=channel, File=str(path))
    mark = pbx.ami.seen
    assert (await pbx.ami.action("MixMonitorMute", Channel=channel, Direction="both", State="1"))[
        "Response"
    ] == "Success"
    muted = await pbx.ami.wait_event("MixMonitorMute", since=mark)
    assert (muted["Channel"], muted["Direction"], muted["State"]) == (channel, "both", "1")
    await grown(path, 2 * STEP)
    await pbx.ami.action("StopMixMonitor", Channel=channel)
    assert rms(load(path)[8000:]) == 0
    bad = await pbx.ami.action("MixMonitorMute", Channel=channel, Direction="up", State="1")
    assert bad["Message"] == "Invalid direction specified. Must be read, write or both"
    assert (await pbx.ami.action("MixMonitorMute", Channel=channel, Direction="both"))[
        "Message"
    ] == "No state specified"


async def test_mute_without_an_id_takes_all_on_22_and_the_first_on_16(pbx: Pbx) -> None:
    channel = await pbx.call()
    paths = [pbx.spool / f"{channel.replace('/', '_')}-{n}.wav" for n in (1, 2)]
    for path in paths:
        await pbx.ami.action("MixMonitor", Channel=channel, File=str(path))
    await pbx.ami.action("MixMonitorMute", Channel=channel, Direction="both", State="1")
    await grown(paths[1], 2 * STEP)
    for _ in paths:
        await pbx.ami.action("StopMixMonitor", Channel=channel)
    silent = [rms(load(path)[8000:]) == 0 for path in paths]
    assert silent == ([True, True] if pbx.major == 22 else [True, False])


@pytest.mark.parametrize(
    "action", ["MixMonitor", "StopMixMonitor", "MixMonitorMute", "Getvar", "Setvar", "Hangup", "Status"]
)
async def test_unknown_channel(pbx: Pbx, action: str) -> None:
    more = {"Variable": "x", "Value": "y", "Direction": "both", "State": "1", "File": "x.wav"}
    answer = await pbx.ami.action(action, more, Channel="PJSIP/nobody-1")
    assert answer["Response"] == "Error"
    assert answer["Message"] == "No such channel"


async def test_unknown_channel_on_the_command_line(pbx: Pbx) -> None:
    assert await pbx.ami.command("mixmonitor list PJSIP/nobody-1") == "No channel matching 'PJSIP/nobody-1' found."


async def test_variables(pbx: Pbx) -> None:
    channel = await pbx.call()
    answer = await pbx.ami.action("Setvar", Channel=channel, Variable="COLOUR", Value="red")
    assert answer["Message"] == "Variable Set"
    assert await pbx.ami.getvar("COLOUR", channel) == "red"
    assert await pbx.ami.getvar("NOT_SET", channel) == ""
    assert await pbx.ami.getvar("NOT_SET") == ""
    row = next(r for r in await pbx.ami.listing("CoreShowChannels") if r["Channel"] == channel)
    assert await pbx.ami.getvar("CHANNEL(linkedid)", channel) == row["Linkedid"]


async def test_shape_of_coreshowchannels(pbx: Pbx) -> None:
    channel = await pbx.call()
    row = next(r for r in await pbx.ami.listing("CoreShowChannels") if r["Channel"] == channel)
    keys = ["Event", "ActionID", *CHANNEL_KEYS, "Application", "ApplicationData", "Duration", "BridgeId"]
    assert list(row) == keys
    assert (row["ChannelState"], row["ChannelStateDesc"]) == ("6", "Up")
    assert len(row["Duration"].split(":")) == 3


async def test_shape_of_status(pbx: Pbx) -> None:
    channel = await pbx.call()
    for asked in ({"Channel": channel}, {}):
        row = next(r for r in await pbx.ami.listing("Status", asked) if r["Channel"] == channel)
        assert row["Event"] == "Status"
        more = ["Type", "Application", "Data", "Seconds", "BridgeID"]
        assert [k for k in row if k in {*CHANNEL_KEYS, *more}][: len(CHANNEL_KEYS)] == CHANNEL_KEYS
        assert set(more) < set(row)


async def test_modules(pbx: Pbx) -> None:
    for name in ("app_mixmonitor", "res_agi", "func_talkdetect", "app_stack"):
        assert (await pbx.ami.action("ModuleCheck", Module=name))["Response"] == "Success"
    old = await pbx.ami.action("ModuleCheck", Module="res_monitor")
    assert old["Response"] == ("Error" if pbx.major == 22 else "Success")
    assert (await pbx.ami.action("ModuleCheck", Module="nosuch"))["Message"] == "Module not loaded"


async def test_originate_makes_both_halves(pbx: Pbx) -> None:
    mark = pbx.ami.seen
    uniqueid, other = (f"{int(time.time())}.{n}" for n in (990_001, 990_002))
    ids = {"ChannelId": uniqueid, "OtherChannelId": other}
    answer = await pbx.ami.action(
        "Originate", ids, Channel="Local/nothing@fastagi-testing/n", Async="true", Application="Wait", Data="60"
    )
    assert answer["Message"] == "Originate successfully queued"
    done = await pbx.ami.wait_event("OriginateResponse", since=mark)
    assert (done["Response"], done["Uniqueid"], done["Reason"]) == ("Success", uniqueid, "4")
    assert done["Channel"].endswith(";1")
    await pbx.ami.action("Hangup", Channel=done["Channel"])
    for gone in (uniqueid, other):
        await pbx.ami.wait_event("Hangup", lambda e, gone=gone: e["Uniqueid"] == gone)


async def test_userevent_comes_back(pbx: Pbx) -> None:
    mark = pbx.ami.seen
    await pbx.ami.action("UserEvent", UserEvent="FastAGIRecord", Command="start", Channel="x")
    event = await pbx.ami.wait_event("UserEvent", since=mark)
    assert (event["UserEvent"], event["Command"], event["Channel"]) == ("FastAGIRecord", "start", "x")


async def test_monitor_up_to_20(pbx: Pbx) -> None:
    channel = await pbx.call()
    base = f"{channel.replace('/', '_')}-monitor"
    started = await pbx.ami.action("Monitor", Channel=channel, File=base, Format="wav")
    if pbx.major == 22:
        assert started["Message"].startswith("Invalid/unknown command: Monitor.")
        return
    assert started["Message"] == "Started monitoring channel"
    await pbx.ami.wait_event("MonitorStart", lambda e: e["Channel"] == channel)
    legs = [pbx.spool / f"{base}-{leg}.wav" for leg in ("in", "out")]
    await grown(legs[0])  # a Local channel's waiting half is sent nothing, and Monitor inserts no silence
    assert (await pbx.ami.action("PauseMonitor", Channel=channel))["Message"] == "Paused monitoring of the channel"
    assert (await pbx.ami.action("UnpauseMonitor", Channel=channel))["Response"] == "Success"
    mark = pbx.ami.seen
    await pbx.ami.action("Hangup", Channel=channel)
    await pbx.ami.wait_event("Hangup", lambda e: e["Channel"] == channel)
    names = [e["Event"] for e in list(pbx.ami.events)[mark:] if e.get("Channel") == channel]
    assert names.index("MonitorStop") < names.index("Hangup")
    await until(lambda: sizes(legs[0])[1] > 0)


DIALPLAN = """
[agi]
exten => s,1,Answer()
 same => n,AGI(${FASTAGI}/record/start?x=1,filename=a b.wav,second)
 same => n,Wait(60)
"""


@pytest.mark.parametrize("version", [22, 16])
async def test_scripted_agi_speaks_as_the_real_one(version: int) -> None:
    """The same dialogue against a real Asterisk and against ScriptedAgi: same header names, same replies."""
    dialogue = [
        "ANSWER",
        "CHANNEL STATUS",
        'SET VARIABLE COLOUR "dark \\"red\\""',
        "GET VARIABLE COLOUR",
        "GET VARIABLE NOT_SET",
        "GET FULL VARIABLE ${COLOUR}",
        "GET FULL VARIABLE ${NOT_SET}",
        "NOOP",
        "HANG UP NOW",
        "ANSWER",
        "CHANNEL STATUS",
        "GET VARIABLE COLOUR",
    ]
    sessions: list[tuple[list[str], list[str], list[str]]] = []
    hangups: asyncio.Queue[str] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        header, values, replies = [], [], []
        while line := (await reader.readline()).decode().rstrip("\n"):
            key, _, value = line.partition(": ")
            header.append(key)
            if key in ("agi_network_script", "agi_arg_1", "agi_arg_2", "agi_network"):
                values.append(value)
        for command in dialogue:
            if command == "HANG UP NOW":
                hangups.put_nowait("now")
                replies.append((await reader.readline()).decode())
                continue
            writer.write(f"{command}\n".encode())
            replies.append((await reader.readline()).decode())
        sessions.append((header, values, replies))
        writer.close()

    async with AsteriskServer(version, dialplan=DIALPLAN) as real:
        server = await asyncio.start_server(serve, "127.0.0.1", real.agi_port)
        made = await real.originate("Local/s@agi/n")
        await hangups.get()
        async with real.ami() as ami:
            await ami.action("Hangup", Channel=made.channel)
        await until(lambda: len(sessions) == 1)
        arguments = ["filename=a b.wav", "second"]
        async with ScriptedAgi(real.agi_port, script="record/start?x=1", args=arguments) as played:
            await played.start()
            await hangups.get()
            await played.hangup()
            await played.serve()
        server.close()
    (header, values, replies), (played_header, played_values, played_replies) = sessions
    assert played_header == header
    assert played_values == values
    assert played_replies == replies
