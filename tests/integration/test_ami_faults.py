"""Each fault that manager clients have, and this one must not: panoramisk 1.4 has all of them but the last few."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ami_clients import SECONDS, impatient, running, until
from ami_peer import Action, Peer, Session, message
from structlog.testing import capture_logs

from fastagi.ami import Manager, actions, link, protocol
from fastagi.errors import ActionRefused, ActionTimeout, AsteriskDown, AsteriskError, BadArgument


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer() as it:
        yield it


def under_way(ami: Manager) -> dict[str, Any]:
    connection = ami._link.protocol
    assert connection is not None
    return connection.pending


# -- values


SMUGGLED = "x\r\n\r\nAction: Originate\r\nChannel: Local/evil\r\n\r\n"


async def test_smuggled_originate(peer: Peer) -> None:
    async with running(peer.port) as ami:
        for bad in (SMUGGLED, "x\rAction: Originate", "x\nAction: Originate", "x\0"):
            for attempt in (
                lambda bad=bad: ami.send_action({"Action": "Ping", "X": bad}),
                lambda bad=bad: ami.send_action({"Action": "Ping", "Variable": ["A=1", bad]}),
                lambda bad=bad: ami.send_action({"Action": "Ping", "ActionID": bad}),
                lambda bad=bad: ami.send_action({"Action": bad}),
                lambda bad=bad: ami.send_action({"Action": "Ping", bad: "1"}),
                lambda bad=bad: ami.send_command(bad),
            ):
                with pytest.raises(BadArgument):
                    attempt()
            for coroutine in (
                actions.getvar(ami, "A", bad),
                actions.setvar(ami, "A", bad, "Local/1"),
                actions.mixmonitor(ami, "Local/1", bad),
                actions.user_event(ami, "Foo", {"K": bad}),
                actions.user_event(ami, bad, {}),
                actions.originate(ami, "Local/1", application="Wait", variables={"A": bad}),
                actions.command(ami, bad),
            ):
                with pytest.raises(BadArgument):
                    await coroutine
        assert (await ami.send_action({"Action": "Ping"})).success
        assert not peer.sent("Originate")
        assert not under_way(ami)


# -- answers that do not come


async def test_unanswered_action_times_out_and_leaves_nothing(peer: Peer) -> None:
    peer.silent = {"getvar"}
    async with running(peer.port, action_seconds=0.1) as ami:
        with pytest.raises(ActionTimeout, match=r"getvar.*0\.1 s"):
            await ami.send_action({"Action": "Getvar", "Variable": "A"})
        await until(lambda: not under_way(ami))
        assert ami.actions_timed_out == 1
        assert ami.connected


async def test_a_time_limit_of_its_own(peer: Peer) -> None:
    peer.silent = {"getvar"}
    async with running(peer.port, action_seconds=1000) as ami:
        with pytest.raises(ActionTimeout):
            await ami.send_action({"Action": "Getvar", "Variable": "A"}, timeout=0.05)


async def test_a_list_that_never_completes_times_out(peer: Peer) -> None:
    peer.handlers["queuestatus"] = lambda s, a: s.answer(a, "Success", "EventList: start")
    async with running(peer.port, action_seconds=0.1) as ami:
        with pytest.raises(ActionTimeout):
            await ami.send_action({"Action": "QueueStatus"})
        await until(lambda: not under_way(ami))


async def test_cancelled_action_leaves_nothing(peer: Peer) -> None:
    peer.silent = {"getvar"}
    async with running(peer.port) as ami:
        waiting = asyncio.ensure_future(ami.send_action({"Action": "Getvar", "Variable": "A", "ActionID": "mine"}))
        await peer.until(lambda: bool(peer.sent("Getvar")))
        assert "mine" in under_way(ami)
        waiting.cancel()
        await until(lambda: not under_way(ami))
        # its answer, should it come after all, hurts nobody; and the id is free again
        peer.sessions[0].send(message("Response: Success", "ActionID: mine", "Value: late"))
        assert (await ami.send_action({"Action": "Ping"})).success
        peer.silent = set()
        assert not (await ami.send_action({"Action": "Getvar", "ActionID": "mine"})).value


async def test_nobody_waits_for_a_failed_action(peer: Peer) -> None:
    """Fire and forget: asyncio must not complain about an exception that was never retrieved (warnings are errors)."""
    peer.silent = {"getvar"}
    async with running(peer.port, action_seconds=0.02) as ami:
        ami.send_action({"Action": "Getvar", "Variable": "A"})
        await until(lambda: ami.actions_timed_out == 1)


async def test_the_number_of_actions_under_way_is_bounded(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_PENDING", 10)
    peer.silent = {"getvar"}
    async with running(peer.port) as ami:
        for _ in range(10):
            ami.send_action({"Action": "Getvar", "Variable": "A"})
        with pytest.raises(AsteriskError, match="10 actions wait"):
            ami.send_action({"Action": "Getvar", "Variable": "A"})


async def test_an_action_id_cannot_be_under_way_twice(peer: Peer) -> None:
    peer.silent = {"getvar"}
    async with running(peer.port) as ami:
        ami.send_action({"Action": "Getvar", "ActionID": "mine"})
        with pytest.raises(BadArgument, match="under way"):
            ami.send_action({"Action": "Getvar", "ActionID": "mine"})


# -- connections that break


async def test_nothing_is_sent_again_after_a_reconnect(peer: Peer) -> None:
    peer.silent = {"originate", "setvar"}
    async with running(peer.port) as ami:
        first = ami.send_action({"Action": "Originate", "Channel": "Local/1"})
        second = ami.send_action({"Action": "Setvar", "Variable": "A", "Value": "1"})
        await peer.until(lambda: bool(peer.sent("Setvar")))
        peer.drop()
        for future in (first, second):
            with pytest.raises(AsteriskDown, match="may or may not"):
                await future
        await until(lambda: ami.reconnects == 1 and ami.connected)
        assert (await ami.send_action({"Action": "Ping"})).success
        assert len(peer.sent("Originate")) == len(peer.sent("Setvar")) == 1


async def test_sending_before_start_raises(peer: Peer) -> None:
    ami = impatient(peer.port)
    with pytest.raises(AsteriskDown):
        ami.send_action({"Action": "Ping"})
    with pytest.raises(AsteriskDown, match="not started"):
        await ami.wait_up(1)


async def test_sending_while_down_raises(peer: Peer) -> None:
    async with running(peer.port) as ami:
        await peer.vanish()
        await until(lambda: not ami.connected)
        await until(lambda: "refused" in ami.last_error)
        with pytest.raises(AsteriskDown, match="Connection refused"):
            ami.send_action({"Action": "Ping"})
        with pytest.raises(AsteriskDown):
            await actions.getvar(ami, "A")
        with pytest.raises(AsteriskDown, match="Connection refused"):
            await ami.wait_up(0.05)
        await peer.listen()
        await ami.wait_up(SECONDS)
        assert ami.last_error == ""
    with pytest.raises(AsteriskDown, match="closed here"):
        ami.send_action({"Action": "Ping"})


async def test_reconnects_back_off_with_jitter(free_port: int) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    chances = iter([0.0, 1.0, 0.5] + [1.0] * 1000)
    options = {"sleep": sleep, "random": lambda: next(chances), "backoff": None}
    async with running(free_port, up=False, **options):
        await until(lambda: len(waits) >= 9)
    assert waits[:9] == [0.5, 2.0, 2.25, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0]


async def test_a_connection_that_was_up_begins_the_back_off_anew(peer: Peer) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    async with running(peer.port, sleep=sleep, random=lambda: 1.0, backoff=None) as ami:
        for count in (1, 2, 3):
            peer.drop()
            await until(lambda count=count: ami.reconnects == count and ami.connected)
    assert waits == [1.0, 1.0, 1.0]


async def test_close_during_the_reconnect_wait(free_port: int) -> None:
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await asyncio.sleep(0.2)

    ami = impatient(free_port, sleep=sleep)
    await ami.start()
    await asleep.wait()
    ami.close()  # panoramisk's: not a coroutine
    peer = Peer()
    peer.port = free_port
    await peer.listen()
    await asyncio.sleep(0.6)
    await peer.vanish()
    assert peer.connections == 0


async def test_close_while_connecting_and_while_logging_in(peer: Peer) -> None:
    peer.silent = {"login"}
    async with running(peer.port, up=False) as ami:
        await peer.until(lambda: bool(peer.sent("Login")))
        ami.close()
        assert not ami.connected
    async with running(peer.port, up=False):
        pass
    await until(lambda: not peer.sessions)


async def test_stop_says_goodbye_and_may_be_followed_by_start(peer: Peer) -> None:
    ami = impatient(peer.port)
    for _ in range(2):
        await ami.start()
        await ami.start()
        await ami.wait_up(SECONDS)
        await ami.stop()
        await ami.stop()
        await until(lambda: not peer.sessions)
    assert len(peer.sent("Logoff")) == 2
    assert peer.connections == 2


async def test_mute_peer_is_detected(peer: Peer) -> None:
    async with running(peer.port, ping_interval=0.05, ping_seconds=0.2) as ami:
        downs: list[str] = []
        ami.on_down(lambda: downs.append(ami.last_error))
        peer.deaf = True
        begin = asyncio.get_running_loop().time()
        await until(lambda: downs)
        assert asyncio.get_running_loop().time() - begin < 5
        assert downs == ["no answer to a ping within 0.2 s"]
        peer.deaf = False
        await ami.wait_up(SECONDS)
        # one ping was left unanswered, not 29 of them
        assert len(peer.sent("Ping")) < 10


async def test_a_slow_action_is_no_dead_peer(peer: Peer) -> None:
    """Asterisk handles the actions of a session one after the other: no ping is answered during a slow one."""
    held: list[Action] = []
    peer.handlers["ping"] = lambda s, a: held.append(a) if peer.silent else peer._ping(s, a)

    async with running(peer.port, ping_interval=0.05, ping_seconds=0.1) as ami:
        peer.silent = {"command"}
        slow = ami.send_command("slow")
        await peer.until(lambda: bool(held))
        await asyncio.sleep(0.6)  # six deadlines
        assert ami.connected
        peer.silent = set()
        peer._command(peer.sessions[0], peer.sent("Command")[0])
        for action in held:
            peer._ping(peer.sessions[0], action)
        assert (await slow).content == "slow\nsecond line"
        assert ami.reconnects == 0


async def test_a_busy_link_is_no_dead_peer(peer: Peer) -> None:
    peer.silent = {"ping"}
    async with running(peer.port, ping_interval=0.05, ping_seconds=0.2, events=("Hangup",)) as ami:
        await peer.until(lambda: bool(peer.sent("Ping")))
        for _ in range(30):
            peer.emit("Hangup", "Channel: x")
            await asyncio.sleep(0.02)
        assert ami.connected
        assert ami.reconnects == 0
        # but one that talks and never answers is of no use either
        for _ in range(400):
            peer.emit("Hangup", "Channel: x")
            await asyncio.sleep(0.02)
            if ami.reconnects:
                break
        assert ami.reconnects == 1


async def test_connect_timeout(peer: Peer) -> None:
    """The peer takes the connection and never answers the TLS handshake."""
    peer.banner = ""
    context = ssl.create_default_context()
    async with running(peer.port, up=False, tls=context, connect_seconds=0.2) as ami:
        await until(lambda: ami.last_error)
        assert ami.last_error == f"no connection to 127.0.0.1:{peer.port} within 0.2 s"


async def test_login_timeout(peer: Peer) -> None:
    peer.silent = {"login"}
    async with running(peer.port, up=False, login_seconds=0.2) as ami:
        await until(lambda: ami.last_error)
        assert ami.last_error == "login: Asterisk did not answer within 0.2 s"
        peer.silent = set()
        await ami.wait_up(SECONDS)


async def test_connections_dropped_at_every_step_of_the_way(peer: Peer) -> None:
    async with running(peer.port) as ami:
        for step in ("login", "filter", "coresettings", "coreshowchannels"):

            def drop_once(session: Session, action: Action, step: str = step) -> None:
                del peer.handlers[step]
                session.writer.transport.abort()

            peer.handlers[step] = drop_once
            before = ami.reconnects
            peer.drop()
            await until(lambda before=before: ami.reconnects == before + 2 and ami.connected)
    assert not peer.handlers


async def test_refused_login_is_reported_once_and_retried_slowly(peer: Peer) -> None:
    peer.secret = "another"
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    with capture_logs() as logs:
        async with running(peer.port, up=False, sleep=sleep) as ami:
            await until(lambda: len(waits) >= 4)
            assert ami.last_error == "login of 'fastagi' refused: Authentication failed"
            peer.secret = "s3cret"
            await ami.wait_up(SECONDS)
    assert all(60.0 <= w <= 66.0 for w in waits)
    errors = [entry for entry in logs if entry["log_level"] == "error"]
    assert [entry["event"] for entry in errors] == ["ami_refused"]
    assert "s3cret" not in str(logs)
    assert "s3cret" not in repr(ami) + repr(ami._link.endpoint)


async def test_a_login_during_a_shutdown_is_tried_again_soon(peer: Peer) -> None:
    """Seen on 16 and 22: between its Shutdown event and its end Asterisk answers every login so."""
    goes = 2

    def going(session: Session, action: Action) -> None:
        nonlocal goes
        goes -= 1
        if goes == 0:
            del peer.handlers["login"]
        session.answer(action, "Error", "Message: Asterisk is shutting down")

    peer.handlers["login"] = going
    async with running(peer.port, refused_seconds=1000):
        assert peer.connections == 3


async def test_a_peer_that_is_no_manager(peer: Peer) -> None:
    peer.banner = "SSH-2.0-OpenSSH_9.2p1\r\n"
    async with running(peer.port, up=False) as ami:
        await until(lambda: ami.last_error)
        assert "the peer is no Asterisk manager: it says 'SSH-2.0-OpenSSH_9.2p1'" in ami.last_error


async def test_unterminated_input_ends_the_connection(peer: Peer) -> None:
    async with running(peer.port, events=("Hangup",)) as ami:
        peer.sessions[0].send("Event: Hangup\r\nX: ")
        for _ in range(18):
            peer.sessions[0].send(b"y" * 1_000_000)
            await asyncio.sleep(0)
        await until(lambda: ami.reconnects == 1 and ami.connected)


# -- events


async def test_a_raising_callback_keeps_the_connection(peer: Peer) -> None:
    got: list[str] = []

    def raises(*_: Any) -> None:
        raise ValueError("mine")

    async with running(peer.port) as ami:
        for receiver in (raises, lambda e: got.append(e.name)):
            ami.subscribe(receiver, "Hangup")
        ami.register_event("Hangup", raises)
        ami.on_up(raises)
        ami.on_down(raises)
        await peer.until(lambda: len(peer.sent("Filter")) == 2)
        with capture_logs() as logs:
            peer.emit("Hangup", "Channel: a")
            peer.emit("Hangup", "Channel: b")
            await until(lambda: len(got) == 2)
            assert ami.connected
            assert ami.callback_errors == 4
            peer.drop()
            await until(lambda: ami.reconnects == 1 and ami.connected)
    assert sum(entry["event"] == "ami_callback_raised" for entry in logs) >= 6


async def test_async_callbacks_keep_the_order(peer: Peer) -> None:
    got: list[int] = []

    async def callback(manager: Manager, event: Any) -> None:
        number = int(event.number)
        await asyncio.sleep(0.01 if number % 2 else 0)
        got.append(number)

    async with running(peer.port) as ami:
        ami.register_event("Hang*", callback)
        await peer.until(lambda: len(peer.sent("Filter")) == 2)
        for number in range(20):
            peer.emit("Hangup", f"Number: {number}")
        await until(lambda: len(got) == 20)
        assert got == list(range(20))


async def test_one_byte_chunks_keep_utf8(peer: Peer) -> None:
    peer.chunk = 1
    got: list[str] = []
    async with running(peer.port, events=("Hangup",)) as ami:
        ami.subscribe(lambda e: got.append(e["CallerIDName"]))
        peer.emit("Hangup", "CallerIDName: Müller & Sönnchen €")
        await until(lambda: got)
        assert got == ["Müller & Sönnchen €"]


async def test_an_event_with_a_pending_action_id_reaches_callbacks(peer: Peer) -> None:
    """Asterisk copies the ActionID of a UserEvent action into the event, and tells everybody how an Originate went."""
    got: list[tuple[str, str]] = []
    async with running(peer.port, events=("UserEvent",)) as ami:
        ami.register_event("UserEvent", lambda m, e: got.append(("callback", e.userevent)))
        ami.subscribe(lambda e: got.append(("subscriber", e["UserEvent"])))
        ami.register_event("OriginateResponse", lambda m, e: got.append(("callback", e.response)))
        await actions.user_event(ami, "Foo", {"K": "v"})
        await ami.send_action({"Action": "Originate", "Channel": "Local/1", "Async": "true"})
        await until(lambda: len(got) == 3)
        assert got == [("subscriber", "Foo"), ("callback", "Foo"), ("callback", "Success")]


async def test_rows_of_a_list_do_not_reach_callbacks(peer: Peer) -> None:
    def status(session: Session, action: Action) -> None:
        session.answer(action, "Success", "EventList: start")
        action_id = f"ActionID: {action['actionid'][0]}"
        session.event("QueueParams", action_id, "Queue: a", true=False)
        session.event("QueueMemberAdded", "Queue: a")
        session.event("QueueStatusComplete", action_id, "EventList: Complete", true=False)

    peer.handlers["queuestatus"] = status
    got: list[str] = []
    async with running(peer.port) as ami:
        ami.register_event("Queue*", lambda m, e: got.append(e.event))
        rows = await ami.send_action({"Action": "QueueStatus"})
        assert [m.event for m in rows] == ["", "QueueParams", "QueueStatusComplete"]
        await until(lambda: got)
        assert got == ["QueueMemberAdded"]


async def test_originate_without_async_header(peer: Peer) -> None:
    async with running(peer.port) as ami:
        answer = await ami.send_action({"Action": "Originate", "Channel": "Local/1", "Application": "Wait"})
        assert (answer.success, answer.response, answer.uniqueid) == (True, "Success", "1.1")
        assert peer.sent("Originate")[0]["async"] == ["true"]

        def fails(session: Session, action: Action) -> None:
            session.answer(action, "Success", "Message: Originate successfully queued")
            session.event("OriginateResponse", f"ActionID: {action['actionid'][0]}", "Response: Failure", "Reason: 3")

        peer.handlers["originate"] = fails
        answer = await ami.send_action({"Action": "Originate", "Channel": "Local/1", "Application": "Wait"})
        assert (answer.success, answer.message) == (False, "Originate failed")
        with pytest.raises(ActionRefused, match="Originate failed: reason 3"):
            await actions.originate(ami, "Local/1", application="Wait")
        assert ami.reconnects == 0


async def test_another_sessions_originate_is_not_ours(peer: Peer) -> None:
    async with running(peer.port) as one, running(peer.port, action_seconds=0.3) as two:
        peer.handlers["originate"] = lambda s, a: s.answer(a, "Success", "Message: Originate successfully queued")
        waiting = asyncio.ensure_future(one.send_action({"Action": "Originate", "Timeout": "0"}, timeout=0.3))
        await peer.until(lambda: bool(peer.sent("Originate")))
        assert not under_way(two)
        ids = {a["actionid"][0] for a in peer.actions}
        assert len(ids) == len(peer.actions)  # never the same id from two sessions
        with pytest.raises(ActionTimeout):
            await waiting


async def test_an_event_flood_before_the_list_is_bounded(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MAX_HELD", 100)
    floods = 1

    def flood(session: Session, action: Action) -> None:
        nonlocal floods
        if floods:
            floods -= 1
            for number in range(200):
                session.event("Hangup", f"Number: {number}")
        else:
            peer._coreshowchannels(session, action)

    peer.handlers["coreshowchannels"] = flood
    with capture_logs() as logs:
        async with running(peer.port, up=False) as ami:
            ami.subscribe(lambda e: None, "Hangup")
            await ami.wait_up(SECONDS)
            assert ami.reconnects == 1
            assert not ami._link._held
    assert any("more than 100 events" in str(entry.get("error")) for entry in logs)
