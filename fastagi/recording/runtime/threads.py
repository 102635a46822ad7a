"""The threads that touch files: a few for names and stats, fewer for audio. The event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

FILE_THREADS = 8
"""A dead network mount holds one thread a call; eight leave room for the others until it is noticed."""


class FileThreads:
    """Two pools with a name each: `run` for quick file work, `finish` for audio.

    :param finishers: files finished at once; 0 for one less than the cores (at least one), so that the loop keeps a
        core
    """

    def __init__(self, finishers: int = 0) -> None:
        self.finishers = finishers or max(1, (os.cpu_count() or 2) - 1)
        self._files = _Pool("fastagi-files", FILE_THREADS)
        self._audio = _Pool("fastagi-audio", self.finishers)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Quick file work."""
        value: T = await self._files.submit(function, args, kwargs)
        return value

    async def finish(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Audio work; waits for its turn."""
        value: T = await self._audio.submit(function, args, kwargs)
        return value

    def close(self) -> None:
        """Wait for what runs, drop what has not begun."""
        self._files.close()
        self._audio.close()


class _Pool:
    """Threads that answer to one event loop. A call has half a dozen pieces of file work: `concurrent.futures`, which
    knows locks, conditions and waiters of its own, costs three times as much for each.

    :param most: threads; with each piece of work one is started until there are so many
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, function: Callable[..., Any], args: Any, kwargs: Any) -> asyncio.Future[Any]:
        """Cancelling the future takes back what has not begun."""
        if self._closed:
            raise RuntimeError(f"{self._name} is closed")
        work = _Work(asyncio.get_running_loop(), function, args, kwargs)
        if len(self._threads) < self._most:
            name = f"{self._name}_{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._run, name=name, daemon=True))
            self._threads[-1].start()
        self._queue.put(work)
        return work.future

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            if not self._closed:
                work.run()
            del work  # an idle thread holds nothing

    def close(self) -> None:
        """Wait for what runs, drop what has not begun. Idempotent."""
        self._closed = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()


class _Work:
    __slots__ = ("_args", "_function", "_kwargs", "_loop", "future")

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._loop = loop
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self.future: asyncio.Future[Any] = loop.create_future()

    def run(self) -> None:
        """On the thread."""
        if self.future.cancelled():
            return
        value: Any = None
        error: Exception | None = None
        try:
            value = self._function(*self._args, **self._kwargs)
        except Exception as exc:
            error = exc
        try:
            self._loop.call_soon_threadsafe(self._answer, value, error)
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    def _answer(self, value: Any, error: Exception | None) -> None:
        if self.future.done():  # its caller was cancelled
            return
        if error is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(error)
