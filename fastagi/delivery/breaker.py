"""A circuit breaker: a sink that is down gets one probe at a time, not every waiting delivery.

Pure: decides and performs nothing, and time is passed in. The delivery worker uses it.
"""

from __future__ import annotations

from dataclasses import dataclass

THRESHOLD = 5
"""Failures in a row after which a sink counts as down; fewer may be bad luck of single recordings."""

FIRST_SECONDS, LONGEST_SECONDS = 5.0, 60.0
"""First and longest seconds between two probes: a receiver that is back is noticed within a minute."""

LONGEST_ASKED = 600.0
"""Longest seconds for which one receiver's Retry-After stops all deliveries to it. It may be meant for the answered
recording alone, which waits for as long as the receiver asked. A probe at this interval finds out.
"""


@dataclass(slots=True)
class Breaker:
    """State of one sink.

    :ivar failures: failures in a row
    :ivar open_until: unix seconds before which nothing is tried; None while the breaker is closed
    """

    failures: int = 0
    open_until: float | None = None
    probing: bool = False
    opened: int = 0

    @property
    def is_open(self) -> bool:
        return self.open_until is not None

    def admit(self, now: float) -> float:
        """Return 0 when an attempt may be made now (with an open breaker: as the probe), else the seconds to wait."""
        if self.open_until is None:
            return 0.0
        if now < self.open_until:
            return self.open_until - now
        if self.probing:
            return 1.0
        self.probing = True
        return 0.0

    def passed(self) -> bool:
        """Note that the sink answered, even with a refusal. Return True when that closed the breaker."""
        was_open = self.is_open
        self.failures, self.open_until, self.probing, self.opened = 0, None, False, 0
        return was_open

    def failed(self, now: float, retry_after: float | None = None, *, at_once: bool = False) -> bool:
        """Note that the sink could not take a delivery now. Return True when the breaker is open afterwards.

        :param at_once: open the breaker, however few failures there were
        """
        self.failures += 1
        if self.is_open and not self.probing:
            return True  # an attempt that was under way when the breaker opened
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
        """Note that the probe was broken off without a result: another one may probe."""
        self.probing = False
