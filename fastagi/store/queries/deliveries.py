"""Deliveries: which server may try now, the outcome of each attempt, and what waits.

The ledger's side of `fastagi.domain.delivery`: the delivery worker asks, calls the sink and settles; nothing here calls
a sink. A claim raises the fence, and an outcome with an older fence is refused. A server that was thought dead and
comes back therefore cannot overwrite what its successor did.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fastagi.domain.delivery import (
    GIVE_UP_SECONDS,
    LONGEST_DELAY,
    OBJECT,
    Delivery,
    DeliveryStatus,
    Outcome,
    Verdict,
    homeless,
)
from fastagi.domain.ids import new_id
from fastagi.domain.recording import Recording
from fastagi.errors import StoreError
from fastagi.store.prepared import Prepared
from fastagi.store.queries import journal
from fastagi.store.rows import delivery_columns, delivery_of
from fastagi.store.schema import attempt as attempt_table
from fastagi.store.schema import delivery as table
from fastagi.store.schema import recording as recording_table

WAITING, RUNNING = DeliveryStatus.WAITING.value, DeliveryStatus.RUNNING.value
DEAD, PARKED = DeliveryStatus.DEAD.value, DeliveryStatus.PARKED.value

CLOCKS_DIFFER_SECONDS = 60.0
"""Seconds by which the clocks of servers that share a ledger may differ."""

LONGEST_ERROR = 500
"""Most characters of an error that are kept: a receiver may answer with a page."""

_INSERT = Prepared(
    sqlite.insert(table).on_conflict_do_nothing(),
    [c.name for c in table.c if c.name != "held_by"],
    elsewhere=postgresql.insert(table).on_conflict_do_nothing(),
)
_BY_ID = sa.select(table).where(table.c.id == sa.bindparam("id"))
_BY_ID_LOCKED = _BY_ID.with_for_update()

_earlier = table.alias("earlier")
_BLOCKED = sa.exists().where(
    _earlier.c.sink == table.c.sink,
    _earlier.c.call_key == table.c.call_key,
    _earlier.c.id < table.c.id,
    _earlier.c.status.in_((sa.literal_column(f"'{WAITING}'"), sa.literal_column(f"'{RUNNING}'"))),
)
"""True where an earlier delivery of the same call to the same sink is not done."""

_BY_PAIR = sa.select(table).where(
    table.c.recording_id == sa.bindparam("recording_id"), table.c.sink == sa.bindparam("sink")
)
_DELETED = sa.select(recording_table.c.deleted_at).where(recording_table.c.id == sa.bindparam("id"))
_OF_RECORDING = sa.select(table).where(table.c.recording_id == sa.bindparam("recording_id")).order_by(table.c.id)
_LATER = Prepared(
    sa.select(table.c.id, table.c.next_at, table.c.sink, table.c.home)
    .where(
        table.c.sink == sa.bindparam("sink"),
        table.c.call_key == sa.bindparam("call_key"),
        table.c.id > sa.bindparam("id"),
        table.c.status == sa.literal_column(f"'{WAITING}'"),
    )
    .order_by(table.c.id)
    .limit(1)
)
# one statement each, because the round trips are the cost on PostgreSQL
_CLAIM = Prepared(
    sa.update(table)
    .where(
        table.c.id == sa.bindparam("_id"),
        table.c.status == WAITING,
        table.c.next_at <= sa.bindparam("now", type_=sa.Double),
        table.c.sink == sa.func.coalesce(sa.bindparam("for_sink", type_=sa.String), table.c.sink),
        ~_BLOCKED,
    )
    .values(
        status=RUNNING,
        fence=table.c.fence + 1,
        held_by=sa.bindparam("held_by"),
        first_at=sa.func.coalesce(table.c.first_at, sa.bindparam("now", type_=sa.Double)),
    )
    .returning(table)
)
_SETTLE = Prepared(
    sa.update(table)
    .where(table.c.id == sa.bindparam("_id"), table.c.fence == sa.bindparam("_fence"), table.c.status == RUNNING)
    .values(
        status=sa.bindparam("status"),
        attempts=table.c.attempts + 1,
        next_at=sa.func.coalesce(sa.bindparam("next_at", type_=sa.Double), table.c.next_at),
        done_at=sa.bindparam("done_at"),
        last_error=sa.bindparam("last_error"),
        held_by="",
    )
    .returning(table)
)
_GIVE_BACK = (
    sa.update(table)
    .where(table.c.id == sa.bindparam("_id"), table.c.fence == sa.bindparam("_fence"), table.c.status == RUNNING)
    .values(status=WAITING, next_at=sa.bindparam("next_at"), held_by="")
)
_ATTEMPT = Prepared(sa.insert(attempt_table), attempt_table.c.keys())
_ATTEMPTS = (
    sa.select(attempt_table).where(attempt_table.c.delivery_id == sa.bindparam("id")).order_by(attempt_table.c.n)
)


@dataclass(frozen=True, slots=True)
class Due:
    """A waiting delivery, reduced to what its queue needs."""

    id: str
    sink: str
    home: str
    next_at: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt. `at` is when it began (unix seconds), `seconds` how long it took."""

    delivery_id: str
    n: int
    at: float
    seconds: float
    ok: bool
    error: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The result of `settle`.

    :param due: deliveries to queue now: this one, when it waits again, or the next one of its call to its sink
    """

    delivery: Delivery
    due: Due | None = None


def call_key(recording: Recording) -> str:
    """Return the key that groups the recordings of one call: their deliveries to a sink are made in order, one at a
    time.
    """
    return f"{recording.asterisk}/{recording.session_id}"


def insert(conn: sa.Connection, recording: Recording, sink: str, *, now: float) -> Delivery:
    """Return the delivery of `recording` to `sink`: the existing one, or a new one that is due now.

    :param now: unix seconds
    """
    fresh = Delivery(
        id=new_id("dlv", now, os.urandom(10)), recording_id=recording.id, sink=sink, next_at=now, created_at=now
    )
    row = {**delivery_columns(fresh), "call_key": call_key(recording), "home": recording.node}
    if _INSERT.run(conn, row) == 1:
        return fresh
    return delivery_of(conn.execute(_BY_PAIR, {"recording_id": recording.id, "sink": sink}).mappings().one())


def get(conn: sa.Connection, delivery_id: str) -> Delivery | None:
    """Return the delivery of that id, or None."""
    row = conn.execute(_BY_ID, {"id": delivery_id}).mappings().first()
    return None if row is None else delivery_of(row)


def due_entry(conn: sa.Connection, delivery_id: str) -> Due | None:
    """Return the queue entry of a delivery, or None when it does not wait."""
    row = conn.execute(_BY_ID, {"id": delivery_id}).mappings().first()
    if row is None or row["status"] != WAITING:
        return None
    return Due(row["id"], row["sink"], row["home"], row["next_at"])


def claim(
    conn: sa.Connection, delivery_id: str, now: float, held_by: str = "", sink: str | None = None
) -> Delivery | None:
    """Take a waiting delivery: RUNNING, fence one higher.

    :param now: unix seconds
    :param held_by: the node that runs it
    :param sink: the expected sink: an operator may have given the delivery to another one
    :returns: None when it does not wait, is not due yet, or an earlier one of its call to its sink is not done
    """
    row = _CLAIM.first(conn, {"_id": delivery_id, "now": now, "held_by": held_by, "for_sink": sink})
    return None if row is None else delivery_of(row)


def settle(
    conn: sa.Connection,
    delivery_id: str,
    fence: int,
    verdict: Verdict,
    outcome: Outcome,
    now: float,
    seconds: float = 0.0,
) -> Settled | None:
    """Write the outcome of an attempt, and the attempt itself.

    :param fence: as `claim` gave it
    :param now: when it ended, unix seconds
    :param seconds: how long it took
    :returns: None when the fence is older than the ledger's: another server has the delivery, and nothing is written
    """
    final = verdict.status is not DeliveryStatus.WAITING
    error = "" if outcome.ok else _printable(outcome.error)
    row = _SETTLE.first(
        conn,
        {
            "_id": delivery_id,
            "_fence": fence,
            "status": verdict.status.value,
            "next_at": None if final else verdict.next_at,
            "done_at": now if final else None,
            "last_error": error,
        },
    )
    if row is None:
        return None
    delivery = delivery_of(row)
    _ATTEMPT.run(
        conn,
        {
            "delivery_id": delivery_id,
            "n": delivery.attempts,
            "at": now - seconds,
            "seconds": seconds,
            "ok": outcome.ok,
            "error": error,
        },
    )
    if not final:
        return Settled(delivery, Due(delivery.id, delivery.sink, row["home"], delivery.next_at))
    journal.write(
        conn,
        delivery.recording_id,
        at=now,
        event=delivery.status.value,
        detail={"sink": delivery.sink, "delivery_id": delivery_id, "attempts": delivery.attempts},
    )
    return Settled(delivery, _next_of_call(conn, row))


def _printable(error: str) -> str:
    """Return the error as one line: a receiver's answer may hold anything, and PostgreSQL refuses NUL."""
    return " ".join("".join(c if c.isprintable() else " " for c in error[: 4 * LONGEST_ERROR]).split())[:LONGEST_ERROR]


