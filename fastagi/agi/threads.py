"""Threads for handlers that are plain functions: limited in number, started when needed, not joined at exit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

import structlog

from fastagi.errors import Error
from fastagi.runtime.threads import Pool

log = structlog.get_logger(__name__)

T = TypeVar("T")

WAIT_SECONDS: Final = 5.0
"""Longest wait of a call for a thread, in seconds. The caller hears nothing meanwhile; the dialplan can do better."""


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
        self._pool = Pool("fastagi-handler", limit, as_error=_as_error)
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
        try:
            running = self._pool.submit(_exits, function)
        except RuntimeError:  # no thread can be started
            self._free.release()
            raise
        self.busy += 1
        self._quiet.clear()
        running.add_done_callback(self._done)
        await asyncio.wait((running,))  # even if this is cancelled, the thread is free only once the function has ended
        return running.result()

    def _done(self, running: asyncio.Future[Any]) -> None:
        self.busy -= 1
        self._free.release()
        if not self.busy:
            self._quiet.set()
        if not running.cancelled():
            running.exception()  # mark the exception as retrieved: the caller may be cancelled

    async def stop(self, seconds: float) -> None:
        """Wait at most `seconds` for running functions; the others end with the process. Idempotent."""
        self._stopped = True
        try:
            await asyncio.wait_for(self._quiet.wait(), seconds)
        except TimeoutError:
            log.error("agi_handler_threads_left_behind", count=self.busy)
        self._pool.close(0.0)


def _exits(function: Callable[[], T]) -> T:
    """Run `function`. `sys.exit` ends it; a status other than 0 is a failure, as in Asterisk."""
    try:
        return function()
    except SystemExit as exc:
        if exc.code not in (None, 0):
            raise Error(f"the handler exited with {exc.code!r}") from None
        return None  # type: ignore[return-value]


def _as_error(exc: BaseException) -> Exception:
    if isinstance(exc, StopIteration):
        return RuntimeError("the handler raised StopIteration")
    return Error(f"the handler ended by {type(exc).__name__}")
