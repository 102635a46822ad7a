"""Which reply belongs to which command, and what a hangup does to that."""

from __future__ import annotations

import asyncio
import sys

import pytest

from fastagi.agi import Channel, session
from fastagi.errors import CommandFailed, Error, Hangup


async def names(call: Channel, *wanted: str) -> list[object]:
    """Each variable, or the error that came instead."""
    found: list[object] = []
    for name in wanted:
        try:
            found.append(await call.get_variable(name))
        except Exception as exc:
            found.append(type(exc))
    return found


def value(text: str) -> bytes:
    return f"200 result=1 ({text})\n".encode()


async def test_commands_go_out_one_after_another(stage) -> None:
    peer = await stage.call(await stage.serve(lambda call: names(call, "A", "B")))
    assert await peer.line() == 'GET VARIABLE "A"'
    assert await peer.silent()
    await peer.send(value("a"))
    assert await peer.answer("200 result=0") == 'GET VARIABLE "B"'
    assert await stage.result() == ["a", None]
    assert await peer.rest() == b""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_hangup_before_the_reply_and_twice(stage, end: str) -> None:
    seen = []

    async def handler(call: Channel) -> list[object]:
        call.on_hangup(lambda: seen.append(call.hung_up))
        return await names(call, "A", "B", "C")

    peer = await stage.call(await stage.serve(handler))
    await peer.line()
    await peer.send(f"HANGUP{end}HANGUP{end}200 result=1 (a){end}".encode())
    await peer.line()
    await peer.send(f"200 result=1 (b){end}HANGUP{end}".encode())
    await peer.line()
    await peer.send(f"HANG{end}".encode()[:4])
    await peer.send(f"UP{end}200 result=1 (c){end}".encode())
    assert await stage.result() == ["a", "b", "c"]
    assert seen == [True], "callbacks run once"


async def test_hangup_inside_a_usage_reply(stage) -> None:
    peer = await stage.call(await stage.serve(lambda call: names(call, "A", "B")))
    await peer.line()
    await peer.send(
        b"520-Invalid command syntax.\nUsage: GET VARIABLE <name>\nHANGUP\n more\n520 End of proper usage.\n"
    )
    assert await peer.line() == 'GET VARIABLE "B"'
    await peer.send(value("b"))
    assert await stage.result() == [CommandFailed, "b"]


async def test_hangup_instead_of_a_reply(stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "HANGUP_GRACE", 0.05)
    peer = await stage.call(await stage.serve(lambda call: names(call, "A", "B", "C")))
    await peer.line()
    await peer.send(b"HANGUP\n")
    assert await peer.answer("200 result=1 (b)") == 'GET VARIABLE "B"'
    assert await peer.answer("200 result=1 (c)") == 'GET VARIABLE "C"'
    assert await stage.result() == [Hangup, "b", "c"]