def give_back(conn: sa.Connection, delivery_id: str, fence: int, next_at: float) -> bool:
    """Return a claimed delivery untried, without counting an attempt. False when the fence is old."""
    return conn.execute(_GIVE_BACK, {"_id": delivery_id, "_fence": fence, "next_at": next_at}).rowcount == 1


def _next_of_call(conn: sa.Connection, row: Any) -> Due | None:
    order = {"sink": row["sink"], "call_key": row["call_key"], "id": row["id"]}
    later = _LATER.first(conn, order)
    return None if later is None else Due(later["id"], later["sink"], later["home"], later["next_at"])


def due(conn: sa.Connection, limit: int, *, sink: str | None = None, home: str | None = None) -> list[Due]:
    """Return the waiting deliveries, the earliest due first, including those due later. Of each call only the first
    one.

    :param sink: only those to that sink
    :param home: only those whose file is on that node
    """
    statement = sa.select(table.c.id, table.c.sink, table.c.home, table.c.next_at).where(
        table.c.status == sa.literal_column(f"'{WAITING}'"), ~_BLOCKED
    )
    if sink is not None:
        statement = statement.where(table.c.sink == sink)
    if home is not None:
        statement = statement.where(table.c.home == home)
    return [Due(*row) for row in conn.execute(statement.order_by(table.c.next_at).limit(limit))]


