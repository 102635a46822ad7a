"""How long to wait before the next attempt to reach Asterisk. Pure: time and chance are the caller's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential steps with jitter, all in seconds.

    :param shortest: never sooner than this
    :param longest: the step stops growing there
    """

    shortest: float = 0.5
    longest: float = 30.0

    def delay(self, failures: int, chance: float) -> float:
        """What to wait after so many failures in a row: between `shortest` and the step, which doubles each time.

        :param failures: 1 or more
        :param chance: random number in [0, 1): servers that lost the same Asterisk must not come back as one
        """
        step = min(self.longest, self.shortest * 2.0 ** min(failures, 32))
        return self.shortest + max(0.0, step - self.shortest) * chance
