"""A clock without jumps, so that setting the machine's clock does not change the measured length of a recording.

The clock shows the machine's time. When that is set forwards or back, this clock goes on at its own pace: a call of
three seconds stays three seconds long, and no silence of a day appears. The new time is taken over once nothing is
being recorded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

JUMP_SECONDS = 1.0
"""Seconds from which a difference counts as a jump. NTP corrects smaller ones by slewing, and they are followed at
once.
"""

LOOK_SECONDS = 2.0


class SteadyClock:
    """A clock in unix seconds; calling the object returns the time.

    :param wall: the machine's clock
    :param monotonic: a clock that cannot be set
    :ivar jumps: how often the machine's clock was set since the start; a metric
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
        """Return how many seconds the machine's clock is ahead of this one (negative: behind)."""
        return self._wall() - self._monotonic() - self._offset

    def take_over(self) -> None:
        """Set this clock to the machine's clock."""
        self._offset, self._seen = self._wall() - self._monotonic(), 0.0

    async def follow(self, idle: Callable[[], bool], taken_over: Callable[[float], None]) -> None:
        """Take over each jump as soon as `idle` says that nothing is being measured. Runs until cancelled.

        The recorder owns the task.

        :param taken_over: called afterwards with the seconds that the clock was set ahead (negative: back)
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self()  # reading the clock counts and logs a jump, even when nothing else has read it meanwhile
            if abs(self.off_seconds) >= JUMP_SECONDS and idle():
                by = self.off_seconds
                log.warning("clock_taken_over", by_seconds=round(by, 1))
                self.take_over()
                taken_over(by)
