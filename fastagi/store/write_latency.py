"""Latency of the ledger's writes: of those that are done, and of those still under way, which may never end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

SLOW_SECONDS = 1.0
"""A write takes milliseconds. One that takes this long deserves an operator's look; a call can wait for only few such.
"""

RECENT_SECONDS = 10.0
"""Seconds for which a slow write makes its ledger count as slow."""

KEPT_SECONDS = 60


class WriteLatency:
    """Measures write latency. Used on one event loop.

    :param clock: monotonic seconds
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._under_way: dict[int, float] = {}
        self._next = 0
        self._done: deque[tuple[int, float]] = deque()
        self._slow_until = float("-inf")

    def write(self) -> Write:
        """``with pace.write(): ...`` around one write."""
        return Write(self)

    def begin(self) -> int:
        """Note that a write begins; return its number."""
        self._next += 1
        self._under_way[self._next] = self._clock()
        return self._next

    def end(self, number: int) -> None:
        """Note that the write has ended, well or not."""
        now = self._clock()
        took = now - self._under_way.pop(number)
        if took >= SLOW_SECONDS:
            self._slow_until = now + RECENT_SECONDS
        second = int(now)
        if self._done and self._done[-1][0] == second:  # one entry a second, whatever the load
            if took > self._done[-1][1]:
                self._done[-1] = (second, took)
            return
        self._done.append((second, took))
        while self._done[0][0] < second - KEPT_SECONDS:
            self._done.popleft()

    def seconds(self, within: float = RECENT_SECONDS) -> float:
        """Return the longest time of a write that ended within the last `within` seconds (60 at most) or still runs."""
        now = self._clock()
        oldest = next(iter(self._under_way.values()), now)
        since = now - within - 1  # a whole second's writes are one entry
        return max([now - oldest, *(took for second, took in self._done if second >= since)])

    @property
    def slow(self) -> bool:
        """Return whether a write takes longer than `SLOW_SECONDS`, or just did."""
        now = self._clock()
        return now < self._slow_until or now - next(iter(self._under_way.values()), now) >= SLOW_SECONDS


class Write:
    """One write, as a context manager: lighter than a generator, because every write uses one."""

    __slots__ = ("_number", "_pace")

    def __init__(self, pace: WriteLatency) -> None:
        self._pace = pace

    def __enter__(self) -> None:
        self._number = self._pace.begin()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._pace.end(self._number)
