"""Delivery of one recording to one sink, and the rule for retries.

The rule only decides: `fastagi.delivery.worker` calls it, the ledger keeps the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fastagi.domain.timestamps import rfc3339

HOLD_AFTER = 3
"""Refused recordings in a row that put the sink on hold; fewer may be the recordings' own fault."""

RETRY_HOURS = 72.0
"""Hours of retries: a receiver may be down over a weekend. Then the delivery is dead and an operator decides."""

MOST_RETRY_HOURS = 8760.0
"""Most hours of retries: a year."""

GIVE_UP_SECONDS = RETRY_HOURS * 3600.0

FIRST_DELAY = 5.0
LONGEST_DELAY = 3600.0
"""Longest delay between two tries in seconds; a receiver may ask for more, up to the end of `retry_hours`."""

OBJECT = "object:"
"""Prefix of the names of sinks that live as long as their process."""


class DeliveryStatus(StrEnum):
    WAITING = "waiting"  # due at `next_at`
    RUNNING = "running"  # a delivery worker holds it, by its fence token
    DELIVERED = "delivered"
    DEAD = "dead"  # refused for good, or tried for `retry_hours`; `fastagi deliveries retry` revives it
    PARKED = "parked"  # no server has its sink now; waits for one of that name, or is given to another one


@dataclass(frozen=True, slots=True)
class Delivery:
    """Row of the ledger: UNIQUE(recording_id, sink).

    :param fence: grows with each claim; an outcome with an older fence is refused
    :param next_at: time of the next try; :param first_at: time of the first one (unix seconds)
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
        """Return the fault and its remedy where no server tries the delivery and `last_error` is silent; else empty."""
        return homeless(self.sink) if self.status is DeliveryStatus.PARKED else ""


def homeless(sink: str) -> str:
    """Return a text for people: no server has the sink, and the remedy."""
    if sink.startswith(OBJECT):
        return "its sink was an object without a name and went with its process: have it delivered to another sink"
    return f"no server that runs has a sink {sink!r}: put it back and reload one, or have it delivered to another sink"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one attempt. `retry` False with ok False is a final refusal.

    :param retry_after: seconds that the receiver asked for
    :param refused: the sender or the address is refused, not this recording (HTTP 401, 403, 404)
    """

    ok: bool
    error: str = ""
    retry: bool = True
    retry_after: float | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class SinkRefusals:
    """Refusals of a sink's receiver in a row that are about the sender or the address.

    `HOLD_AFTER` recordings in a row hold the sink: its deliveries wait instead of dying one by one of a wrong secret,
    and one of them is tried now and then. The first that is accepted releases it.

    :param deliveries: ids of the refused deliveries, each of another recording; empty after any other answer
    :param held_since: unix seconds; None while the sink is not on hold
    :param error: last answer of the receiver
    """

    deliveries: tuple[str, ...] = ()
    held_since: float | None = None
    error: str = ""

    @property
    def held(self) -> bool:
        return self.held_since is not None

    def after(self, outcome: Outcome, delivery_id: str, now: float) -> SinkRefusals:
        """Return the state after an attempt. A failure that can be retried changes nothing."""
        if outcome.refused and not outcome.ok:
            refused = self.deliveries
            if not self.held and delivery_id not in refused:
                refused = (*refused, delivery_id)
            since = now if not self.held and len(refused) >= HOLD_AFTER else self.held_since
            return SinkRefusals(refused, since, outcome.error)
        if not outcome.ok and (outcome.retry or self.held):
            return self
        return SinkRefusals()

    def joined(self, other: SinkRefusals, now: float) -> SinkRefusals:
        """Return the joint state of two servers: the refusals of both count together."""
        refused = tuple(dict.fromkeys((*other.deliveries, *self.deliveries)))
        since = min((s for s in (self.held_since, other.held_since) if s is not None), default=None)
        if since is None and len(refused) >= HOLD_AFTER:
            since = now
        return SinkRefusals(refused, since, self.error or other.error)

    @property
    def hint(self) -> str:
        """Return a text for people: why the deliveries wait, and the remedy; empty when they do not wait."""
        if self.held_since is None:
            return ""
        since = rfc3339(self.held_since)
        return f"its sink is held since {since}, one delivery is tried about once a minute: mend it: {self.error}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Decision for the ledger: the new status, and the time of the next try where it is WAITING."""

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
    held: bool = False,
) -> Verdict:
    """Decide what follows from an attempt.

    :param attempts: number of attempts with this one (1 or more)
    :param first_at: unix seconds of the first one
    :param jitter: random number in [0, 1): the delay is between half and all of the exponential step
    :param retry_seconds: time after the first attempt in which further ones are made
    :param held: the sink is on hold: no delivery dies
    """
    if outcome.ok:
        return Verdict(DeliveryStatus.DELIVERED)
    if not held and (not outcome.retry or now - first_at >= retry_seconds):
        return Verdict(DeliveryStatus.DEAD)
    step = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempts - 1, 20))
    delay = step * (0.5 + jitter / 2)
    if outcome.retry_after is not None:
        delay = max(delay, outcome.retry_after)
    if held:
        return Verdict(DeliveryStatus.WAITING, now + delay)
    # the last try comes at the end of that time even if the receiver asked for a longer delay
    return Verdict(DeliveryStatus.WAITING, min(now + delay, max(now + 1.0, first_at + retry_seconds)))
