"""How long writes to the ledger take: those that were done, and those that are under way and may never be."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

SLOW_SECONDS = 1.0
"""A write takes milliseconds; one that takes so long is an operator's to look at, and no call waits for many of it."""

RECENT_SECONDS = 10.0
"""How long a slow write makes its ledger slow."""

KEPT_SECONDS = 60


class WriteLatency:
    """Measures. Used on one event loop.

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
        """A write begins: its number."""
        self._next += 1
        self._under_way[self._next] = self._clock()
        return self._next

    def end(self, number: int) -> None:
        """It is done, or has failed."""
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
        """The longest that a write took which ended within so many seconds (60 at most), or takes already."""
        now = self._clock()
        oldest = next(iter(self._under_way.values()), now)
        since = now - within - 1  # a whole second's writes are one entry
        return max([now - oldest, *(took for second, took in self._done if second >= since)])

    @property
    def slow(self) -> bool:
        """Does, or did just now, a write take longer than `SLOW_SECONDS`?"""
        now = self._clock()
        return now < self._slow_until or now - next(iter(self._under_way.values()), now) >= SLOW_SECONDS


class Write:
    """One write, as a context manager: lighter than a generator, as it is used for every one."""

    __slots__ = ("_number", "_pace")

    def __init__(self, pace: WriteLatency) -> None:
        self._pace = pace

    def __enter__(self) -> None:
        self._number = self._pace.begin()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._pace.end(self._number)
