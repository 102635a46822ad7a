"""A delivery: one recording to one sink, and the rule for when to try again.

The rule decides and performs nothing: `fastagi.delivery.worker` asks it, the ledger keeps its answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fastagi.domain.timestamps import rfc3339

HOLD_AFTER = 3
"""Recordings that are refused in a row before the sink is held; fewer may be those recordings' own fault."""

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
    :param refused: the sender or the address is refused, not this recording (HTTP 401, 403, 404)
    """

    ok: bool
    error: str = ""
    retry: bool = True
    retry_after: float | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class SinkRefusals:
    """What a sink's receiver has refused in a row, with answers about the sender or the address.

    `HOLD_AFTER` recordings in a row hold the sink: its deliveries wait instead of dying one by one of a wrong secret,
    and one of them is tried now and then. The first that is accepted releases it.

    :param deliveries: their ids, each of another recording; empty when the last answer was of another kind
    :param held_since: unix seconds; None while there are fewer
    :param error: what the receiver said last
    """

    deliveries: tuple[str, ...] = ()
    held_since: float | None = None
    error: str = ""

    @property
    def held(self) -> bool:
        return self.held_since is not None

    def after(self, outcome: Outcome, delivery_id: str, now: float) -> SinkRefusals:
        """Return the state after an attempt. One that can be tried again says nothing of refusals."""
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
        """Return what two servers know together: what each was refused counts as one row."""
        refused = tuple(dict.fromkeys((*other.deliveries, *self.deliveries)))
        since = min((s for s in (self.held_since, other.held_since) if s is not None), default=None)
        if since is None and len(refused) >= HOLD_AFTER:
            since = now
        return SinkRefusals(refused, since, self.error or other.error)

    @property
    def hint(self) -> str:
        """For people: why its deliveries wait, and what to do; empty when they do not."""
        if self.held_since is None:
            return ""
        since = rfc3339(self.held_since)
        return f"its sink is held since {since}, one delivery is tried about once a minute: mend it: {self.error}"


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
    held: bool = False,
) -> Verdict:
    """What follows from an attempt.

    :param attempts: how many there have been, this one included (1 or more)
    :param first_at: unix seconds of the first one
    :param jitter: random number in [0, 1): the delay is between half and all of the exponential step
    :param retry_seconds: for so long after the first attempt there are others
    :param held: the sink is held: nothing dies
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
    # the last try is made at the end of that time, not skipped: whoever asks for more is asked once again
    return Verdict(DeliveryStatus.WAITING, min(now + delay, max(now + 1.0, first_at + retry_seconds)))
