"""Plain handlers in threads: the same API, waiting; and how their waits end."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

import pytest
import structlog

from fastagi.agi import BlockingChannel, Channel, HandlerThreads, run_blocking
from fastagi.domain.states import Cause, State
from fastagi.errors import BadArgument, Error, Hangup


class Recorder:
    """What a whole-call recorder looks like from here: some methods wait, some answer at once."""

    State = State
    Cause = Cause

    def __init__(self) -> None:
        self.asked_in: list[int] = []
        self.title = "first"
        self.ended = asyncio.Event()

    async def start(self, filename: str, *, rate: int = 8000) -> bool:
        self.asked_in.append(threading.get_ident())
        await asyncio.sleep(0)
        return filename == "x" and rate == 6000

    async def wait_until_finished(self) -> Cause:
        await self.ended.wait()
        return Cause.HANGUP

    def state(self) -> State:
        return State.RECORDING

    def cause(self) -> Cause:
        return Cause.NONE

    async def twin(self) -> Recorder:
        return self


class CallChannel(Channel):
    def __init__(self, session) -> None:
        super().__init__(session)
        self.WholeCallRecorder = Recorder()
        self.note = ""

    def recorder(self, name: str) -> Recorder:
        return self.WholeCallRecorder


class Threads:
    """`stage.serve` for plain handlers."""

    def __init__(self, stage, pool: HandlerThreads) -> None:
        self.stage = stage
        self.pool = pool

    async def serve(self, handler, **settings):
        return await self.stage.serve(
            lambda call: run_blocking(handler, call, self.pool), channel_factory=CallChannel, **settings
        )

    async def talk(self, handler, *replies: str):
        peer = await self.stage.call(await self.serve(handler))
        commands = [await peer.answer(reply) for reply in replies]
        await peer.rest()
        return commands, await self.stage.result()


@pytest.fixture
async def threads(stage):
    pool = HandlerThreads(8)
    yield Threads(stage, pool)
    await pool.stop(10)
    assert pool.busy == 0


async def test_every_call_blocks(threads) -> None:
    main = threading.get_ident()

    def handler(channel: BlockingChannel) -> list[object]:
        assert threading.get_ident() != main
        channel.answer()
        found = [channel.get_variable("A"), channel.get_data("f").timed_out, channel.command("NOOP").result]
        channel.note = "kept"
        return [*found, channel.note, channel.uniqueid, channel.args, channel.hung_up, channel.env["agi_uniqueid"]]

    commands, result = await threads.talk(
        handler, "200 result=0", "200 result=1 (a)", "200 result=5 (timeout)", "200 result=0"
    )
    assert commands == ["ANSWER", 'GET VARIABLE "A"', 'GET DATA "f"', "NOOP"]
    assert result == ["a", True, "0", "kept", "1700000000.1", [], False, "1700000000.1"]


async def test_recorder_as_in_the_seed(threads) -> None:
    main = threading.get_ident()

    def handler(channel) -> object:
        recorder = channel.WholeCallRecorder
        assert recorder.start("x", rate=6000) is True
        assert recorder.asked_in == [main]
        state = channel.WholeCallRecorder.state()
        assert state == channel.WholeCallRecorder.State.RECORDING
        assert channel.WholeCallRecorder.cause() is channel.WholeCallRecorder.Cause.NONE
        assert channel.recorder("second").start(filename="x") is False
        assert recorder.twin() == recorder == channel.recorder("x")
        assert len({recorder, channel.WholeCallRecorder}) == 1
        recorder.title = "second"
        assert "start" in dir(recorder)
        assert "get_variable" in dir(channel)
        return type(state), channel.WholeCallRecorder.title

    _, result = await threads.talk(handler)
    assert result == (State, "second")


async def test_errors_come_as_they_are(threads) -> None:
    def handler(channel) -> list[object]:
        found = []
        for call in (
            lambda: channel.exec("No Such"),
            lambda: channel.exec("Nowhere"),
            lambda: channel.nothing,
            channel.answer,
        ):
            try:
                found.append(call())
            except Exception as exc:
                found.append(type(exc))
        return found

    _, result = await threads.talk(handler, "200 result=-2", "511 dead")
    assert result == [BadArgument, Error, AttributeError, Hangup]


async def test_blocked_wait_ends_with_session(threads, stage) -> None:
    def handler(channel) -> object:
        called = threading.Event()
        channel.on_hangup(called.set)
        with pytest.raises(Hangup):
            channel.stream_file("long")
        assert called.wait(10)
        with pytest.raises(Hangup):
            channel.get_variable("X")
        return "told"

    peer = await stage.call(await threads.serve(handler))
    await peer.line()
    await peer.close()
    assert await stage.result() == "told"


async def test_hangup_does_not_cut_recorder_wait(threads, stage, until) -> None:
    """The recording ends by the hangup, with its cause: that is what the seed's examples look at."""
    recorders = []

    def handler(channel) -> object:
        recorders.append(channel.WholeCallRecorder)
        return channel.WholeCallRecorder.wait_until_finished()

    peer = await stage.call(await threads.serve(handler))
    await until(lambda: recorders)
    await peer.close()
    call = recorders[0]._bridge
    await until(lambda: stage.servers[0]._open == 0)
    assert call._waits, "still waiting"
    recorders[0]._target.ended.set()
    assert await stage.result() is Cause.HANGUP


