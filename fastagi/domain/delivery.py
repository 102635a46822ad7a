"""A delivery: one recording to one sink, and the rule for when to try again.

The rule decides and performs nothing: `fastagi.delivery.courier` asks it, the ledger keeps its answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

RETRY_HOURS = 72.0
"""A receiver may be down over a weekend; after it the delivery is dead and an operator decides."""

MOST_RETRY_HOURS = 8760.0
"""A year: what waits for longer has been forgotten."""

GIVE_UP_SECONDS = RETRY_HOURS * 3600.0

FIRST_DELAY = 5.0
LONGEST_DELAY = 3600.0
"""Between two tries of our own choice; a receiver may ask for more, up to the end of the sink's `retry_hours`."""

OBJECT = "object:"
"""Names of sinks that live as long as their process begin so."""


class DeliveryStatus(StrEnum):
    WAITING = "waiting"  # due at `next_at`
    RUNNING = "running"  # a courier holds it, by its fence token
    DELIVERED = "delivered"
    DEAD = "dead"  # refused for good, or tried for `retry_hours`; `fastagi deliveries retry` revives it
    PARKED = "parked"  # no server has its sink now; waits for one of that name, or is given to another one


@dataclass(frozen=True, slots=True)
class Delivery:
    """One row: UNIQUE(recording_id, sink).

    :param fence: grows with each claim; an outcome with an older one is refused
    :param next_at: when it is due; :param first_at: when it was first tried (unix seconds)
    """

    id: str
    recording_id: str
    sink: str
    status: DeliveryStatus = DeliveryStatus.WAITING
    attempts: int = 0
    fence: int = 0
    next_at: float = 0.0
    created_at: float = 0.0
    first_at: float | None = None
    done_at: float | None = None
    last_error: str = ""

    @property
    def hint(self) -> str:
        """What is wrong and what would be right, where `last_error` cannot say it: nobody tries it. Else empty."""
        return homeless(self.sink) if self.status is DeliveryStatus.PARKED else ""


def homeless(sink: str) -> str:
    """For people: nobody has that sink, and what to do about it."""
    if sink.startswith(OBJECT):
        return "its sink was an object without a name and went with its process: have it delivered to another sink"
    return f"no server that runs has a sink {sink!r}: put it back and reload one, or have it delivered to another sink"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt. `retry` False with ok False is a refusal for good.

    :param retry_after: seconds that the receiver asked for
    """

    ok: bool
    error: str = ""
    retry: bool = True
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the ledger is to write: the new status, and when to try again where it is WAITING."""

    status: DeliveryStatus
    next_at: float = 0.0


def judge(
    outcome: Outcome,
    *,
    attempts: int,
    first_at: float,
    now: float,
    jitter: float,
    retry_seconds: float = GIVE_UP_SECONDS,
) -> Verdict:
    """What follows from an attempt.

    :param attempts: how many there have been, this one included (1 or more)
    :param first_at: unix seconds of the first one
    :param jitter: random number in [0, 1): the delay is between half and all of the exponential step
    :param retry_seconds: for so long after the first attempt there are others
    """
    if outcome.ok:
        return Verdict(DeliveryStatus.DELIVERED)
    if not outcome.retry or now - first_at >= retry_seconds:
        return Verdict(DeliveryStatus.DEAD)
    step = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempts - 1, 20))
    delay = step * (0.5 + jitter / 2)
    if outcome.retry_after is not None:
        delay = max(delay, outcome.retry_after)
    # the last try is made at the end of that time, not skipped: whoever asks for more is asked once again
    return Verdict(DeliveryStatus.WAITING, min(now + delay, max(now + 1.0, first_at + retry_seconds)))
