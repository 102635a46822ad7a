"""The way of a connection, and panoramisk's API over it, against a scripted peer."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import panoramisk
import pytest
from ami_clients import SECONDS, impatient, running, until
from ami_peer import Action, Peer, Session, message
from panoramisk.actions import Action as PanoramiskAction
from panoramisk.message import Message
from pydantic import SecretStr
from structlog.testing import capture_logs

from fastagi.ami import AmiEvent, ChannelRow, Manager, actions
from fastagi.errors import AsteriskDown, BadArgument


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer() as it:
        yield it


# -- coming up


async def test_up_means_logged_in_filtered_and_listed(peer: Peer) -> None:
    peer.rows = ["1.1", "1.2"]
    ups: list[tuple[bool, list[ChannelRow]]] = []
    async with running(peer.port, up=False, events=("Hangup", "New*")) as ami:
        ami.subscribe(lambda e: None)
        ami.on_up(lambda rows: ups.append((ami.connected, rows)))
        await ami.wait_up(SECONDS)
        names = [a["action"][0] for a in peer.actions]
        assert names == ["Login", "Filter", "CoreSettings", "CoreShowChannels"]
        assert peer.sent("Filter")[0]["filter"] == [
            "^Event: (FullyBooted|Hangup|New[^[:space:]]*|OriginateResponse|Shutdown)[[:space:]]"
        ]
        row = ChannelRow("Local/1.1", "1.1", state="Up", state_num=6, duration=7)
        assert ups == [(True, [row, ChannelRow("Local/1.2", "1.2", state="Up", state_num=6, duration=7)])]
        assert (ami.version, ami.system_name, ami.last_error) == ("22.0.0-scripted", "scripted", "")
        assert ami.authenticated


async def test_start_returns_at_once_and_keeps_trying(free_port: int) -> None:
    with capture_logs() as logs:
        async with running(free_port, up=False) as ami:
            assert not ami.connected
            await until(lambda: ami._link._failures >= 3)
            peer = Peer()
            peer.port = free_port
            await peer.listen()
            await ami.wait_up(SECONDS)
            await peer.vanish()
            await until(lambda: not ami.connected)
    # said once, not at each attempt
    said = [e["event"] for e in logs if e["log_level"] in ("warning", "error")]
    assert said == ["ami_unreachable", "ami_down"]


async def test_events_before_the_list_follow_it(peer: Peer) -> None:
    got: list[Any] = []

    def late(session: Session, action: Action) -> None:
        session.event("Hangup", "Uniqueid: before")
        peer._coreshowchannels(session, action)
        session.event("Hangup", "Uniqueid: after")

    peer.rows = ["1.1"]
    peer.handlers["coreshowchannels"] = late
    async with running(peer.port, up=False) as ami:
        ami.subscribe(lambda e: got.append(e.uniqueid), "Hangup")
        ami.on_up(lambda rows: got.append([row.uniqueid for row in rows]))
        await until(lambda: len(got) == 3)
        assert got == [["1.1"], "before", "after"]
        peer.drop()
        await until(lambda: len(got) == 6)
        assert got == [["1.1"], "before", "after"] * 2


async def test_a_late_boot_lists_the_channels_again(peer: Peer) -> None:
    peer.boots = False
    ups: list[int] = []
    async with running(peer.port, up=False, boot_seconds=0.05) as ami:
        ami.on_up(lambda rows: ups.append(len(rows)))
        await ami.wait_up(SECONDS)
        peer.rows = ["1.1"]
        peer.emit("FullyBooted")
        await until(lambda: ups == [0, 1])
        assert ami.reconnects == 0
        peer.emit("FullyBooted")
        assert (await ami.send_action({"Action": "Ping"})).success
        assert ups == [0, 1]


async def test_shutdown_ends_the_connection_after_it_was_given_out(peer: Peer) -> None:
    got: list[str] = []
    async with running(peer.port, events=("Shutdown",)) as ami:
        ami.subscribe(lambda e: got.append(e.name))
        ami.on_down(lambda: got.append(ami.last_error))
        peer.emit("Shutdown", "Shutdown: Cleanly")
        await until(lambda: ami.reconnects == 1 and ami.connected)
        assert got == ["Shutdown", "Asterisk is shutting down"]


async def test_actions_may_be_sent_from_on_up(peer: Peer) -> None:
    answers: list[Message] = []

    async def ask(ami: Manager) -> None:
        answers.append(await ami.send_action({"Action": "Ping"}))

    async with running(peer.port, up=False) as ami, asyncio.TaskGroup() as group:
        ami.on_up(lambda rows: group.create_task(ask(ami)) and None)
        await until(lambda: answers)


# -- what the user may not do


async def test_without_rights_for_filters_everything_comes_and_is_dropped_here(peer: Peer) -> None:
    peer.forbidden = {"filter"}
    got: list[str] = []
    with capture_logs() as logs:
        async with running(peer.port, events=("Hangup",)) as ami:
            ami.subscribe(lambda e: got.append(e.name))
            for _ in range(3):
                peer.emit("VarSet", "Value: x")
            peer.emit("Hangup")
            await until(lambda: got)
            assert (ami.events_seen, ami.events_parsed) == (6, 1)  # FullyBooted and the end of the list too
            peer.drop()
            await until(lambda: ami.reconnects == 1 and ami.connected)
    assert [e["event"] for e in logs].count("ami_filter_refused") == 1


async def test_half_placed_filters_let_everything_pass(peer: Peer) -> None:
    """A filter in place drops what only the refused one names: then none is better."""
    count = 0

    def second_fails(session: Session, action: Action) -> None:
        nonlocal count
        count += 1
        if count == 2:
            session.answer(action, "Error", "Message: Filter did not compile")
        else:
            peer._filter(session, action)

    peer.handlers["filter"] = second_fails
    names = [f"Event{i:03d}" for i in range(150)]
    got: list[str] = []
    async with running(peer.port, up=False) as ami:
        ami.subscribe(lambda e: got.append(e.name), *names)
        await ami.wait_up(SECONDS)
        for name in names:
            peer.emit(name)
        await until(lambda: len(got) == 150)
        assert got == names


async def test_half_placed_filters_that_stay_end_the_connection(peer: Peer) -> None:
    count = 0

    def all_but_the_first_fail(session: Session, action: Action) -> None:
        nonlocal count
        count += 1
        if count in (2, 3):
            session.answer(action, "Error", "Message: Filter did not compile")
        else:
            peer._filter(session, action)

    peer.handlers["filter"] = all_but_the_first_fail
    async with running(peer.port, up=False) as ami:
        ami.subscribe(lambda e: None, *(f"Event{i:03d}" for i in range(150)))
        await ami.wait_up(SECONDS)
        assert ami.reconnects == 1


async def test_status_lists_the_channels_where_core_show_channels_is_forbidden(peer: Peer) -> None:
    peer.forbidden = {"coreshowchannels", "coresettings"}
    peer.rows = ["1.1"]
    rows: list[ChannelRow] = []
    async with running(peer.port, up=False) as ami:
        ami.on_up(rows.extend)
        await ami.wait_up(SECONDS)
        assert [row.uniqueid for row in rows] == ["1.1"]
        assert (ami.version, ami.system_name) == ("", "")


async def test_a_user_who_may_not_list_channels_is_refused(peer: Peer) -> None:
    peer.forbidden = {"coreshowchannels", "status"}
    with capture_logs() as logs:
        async with running(peer.port, up=False) as ami:
            await until(lambda: ami.last_error)
            assert "may not list channels: Permission denied; in manager.conf give it write" in ami.last_error
    assert [e["event"] for e in logs if e["log_level"] == "error"] == ["ami_refused"]


# -- subscribing while it is up


async def test_subscribing_later_asks_for_the_event(peer: Peer) -> None:
    got: list[str] = []
    async with running(peer.port) as ami:
        peer.emit("Hangup", "Uniqueid: unwanted")
        subscription = ami.subscribe(lambda e: got.append(e.uniqueid), "Hangup")
        await peer.until(lambda: len(peer.sent("Filter")) == 2)
        assert peer.sent("Filter")[1]["filter"] == ["^Event: (Hangup)[[:space:]]"]
        ami.register_event("Queue*", lambda m, e: got.append(e.event))
        await peer.until(lambda: len(peer.sent("Filter")) == 3)
        ami.register_event("Queue*", lambda m, e: got.append(e.event))  # covered already
        peer.emit("Hangup", "Uniqueid: 1.1")
        peer.emit("QueueJoin")
        await until(lambda: len(got) == 3)
        assert got == ["1.1", "QueueJoin", "QueueJoin"]
        assert ami.event_names == {"Hangup", "Queue*"}
        subscription.cancel()
        peer.emit("Hangup", "Uniqueid: 1.2")
        assert (await ami.send_action({"Action": "Ping"})).success
        assert len(got) == 3
        assert len(peer.sent("Filter")) == 3


async def test_a_filter_that_cannot_be_added_later_begins_a_new_connection(peer: Peer) -> None:
    async with running(peer.port, action_seconds=0.1) as ami:
        peer.silent = {"filter"}
        ami.subscribe(lambda e: None, "Hangup")
        await until(lambda: not ami.connected)
        peer.silent = set()
        await ami.wait_up(SECONDS)
        assert "Hangup" in peer.sent("Filter")[-1]["filter"][0]


async def test_everything_is_wanted(peer: Peer) -> None:
    got: list[str] = []
    async with running(peer.port, up=False) as ami:
        ami.register_event("*", lambda m, e: got.append(e.event))
        await ami.wait_up(SECONDS)
        assert not peer.sent("Filter")
        peer.emit("Anything")
        await until(lambda: got == ["FullyBooted", "Anything"])


async def test_everything_is_wanted_later(peer: Peer) -> None:
    got: list[str] = []
    async with running(peer.port) as ami:
        ami.register_event("*", lambda m, e: got.append(e.event))
        await peer.until(lambda: len(peer.sent("Filter")) == 2)
        peer.emit("Anything")
        await until(lambda: got == ["Anything"])


# -- numbers


async def test_counters(peer: Peer) -> None:
    async with running(peer.port, events=("Hangup",)) as ami:
        ami.subscribe(lambda e: None)
        sent = ami.actions_sent
        await ami.send_action({"Action": "Ping"})
        await ami.send_action({"Action": "Nothing"})
        assert (ami.actions_sent - sent, ami.actions_failed, ami.actions_timed_out) == (2, 1, 0)
        peer.emit("Hangup")
        await until(lambda: ami.events_parsed == 1)
        seen = ami.events_seen
        assert seen == 3  # FullyBooted, the end of the list, Hangup
        peer.drop()
        await until(lambda: ami.reconnects == 1 and ami.connected)
        assert ami.events_seen == seen + 2  # counted over connections
        assert (ami.callback_errors, ami.callback_dropped) == (0, 0)


async def test_several_asterisks_at_once(peer: Peer) -> None:
    async with Peer() as other, running(peer.port, name="one") as one, running(other.port, name="two") as two:
        other.drop()
        await until(lambda: two.reconnects == 1 and two.connected)
        assert one.connected
        assert one.reconnects == 0
        assert repr(one) == f"<Manager one 127.0.0.1:{peer.port} up>"


# -- panoramisk's API


async def test_it_is_panoramisks_manager(peer: Peer) -> None:
    got: list[Any] = []
    told: list[str] = []
    ami = impatient(
        peer.port,
        on_connect=lambda m: told.append("connect"),
        on_login=lambda m: told.append("login"),
        on_disconnect=lambda m, exc: told.append(f"disconnect {exc}"),
        ping_delay=10,
        reconnect_timeout=2,
        encoding="utf8",
    )
    assert isinstance(ami, panoramisk.Manager)

    @ami.register_event("Queue*")
    def callback(manager: Manager, event: Message) -> None:
        got.append((manager, event))

    await ami.connect()
    assert told == ["connect", "login"]
    peer.emit("QueueJoin", "Queue: sales", "Position: 1")
    await until(lambda: got)
    manager, event = got[0]
    assert manager is ami
    assert isinstance(event, Message)
    assert (event.queue, event["POSITION"], event.manager) == ("sales", "1", ami)
    assert ami.dispatch(Message({"Event": "QueueLeave"})) == ["Queue*"]
    assert [e.event for _, e in got] == ["QueueJoin", "QueueLeave"]
    assert list(ami.callbacks) == ["Queue*"]

    done: asyncio.Future[Any] = ami.send_action(PanoramiskAction({"Action": "Ping"}))
    assert (await done).ping == "Pong"
    assert (await ami.send_action({"Action": "UserEvent"}, UserEvent="Foo")).success
    assert peer.sent("UserEvent")[0]["userevent"] == ["Foo"]
    assert (await ami.send_command("core show uptime")).content == "core show uptime\nsecond line"
    assert [m.event for m in await ami.send_action({"Action": "CoreShowChannels"})] == ["", "CoreShowChannelsComplete"]
    assert (await ami.send_action({"Action": "CoreShowChannels"}, as_list=False)).eventlist == "start"
    ami.close()
    await ami.stop()
    assert told == ["connect", "login", "disconnect closed here"]


async def test_agi_commands(peer: Peer) -> None:
    def agi(session: Session, action: Action) -> None:
        session.answer(action, "Success", "Message: Added AGI command to queue")
        session.event("AsyncAGIExec", "CommandId: another", "Result: 0")
        session.event("AsyncAGIExec", f"CommandId: {action['commandid'][0]}", "Result: 200%20result%3D1%0A")

    peer.handlers["agi"] = agi
    async with running(peer.port) as ami:
        response, event = await ami.send_agi_command("Local/1", "SET VARIABLE A 1")
        assert response.success
        assert event.parsed_result()["result"] == ("1", "")
        assert "AsyncAGIExec" in peer.sent("Filter")[-1]["filter"][0]


async def test_connect_gives_up_waiting_but_not_trying(free_port: int) -> None:
    ami = impatient(free_port, connect_seconds=0.1, login_seconds=0.1)
    with pytest.raises(AsteriskDown, match="Connection refused"):
        await ami.connect()
    peer = Peer()
    peer.port = free_port
    await peer.listen()
    await ami.wait_up(SECONDS)
    await ami.stop()
    await peer.vanish()


def test_run_forever_without_a_running_loop() -> None:
    seen: list[bool] = []
    ami = impatient(1, loop=asyncio.new_event_loop())

    async def startup(manager: Manager) -> None:
        seen.append(manager.connected)
        manager.loop.call_later(0.05, manager.loop.stop)

    async def shutdown(manager: Manager) -> None:
        await manager.stop()

    ami.connect(run_forever=True, on_startup=startup, on_shutdown=shutdown)
    assert seen == [False]
    ami.loop.close()


def test_configuration() -> None:
    text = "[asterisk]\nhost = 192.0.2.7\nport = 5039\nusername = u\nsecret = s\n"
    ami = Manager.from_config(io.StringIO(text))
    assert (ami._link.endpoint.host, ami._link.endpoint.port, ami._link.endpoint.secret) == ("192.0.2.7", 5039, "s")
    assert Manager(secret=SecretStr("hush"))._link.endpoint.secret == "hush"
    assert Manager(events="off")._link.endpoint.mask == "off"
    with pytest.raises(TypeError, match="hots"):
        Manager(hots="x")
    with pytest.raises(BadArgument):
        Manager(events=["Han gup"])
    with pytest.raises(BadArgument):
        Manager().register_event("Han gup", print)


async def test_events_are_typed(peer: Peer) -> None:
    got: list[AmiEvent] = []
    async with running(peer.port, events=("BridgeEnter",)) as ami:
        ami.subscribe(got.append)
        peer.emit("BridgeEnter", "BridgeUniqueid: b1", "Channel: PJSIP/a", "Uniqueid: 1.1", "Linkedid: 1.0")
        await until(lambda: got)
        event = got[0]
        assert (event.name, event.channel, event.uniqueid, event.linkedid) == ("BridgeEnter", "PJSIP/a", "1.1", "1.0")
        assert (event.bridge_id, event.headers["bridgeuniqueID"]) == ("b1", "b1")


async def test_an_answer_nobody_waits_for_is_no_harm(peer: Peer) -> None:
    async with running(peer.port) as ami:
        peer.sessions[0].send(message("Response: Error", "Message: Too many lines in message or allocation failure"))
        peer.sessions[0].send(message("Response: Success", "ActionID: somebody-elses"))
        assert (await ami.send_action({"Action": "Ping"})).success


# -- typed actions


async def test_typed_actions_send_what_asterisk_reads(peer: Peer) -> None:
    done: list[Action] = []

    def take(session: Session, action: Action) -> None:
        done.append(action)
        session.answer(action, "Success", "MixMonitorID: 0x7f", "Value: v")

    for name in ("mixmonitor", "stopmixmonitor", "mixmonitormute", "getvar", "setvar", "hangup", "redirect"):
        peer.handlers[name] = take
    for name in ("monitor", "stopmonitor", "pausemonitor", "unpausemonitor", "modulecheck"):
        peer.handlers[name] = take
    async with running(peer.port) as ami:
        assert await actions.mixmonitor(ami, "Local/1", "/spool/a.wav", "r(/spool/r.wav)") == "0x7f"
        assert done[-1]["options"] == ["r(/spool/r.wav)i(FASTAGI_MIXMONITOR)"]
        await actions.mixmonitor(ami, "Local/1", "/spool/a.wav", "bi(MINE)")
        assert done[-1]["options"] == ["bi(MINE)"]
        await actions.stop_mixmonitor(ami, "Local/1", "0x7f")
        assert done[-1]["mixmonitorid"] == ["0x7f"]
        await actions.stop_mixmonitor(ami, "Local/1")
        assert "mixmonitorid" not in done[-1]
        await actions.mixmonitor_mute(ami, "Local/1", "read", False, "0x7f")
        assert (done[-1]["direction"], done[-1]["state"], done[-1]["mixmonitorid"]) == (["read"], ["0"], ["0x7f"])
        assert await actions.getvar(ami, "CHANNEL(linkedid)", "Local/1") == "v"
        assert done[-1]["channel"] == ["Local/1"]
        await actions.getvar(ami, "GLOBAL")
        assert "channel" not in done[-1]
        await actions.setvar(ami, "TALK_DETECT(set)", "1500,256", "Local/1")
        assert (done[-1]["variable"], done[-1]["value"]) == (["TALK_DETECT(set)"], ["1500,256"])
        await actions.hangup(ami, "Local/1", 17)
        assert done[-1]["cause"] == ["17"]
        await actions.redirect(ami, "Local/1", "c", "e")
        assert (done[-1]["context"], done[-1]["exten"], done[-1]["priority"]) == (["c"], ["e"], ["1"])
        await actions.monitor(ami, "Local/1", "/spool/m", mix=True)
        assert (done[-1]["file"], done[-1]["format"], done[-1]["mix"]) == (["/spool/m"], ["wav"], ["1"])
        await actions.stop_monitor(ami, "Local/1")
        await actions.pause_monitor(ami, "Local/1")
        await actions.unpause_monitor(ami, "Local/1")
        assert await actions.module_check(ami, "app_mixmonitor")
        await actions.originate(ami, "Local/1", context="c", exten="e", caller_id="A <1>", variables={"A": 'x,"y\\'})
        assert peer.sent("Originate")[0]["variable"] == ['A=x\\,\\"y\\\\']


@pytest.mark.parametrize(
    "file", ["/a,b.wav", "/a${X}.wav", "/a^{X}.wav", '/a".wav', "/a'.wav", "/../x.wav", "/a;b", "", "/a\n"]
)
async def test_hostile_file_names_are_refused(peer: Peer, file: str) -> None:
    async with running(peer.port) as ami:
        with pytest.raises(BadArgument):
            await actions.mixmonitor(ami, "Local/1", file)
        if file:
            with pytest.raises(BadArgument):
                await actions.mixmonitor(ami, "Local/1", "/a.wav", f"r({file})")
            with pytest.raises(BadArgument):
                await actions.monitor(ami, "Local/1", file)
        assert not peer.sent("MixMonitor")


async def test_hostile_arguments_are_refused(peer: Peer) -> None:
    async with running(peer.port) as ami:
        for coroutine in (
            actions.hangup(ami, "/^PJSIP/"),  # a regular expression: all channels it matches
            actions.hangup(ami, ""),
            actions.mixmonitor_mute(ami, "Local/1", "sideways"),
            actions.mixmonitor_list(ami, "Local/1 x"),
            actions.setvar(ami, "A B", "1"),
            actions.user_event(ami, "Foo", {"ActionID": "x"}),
            actions.originate(ami, "Local/1"),
            actions.originate(ami, "Local/1", application="Wait", context="c", exten="e"),
            actions.originate(ami, "Local/1", application="Wait", variables={"A=1,B": "x"}),
        ):
            with pytest.raises(BadArgument):
                await coroutine
