"""Limits how many handlers of one queue run at once in this server, and from when on. The limit can be changed.

Used beside PgQueuer, whose own limits are fixed and count over all servers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from fastagi.delivery.dispatch import Reschedule

HOLD_SECONDS = 5.0
"""Seconds that a picked job waits here for its turn before it goes back: another server may be free."""


class Gate:
    """Lets `limit` handlers of a queue run at once; the limit can be changed."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self.limit = limit
        self.throttled: int | None = None
        self.until = 0.0
        self.running = 0
        self.closed = False
        self._clock = clock
        self._changed = asyncio.Condition()

    async def enter(self) -> None:
        """Wait for a place.

        :raises Reschedule: there was none in time, or the queue is not served now
        """
        deadline = asyncio.get_running_loop().time() + HOLD_SECONDS
        async with self._changed:
            while True:
                pause = self.until - self._clock()
                if self.closed:
                    raise Reschedule(0.5)
                limit = self.limit if self.throttled is None else min(self.limit, self.throttled)
                if pause <= 0 and self.running < limit:
                    self.running += 1
                    return
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    raise Reschedule(HOLD_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, pause) if pause > 0 else left):
                        await self._changed.wait()

    async def leave(self) -> None:
        self.running -= 1  # before anything that a cancellation could break off
        async with self._changed:
            self._changed.notify()

    async def wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()
