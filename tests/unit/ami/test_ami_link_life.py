"""The life of a manager connection, against a peer in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from scripted_peer import Peer, manager

from fastagi.ami import Manager
from fastagi.ami import link as ami_link
from fastagi.ami.backoff import Backoff
from fastagi.ami.endpoint import Endpoint
from fastagi.ami.wire import Decoder
from fastagi.errors import ActionTimeout, AsteriskDown, BadArgument


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
async def up(peer: Peer) -> AsyncIterator[Manager]:
    """A manager that is connected."""
    ami, _ = manager(peer)
    await ami.start()
    await ami.wait_up(5)
    yield ami
    await ami.stop()


async def until(true: Any) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - it is on the other side of the connection
            await asyncio.sleep(0)


async def test_connection_comes_up(peer: Peer) -> None:
    peer.channels = [{"Channel": "PJSIP/a-1", "Uniqueid": "1.1", "Duration": "00:00:05", "ChannelState": "6"}]
    ami, waits = manager(peer, host="localhost", port=5039)
    rows: list[Any] = []
    downs: list[str] = []
    ami.on_up(rows.append)
    ami.on_down(lambda: downs.append(ami.last_error))
    assert not ami.connected
    await ami.start()
    await ami.start()
    await ami.wait_up(5)
    assert (ami.connected, ami.version, ami.system_name, ami.last_error) == (True, "22.1.0", "box", "")
    assert (ami.peer_address, ami.reconnects, peer.asked) == ("192.0.2.7", 0, [("localhost", 5039, None)])
    assert [row.uniqueid for row in rows[0]] == ["1.1"]
    login = peer.actions[0]
    assert (login["Action"], login["Username"], login["Secret"], login["Events"]) == ("Login", "u", "s", "on")
    assert [row["Filter"] for row in peer.named("Filter")] == [
        "^Event: (FullyBooted|OriginateResponse|Shutdown)[[:space:]]"
    ]
    await ami.stop()
    assert (downs, waits, ami.connected, ami.last_error) == (["closed here"], [], False, "closed here")
    assert peer.actions[-1]["Action"] == "Logoff"
    await ami.stop()


async def test_lost_connection_comes_again(peer: Peer, up: Manager) -> None:
    answer = up.send_action({"Action": "Foo"})
    downs: list[str] = []
    up.on_down(lambda: downs.append(up.last_error))
    peer.lose(ConnectionResetError("reset"))
    with pytest.raises(AsteriskDown, match="may or may not have been done"):
        await answer
    await until(lambda: peer.connections == 2 and up.connected)
    assert downs == ["connection lost: reset"]
    assert (up.reconnects, up.last_error) == (1, "")


async def test_waits_grow_and_start_again(peer: Peer) -> None:
    peer.refuse_connect = [ConnectionRefusedError(111, "Connection refused") for _ in range(4)]
    ami, waits = manager(peer)
    await ami.start()
    await until(lambda: len(waits) == 1)
    assert ami.gone_from_here
    assert "no connection to 127.0.0.1:5038" in ami.last_error
    await ami.wait_up(5)
    assert waits == [0.75, 1.25, 2.25, 4.25]
    assert not ami.gone_from_here
    peer.lose()
    await until(lambda: peer.connections == 2)
    assert waits[4] == 0.75
    await ami.stop()


async def test_refused_login_waits_long(peer: Peer) -> None:
    peer.script["login"] = lambda row: "Response: Error\r\nMessage: Authentication failed\r\n\r\n"
    ami, waits = manager(peer)
    with pytest.raises(AsteriskDown, match="not started"):
        await ami.wait_up(1)
    await ami.start()
    await until(lambda: len(waits) == 2)
    assert waits == [63.0, 63.0]
    assert ami.last_error == "login of 'u' refused: Authentication failed"
    with pytest.raises(AsteriskDown, match="Authentication failed"):
        await ami.wait_up(0.01)
    await ami.stop()


async def test_leaving_asterisk_refuses_nobody(peer: Peer) -> None:
    peer.script["login"] = lambda row: "Response: Error\r\nMessage: Asterisk is shutting down\r\n\r\n"
    ami, waits = manager(peer)
    await ami.start()
    await until(lambda: waits)
    assert waits[0] == 0.75
    await ami.stop()


async def test_attempts_are_told_once(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    peer.refuse_connect = [ConnectionRefusedError(111, "Connection refused") for _ in range(3)]
    ami, _ = manager(peer)
    await ami.start()
    await ami.wait_up(5)
    await ami.stop()
    text = capsys.readouterr().out
    assert text.count("warning  ] ami_unreachable") == 1


async def test_events_wait_for_the_channels(peer: Peer) -> None:
    """What comes while the channels are listed is given out after them, in order."""
    given: list[str] = []
    ami, _ = manager(peer)
    ami.on_up(lambda rows: given.append("up"))
    ami.subscribe(lambda event: given.append(event.name), "Hangup", "Newchannel")

    def listing(row: dict[str, str]) -> str:
        peer.event("Newchannel")
        peer.event("Hangup")
        return f"Response: Error\r\nActionID: {row['ActionID']}\r\nMessage: no\r\n\r\n"

    peer.script["coreshowchannels"] = listing
    await ami.start()
    await ami.wait_up(5)
    assert given == ["up", "Newchannel", "Hangup"]
    assert len(peer.named("Status")) == 1
    peer.event("Hangup")
    peer.event("Rename")
    assert given[3:] == ["Hangup"]
    assert ami.events_parsed == 3
    await ami.stop()


async def test_flood_before_the_channels(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ami_link, "MAX_HELD", 3)
    ami, waits = manager(peer)
    ami.subscribe(lambda event: None, "Hangup")

    def listing(row: dict[str, str]) -> None:
        for _ in range(4):
            peer.event("Hangup")

    peer.script["coreshowchannels"] = listing
    await ami.start()
    await until(lambda: waits)
    assert "more than 3 events" in ami.last_error
    await ami.stop()


async def test_user_that_may_not_list(peer: Peer) -> None:
    for name in ("coreshowchannels", "status"):
        peer.script[name] = lambda row: "Response: Error\r\nMessage: Permission denied\r\n\r\n"
    ami, waits = manager(peer)
    await ami.start()
    await until(lambda: waits)
    assert (waits[0], "give it write = system,call" in ami.last_error) == (63.0, True)
    await ami.stop()


async def test_late_boot_lists_again(peer: Peer) -> None:
    peer.booted = False
    ami, _ = manager(peer, boot_seconds=0.01)
    ups: list[int] = []
    ami.on_up(lambda rows: ups.append(len(rows)))
    await ami.start()
    await ami.wait_up(5)
    peer.channels = [{"Channel": "PJSIP/a-1", "Uniqueid": "1.1", "Duration": "00:00:05", "ChannelState": "6"}]
    peer.event("FullyBooted")
    await until(lambda: len(ups) == 2)
    assert ups == [0, 1]
    assert ami.connected
    await ami.stop()


async def test_shutdown_is_left(peer: Peer, up: Manager) -> None:
    peer.event("Shutdown")
    await until(lambda: peer.connections == 2)


async def test_silent_peer_is_given_up(peer: Peer) -> None:
    peer.script["ping"] = lambda row: None
    ami, waits = manager(peer, ping_interval=0.01, ping_seconds=0.02)
    await ami.start()
    await until(lambda: waits)
    assert ami.last_error == "no answer to a ping within 0.02 s"
    await ami.stop()


async def test_busy_peer_is_alive(peer: Peer, up: Manager) -> None:
    """Bytes that come in buy a late ping some deadlines, but not for ever."""
    protocol: Any = up._link.protocol
    peer.script["ping"] = lambda row: None
    rounds = 0

    async def chatting() -> None:
        nonlocal rounds
        while True:
            peer.event("Rename")
            rounds += 1
            await asyncio.sleep(0.005)

    chat = asyncio.create_task(chatting())
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(AsteriskDown, match="no answer to a ping"):
        await protocol.ping({"Action": "Ping", "ActionID": "p"}, 0.03)
    assert loop.time() - began >= 7 * 0.03 * 0.9
    chat.cancel()
    await asyncio.sleep(0)
    assert protocol.pending == {}


async def test_new_wishes_extend_the_filter(peer: Peer, up: Manager) -> None:
    up.subscribe(lambda event: None, "Hangup")
    await until(lambda: len(peer.named("Filter")) == 2)
    assert peer.named("Filter")[1]["Filter"] == "^Event: (Hangup)[[:space:]]"
    up.subscribe(lambda event: None, "Hangup")
    assert len(peer.named("Filter")) == 2
    assert up.event_names >= {"Hangup"}


async def test_refused_filter_lets_all_come(peer: Peer) -> None:
    peer.script["filter"] = lambda row: "Response: Error\r\nMessage: Permission denied\r\n\r\n"
    ami, _ = manager(peer)
    await ami.start()
    await ami.wait_up(5)
    ami.subscribe(lambda event: None, "Hangup")
    await asyncio.sleep(0)
    assert len(peer.named("Filter")) == 1
    await ami.stop()


async def test_everything_needs_no_filter(peer: Peer) -> None:
    ami, _ = manager(peer, events=["*"])
    await ami.start()
    await ami.wait_up(5)
    assert peer.named("Filter") == []
    await ami.stop()


async def test_tls_trusts_the_system_once(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(ami_link.tls, "trusting", lambda path: made.append(path) or "context")
    ami, _ = manager(peer, tls=True)
    await ami.start()
    await ami.wait_up(5)
    peer.lose()
    await until(lambda: peer.connections == 2)
    assert made == [None]
    assert [ssl for _, _, ssl in peer.asked] == ["context", "context"]
    await ami.stop()


async def test_aim_forgets_the_old_one(peer: Peer, up: Manager) -> None:
    up.aim(host="127.0.0.1", port=5038, username="u", secret="s")
    assert up.version == "22.1.0"
    up.aim(host="192.0.2.1", port=5038, username="u", secret="s")
    assert (up.version, up.system_name, up.peer_address) == ("", "", "")


async def test_stamp_needs_an_action(up: Manager) -> None:
    stamp = up._link.stamp
    with pytest.raises(BadArgument):
        stamp({"Foo": "1"})
    assert stamp({"action": "X", "actionid": "7", "Y": "2"}) == {"Action": "X", "ActionID": "7", "Y": "2"}
    ids = {stamp({"Action": "X"})["ActionID"] for _ in range(3)}
    assert len(ids) == 3


async def test_unanswered_action_times_out(peer: Peer, up: Manager) -> None:
    peer.script["foo"] = lambda row: None
    with pytest.raises(ActionTimeout, match=r"did not answer within 0.01 s"):
        await up.send_action({"Action": "Foo"}, timeout=0.01)
    assert up.actions_timed_out == 1
    peer.script["foo"] = lambda row: "Response: Error\r\nMessage: no\r\n\r\n"
    answer = await up.send_action({"Action": "Foo"})
    assert (answer.success, up.actions_failed) == (False, 1)
    future = up.send_action({"Action": "Foo", "ActionID": "x"})
    with pytest.raises(BadArgument, match="under way already"):
        up.send_action({"Action": "Foo", "ActionID": "x"})
    future.cancel()
    await asyncio.sleep(0)
    assert up._link.protocol is not None
    assert up._link.protocol.pending == {}


async def test_closed_manager_sends_nothing(peer: Peer) -> None:
    ami, _ = manager(peer)
    with pytest.raises(AsteriskDown, match="not connected"):
        ami.send_action({"Action": "Foo"})


async def test_registered_callback_is_returned(up: Manager) -> None:
    def callback(manager: Any, message: Any) -> None:
        """Take it."""

    assert up.register_event("Hangup", callback) is callback
    assert up.register_event("Rename")(callback) is callback


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.9", True), ("::1", True), ("LOCALHOST", True), ("192.0.2.1", False), ("pbx", False)]
)
def test_loopback_addresses(host: str, local: bool) -> None:
    assert Endpoint(host, 5038, "", "").loopback is local


async def test_stop_leaves_no_task(peer: Peer) -> None:
    ami, _ = manager(peer)
    await ami.start()
    await ami.wait_up(5)
    supervisor = ami._link._supervisor
    assert supervisor is not None
    ending = ami._link.halt()
    assert supervisor in ending
    await asyncio.wait(ending)
    await asyncio.sleep(0)
    assert (ami._link._ending, ami._link.halt()) == (set(), set())


async def test_action_repeater_is_not_registered(up: Manager) -> None:
    """What was not answered is never sent again at FullyBooted: an Originate would go out twice."""
    assert up.register_event("FullyBooted", up.send_awaiting_actions) == up.send_awaiting_actions
    assert "FullyBooted" not in up.event_names


def test_step_below_the_shortest() -> None:
    assert Backoff(shortest=1.0, longest=0.5).delay(1, 0.9) == 1.0
    assert Backoff(shortest=1.0, longest=30.0).delay(50, 0.5) == 15.5


def test_command_output_counts_as_held() -> None:
    """Output of a command of Asterisk before 14 is one answer, however many blocks it comes in."""
    decoder = Decoder(lambda name: True)
    decoder.feed(b"Asterisk Call Manager/9.0.0\r\n")
    decoder.feed(b"Response: Follows\r\nPrivilege: Command\r\nActionID: 1\r\n")
    before = decoder.held
    decoder.feed(b"one\n\r\n\r\ntwo")
    assert decoder.held > before