def release(conn: sa.Connection, living: Collection[str], now: float) -> list[Due]:
    """Make the running deliveries of dead servers due again.

    :param living: the nodes that live and keep theirs. A starting server is not among them, because the deliveries that
        its predecessor under the same name was running have no owner. On SQLite no other server lives: its process lock
        proves it.
    """
    statement = (
        sa.update(table)
        .where(table.c.status == RUNNING, table.c.held_by.not_in(list(living)))
        .values(status=WAITING, next_at=now, held_by="")
        .returning(table.c.id, table.c.sink, table.c.home, table.c.next_at)
    )
    return [Due(*row) for row in conn.execute(statement)]


def bring_forward(
    conn: sa.Connection, now: float, home: str | None = None, retry_seconds: Mapping[str, float] | None = None
) -> list[Due]:
    """Make deliveries due that would wait longer than any delivery waits, and restart the retry period of those that
    were first tried in the future: a clock was ahead when those times were written. A delivery that was last tried in
    the past waits because its receiver asked for it, up to the end of its sink's `retry_hours`.

    :param home: only those of this node's recordings
    :param retry_seconds: by sink, where it is not `GIVE_UP_SECONDS`
    """
    longest: Any = GIVE_UP_SECONDS
    if retry_seconds:
        longest = sa.case(dict(retry_seconds), value=table.c.sink, else_=GIVE_UP_SECONDS)
    young = table.c.first_at > now + CLOCKS_DIFFER_SECONDS
    tried = sa.exists().where(
        attempt_table.c.delivery_id == table.c.id,
        attempt_table.c.n == table.c.attempts,
        attempt_table.c.at <= now + CLOCKS_DIFFER_SECONDS,
    )
    asked = ~young & tried & (table.c.next_at <= table.c.first_at + longest + CLOCKS_DIFFER_SECONDS)
    late = (table.c.next_at > now + LONGEST_DELAY + CLOCKS_DIFFER_SECONDS) & (table.c.first_at.is_(None) | ~asked)
    which = [table.c.status == WAITING, late | young]
    if home is not None:
        which.append(table.c.home == home)
    statement = (
        sa.update(table)
        .where(*which)
        .values(
            next_at=sa.case((late, now), else_=table.c.next_at),
            first_at=sa.case((young, sa.null()), else_=table.c.first_at),
        )
        .returning(table.c.id, table.c.sink, table.c.home, table.c.next_at)
    )
    return [Due(*row) for row in conn.execute(statement)]


