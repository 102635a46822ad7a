"""The manager interface of real Asterisks 22 and 16: what only they can show."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ami_clients import SECONDS, until
from structlog.testing import capture_logs

from fastagi.ami import RECORDER_EVENTS, AmiEvent, Backoff, ChannelRow, Manager, actions
from fastagi.errors import ActionRefused, AsteriskDown
from fastagi.testing import AsteriskServer

pytestmark = pytest.mark.asterisk

DIALPLAN = """
[plan]
exten => s,1,Answer()
 same => n,Wait(600)
exten => ringing,1,Ringing()
 same => n,Wait(600)
exten => async,1,Answer()
 same => n,AGI(agi:async)
"""

OPERATORS = """
[clerk]
secret = clerks
read = system,call
write = call,originate

[owner]
secret = owners
read = all
write = all

[porter]
secret = porters
read = all
write = originate
"""


@pytest.fixture(scope="module", params=[22, 16], ids=["asterisk22", "asterisk16"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One for all tests here that leave it running, with a dialplan and users of its own."""
    it = AsteriskServer(
        request.param, dialplan=DIALPLAN, extra_files={"custom/manager.conf": OPERATORS}, system_name="pbx-ü"
    )
    asyncio.run(it.start())
    yield it
    asyncio.run(it.close())


def client(server: AsteriskServer, **options: Any) -> Manager:
    given = {"port": server.ami_port, "username": server.ami_user, "secret": server.ami_secret}
    return Manager(name="real", **{**given, "backoff": Backoff(0.05, 0.2), **options})


@pytest.fixture
async def ami(server: AsteriskServer) -> AsyncIterator[Manager]:
    it = client(server, events=RECORDER_EVENTS)
    await it.start()
    await it.wait_up(SECONDS)
    yield it
    await it.send_action({"Action": "Hangup", "Channel": "/^Local/"})
    await it.stop()


@pytest.fixture
def events(ami: Manager) -> list[AmiEvent]:
    got: list[AmiEvent] = []
    ami.subscribe(got.append)
    return got


def named(events: list[AmiEvent], name: str) -> list[AmiEvent]:
    return [e for e in events if e.name == name]


async def test_version_and_system_name(server: AsteriskServer, ami: Manager) -> None:
    assert ami.version.startswith(str(server.major))
    assert ami.system_name == "pbx-ü"


async def test_a_call_is_followed(ami: Manager, events: list[AmiEvent]) -> None:
    call = await actions.originate(
        ami, "Local/s@plan/n", application="Wait", data="100", caller_id='"Möller" <4711>', variables={"A": 'x,"y\\'}
    )
    assert call.uniqueid.startswith("pbx-ü-")
    for _ in range(100):  # it is answered a moment before its application runs
        rows = {row.uniqueid: row for row in await actions.core_show_channels(ami)}
        row = rows[call.uniqueid]
        if row.application == "Wait":
            break
        await asyncio.sleep(0.02)
    assert replace(row, duration=0) == replace(await actions.status(ami, call.channel), duration=0)
    assert (row.channel, row.state, row.state_num, row.up, row.application) == (call.channel, "Up", 6, True, "Wait")
    assert {r.linkedid for r in rows.values()} == {call.uniqueid}
    assert await actions.getvar(ami, "A", call.channel) == 'x,"y\\'
    assert await actions.getvar(ami, "CHANNEL(linkedid)", call.channel) == call.uniqueid
    assert await actions.getvar(ami, "NOTHING", call.channel) == ""
    await actions.hangup(ami, call.channel)
    await until(lambda: len(named(events, "Hangup")) == 2)
    assert call.uniqueid in {e.uniqueid for e in named(events, "Hangup")}
    new = next(e for e in named(events, "Newchannel") if e.uniqueid == call.uniqueid)
    assert (new.channel, new.linkedid, new.system) == (call.channel, call.uniqueid, "pbx-ü")
    with pytest.raises(ActionRefused, match="No such channel"):
        await actions.status(ami, call.channel)


