"""A circuit breaker: a sink that is down is asked once in a while, not by everything that waits for it.

Pure: decides and performs nothing, time is passed in. The courier asks it.
"""

from __future__ import annotations

from dataclasses import dataclass

THRESHOLD = 5
"""Failures in a row after which a sink counts as down; fewer are bad luck of single recordings."""

FIRST_SECONDS, LONGEST_SECONDS = 5.0, 60.0
"""Between two probes: a receiver that is back is noticed within a minute."""

LONGEST_ASKED = 600.0
"""The most that a receiver's Retry-After keeps the others waiting: it may be meant for the one recording that was
answered, which waits for as long as was asked. Whether others are taken, one of them asks at least so often."""


@dataclass(slots=True)
class Breaker:
    """State of one sink.

    :ivar failures: in a row
    :ivar open_until: unix seconds before which nothing is tried; None while it is closed
    """

    failures: int = 0
    open_until: float | None = None
    probing: bool = False
    opened: int = 0

    @property
    def is_open(self) -> bool:
        return self.open_until is not None

    def admit(self, now: float) -> float:
        """0 when an attempt may be made now (with an open breaker that one is the probe), else seconds to wait."""
        if self.open_until is None:
            return 0.0
        if now < self.open_until:
            return self.open_until - now
        if self.probing:
            return 1.0
        self.probing = True
        return 0.0

    def passed(self) -> bool:
        """The sink answered, be it with a refusal; True when that closed the breaker."""
        was_open = self.is_open
        self.failures, self.open_until, self.probing, self.opened = 0, None, False, 0
        return was_open

    def failed(self, now: float, retry_after: float | None = None, *, at_once: bool = False) -> bool:
        """The sink could not take it now; True when the breaker is open after it.

        :param at_once: open it, however few failures there were
        """
        self.failures += 1
        if self.is_open and not self.probing:
            return True  # one that was under way when it opened
        if not self.is_open and not at_once and self.failures < THRESHOLD:
            return False
        delay = min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(self.opened, 10))
        if retry_after is not None:
            delay = max(delay, min(retry_after, LONGEST_ASKED))
        self.opened += 1
        self.probing = False
        self.open_until = now + delay
        return True

    def abandoned(self) -> None:
        """The probe was broken off and says nothing of the sink: another one may probe."""
        self.probing = False
