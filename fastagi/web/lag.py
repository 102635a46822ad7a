"""Lag of the event loop: a blocking call in a handler or a callback delays every call at once."""

from __future__ import annotations

import asyncio
from collections import deque

import structlog

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.5

HELD_SECONDS = 1.0
"""Seconds of lag that are logged: a caller hears such a delay."""

WINDOW_TICKS = 120
"""A minute: longer than Prometheus' usual interval between scrapes, so that no lag falls between two."""


class LoopLag:
    """Measures from `start` to `stop`, with a timer and no task."""

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=WINDOW_TICKS)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self) -> None:
        """Begin to measure. Call it on the loop to be measured."""
        loop = asyncio.get_running_loop()
        self._due = loop.time() + TICK_SECONDS
        self._timer = loop.call_at(self._due, self._tick, loop)

    def stop(self) -> None:
        """Stop measuring. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def longest(self) -> float:
        """Return the longest lag within the last minute, in seconds."""
        return max(self._seen, default=0.0)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        late = max(0.0, now - self._due)
        self._seen.append(late)
        if late >= HELD_SECONDS:
            log.warning(
                "event_loop_held",
                seconds=round(late, 1),
                hint="every call waited: let handlers that block be plain functions, which run in threads",
            )
        self._due = now + TICK_SECONDS
        self._timer = loop.call_at(self._due, self._tick, loop)
