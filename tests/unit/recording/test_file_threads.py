"""The threads that touch files: what comes back, what a cancelled caller leaves, what closing waits for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest
import structlog.testing

from fastagi.runtime.threads import FILE_THREADS, FileThreads


@pytest.fixture
async def threads() -> AsyncIterator[FileThreads]:
    made = FileThreads(1)
    yield made
    made.close()


async def test_values_and_errors_come_back(threads: FileThreads) -> None:
    assert await threads.run(divmod, 7, 2) == (3, 1)
    assert await threads.finish(int, "11", base=2) == 3
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 1, 0)
    assert await threads.run(threading.current_thread) is not threading.main_thread()


async def test_audio_waits_for_its_turn_and_files_do_not_wait_for_audio(threads: FileThreads) -> None:
    gate, order = threading.Event(), []
    first = asyncio.ensure_future(threads.finish(gate.wait, 10))
    second = asyncio.ensure_future(threads.finish(order.append, "audio"))
    await threads.run(order.append, "file")
    assert (order, second.done()) == (["file"], False)
    gate.set()
    await asyncio.gather(first, second)
    assert order == ["file", "audio"]


async def test_a_dead_mount_holds_one_thread_though_nobody_waits_for_it_any_more(threads: FileThreads) -> None:
    gate = threading.Event()
    held = [asyncio.ensure_future(threads.run(gate.wait, 10)) for _ in range(FILE_THREADS - 1)]
    await asyncio.sleep(0)
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    try:
        assert await asyncio.wait_for(threads.run(abs, -1), 5) == 1
    finally:
        gate.set()


async def test_a_cancelled_caller_takes_back_what_has_not_begun(threads: FileThreads) -> None:
    gate, done = threading.Event(), []
    first = asyncio.ensure_future(threads.finish(gate.wait, 10))
    second = asyncio.ensure_future(threads.finish(done.append, 2))
    await asyncio.sleep(0)
    second.cancel()
    gate.set()
    assert await first
    await threads.finish(done.append, 3)
    assert done == [3]


async def test_closing_waits_for_what_runs_and_drops_the_rest() -> None:
    threads = FileThreads(1)
    began, done = threading.Event(), []

    def slow() -> None:
        began.set()
        time.sleep(0.1)
        done.append("slow")

    first = asyncio.ensure_future(threads.finish(slow))
    second = asyncio.ensure_future(threads.finish(done.append, "late"))
    await threads.run(began.wait, 5)
    threads.close()
    assert done == ["slow"]
    await first
    with pytest.raises(asyncio.CancelledError):
        await second
    with pytest.raises(RuntimeError):
        await threads.run(abs, 1)
    threads.close()


async def test_closing_does_not_wait_for_a_mount_that_hangs() -> None:
    threads = FileThreads(1)
    began, gate = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        gate.wait(30)

    hangs = asyncio.ensure_future(threads.run(hang))
    await threads.run(began.wait, 5)
    started = time.monotonic()
    with structlog.testing.capture_logs() as logs:
        threads.close(0.1)
    assert time.monotonic() - started < 5
    assert [(line["event"], line["pool"], line["threads"]) for line in logs] == [
        ("file_threads_left", "fastagi-files", 1)
    ]
    gate.set()
    await hangs
