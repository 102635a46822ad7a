"""Where a sink runs, and what passes between its loop and the main one."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from fastagi import App
from fastagi.delivery import runner as runner_module
from fastagi.delivery.registry import SinkRegistry
from fastagi.delivery.runner import SinkRunner, bound_attribute
from fastagi.delivery.sink_loop import SinkLoop
from fastagi.delivery.sinks.composite import CompositeSink
from fastagi.delivery.sinks.local import LocalFileSink
from fastagi.delivery.sinks.webhook import WebhookSink
from fastagi.errors import BadArgument, SinkError
from support.delivery_harness import until

told = contextvars.ContextVar("told", default="")


@pytest.fixture
async def loop() -> AsyncIterator[SinkLoop]:
    made = SinkLoop("crm", lambda: None)
    yield made
    await made.stop()


class Sink:
    """Does what it is told, and notes where."""

    needs_file = False

    def __init__(self, behave: Any = None) -> None:
        self.behave = behave
        self.threads: list[int] = []

    async def on_recording_complete(self, metadata: Any) -> None:
        self.threads.append(threading.get_ident())
        if self.behave is not None:
            await self.behave()

    async def aclose(self) -> None:
        self.threads.append(threading.get_ident())


async def test_calls_share_one_thread(loop: SinkLoop) -> None:
    """The context goes along, as ids for the sink's log lines do."""
    told.set("rec-1")

    async def look(extra: int) -> tuple[int, str, int]:
        return threading.get_ident(), told.get(), extra

    answers = [await loop.run(look, n) for n in range(3)]
    assert {thread for thread, _, _ in answers} != {threading.get_ident()}
    assert len({thread for thread, _, _ in answers}) == 1
    assert [answer[1:] for answer in answers] == [("rec-1", 0), ("rec-1", 1), ("rec-1", 2)]


@pytest.mark.parametrize(
    ("raised", "wanted"),
    [
        (ValueError("x"), ValueError),
        (SystemExit(1), SinkError),
        (KeyboardInterrupt(), SinkError),
        (asyncio.CancelledError(), SinkError),
        (TimeoutError(), TimeoutError),
    ],
)
async def test_whatever_is_raised_comes_back(loop: SinkLoop, raised: BaseException, wanted: type[Exception]) -> None:
    async def fail() -> None:
        raise raised

    with pytest.raises(wanted):
        await loop.run(fail)


async def test_an_exiting_task_breaks_no_loop(loop: SinkLoop) -> None:
    """asyncio lets SystemExit of any task out of `run_forever`: the thread would have been gone."""

    async def leave() -> None:
        sys.exit(3)

    async def begin() -> None:
        task = asyncio.create_task(leave())
        await asyncio.wait({task})

    async def answer() -> int:
        return 5

    with structlog.testing.capture_logs() as lines:
        await loop.run(begin)
        assert await loop.run(answer) == 5
    assert [line["event"] for line in lines] == ["sink_loop_broken"]