async def test_mixmonitor_from_start_to_stop(
    server: AsteriskServer, ami: Manager, events: list[AmiEvent], tmp_path: Path
) -> None:
    call = await actions.originate(ami, "Local/s@plan/n", application="Wait", data="100")
    file = tmp_path / "mixed.wav"
    received = tmp_path / "received.wav"
    first = await actions.mixmonitor(ami, call.channel, str(file), f"r({received})")
    second = await actions.mixmonitor(ami, call.channel, str(tmp_path / "second.wav"))
    assert first.startswith("0x")
    assert first != second
    for _ in range(100):
        shown = {row.id: row for row in await actions.mixmonitor_list(ami, call.channel)}
        if set(shown) == {first, second} and file.exists() and shown[first].received:
            break  # the row comes first, its columns once the files are open
        await asyncio.sleep(0.02)
    assert shown[first].file == str(file.with_suffix(""))
    assert shown[first].received == str(received.with_suffix(""))
    await actions.mixmonitor_mute(ami, call.channel, "both", True, first)
    await actions.mixmonitor_mute(ami, call.channel, "both", False, first)
    await actions.stop_mixmonitor(ami, call.channel, first)
    assert [row.id for row in await actions.mixmonitor_list(ami, call.channel)] == [second]
    with pytest.raises(ActionRefused, match="Could not stop"):
        await actions.stop_mixmonitor(ami, call.channel, first)
    await actions.stop_mixmonitor(ami, call.channel)
    await until(lambda: len(named(events, "MixMonitorStop")) == 2)
    assert len(named(events, "MixMonitorStart")) == 2
    assert [e["State"] for e in named(events, "MixMonitorMute")] == ["1", "0"]
    assert {e.uniqueid for e in events if e.name.startswith("MixMonitor")} == {call.uniqueid}
    assert file.read_bytes()[:4] == b"RIFF"


async def test_mixmonitor_of_nobody(ami: Manager, tmp_path: Path) -> None:
    for coroutine in (
        actions.mixmonitor(ami, "Local/nobody", str(tmp_path / "x.wav")),
        actions.stop_mixmonitor(ami, "Local/nobody"),
        actions.mixmonitor_mute(ami, "Local/nobody"),
        actions.mixmonitor_list(ami, "Local/nobody"),
        actions.setvar(ami, "TALK_DETECT(set)", "1500,256", "Local/nobody"),
        actions.hangup(ami, "Local/nobody"),
    ):
        with pytest.raises(ActionRefused, match="No such channel"):
            await coroutine


async def test_monitor_where_there_is_one(server: AsteriskServer, ami: Manager, tmp_path: Path) -> None:
    assert await actions.module_check(ami, "app_mixmonitor")
    call = await actions.originate(ami, "Local/s@plan/n", application="Wait", data="100")
    if not await actions.module_check(ami, "res_monitor"):
        assert server.major > 20
        with pytest.raises(ActionRefused, match="unknown command"):
            await actions.monitor(ami, call.channel, str(tmp_path / "m"))
        return
    got: list[str] = []
    ami.subscribe(lambda e: got.append(e.name), "Monitor*")
    await actions.monitor(ami, call.channel, str(tmp_path / "m"))
    await actions.pause_monitor(ami, call.channel)
    await actions.unpause_monitor(ami, call.channel)
    await actions.stop_monitor(ami, call.channel)
    await until(lambda: "MonitorStop" in got)
    assert (tmp_path / "m-in.wav").exists()


async def test_talk_detection_and_redirect(ami: Manager, events: list[AmiEvent]) -> None:
    call = await actions.originate(ami, "Local/s@plan/n", application="Wait", data="100")
    await actions.setvar(ami, "TALK_DETECT(set)", "1500,256", call.channel)
    await actions.redirect(ami, call.channel, "plan", "ringing")
    for _ in range(200):
        row = await actions.status(ami, call.channel)
        if row.exten == "ringing":
            break
        await asyncio.sleep(0.02)
    assert (row.context, row.exten) == ("plan", "ringing")


