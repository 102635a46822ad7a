"""Who may connect, how many, for how long; what becomes of bad peers, bad handlers, and of everybody at the stop."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
import structlog

from fastagi.agi import AgiServer, Channel
from fastagi.agi.listening import KEEPALIVE
from fastagi.errors import CommandFailed, ConfigError, Error, Hangup


@pytest.fixture
def logged():
    with structlog.testing.capture_logs() as lines:
        yield lines


def events(logged: list[dict]) -> list[str]:
    return [line["event"] for line in logged]


async def ask(call: Channel) -> object:
    return await call.get_variable("A")


async def works(stage, server: AgiServer) -> bool:
    peer = await stage.call(server)
    await peer.answer("200 result=1 (fine)")
    return await stage.result() == "fine"


async def test_knows_the_call(stage) -> None:
    async def handler(call: Channel) -> Channel:
        return call

    server = await stage.serve(handler)
    script = "/record/start/?filename=a%20b%2Cc&rate=8000&empty&x=%F0%9F%8E%99&plus=+44"
    await stage.call(server, script, "first", "rate=11025", "k=v=w", "+4420", "", "=x", "a b=c", agi_callerid="unknown")
    call = await stage.result()
    assert call.route == "record/start"
    assert call.args == ["first", "+4420", "", "=x", "a b=c"]
    assert call.params == {
        "filename": "a b,c", "rate": "11025", "empty": "", "x": "\N{STUDIO MICROPHONE}", "plus": "+44", "k": "v=w",
    }  # fmt: skip
    assert (call.caller, call.caller_name, call.extension, call.context) == ("", "", "2000", "from-trunk")
    assert (call.uniqueid, call.channel, call.language, call.peer) == (
        "1700000000.1", "PJSIP/trunk-00000001", "en", "127.0.0.1",
    )  # fmt: skip
    assert call.env["agi_callerid"] == "unknown"
    assert "1700000000.1" in repr(call)


async def test_no_script_is_the_empty_route(stage) -> None:
    async def handler(call: Channel) -> object:
        return (call.route, call.args, call.params)

    peer = await stage.connect(await stage.serve(handler))
    await peer.send(b"agi_network: yes\r\nagi_request: agi://h\r\n\r\n")
    assert await stage.result() == ("", [], {})


async def test_a_subclass_of_the_channel(stage) -> None:
    class CallChannel(Channel):
        extra = 5

    async def handler(call: Channel) -> object:
        return (type(call), call.extra)  # type: ignore[attr-defined]

    await stage.call(await stage.serve(handler, channel_factory=CallChannel))
    assert await stage.result() == (CallChannel, 5)


async def test_peers_outside_allow_are_refused(stage, logged) -> None:
    server = await stage.serve(ask, allow=["192.0.2.0/24"])
    peer = await stage.call(server)
    assert await peer.rest() in (b"", b"<reset>")
    assert events(logged) == ["agi_peer_refused"]
    assert logged[0]["peer"] == "127.0.0.1"
    assert server.tally.refused == 1
    assert server.sessions == 0


def test_allow_names_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match=r"agi\.allow"):
        AgiServer(ask, allow=["nonsense"])


async def test_no_more_than_max_sessions(stage, logged, until) -> None:
    server = await stage.serve(ask, max_sessions=2)
    first, second = await stage.call(server), await stage.call(server)
    await first.line()
    await second.line()
    third = await stage.connect(server)
    assert await third.rest() == b"failure\n", "so that the dialplan sees AGISTATUS=FAILURE"
    assert events(logged) == ["agi_session_refused"]
    await first.send(b"200 result=0\n")
    await first.rest()
    await until(lambda: server.sessions == 1)
    await stage.result()
    assert await works(stage, server)


async def test_a_taken_port_is_one_line(stage) -> None:
    server = await stage.serve(ask)
    with pytest.raises(ConfigError, match=f"{server.port}.*in use"):
        await AgiServer(ask, port=server.port).start()
    with pytest.raises(ConfigError):
        await AgiServer(ask, host="no.such.host.invalid").start()


async def test_all_families_share_one_port(stage) -> None:
    server = await stage.serve(ask, host="")
    for host in ("127.0.0.1", "::1"):
        try:
            _, writer = await asyncio.open_connection(host, server.port)
        except OSError:
            assert host == "::1", "this machine has no IPv6"
        else:
            writer.close()
            await writer.wait_closed()


async def test_powerless_peer_is_noticed(stage, until) -> None:
    server = await stage.serve(ask)
    await stage.call(server)
    await until(lambda: server.sessions)
    (session,) = server._sessions
    link = session._transport.get_extra_info("socket")
    assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert link.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEPALIVE[0]


BAD = {
    "megabyte_without_newline": (b"agi_network: yes\nagi_x: " + b"A" * 1_000_000, "header"),
    "endless_headers": (b"agi_arg_1: vvvvvvvvvvvvvvvvvvvvvvvvvv\n" * 40_000, "header block too long"),
    "not_agi": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "no agi header"),
    "binary": (bytes(range(128, 256)) * 4 + b"\n\x00\n\n", "no agi header"),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_headers_close_one_session(stage, logged, case: str, until) -> None:
    """One log line each; other sessions go on."""
    server = await stage.serve(ask)
    good = await stage.call(server)
    await good.line()
    wire, reason = BAD[case]
    peer = await stage.connect(server)
    try:
        await peer.send(wire)
    except ConnectionError:
        pass
    assert await peer.rest() in (b"", b"<reset>")
    await until(lambda: logged)
    assert events(logged) == ["agi_session_broken"]
    assert reason in logged[0]["reason"]
    assert "\n" not in str(logged[0])
    await good.send(b"200 result=1 (fine)\n")
    assert await stage.result() == "fine"
    assert server.tally.faulty == 1


@pytest.mark.parametrize(
    "said",
    [b"\x80\xff\xfe garbage\n", b"A" * 1_000_000, b"100 x\n" * 1000, b"HANGUP\n" * 1000, b"200 result=0\n" * 1000],
)
async def test_bad_replies_close_the_session(stage, logged, said: bytes, until) -> None:
    async def handler(call: Channel) -> None:
        await call.get_variable("A")
        ended = asyncio.Event()
        call.on_hangup(ended.set)
        await ended.wait()
        await asyncio.sleep(0)

    server = await stage.serve(handler)
    peer = await stage.call(server)
    await peer.line()
    try:
        await peer.send(said)
        if said.startswith(b"HANGUP"):
            await until(lambda: logged)
    except ConnectionError:
        pass
    await until(lambda: "agi_session_broken" in events(logged))
    assert await peer.rest() in (b"", b"<reset>")
    assert events(logged) == ["agi_session_broken"]
    assert logged[0]["uniqueid"] == "1700000000.1"


async def test_half_a_header_and_close(stage, logged, header, until) -> None:
    server = await stage.serve(ask)
    whole = header()
    for cut in (1, 20, len(whole) - 1):
        peer = await stage.connect(server)
        await peer.send(whole[:cut])
        await peer.close()
    await until(lambda: len(logged) == 3)
    assert {line["reason"] for line in logged} == {"closed before the end of its header"}
    assert await works(stage, server)


async def test_port_check_is_not_logged(stage, logged, until) -> None:
    server = await stage.serve(ask)
    peer = await stage.connect(server)
    await until(lambda: server.sessions == 1)
    await peer.close()
    await until(lambda: server.sessions == 0)
    assert logged == []


@pytest.mark.parametrize("trickle", [False, True])
async def test_headers_have_a_time_limit(stage, logged, header, trickle: bool) -> None:
    server = await stage.serve(ask, header_seconds=0.3)
    peer = await stage.connect(server)
    start = time.monotonic()
    if trickle:
        for byte in header():
            try:
                await peer.send(bytes([byte]))
            except ConnectionError:
                break
            await asyncio.sleep(0.05)
    assert await peer.rest() in (b"", b"<reset>")
    assert time.monotonic() - start >= 0.25
    assert events(logged) == ["agi_session_broken"]
    assert logged[0]["reason"] == "no whole header in time"


async def test_replies_have_a_time_limit(stage, logged) -> None:
    server = await stage.serve(ask, idle_seconds=0.3)
    peer = await stage.call(server)
    await peer.line()
    assert isinstance(await stage.result(), Hangup)
    assert await peer.rest() in (b"", b"<reset>")
    assert logged[0]["reason"] == "no reply in time"


async def test_idle_session_has_no_time_limit(stage) -> None:
    async def handler(call: Channel) -> object:
        await call.noop()
        await asyncio.sleep(0.6)
        return await call.get_variable("A")

    peer = await stage.call(await stage.serve(handler, idle_seconds=0.2, header_seconds=0.2))
    await peer.answer()
    await peer.answer("200 result=1 (a)")
    assert await stage.result() == "a"


async def test_bad_peers_do_not_fill_log(stage, logged, until) -> None:
    server = await stage.serve(ask)
    for _ in range(60):
        peer = await stage.connect(server)
        await peer.send(b"x\n\n")
        await peer.rest()
    await until(lambda: server.tally.faulty == 60)
    await until(lambda: "agi_bad_peers_not_logged" in events(logged))
    assert len(logged) < 60


# -- handlers


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(RuntimeError("boom"), True), (Error("not now"), False), (CommandFailed(520, "Usage:\nX"), False)],
)
async def test_raising_handler_fails_the_session(stage, logged, raised, expected: bool) -> None:
    """The error is logged, and the dialplan sees AGISTATUS=FAILURE."""

    async def handler(call: Channel) -> None:
        raise raised

    server = await stage.serve(handler)
    peer = await stage.call(server, "survey")
    assert await peer.rest() == b"failure\n"
    (line,) = logged
    assert line["event"] == "agi_handler_failed"
    assert (line["script"], line["uniqueid"], line["error"]) == ("survey", "1700000000.1", str(raised))
    assert ("exc_info" in line) is expected
    if not expected:
        assert line["at"].startswith(f"{__file__}:"), "the handler's own line"
    assert server.tally.failed == 1


@pytest.mark.parametrize(("code", "answer"), [(0, b""), (None, b""), (3, b"failure\n"), ("usage", b"failure\n")])
async def test_exiting_handler_keeps_the_server(stage, logged, code, answer: bytes) -> None:
    async def handler(call: Channel) -> None:
        raise SystemExit(code)

    server = await stage.serve(handler)
    for _ in range(2):
        peer = await stage.call(server, "survey")
        assert await peer.rest() == answer
    assert events(logged) == (["agi_handler_failed"] * 2 if answer else [])


async def test_awaiting_cancelled_task_is_a_failure(stage, logged) -> None:
    async def handler(call: Channel) -> None:
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task

    peer = await stage.call(await stage.serve(handler), "survey")
    assert await peer.rest() == b"failure\n"
    assert [(line["event"], line["error"]) for line in logged] == [("agi_handler_failed", "CancelledError")]


async def test_hangup_is_how_calls_end(stage, logged) -> None:
    async def handler(call: Channel) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(call.stream_file("x"))
            tasks.create_task(call.answer())

    peer = await stage.call(await stage.serve(handler))
    await peer.line()
    await peer.close()
    assert isinstance(await stage.result(), ExceptionGroup)
    assert logged == []


async def test_failing_channel_factory_fails_session(stage, logged) -> None:
    def factory(session: object) -> Channel:
        raise RuntimeError("no room")

    peer = await stage.call(await stage.serve(ask, channel_factory=factory))
    assert await peer.rest() == b"failure\n"
    assert events(logged) == ["agi_handler_failed"]


async def test_fail_makes_agistatus_failure(stage) -> None:
    """Asterisk's console gets the reason."""

    async def handler(call: Channel) -> object:
        await call.fail('no route\n"nowhere"' + "x" * 9999)
        await call.fail("twice")
        return call.closed

    peer = await stage.call(await stage.serve(handler))
    said = await peer.answer("200 result=1")
    assert said.startswith('VERBOSE "no route \\"nowhere\\"xxx')
    assert await peer.rest() == b"failure\n"
    assert await stage.result() is True