async def test_late_reply_is_dropped(stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The PBX hung for longer than the grace: its two answers then come in one go."""
    monkeypatch.setattr(session, "HANGUP_GRACE", 0.05)
    monkeypatch.setattr(session, "SETTLE", 5.0)
    peer = await stage.call(await stage.serve(lambda call: names(call, "A", "B", "C")))
    await peer.line()
    await peer.send(b"HANGUP\n")
    assert await peer.line() == 'GET VARIABLE "B"'
    await peer.send(value("a"))
    await peer.send(value("b"))
    assert await peer.answer("200 result=1 (c)") == 'GET VARIABLE "C"'
    assert await stage.result() == [Hangup, "b", "c"]


async def test_late_reply_between_commands_is_dropped(stage, monkeypatch: pytest.MonkeyPatch, until) -> None:
    monkeypatch.setattr(session, "HANGUP_GRACE", 0.05)
    go = asyncio.Event()

    async def handler(call: Channel) -> list[object]:
        found = await names(call, "A")
        await go.wait()
        return found + await names(call, "B")

    server = await stage.serve(handler)
    peer = await stage.call(server)
    await peer.line()
    await peer.send(b"HANGUP\n")
    (only,) = server._sessions
    await until(lambda: only._lost)
    await peer.send(value("a"))
    await until(lambda: not only._lost)
    go.set()
    assert await peer.answer("200 result=1 (b)") == 'GET VARIABLE "B"'
    assert await stage.result() == [Hangup, "b"]


async def test_replies_nobody_asked_for_are_dropped(stage) -> None:
    """A variable's value with a line feed could otherwise answer the next command."""
    peer = await stage.call(await stage.serve(lambda call: names(call, "A", "B")))
    await peer.line()
    await peer.send(value("x") + value("evil") + value("evil"))
    assert await peer.answer("200 result=1 (b)") == 'GET VARIABLE "B"'
    assert await stage.result() == ["x", "b"]


async def test_usage_after_result_1_is_dropped(stage) -> None:
    """handle_exec() hands its application's result on, and 1 is RESULT_SHOWUSAGE."""

    async def handler(call: Channel) -> list[object]:
        return [await call.exec("Odd"), *await names(call, "A", "B")]

    peer = await stage.call(await stage.serve(handler))
    await peer.answer("200 result=1")
    assert await peer.line() == 'GET VARIABLE "A"'
    await peer.send(b"520-Invalid command syntax.\nExecutes <replaceable>application</replaceable> with\n520 End of.\n")
    await peer.send(value("a"))
    await peer.answer("520 Invalid command syntax.  Proper usage not available.")
    assert await stage.result() == ["1", "a", CommandFailed]


async def test_provisional_replies_are_waited_through(stage) -> None:
    async def handler(call: Channel) -> str:
        await call.gosub("sub", "s", 1, "x")
        return "done"

    peer = await stage.call(await stage.serve(handler))
    assert await peer.line() == 'GOSUB "sub" "s" "1" "x"'
    await peer.send(b"100 result=0 Trying...\n")
    assert await peer.silent()
    await peer.send(b"200 result=0 Gosub complete\n")
    assert await stage.result() == "done"


async def test_commands_of_tasks_keep_order(stage) -> None:
    async def handler(call: Channel) -> list[object]:
        return list(await asyncio.gather(*(call.get_variable(str(n)) for n in range(20))))

    peer = await stage.call(await stage.serve(handler))
    for n in range(20):
        assert await peer.answer(f"200 result=1 ({n})") == f'GET VARIABLE "{n}"'
    assert await stage.result() == [str(n) for n in range(20)]


async def test_too_many_waiting_commands_are_refused(stage) -> None:
    async def handler(call: Channel) -> object:
        tasks = [asyncio.create_task(call.noop()) for _ in range(session.MAX_WAITING + 2)]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.wait(pending)
        return [type(t.exception()) for t in done]

    await stage.call(await stage.serve(handler))
    assert await stage.result() == [Error]


async def test_a_cancelled_command_keeps_its_place(stage) -> None:
    async def handler(call: Channel) -> list[object]:
        playing = asyncio.create_task(call.stream_file("long"))
        await asyncio.sleep(0)
        playing.cancel()
        waiting = asyncio.create_task(call.get_variable("NEVER"))
        await asyncio.sleep(0)
        waiting.cancel()
        assert call.current_command == "STREAM FILE", "Asterisk is still playing"
        return await names(call, "A", "B")

    peer = await stage.call(await stage.serve(handler))
    assert await peer.line() == 'STREAM FILE "long" "" 0'
    assert await peer.silent()
    await peer.send(b"200 result=0 endpos=1\n")
    assert await peer.answer("200 result=1 (a)") == 'GET VARIABLE "A"', "an unsent command is never sent"
    assert await peer.answer("200 result=1 (b)") == 'GET VARIABLE "B"'
    assert await stage.result() == ["a", "b"]


async def test_current_command(stage) -> None:
    async def handler(call: Channel) -> list[object]:
        found: list[object] = [call.current_command]
        for coroutine in (call.exec("Playback", "x"), call.say_digits("1"), call.command("noop secret")):
            task = asyncio.create_task(coroutine)
            await asyncio.sleep(0)
            found.append(call.current_command)
            await task
        return [*found, call.current_command]

    await stage.talk(handler, *["200 result=0"] * 3)
    assert await stage.result() == [None, "EXEC Playback", "SAY DIGITS", "NOOP", None]


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("said", [b"", b"200 res", b"520-Invalid\nUsage", b"200 result=1 (a\n"])
async def test_connection_end_is_a_hangup(stage, how: str, said: bytes) -> None:
    calls = []

    async def handler(call: Channel) -> list[object]:
        call.on_hangup(lambda: calls.append(1))
        found = await names(call, "A", "B")
        late = asyncio.Event()
        call.on_hangup(late.set)
        await late.wait()
        return [*found, call.hung_up, call.closed]

    peer = await stage.call(await stage.serve(handler))
    await peer.line()
    if said:
        await peer.send(said)
    await peer.close() if how == "close" else peer.reset()
    assert await stage.result() == [Hangup, Hangup, True, True]
    assert calls == [1]


async def test_handler_end_is_no_hangup(stage) -> None:
    calls = []

    async def handler(call: Channel) -> Channel:
        call.on_hangup(lambda: calls.append(1))
        await call.noop()
        return call

    await stage.talk(handler, "200 result=0")
    call = await stage.result()
    assert (call.hung_up, call.closed, calls) == (False, True, [])
    with pytest.raises(Hangup):
        await call.noop()


async def test_raising_callback_does_not_stop_others(stage) -> None:
    calls = []

    async def handler(call: Channel) -> object:
        call.on_hangup(lambda: 1 / 0)
        call.on_hangup(lambda: sys.exit(3))
        call.on_hangup(lambda: calls.append(1))
        return await call.get_variable("A")

    peer = await stage.call(await stage.serve(handler))
    await peer.line()
    await peer.send(b"HANGUP\n" + value("a"))
    assert await stage.result() == "a"
    assert calls == [1]


async def test_only_dead_commands_after_hangup(stage) -> None:
    async def handler(call: Channel) -> list[object]:
        await call.noop()
        assert call.hung_up
        found: list[object] = []
        for coroutine in (
            call.stream_file("x"),
            call.answer(),
            call.hangup(),
            call.set_variable("A", "1"),
            call.exec("StopMixMonitor"),
            call.verbose("bye"),
            call.command("STREAM FILE x #"),
        ):
            try:
                found.append(await coroutine)
            except Hangup:
                found.append(Hangup)
        return found

    commands = await stage.talk(
        handler, "HANGUP\n200 result=0", "200 result=1", "200 result=0", "200 result=1", "511 Command Not Permitted"
    )
    assert commands[1:] == ['SET VARIABLE "A" "1"', 'EXEC StopMixMonitor ""', 'VERBOSE "bye" 1', "STREAM FILE x #"]
    assert await stage.result() == [Hangup, Hangup, Hangup, None, "0", None, Hangup]
