"""Delay before the next attempt to reach Asterisk. Pure: time and random numbers come from the caller."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays with jitter, all in seconds.

    :param shortest: shortest delay
    :param longest: limit of the step
    """

    shortest: float = 0.5
    longest: float = 30.0

    def delay(self, failures: int, chance: float) -> float:
        """Return the delay after `failures` in a row: between `shortest` and the step, which doubles each time.

        :param failures: 1 or more
        :param chance: random number in [0, 1): servers that lost the same Asterisk must not reconnect at once
        """
        step = min(self.longest, self.shortest * 2.0 ** min(failures, 32))
        return self.shortest + max(0.0, step - self.shortest) * chance