def new_day(conn: sa.Connection, home: str | None) -> None:
    """Restart the retry period of what waits or runs: the clock was set far ahead, and it was not tried for so long.

    :param home: only of this node's recordings
    """
    which: list[Any] = [table.c.status.in_((WAITING, RUNNING))]
    if home is not None:
        which.append(table.c.home == home)
    conn.execute(sa.update(table).where(*which).values(first_at=None))


def sinks(conn: sa.Connection, status: DeliveryStatus) -> list[str]:
    """Return the sinks that deliveries in that status are for."""
    statement = sa.select(table.c.sink).where(table.c.status == sa.literal_column(f"'{status.value}'")).distinct()
    return list(conn.execute(statement.order_by(table.c.sink)).scalars())


def park(conn: sa.Connection, names: Collection[str]) -> int:
    """Park all waiting deliveries of these sinks, which no server has now; return how many."""
    statement = sa.update(table).where(table.c.status == WAITING, table.c.sink.in_(list(names)))
    return conn.execute(statement.values(status=PARKED)).rowcount


def unpark(conn: sa.Connection, names: Collection[str], now: float) -> int:
    """Make the parked deliveries of these sinks due; return how many."""
    statement = sa.update(table).where(table.c.status == PARKED, table.c.sink.in_(list(names)))
    return conn.execute(statement.values(status=WAITING, next_at=now)).rowcount


def requeue(
    conn: sa.Connection,
    delivery_id: str,
    now: float,
    *,
    to: str = "",
    served: Collection[str] = (),
    all_known: bool = False,
) -> Due:
    """Retry a delivery for an operator: a dead or parked one gets a new retry period, a waiting one is due now.
    Attempts go on counting.

    :param to: another sink, which gets a dead or parked delivery instead; its id stays
    :param served: the sinks that servers have
    :param all_known: whether `served` is complete. Otherwise a dead delivery is made due though its sink is not in it
    :raises StoreError: there is no such delivery, it is delivered or running, its recording is deleted, no server has
        its sink, or the other sink gets that recording already
    """
    row = conn.execute(_BY_ID_LOCKED, {"id": delivery_id}).mappings().first()
    if row is None:
        raise StoreError(f"there is no delivery {delivery_id}")
    status, sink = row["status"], to or row["sink"]
    what = f"delivery {delivery_id} is {status}"
    if status not in (DEAD, WAITING, PARKED):
        raise StoreError(f"{what}: only a dead, parked or waiting one can be tried again")
    if to and status == WAITING:
        raise StoreError(f"{what} for {row['sink']}: only a dead or parked one can go to another sink")
    if conn.execute(_DELETED, {"id": row["recording_id"]}).scalar_one() is not None:
        raise StoreError(f"{what}, and its recording was deleted: there is nothing to deliver")
    if sink not in served and (all_known or to or status == PARKED):
        names = ", ".join(sorted(name for name in served if not name.startswith(OBJECT))) or "none"
        wrong = f"no server that runs has a sink {to!r}" if to else homeless(sink)
        raise StoreError(f"{what}: {wrong} (there are: {names})")
    if sink != row["sink"]:
        other = conn.execute(_BY_PAIR, {"recording_id": row["recording_id"], "sink": sink}).mappings().first()
        if other is not None:
            raise StoreError(f"{what}: its recording has a delivery to {sink}, {other['id']} ({other['status']})")
    conn.execute(
        sa.update(table)
        .where(table.c.id == delivery_id)
        .values(
            status=WAITING,
            sink=sink,
            next_at=now,
            first_at=row["first_at"] if status == WAITING else None,
            done_at=None,
        )
    )
    detail = {"sink": sink, "delivery_id": delivery_id}
    if sink != row["sink"]:
        detail["instead_of"] = row["sink"]
        _gets(conn, row["recording_id"], sink, instead_of=row["sink"])
    journal.write(conn, row["recording_id"], at=now, event="delivery_revived", detail=detail)
    return Due(row["id"], sink, row["home"], now)


