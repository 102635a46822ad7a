"""The delivery worker's access to the ledger: reads what waits for a sink, and writes outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa
import structlog

from fastagi.delivery.dispatch import Item
from fastagi.delivery.holding import Change, SinkHolds
from fastagi.delivery.registry import Entry
from fastagi.domain.delivery import Delivery, Outcome, SinkRefusals, judge
from fastagi.domain.recording import Recording
from fastagi.errors import StoreDown
from fastagi.store import Store
from fastagi.store.queries import deliveries

T = TypeVar("T")

log = structlog.get_logger(__name__)

SETTLE_SECONDS = (0.2, 10.0)
"""First and longest pause between tries to write an outcome while the ledger is down."""


@dataclass(frozen=True, slots=True)
class Made:
    """An attempt that was made, before it is written.

    :param delivery: as it was claimed
    :param change: the change that its outcome made to the sink's hold
    :param now: when it ended, unix seconds
    :param seconds: how long it took
    """

    delivery: Delivery
    outcome: Outcome
    change: Change
    now: float
    seconds: float


def write_outcome(
    made: Made,
    entry: Entry,
    holds: SinkHolds,
    enqueue: Callable[[sa.Connection, deliveries.Due], None],
    jitter: float,
    shared: bool,
    conn: sa.Connection,
) -> tuple[deliveries.Settled | None, SinkRefusals]:
    """Judge an attempt, write it, and queue what follows, in one transaction.

    :param shared: other servers use the ledger
    :returns: what was written, None when another server has the delivery by now; and the refusals of the sink
    """
    delivery, outcome, now = made.delivery, made.outcome, made.now
    refusals = holds.current(conn, entry.name, made.change, now, shared=shared)
    verdict = judge(
        outcome,
        attempts=delivery.attempts + 1,
        first_at=delivery.first_at if delivery.first_at is not None else now,
        now=now,
        jitter=jitter,
        retry_seconds=entry.retry_seconds,
        held=refusals.held,
    )
    settled = deliveries.settle(conn, delivery.id, delivery.fence, verdict, outcome, now, made.seconds)
    if settled is not None:
        follow = [settled.due] if settled.due is not None else []
        for due in (*follow, *holds.write(conn, entry.name, refusals, made.change, now)):
            enqueue(conn, due)
    return settled, refusals


async def settle(store: Store, unit: Callable[[sa.Connection], T], delivery: Delivery, recording: Recording) -> T:
    """Run the unit until the ledger has taken it: an attempt that is not written would be made twice."""
    pause, longest = SETTLE_SECONDS
    while True:
        try:
            return await store.run(unit)
        except StoreDown as exc:
            log.warning("outcome_not_written", delivery_id=delivery.id, **recording.ids, error=str(exc), again_in=pause)
        await asyncio.sleep(pause)
        pause = min(longest, pause * 2)


def waiting_for(sink: str, home: str | None) -> Callable[[sa.Connection, int], list[Item]]:
    """Return the unit that reads what waits for a sink.

    :param home: only recordings whose file is on that node
    """

    def source(conn: sa.Connection, limit: int) -> list[Item]:
        return [Item(d.id, d.next_at) for d in deliveries.due(conn, limit, sink=sink, home=home)]

    return source