async def test_an_originate_does_not_stop_everything_else(ami: Manager, events: list[AmiEvent]) -> None:
    """Without `Async`, Asterisk answers and tells this session nothing until somebody picks up or the time is over."""
    ringing = asyncio.ensure_future(
        ami.send_action(
            {"Action": "Originate", "Channel": "Local/ringing@plan/n", "Application": "Wait", "Timeout": 4000}
        )
    )
    assert (await ami.send_action({"Action": "Ping"})).success
    await until(lambda: len(named(events, "Newchannel")) >= 2)
    assert not ringing.done()
    answer = await ringing
    assert (answer.success, answer.message, answer.reason) == (False, "Originate failed", "3")
    done = await ami.send_action(
        {"Action": "Originate", "Channel": "Local/s@plan/n", "Application": "Wait", "Data": "9"}
    )
    assert done.success
    assert done.uniqueid.startswith("pbx-ü-")
    with pytest.raises(ActionRefused, match="Originate failed"):
        await actions.originate(ami, "Local/nowhere@plan/n", application="Wait")
    both = await ami.send_action(
        {"Action": "Originate", "Channel": "Local/s@plan/n", "Application": "Wait", "Data": "9", "Async": "true"}
    )
    assert [m.event for m in both] == ["", "OriginateResponse"]


async def test_an_explicitly_synchronous_originate_is_no_dead_peer(server: AsteriskServer) -> None:
    impatient = client(server, ping_interval=0.1, ping_seconds=0.3)
    await impatient.start()
    await impatient.wait_up(SECONDS)
    action = {"Action": "Originate", "Channel": "Local/ringing@plan/n", "Application": "Wait", "Timeout": 2500}
    answer = await impatient.send_action({**action, "Async": "false"})
    assert answer.message == "Originate failed"
    assert impatient.reconnects == 0
    await impatient.stop()


async def test_async_agi(server: AsteriskServer) -> None:
    ami = client(server, username="owner", secret="owners")
    await ami.start()
    await ami.wait_up(SECONDS)
    call = await actions.originate(ami, "Local/async@plan/n", application="Wait", data="100")
    other = call.channel.replace(";1", ";2")
    for _ in range(200):
        answer = await ami.send_agi_command(other, "GET VARIABLE CHANNEL")
        if isinstance(answer, list):
            break
        await asyncio.sleep(0.02)  # Answer() takes up to half a second
    assert answer[1].event == "AsyncAGIExec"
    assert answer[1].parsed_result()["result"][0] == "1"
    await actions.hangup(ami, call.channel)
    await ami.stop()


async def test_command_output(ami: Manager) -> None:
    assert (await actions.command(ami, "core show version"))[0].startswith("Asterisk ")
    assert len(await actions.command(ami, "core show applications")) > 100
    with pytest.raises(ActionRefused, match="No such command 'no such thing'"):
        await actions.command(ami, "no such thing")


async def test_only_wanted_events_are_sent(server: AsteriskServer) -> None:
    it = client(server, events=("Hangup",))
    got: list[AmiEvent] = []
    it.subscribe(got.append)
    await it.start()
    await it.wait_up(SECONDS)
    before = it.events_seen
    call = await actions.originate(it, "Local/s@plan/n", application="Wait", data="100")
    await actions.hangup(it, call.channel)
    await until(lambda: len(got) == 2)
    await it.send_action({"Action": "Ping"})
    assert it.events_seen == before + 3  # two HangupHandler, one OriginateResponse: none of the 30 others
    await it.stop()


async def test_a_user_with_fewer_rights(server: AsteriskServer, tmp_path: Path) -> None:
    """Write class call: no event filters, Status instead of CoreShowChannels; it works, and says what it may not."""
    got: list[str] = []
    rows: list[ChannelRow] = []
    with capture_logs() as logs:
        it = client(server, username="clerk", secret="clerks", events=("Hangup",))
        it.subscribe(lambda e: got.append(e.name))
        it.on_up(rows.extend)
        async with server.ami() as other:
            await other.action("Originate", {"Channel": "Local/s@plan/n", "Application": "Wait", "Data": "100"})
            await it.start()
            await it.wait_up(SECONDS)
        assert len(rows) == 2
        assert all(row.up or row.uniqueid for row in rows)
        assert it.version == ""
        call = await actions.originate(it, "Local/s@plan/n", application="Wait", data="100")
        with pytest.raises(ActionRefused, match="Permission denied"):
            await actions.mixmonitor(it, call.channel, str(tmp_path / "x.wav"))
        await actions.hangup(it, call.channel)
        await until(lambda: len(got) >= 2)
        assert it.events_seen > it.events_parsed
        await it.send_action({"Action": "Hangup", "Channel": "/^Local/"})
        await it.stop()
    assert next(e["event"] for e in logs if e["log_level"] == "warning") == "ami_filter_refused"


