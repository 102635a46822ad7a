"""Bounded threads beside the event loop: for file work, for blocking handlers, for the plain functions of sinks.

`Pool` is the one way to run a function on a thread. The ledger's threads are apart (`store.connection_threads`): each
owns a connection and commits many units at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
import time
import weakref
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
        self._files = Pool("fastagi-files", FILE_THREADS)
        self._audio = Pool("fastagi-audio", self.finishers)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run quick file work and return its result."""
        return await self._files.submit(function, *args, **kwargs)

    async def finish(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run audio work, once a thread is free, and return its result."""
        return await self._audio.submit(function, *args, **kwargs)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Wait at most `seconds` for running work and cancel the work that has not begun. Idempotent.

        Work that hangs longer (a dead network mount) is left; its thread dies with the process.
        """
        deadline = time.monotonic() + seconds
        for pool in (self._files, self._audio):
            left = pool.close(deadline)
            if left:
                log.warning("file_threads_left", pool=pool.name, threads=left, hint="a disk or mount that hangs")


class Pool:
    """Up to `most` threads, started when needed and ended when the pool is closed or garbage-collected.

    Not a ThreadPoolExecutor: its threads are joined when the interpreter ends, so a function that never returns would
    keep a stopped server alive. It also costs three times as much for each piece of work.

    :param name: of the threads, numbered
    :param as_error: turns an exception that is no `Exception` (`sys.exit`, a panic in an extension) into one
    """

    def __init__(self, name: str, most: int, *, as_error: Callable[[BaseException], Exception] | None = None) -> None:
        self.name = name
        self._most = most
        self._as_error = as_error or _as_error
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._closed = threading.Event()
        weakref.finalize(self, _end, self._queue, self._threads).atexit = False

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Run a function once a thread is free. Cancelling the future withdraws it if it has not begun; a running
        function goes on and keeps its thread.

        :raises RuntimeError: the pool is closed, or no thread can be started
        """
        if self._closed.is_set():
            raise RuntimeError(f"{self.name} is closed")
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._most:
            thread = threading.Thread(
                target=_serve,
                args=(self._queue, self._idle, self._closed),
                name=f"{self.name}_{len(self._threads)}",
                daemon=True,
            )
            thread.start()
            self._threads.append(thread)
        work = _Work(asyncio.get_running_loop(), function, args, kwargs, self._as_error)
        self._queue.put(work)
        return work.future

    def close(self, deadline: float) -> int:
        """Cancel the work that has not begun and wait for the rest until `deadline` (monotonic seconds).

        :returns: the number of threads that still run
        """
        self._closed.set()
        _end(self._queue, self._threads)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return sum(thread.is_alive() for thread in self._threads)


def _serve(queue: SimpleQueue[_Work | None], idle: threading.Semaphore, closed: threading.Event) -> None:
    """Run queued work on a thread. Has no reference to the pool, so that an unused pool can be collected."""
    while (work := queue.get()) is not None:
        if closed.is_set():
            work.drop()
        else:
            work.run()
        del work  # an idle thread keeps no result alive
        idle.release()


def _end(queue: SimpleQueue[_Work | None], threads: list[threading.Thread]) -> None:
    for _ in threads:
        queue.put(None)


def _as_error(exc: BaseException) -> Exception:
    return RuntimeError(f"{type(exc).__name__}: {exc}")


class _Work:
    __slots__ = ("_args", "_as_error", "_context", "_function", "_kwargs", "_loop", "future")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        function: Callable[..., Any],
        args: Any,
        kwargs: Any,
        as_error: Callable[[BaseException], Exception],
    ) -> None:
        self._loop = loop
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._as_error = as_error
        self._context = contextvars.copy_context()
        self.future: asyncio.Future[Any] = loop.create_future()

    def run(self) -> None:
        """Run the function. Called on the pool's thread."""
        if self.future.cancelled():
            return
        value: Any = None
        error: Exception | None = None
        try:
            value = self._context.run(self._function, *self._args, **self._kwargs)
        except StopIteration as exc:  # no future can carry StopIteration
            error = self._as_error(exc)
        except Exception as exc:
            error = exc
        except BaseException as exc:  # the caller gets it; KeyboardInterrupt is never a signal on a thread
            error = self._as_error(exc)
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
