"""Held sinks: the refusals in a row of their receivers, and the deliveries that wait for them.

The rule is `fastagi.domain.delivery.SinkRefusals`. The delivery worker applies it and writes it here with each outcome,
so that a restart continues with the same counts.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fastagi.domain.delivery import OBJECT, DeliveryStatus, SinkRefusals
from fastagi.store.queries import journal
from fastagi.store.queries.deliveries import Due
from fastagi.store.schema import delivery, recording
from fastagi.store.schema import sink_hold as table

_DUE = (delivery.c.id, delivery.c.sink, delivery.c.home, delivery.c.next_at)


def known(conn: sa.Connection) -> dict[str, SinkRefusals]:
    """Return the refusals in a row by sink; a sink that accepted its last delivery is not there."""
    return {
        row.sink: SinkRefusals(tuple(row.deliveries), row.held_since, row.error)
        for row in conn.execute(sa.select(table).order_by(table.c.sink))
    }


def lock(conn: sa.Connection, sink: str) -> SinkRefusals:
    """Return the state of a sink and lock it against other servers until this transaction ends (PostgreSQL)."""
    empty = {"sink": sink, "deliveries": []}
    conn.execute(_insert(conn, empty).on_conflict_do_nothing())
    row = conn.execute(sa.select(table).where(table.c.sink == sink).with_for_update()).one()
    return SinkRefusals(tuple(row.deliveries), row.held_since, row.error)


def write(conn: sa.Connection, sink: str, refusals: SinkRefusals) -> None:
    """Store the state of a sink. The state of a sink without a name is lost with its process, like the sink."""
    if sink.startswith(OBJECT):
        return
    if not refusals.deliveries:
        conn.execute(sa.delete(table).where(table.c.sink == sink))
        return
    values: dict[str, Any] = {
        "held_since": refusals.held_since,
        "error": refusals.error,
        "deliveries": list(refusals.deliveries),
    }
    statement = _insert(conn, {"sink": sink, **values})
    conn.execute(statement.on_conflict_do_update(index_elements=["sink"], set_=values))


def _insert(conn: sa.Connection, values: dict[str, Any]) -> postgresql.Insert | sqlite.Insert:
    make = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
    return make(table).values(**values)


def forget(conn: sa.Connection, served: Collection[str]) -> None:
    """Delete the state of sinks that no server has."""
    conn.execute(sa.delete(table).where(table.c.sink.not_in(list(served))))


def take_back(conn: sa.Connection, ids: Collection[str], now: float) -> list[Due]:
    """Make deliveries wait again that died of refusals before the sink was held. Those of deleted recordings stay dead.

    :returns: the deliveries to queue
    """
    statement = (
        sa.update(delivery)
        .where(
            delivery.c.id.in_(list(ids)),
            delivery.c.status == DeliveryStatus.DEAD.value,
            delivery.c.recording_id.in_(sa.select(recording.c.id).where(recording.c.deleted_at.is_(None))),
        )
        .values(status=DeliveryStatus.WAITING.value, next_at=now, first_at=None, done_at=None)
        .returning(*_DUE, delivery.c.recording_id)
    )
    rows = conn.execute(statement).all()
    for row in rows:
        detail = {"sink": row.sink, "delivery_id": row.id, "why": "the sink is held"}
        journal.write(conn, row.recording_id, at=now, event="delivery_revived", detail=detail)
    return [Due(row.id, row.sink, row.home, row.next_at) for row in rows]


def begin_anew(conn: sa.Connection, sink: str, now: float) -> list[Due]:
    """Make the deliveries of a sink that accepts again due now. Those tried while it was held get all of `retry_hours`.

    :returns: the deliveries to queue
    """
    statement = (
        sa.update(delivery)
        .where(
            delivery.c.sink == sink,
            delivery.c.status == DeliveryStatus.WAITING.value,
            delivery.c.first_at.is_not(None),
        )
        .values(next_at=now, first_at=None)
        .returning(*_DUE)
    )
    return [Due(*row) for row in conn.execute(statement)]