async def test_fail_ignores_a_lost_peer(stage) -> None:
    async def handler(call: Channel) -> object:
        await call.get_variable("A")
        with pytest.raises(Hangup):
            await call.get_variable("B")
        await call.fail("too late")
        return call.closed

    peer = await stage.call(await stage.serve(handler))
    await peer.answer()
    await peer.line()
    await peer.close()
    assert await stage.result() is True


# -- the stop


async def test_stop_lets_sessions_end(stage) -> None:
    server = await stage.serve(ask)
    peer = await stage.call(server)
    await peer.line()
    stopping = asyncio.create_task(server.stop(20))
    await asyncio.sleep(0)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", server.port)
    assert not stopping.done()
    await peer.send(b"200 result=1 (a)\n")
    assert await stage.result() == "a"
    await stopping


async def test_drain_waits_for_existing_sessions(stage) -> None:
    """New sessions are still accepted meanwhile."""
    server = await stage.serve(ask)
    first = await stage.call(server)
    await first.line()
    draining = asyncio.create_task(server.drain(20))
    await asyncio.sleep(0)
    second = await stage.call(server)
    await second.line()
    assert not draining.done()
    await first.send(b"200 result=1 (a)\n")
    assert await stage.result() == "a"
    await asyncio.wait_for(draining, 5)
    await second.send(b"200 result=1 (b)\n")
    assert await stage.result() == "b"
    begun = time.monotonic()
    third = await stage.call(server)
    await third.line()
    await server.drain(0.2)
    assert time.monotonic() - begun < 5, "no longer than it was told"
    await third.close()


async def test_stop_cancels_what_does_not_end(stage) -> None:
    server = await stage.serve(ask)
    waiting, half = await stage.call(server), await stage.connect(server)
    await waiting.line()
    await half.send(b"agi_network: yes\n")
    start = time.monotonic()
    await server.stop(0.1)
    assert time.monotonic() - start < 5
    assert isinstance(await stage.result(), asyncio.CancelledError)
    assert await waiting.rest() == b"failure\n", "the handler did not do what it was asked for"
    assert await half.rest() in (b"", b"<reset>")
    assert server.sessions == 0


async def test_stop_is_bounded_with_stubborn_handlers(stage, logged, until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastagi.agi.server.CANCEL_SECONDS", 0.1)
    release = asyncio.Event()

    async def stubborn(call: Channel) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    server = await stage.serve(stubborn)
    await stage.call(server)
    await until(server._tasks)
    await asyncio.sleep(0)  # and in its first wait
    await server.stop(0)
    assert events(logged) == ["agi_handlers_left_behind"]
    release.set()
    assert await stage.result() is None


async def test_stop_twice_and_start_again(stage) -> None:
    server = await stage.serve(ask)
    await server.stop(0)
    await server.stop(0)
    await server.start()
    assert await works(stage, server)
