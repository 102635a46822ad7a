"""The threads that touch files: a few for names and stats, fewer for audio. The event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

import structlog

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger(__name__)

CLOSE_SECONDS = 10.0
"""Seconds that closing waits. A drain came before it, so what still runs is a short file check, or hangs."""

FILE_THREADS = 8
"""Number of file threads. Each call on a dead network mount holds one; eight leave room until the fault is noticed."""


class FileThreads:
    """Two thread pools: `run` for quick file work, `finish` for audio.

    :param finishers: files finished at once; 0 for one less than the cores (at least one), which leaves a core to the
        loop
    """

    def __init__(self, finishers: int = 0) -> None:
        self.finishers = finishers or max(1, (os.cpu_count() or 2) - 1)
        self._files = _Pool("fastagi-files", FILE_THREADS)
        self._audio = _Pool("fastagi-audio", self.finishers)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run quick file work and return its result."""
        value: T = await self._files.submit(function, args, kwargs)
        return value

    async def finish(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run audio work, once a thread is free, and return its result."""
        value: T = await self._audio.submit(function, args, kwargs)
        return value

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Wait at most `seconds` for running work and cancel the work that has not begun. Idempotent.

        Work that hangs longer (a dead network mount) is left; its thread dies with the process.
        """
        deadline = time.monotonic() + seconds
        for pool in (self._files, self._audio):
            left = pool.close(deadline)
            if left:
                log.warning("file_threads_left", pool=pool.name, threads=left, hint="a disk or mount that hangs")


class _Pool:
    """Threads that report to one event loop. A call has half a dozen pieces of file work, and `concurrent.futures`,
    which has locks, conditions and waiters of its own, costs three times as much for each.

    :param most: number of threads; each new piece of work starts one until the number is reached
    """

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self._most = most
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, function: Callable[..., Any], args: Any, kwargs: Any) -> asyncio.Future[Any]:
        """Queue work; cancelling the returned future withdraws it if it has not begun."""
        if self._closed:
            raise RuntimeError(f"{self.name} is closed")
        work = _Work(asyncio.get_running_loop(), function, args, kwargs)
        if len(self._threads) < self._most:
            name = f"{self.name}_{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._run, name=name, daemon=True))
            self._threads[-1].start()
        self._queue.put(work)
        return work.future

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            if self._closed:
                work.drop()
            else:
                work.run()
            del work  # an idle thread keeps no result alive

    def close(self, deadline: float) -> int:
        """Cancel the work that has not begun and wait for the rest until `deadline` (monotonic seconds).

        :returns: the number of threads that still run
        """
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return sum(thread.is_alive() for thread in self._threads)


class _Work:
    __slots__ = ("_args", "_function", "_kwargs", "_loop", "future")

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._loop = loop
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self.future: asyncio.Future[Any] = loop.create_future()

    def run(self) -> None:
        """Run the function. Called on the pool's thread."""
        if self.future.cancelled():
            return
        value: Any = None
        error: Exception | None = None
        try:
            value = self._function(*self._args, **self._kwargs)
        except Exception as exc:
            error = exc
        self._soon(self._answer, value, error)

    def drop(self) -> None:
        """Cancel the future of work that will not run any more. Called on the pool's thread."""
        self._soon(self.future.cancel)

    def _soon(self, callback: Callable[..., object], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing waits for the result
            self._loop.call_soon_threadsafe(callback, *args)

    def _answer(self, value: Any, error: Exception | None) -> None:
        if self.future.done():  # the caller was cancelled
            return
        if error is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(error)