async def test_a_user_who_may_not_list_channels(server: AsteriskServer) -> None:
    it = client(server, username="porter", secret="porters")
    await it.start()
    await until(lambda: it.last_error)
    assert "user 'porter' may not list channels: Permission denied" in it.last_error
    await it.stop()


# -- Asterisks that die


@pytest.fixture(params=[22, 16], ids=["asterisk22", "asterisk16"])
async def mortal(request: pytest.FixtureRequest) -> AsyncIterator[AsteriskServer]:
    async with AsteriskServer(request.param, dialplan=DIALPLAN) as it:
        yield it


async def test_kill_and_restart(mortal: AsteriskServer) -> None:
    told: list[Any] = []
    it = client(mortal, events=("Hangup", "UserEvent"))
    it.subscribe(lambda e: told.append(e.name))
    it.on_up(lambda rows: told.append([row.state for row in rows]))
    it.on_down(lambda: told.append("down"))
    await it.start()
    await it.wait_up(SECONDS)
    await actions.originate(it, "Local/s@plan/n", application="Wait", data="100")
    assert told == [[]]
    under_way = it.send_action({"Action": "Originate", "Channel": "Local/ringing@plan/n", "Application": "Wait"})
    await mortal.kill()
    with pytest.raises(AsteriskDown):
        await under_way
    await until(lambda: told == [[], "down"])
    with pytest.raises(AsteriskDown):
        it.send_action({"Action": "Ping"})
    await until(lambda: "refused" in it.last_error)
    await mortal.start()
    await it.wait_up(SECONDS)
    assert told[:3] == [[], "down", []]
    assert it.reconnects >= 1
    await actions.user_event(it, "Back", {})
    await until(lambda: "UserEvent" in told)
    assert await actions.core_show_channels(it) == []  # nothing was sent again
    await it.stop()


async def test_the_channels_are_listed_after_a_reconnect(mortal: AsteriskServer) -> None:
    told: list[Any] = []
    it = client(mortal)
    it.on_up(lambda rows: told.append(sorted((row.channel, row.up) for row in rows)))
    await it.start()
    await it.wait_up(SECONDS)
    call = await actions.originate(it, "Local/s@plan/n", application="Wait", data="100")
    assert it._link.protocol is not None
    it._link.protocol.abort("the network broke")
    await until(lambda: len(told) == 2)
    assert [name for name, _ in told[1]] == [call.channel, call.channel.replace(";1", ";2")]
    assert dict(told[1])[call.channel] is True
    await it.stop()


async def test_an_asterisk_that_hangs_is_detected(mortal: AsteriskServer) -> None:
    downs: list[str] = []
    it = client(mortal, ping_interval=0.2, ping_seconds=0.5, login_seconds=0.5)
    it.on_down(lambda: downs.append(it.last_error))
    await it.start()
    await it.wait_up(SECONDS)
    assert mortal.pid is not None
    os.kill(mortal.pid, signal.SIGSTOP)
    try:
        await until(lambda: downs)
        assert downs == ["no answer to a ping within 0.5 s"]
        await until(lambda: "login" in it.last_error)  # the kernel still takes connections
    finally:
        os.kill(mortal.pid, signal.SIGCONT)
    await it.wait_up(SECONDS)
    await it.stop()


async def test_an_orderly_stop_is_told(mortal: AsteriskServer) -> None:
    told: list[str] = []
    it = client(mortal, events=("Shutdown",))
    it.subscribe(lambda e: told.append(e.name))
    it.on_down(lambda: told.append(it.last_error))
    await it.start()
    await it.wait_up(SECONDS)
    await mortal.stop()
    await until(lambda: len(told) == 2)
    assert told == ["Shutdown", "Asterisk is shutting down"]
    await mortal.start()
    await it.wait_up(SECONDS)
    await it.stop()
