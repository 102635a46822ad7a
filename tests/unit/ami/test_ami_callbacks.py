"""Giving events out: in order, bounded, whatever a callback does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from fastagi.ami.callbacks import Switchboard
from fastagi.ami.events import AmiEvent
from fastagi.ami.wire import Block
from fastagi.errors import BadArgument

OWNER = object()


def event(name: str, number: int = 0) -> Block:
    return Block(name, f"Event: {name}\r\nNumber: {number}".encode())


def board(*names: str, **options: Any) -> Switchboard:
    return Switchboard(OWNER, "pbx", names, **options)


def test_subscribers_get_their_names_in_order() -> None:
    b = board("Hangup", "Queue*")
    base: list[str] = []
    own: list[AmiEvent] = []
    b.subscribe(lambda e: base.append(e.name), ())
    b.subscribe(own.append, ("New*",))
    for name in ("Hangup", "QueueJoin", "Newchannel", "VarSet", "Newstate"):
        assert b.wants(name) is (name != "VarSet")
        b.give(event(name))
    assert base == ["Hangup", "QueueJoin"]
    assert [e.name for e in own] == ["Newchannel", "Newstate"]
    assert b.patterns() == {"Hangup", "Queue*", "New*"}


def test_a_cancelled_subscription_gets_nothing_more() -> None:
    b = board()
    got: list[AmiEvent] = []
    subscription = b.subscribe(got.append, ("Hangup",))
    b.give(event("Hangup"))
    subscription.cancel()
    subscription.cancel()
    b.give(event("Hangup"))
    assert len(got) == 1
    assert not b.wants("Hangup")


def test_impossible_event_name_is_refused() -> None:
    with pytest.raises(BadArgument):
        board().subscribe(print, ("Han gup",))
    with pytest.raises(BadArgument, match="which events"):
        board().subscribe(print, ())
    with pytest.raises(BadArgument):
        board("x|y")


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(4)])
def test_raising_callback_is_survived(error: BaseException) -> None:
    b = board()
    got: list[str] = []

    def raises(*_: Any) -> None:
        raise error

    b.subscribe(raises, ("Hangup",))
    b.subscribe(lambda e: got.append("subscriber"), ("Hangup",))
    b.register("Hangup", raises)
    b.register("Hang*", lambda owner, message: got.append(message.event))
    with capture_logs() as logs:
        b.give(event("Hangup"))
    assert got == ["subscriber", "Hangup"]
    assert b.errors == 2
    assert [entry["event"] for entry in logs] == ["ami_callback_raised"] * 2
    assert logs[0]["ami_event"] == "Hangup"


def test_panoramisk_callbacks_get_owner_and_message() -> None:
    b = board()
    got: list[Any] = []
    b.register("Hangup", lambda owner, message: got.append((owner, message.number, message.manager)))
    b.give(event("Hangup", 3))
    assert got == [(OWNER, "3", OWNER)]


async def test_async_callbacks_run_in_order() -> None:
    b = board()
    got: list[str] = []
    running = 0
    done = asyncio.Event()

    async def callback(owner: Any, message: Any) -> None:
        nonlocal running
        running += 1
        assert running == 1
        # the earlier ones take longer: unordered tasks would turn them round
        for _ in range(20 - int(message.number)):
            await asyncio.sleep(0)
        running -= 1
        got.append(message.number)
        if len(got) == 20:
            done.set()

    b.register("*", callback)
    for number in range(20):
        b.give(event("Hangup", number))
    async with asyncio.timeout(5):
        await done.wait()
    assert got == [str(n) for n in range(20)]


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(4)])
async def test_a_raising_async_callback_is_survived(error: BaseException) -> None:
    b = board()
    done = asyncio.Event()

    async def callback(owner: Any, message: Any) -> None:
        if message.number == "0":
            raise error
        done.set()

    b.register("*", callback)
    with capture_logs() as logs:
        b.give(event("Hangup", 0))
        b.give(event("Hangup", 1))
        async with asyncio.timeout(5):
            await done.wait()
    assert b.errors == 1
    assert [entry["event"] for entry in logs] == ["ami_callback_raised"]


async def test_hanging_async_callback_is_bounded() -> None:
    """Other callbacks go on."""
    b = board(max_queued=10)
    got: list[str] = []
    forever = asyncio.Event()

    async def hangs(owner: Any, message: Any) -> None:
        await forever.wait()

    def made_elsewhere(owner: Any, message: Any) -> Any:  # a plain function that returns a coroutine
        return hangs(owner, message)

    b.register("*", hangs)
    b.register("*", made_elsewhere)
    b.subscribe(lambda e: got.append(e.name), ("*",))
    with capture_logs() as logs:
        for number in range(100):
            b.give(event("Hangup", number))
            await asyncio.sleep(0)
    assert len(got) == 100
    assert b.dropped == 2 * (100 - 11)
    assert [entry["event"] for entry in logs] == ["ami_callback_too_slow"]  # said once, not 178 times
    tasks = b.close()
    assert len(tasks) == 2
    await asyncio.wait(tasks, timeout=5)
    assert all(task.cancelled() for task in tasks)


def test_dispatch_tells_which_patterns_matched() -> None:
    from panoramisk.message import Message

    b = board()
    b.register("Queue*", lambda owner, message: None)
    b.register("*Join", lambda owner, message: None)
    b.register("Hangup", lambda owner, message: None)
    assert b.dispatch(Message({"Event": "QueueJoin"})) == ["Queue*", "*Join"]