async def test_stopping_the_server_wakes_every_thread(threads, stage, until) -> None:
    ended = threading.Event()
    excs: list[BaseException] = []

    def handler(channel) -> None:
        try:
            channel.WholeCallRecorder.wait_until_finished()
        except Hangup as exc:
            excs.append(exc)
        try:
            channel.get_variable("X")
        except Hangup as exc:
            excs.append(exc)
        ended.set()

    server = await threads.serve(handler)
    await stage.call(server)
    await until(lambda: threads.pool.busy)
    start = time.monotonic()
    await server.stop(0)
    await asyncio.to_thread(ended.wait, 10)
    assert time.monotonic() - start < 9
    assert len(excs) == 2
    assert isinstance(await stage.result(), asyncio.CancelledError)


async def test_endless_handler_does_not_keep_server(threads, stage, until) -> None:
    release = threading.Event()
    server = await threads.serve(lambda channel: release.wait(30))
    await stage.call(server)
    await until(lambda: threads.pool.busy)
    await server.stop(0)
    with structlog.testing.capture_logs() as logged:
        await threads.pool.stop(0.05)
    assert [line["event"] for line in logged] == ["agi_handler_threads_left_behind"]
    release.set()
    await stage.result()


async def test_call_in_event_loop_raises(stage) -> None:
    """It would wait for itself for ever."""

    async def handler(call: Channel) -> object:
        blocking = BlockingChannel(call, asyncio.get_running_loop())
        with pytest.raises(Error, match="worker thread"):
            blocking.get_variable("A")
        with pytest.raises(Error, match="worker thread"):
            blocking.agi.answer()
        return "at once"

    await stage.talk(handler)
    assert await stage.result() == "at once"


async def test_no_more_threads_than_the_limit(until) -> None:
    pool = HandlerThreads(2, wait_seconds=0.2)
    release = threading.Event()
    running = [asyncio.create_task(pool.run(lambda: release.wait(30))) for _ in range(2)]
    await until(lambda: pool.busy == 2)
    with pytest.raises(Error, match=r"all 2 handler threads were busy"):
        await pool.run(lambda: None)
    assert pool.busy == 2
    waiting = asyncio.create_task(pool.run(lambda: "third"))
    await asyncio.sleep(0)
    release.set()
    assert await waiting == "third"
    await asyncio.gather(*running)
    assert len([t for t in threading.enumerate() if t.name.startswith("fastagi-handler")]) <= 2 + 8
    await pool.stop(10)
    with pytest.raises(Error, match="stopped"):
        await pool.run(lambda: None)


async def test_how_functions_end() -> None:
    pool = HandlerThreads(1)

    def stop() -> None:
        raise StopIteration

    def other() -> None:
        raise KeyboardInterrupt

    assert await pool.run(lambda: 5) == 5
    assert await pool.run(lambda: sys.exit(0)) is None
    with pytest.raises(Error, match="exited with 3"):
        await pool.run(lambda: sys.exit(3))
    with pytest.raises(RuntimeError):
        await pool.run(stop)
    with pytest.raises(Error, match="KeyboardInterrupt"):
        await pool.run(other)
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 / 0)
    await pool.stop(10)


async def test_many_calls_share_the_threads(threads, stage) -> None:
    server = await threads.serve(lambda channel: channel.get_variable("A"))

    async def one(n: int) -> str:
        peer = await stage.call(server)
        return await peer.answer(f"200 result=1 ({n})")

    await asyncio.gather(*(one(n) for n in range(40)))
    assert sorted([int(await stage.result()) for _ in range(40)]) == list(range(40))