def _gets(conn: sa.Connection, recording_id: str, sink: str, *, instead_of: str) -> None:
    """Replace the sink in the recording's row, so that putting the row back makes no delivery to the former one."""
    mine = recording_table.c.id == recording_id
    sinks = conn.execute(sa.select(recording_table.c.sinks).where(mine)).scalar_one()
    named = [sink if name == instead_of else name for name in sinks]
    conn.execute(sa.update(recording_table).where(mine).values(sinks=named))


def to_revive(conn: sa.Connection, status: DeliveryStatus, sink: str = "") -> list[str]:
    """Return the ids of all deliveries in that status, oldest first, without those of deleted recordings.

    :param sink: only those to it; empty for all
    """
    statement = (
        sa.select(table.c.id)
        .join(recording_table, recording_table.c.id == table.c.recording_id)
        .where(table.c.status == status.value, recording_table.c.deleted_at.is_(None))
    )
    if sink:
        statement = statement.where(table.c.sink == sink)
    return list(conn.execute(statement.order_by(table.c.id)).scalars())


def of_recording(conn: sa.Connection, recording_id: str) -> list[Delivery]:
    """Return all deliveries of a recording, oldest first."""
    return [delivery_of(row) for row in conn.execute(_OF_RECORDING, {"recording_id": recording_id}).mappings()]


def attempts(conn: sa.Connection, delivery_id: str) -> list[Attempt]:
    """Return all attempts of a delivery, oldest first."""
    return [Attempt(*row) for row in conn.execute(_ATTEMPTS, {"id": delivery_id})]


def page(
    conn: sa.Connection,
    *,
    status: str = "",
    sink: str = "",
    recording_id: str = "",
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[list[Delivery], str | None]:
    """Return a page of deliveries, newest first; empty filters do not filter.

    :param cursor: from the page before
    :returns: the page, and the cursor of the next one (None for the last page)
    :raises StoreError: the limit is out of range
    """
    if not 1 <= limit <= 1000:
        raise StoreError(f"limit={limit} must be 1 to 1000")
    statement = sa.select(table)
    for column, value in ((table.c.status, status), (table.c.sink, sink), (table.c.recording_id, recording_id)):
        if value:
            statement = statement.where(column == value)
    if cursor:
        statement = statement.where(table.c.id < cursor)
    rows = conn.execute(statement.order_by(table.c.id.desc()).limit(limit + 1)).mappings().all()
    found = [delivery_of(row) for row in rows[:limit]]
    return found, found[-1].id if len(rows) > limit else None


@dataclass(frozen=True, slots=True)
class Depth:
    """Number of deliveries of one sink in one status, and the age in seconds of the oldest."""

    sink: str
    status: DeliveryStatus
    count: int
    oldest_seconds: float


def depths(conn: sa.Connection, now: float) -> list[Depth]:
    """Count the undelivered deliveries by sink and status. Delivered ones are history and are not counted."""
    statement = (
        sa.select(table.c.sink, table.c.status, sa.func.count(), sa.func.min(table.c.created_at))
        .where(table.c.status.in_((WAITING, RUNNING, DEAD, PARKED)))
        .group_by(table.c.sink, table.c.status)
        .order_by(table.c.sink, table.c.status)
    )
    return [
        Depth(sink, DeliveryStatus(status), count, max(0.0, now - oldest))
        for sink, status, count, oldest in conn.execute(statement)
    ]