async def test_cancelling_reaches_the_sink(loop: SinkLoop) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.sleep(100)
        finally:
            ended.set()

    task = asyncio.create_task(loop.run(wait))
    await until(begun.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set(), "it is given a moment to tidy up"


async def test_stopping_waits_for_nobody(loop: SinkLoop) -> None:
    """A stuck thread is named and left; a cancelled call is, too."""
    gate, begun = threading.Event(), threading.Event()

    async def stick() -> None:
        begun.set()
        gate.wait(60)

    task = asyncio.create_task(loop.run(stick))
    await until(begun.is_set)
    with structlog.testing.capture_logs() as lines:
        began = time.monotonic()
        task.cancel()
        await asyncio.wait({task})
        await loop.stop()
        assert time.monotonic() - began < 30
    gate.set()
    assert [line["event"] for line in lines] == ["sink_left_behind"]
    assert "stick" in lines[0]["at"]


async def test_a_stopped_loop_starts_again(loop: SinkLoop) -> None:
    async def where() -> int:
        return threading.get_ident()

    await loop.run(where)
    await loop.stop()
    assert await loop.run(where) != threading.get_ident()


async def test_own_sinks_leave_the_main_loop() -> None:
    """Built-in ones and those that ask for it stay; a sink is closed where it ran."""
    registry = SinkRegistry()
    own, stays, group = Sink(), Sink(), Sink()
    registry.register("own", own)
    registry.register("stays", stays, loop="main")
    [child, _] = registry.register("group", CompositeSink(group, LocalFileSink()))
    for name in ("own", "stays", child):
        entry = registry.get(name)
        assert entry is not None
        await entry.runner.deliver(None)
    await registry.aclose()
    here = threading.get_ident()
    assert stays.threads == [here, here]
    for sink in (own, group):
        assert here not in sink.threads
        assert sink.threads[0] == sink.threads[1]
    assert own.threads != group.threads


def test_objects_share_a_thread_by_class() -> None:
    """Each call may bring one: a thread for each would have no limit."""
    registry = SinkRegistry()
    sinks: list[Any] = [Sink(), Sink(), type("Other", (Sink,), {})(), WebhookSink("https://h")]
    entries = [registry.get(name) for sink in sinks for name in registry.names(sink)]
    loops = [entry.runner.own for entry in entries if entry is not None]
    assert loops[0] is loops[1] is not None
    assert loops[2] is not None
    assert loops[2] is not loops[0]
    assert loops[3] is None


def test_one_object_has_one_loop() -> None:
    """What it made on the one would not work on the other."""
    registry, sink = SinkRegistry(), Sink()
    [held] = registry.names(sink)
    registry.register("named", sink)
    first, second = registry.get(held), registry.get("named")
    assert first is not None
    assert second is not None
    assert first.runner.own is second.runner.own is not None


def test_a_wrong_loop_is_refused() -> None:
    for give in (SinkRegistry().register, App().sink):
        with pytest.raises(BadArgument, match="loop='mine' must be 'own' or 'main'"):
            give("crm", Sink(), loop="mine")  # type: ignore[arg-type]


async def test_clients_of_the_loop_are_found() -> None:
    """A session, a pool or a lock in use belongs to the loop that it was made on."""
    future = asyncio.get_running_loop().create_future()

    class Holds:
        def __init__(self, **parts: Any) -> None:
            self.__dict__.update(parts)

    client = Holds(_loop=asyncio.get_running_loop())
    assert bound_attribute(Holds(client=client)) == "client (Holds)"
    assert (
        bound_attribute(Holds(children=(Holds(receiver=Holds(client=client)),))) == "children.receiver.client (Holds)"
    )
    assert bound_attribute(Holds(future=future)) == "future (Future)"
    assert bound_attribute(Holds(lock=asyncio.Lock(), name="x", module=sys, kind=dict)) == ""
    circle = Holds()
    circle.__dict__["me"] = circle
    assert bound_attribute(circle) == ""


async def test_a_late_client_keeps_its_sink() -> None:
    """The client came after the registration, before the first delivery."""
    loop, sink = SinkLoop("crm", lambda: None), Sink()
    runner = SinkRunner("crm", sink, 1, loop)
    sink.__dict__["client"] = asyncio.get_running_loop().create_future()
    with structlog.testing.capture_logs() as lines:
        await runner.deliver(None)
    assert sink.threads == [threading.get_ident()]
    assert [(line["event"], line["attribute"]) for line in lines] == [("sink_on_main_loop", "client (Future)")]


async def test_a_blocker_on_main_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ``loop='main'`` was asked for, the log names who held the calls, after it let go."""
    monkeypatch.setattr(runner_module, "HELD_SECONDS", 0.05)

    async def block() -> None:
        await asyncio.sleep(0)
        time.sleep(0.06)  # noqa: ASYNC251

    registry = SinkRegistry()
    registry.register("crm", Sink(block), loop="main")
    entry = registry.get("crm")
    assert entry is not None
    with structlog.testing.capture_logs() as lines:
        await entry.runner.deliver(None)
    assert [(line["event"], line["sink"]) for line in lines] == [("sink_blocks", "crm")]
    assert registry.blocked == {"crm": 1}


async def test_a_plain_answer_is_awaited_there() -> None:
    """A plain function runs in a thread; what it gives to await, on the sink's loop."""
    threads: list[threading.Thread] = []

    async def note() -> None:
        threads.append(threading.current_thread())

    class Plain:
        def on_recording_complete(self, metadata: Any) -> Any:
            threads.append(threading.current_thread())
            return note()

    loop = SinkLoop("crm", lambda: None)
    await SinkRunner("crm", Plain(), 1, loop).deliver(None)
    await loop.stop()
    assert len({*threads, threading.current_thread()}) == 3
