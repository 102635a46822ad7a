"""A clock that does not jump: what a recording is measured with while somebody sets the machine's clock.

It shows the machine's time, and keeps going at its pace when that is set forwards or back: a call of three seconds has
three seconds, and no silence of a day. It takes the new time over once nothing is being recorded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger(__name__)

JUMP_SECONDS = 1.0
"""What NTP corrects by slewing is followed at once; what is more is a jump."""

LOOK_SECONDS = 2.0


class SteadyClock:
    """Unix seconds. Call it.

    :param wall: the machine's clock; :param monotonic: what nobody can set
    :ivar jumps: how often the machine's clock was set, since the start; a metric
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()
        self._seen = 0.0
        self.jumps = 0

    def __call__(self) -> float:
        now = self._monotonic() + self._offset
        off = self._wall() - now
        if abs(off) < JUMP_SECONDS:
            self._offset += off
            return now + off
        if abs(off - self._seen) >= JUMP_SECONDS:
            self._seen = off
            self.jumps += 1
            log.warning("clock_was_set", by_seconds=round(off, 1), hint="taken over when nothing is being recorded")
        return now

    @property
    def off_seconds(self) -> float:
        """How far the machine's clock is ahead of this one (negative: behind)."""
        return self._wall() - self._monotonic() - self._offset

    def take_over(self) -> None:
        """Show what the machine's clock shows."""
        self._offset, self._seen = self._wall() - self._monotonic(), 0.0

    async def follow(self, idle: Callable[[], bool], taken_over: Callable[[float], Awaitable[None]]) -> None:
        """For ever: take a jump over as soon as `idle` says that nothing is being measured. Owned by the recorder.

        :param taken_over: called after that with the seconds that the clock was set ahead (negative for back)
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self()  # counts and logs it, though nobody may have asked meanwhile
            if abs(self.off_seconds) >= JUMP_SECONDS and idle():
                by = self.off_seconds
                log.warning("clock_taken_over", by_seconds=round(by, 1))
                self.take_over()
                await taken_over(by)
