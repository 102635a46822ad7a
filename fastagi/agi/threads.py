"""Threads for handlers that are plain functions: limited in number, started when needed, not joined at exit.

A ThreadPoolExecutor will not do: its threads are joined when the interpreter ends, and one handler in a long
`time.sleep` would keep the server from stopping.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, TypeVar

import structlog

from fastagi.errors import Error

log = structlog.get_logger(__name__)

T = TypeVar("T")

WAIT_SECONDS: Final = 5.0
"""Longest wait of a call for a thread, in seconds. The caller hears nothing meanwhile; the dialplan can do better."""

ActiveRecording = Callable[[], None]


class HandlerThreads:
    """Run plain functions beside the event loop, at most `limit` at once.

    :param limit: most threads; `[agi] threads`
    :param wait_seconds: longest wait of `run` for a free thread
    """

    def __init__(self, limit: int, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self.limit = limit
        self.busy = 0
        self._wait_seconds = wait_seconds
        self._free = asyncio.Semaphore(limit)
        self._jobs: SimpleQueue[ActiveRecording | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._stopped = False

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` in a thread and return its result. Cancelling ends the wait only, not the function.

        :raises Error: no thread came free in time, or the function ended its thread by `sys.exit` with a status
        """
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._free.acquire()
        except TimeoutError:
            raise Error(
                f"all {self.limit} handler threads were busy for {self._wait_seconds:g} s: raise agi.threads, or write "
                "the handler as async def"
            ) from None
        if self._stopped:
            self._free.release()
            raise Error("the handler threads are stopped")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self.busy += 1
        self._quiet.clear()
        if self.busy > len(self._threads):
            self._add()
        self._jobs.put(lambda: self._work(function, future, loop))
        return await future

    def _add(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"fastagi-handler-{len(self._threads) + 1}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # it would hold the call's channel until the next job

    def _work(self, function: Callable[[], T], future: asyncio.Future[T], loop: asyncio.AbstractEventLoop) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = function()
        except SystemExit as exc:  # sys.exit: a status counts as a failure, as in Asterisk
            error = None if exc.code in (None, 0) else Error(f"the handler exited with {exc.code!r}")
        except Exception as exc:
            error = exc
        except BaseException as exc:  # passed on to the caller of `run`
            error = Error(f"the handler ended by {type(exc).__name__}")
        try:
            loop.call_soon_threadsafe(self._done, future, result, error)
        except RuntimeError:
            pass  # the loop is closed: no caller waits any more

    def _done(self, future: asyncio.Future[T], result: T, error: BaseException | None) -> None:
        self.busy -= 1
        self._free.release()
        if not self.busy:
            self._quiet.set()
        if future.done():  # cancelled meanwhile
            return
        if isinstance(error, StopIteration):
            error = RuntimeError("the handler raised StopIteration")  # a future cannot carry it
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    async def stop(self, seconds: float) -> None:
        """Wait at most `seconds` for running functions; the others end with the process. Idempotent."""
        self._stopped = True
        try:
            await asyncio.wait_for(self._quiet.wait(), seconds)
        except TimeoutError:
            log.error("agi_handler_threads_left_behind", count=self.busy)
        for _ in self._threads:
            self._jobs.put(None)
        self._threads.clear()
