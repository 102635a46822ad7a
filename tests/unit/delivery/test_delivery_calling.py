"""Calls of what users wrote: threads that hold nothing, and cancelling that passes only where it is meant."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from fastagi.delivery.calling import Threads, call
from fastagi.errors import SinkError
from support.delivery_harness import until

STUCK = """
import asyncio, time
from fastagi.delivery.calling import Threads

async def main():
    try:
        async with asyncio.timeout(0.2):
            await Threads("stuck", 1).submit(time.sleep, 1000)
    except TimeoutError:
        print("left", flush=True)

asyncio.run(main())
"""


def test_hung_function_keeps_no_process_alive() -> None:
    """A plain function that does not return keeps no process alive."""
    done = subprocess.run([sys.executable, "-c", STUCK], timeout=60, capture_output=True, text=True, check=True)
    assert done.stdout == "left\n"


async def test_threads_are_limited_and_reused() -> None:
    """There are no more threads than places, and a place is free again when its function is over."""
    threads, gate, running = Threads("two", 2), threading.Event(), []

    def work(n: int) -> int:
        running.append(n)
        gate.wait(10)
        return n

    tasks = [threads.submit(work, n) for n in range(3)]
    await until(lambda: len(running) == 2)
    tasks[0].cancel()  # the waiting ends, its thread does not
    await asyncio.sleep(0.05)
    assert len(running) == 2
    gate.set()
    assert await asyncio.gather(*tasks[1:]) == [1, 2]


async def test_cancelling_the_caller_passes() -> None:
    begun = asyncio.Event()

    async def sink() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(call(sink, threads=Threads("x", 1)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_awaitable_of_plain_function_is_awaited() -> None:
    seen = []

    async def later() -> None:
        seen.append(threading.current_thread())
        raise SystemExit(1)

    with pytest.raises(SinkError, match="SystemExit: 1"):
        await call(lambda: later(), threads=Threads("x", 1))
    assert seen == [threading.main_thread()]


async def test_forgotten_threads_end() -> None:
    """A sink may come with each call: nothing of it may stay once it is gone."""
    threads = Threads("forgotten", 2)
    await threads.submit(abs, -1)
    assert any(thread.name.startswith("forgotten") for thread in threading.enumerate())
    del threads
    await until(lambda: not any(thread.name.startswith("forgotten") for thread in threading.enumerate()))


async def test_idle_thread_takes_next_work() -> None:
    """A thread is started only where none is free: a limit of 500 costs one thread while one is enough."""
    threads = Threads("idle", 8)
    for n in range(5):
        assert await threads.submit(abs, -n) == n
        await until(lambda: threads._idle._value == 1)
    assert sum(thread.name.startswith("idle") for thread in threading.enumerate()) == 1
