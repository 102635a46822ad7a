"""The ledger of answered calls: which had to be recorded, and which recording proves that each was.

The compliance check decides verdicts. This module stores them and lists the incomplete calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fastagi.domain.recording import Recording
from fastagi.errors import StoreError
from fastagi.store.rows import recording_of
from fastagi.store.schema import call as table
from fastagi.store.schema import recording

RECORDED = "recorded"
"""The verdict of a call whose recording is complete; any other verdict of a required call is listed as incomplete."""


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """One answered channel. Times are unix seconds.

    :param epoch: when that Asterisk started, unix seconds (0: unknown); its uniqueids are unique only within that run
    :param required: whether the settings demand a recording
    :param verdict: empty while it runs
    :param reason: why it is not recorded; before the verdict, why a start was refused
    :param id: given by the ledger, 0 before
    """

    asterisk: str
    uniqueid: str
    epoch: int = 0
    linkedid: str = ""
    channel: str = ""
    context: str = ""
    caller: str = ""
    called: str = ""
    answered_at: float = 0.0
    ended_at: float | None = None
    required: bool = False
    recording_id: str = ""
    verdict: str = ""
    reason: str = ""
    id: int = 0


_FIELDS = tuple(f.name for f in fields(AnsweredCall))
_COLUMNS = [table.c[name] for name in _FIELDS]
_KEY = (
    table.c.asterisk == sa.bindparam("_asterisk"),
    table.c.uniqueid == sa.bindparam("_uniqueid"),
    table.c.epoch == sa.bindparam("_epoch"),
)
_INSERT = {
    "sqlite": sqlite.insert(table).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(table).on_conflict_do_nothing(),
}
_GET = sa.select(*_COLUMNS).where(*_KEY)
_END = sa.update(table).where(*_KEY, table.c.ended_at.is_(None)).values(ended_at=sa.bindparam("at"))
_JUDGE = (
    sa.update(table)
    .where(*_KEY)
    .values(recording_id=sa.bindparam("recording_id"), verdict=sa.bindparam("verdict"), reason=sa.bindparam("reason"))
)


def answered(conn: sa.Connection, call: AnsweredCall) -> bool:
    """Insert an answered call. Idempotent.

    :returns: False when it was known already
    """
    row = {name: getattr(call, name) for name in _FIELDS if name != "id"}
    return conn.execute(_INSERT[conn.dialect.name], row).rowcount == 1


def get(conn: sa.Connection, asterisk: str, uniqueid: str, epoch: int = 0) -> AnsweredCall | None:
    """Return the call, or None."""
    row = conn.execute(_GET, {"_asterisk": asterisk, "_uniqueid": uniqueid, "_epoch": epoch}).first()
    return None if row is None else AnsweredCall(*row)


def ended(conn: sa.Connection, asterisk: str, uniqueid: str, at: float, epoch: int = 0) -> bool:
    """Note the end of a call; the first end counts.

    :returns: False when the call is not known or had ended already
    """
    key = {"_asterisk": asterisk, "_uniqueid": uniqueid, "_epoch": epoch}
    return conn.execute(_END, {**key, "at": at}).rowcount == 1


def judged(
    conn: sa.Connection,
    asterisk: str,
    uniqueid: str,
    verdict: str,
    *,
    recording_id: str = "",
    reason: str = "",
    epoch: int = 0,
) -> bool:
    """Write the verdict, the recording that it rests on and the reason. Idempotent; the last one counts.

    :returns: False when the call is not known
    """
    key = {"_asterisk": asterisk, "_uniqueid": uniqueid, "_epoch": epoch}
    values = {"verdict": verdict, "recording_id": recording_id, "reason": reason[:500]}
    return conn.execute(_JUDGE, {**key, **values}).rowcount == 1


def remark(
    conn: sa.Connection, asterisk: str, uniqueid: str, epoch: int = 0, *, recording_id: str = "", reason: str = ""
) -> bool:
    """Note which recording covers a call without a verdict, or why none was begun; "" changes nothing.

    :returns: False when there is no such call
    """
    values = {"recording_id": recording_id, "reason": reason[:500]}
    statement = sa.update(table).where(*_KEY, table.c.verdict == "").values({k: v for k, v in values.items() if v})
    return conn.execute(statement, {"_asterisk": asterisk, "_uniqueid": uniqueid, "_epoch": epoch}).rowcount == 1


def open_calls(conn: sa.Connection, asterisk: str) -> list[AnsweredCall]:
    """Return the calls of that PBX that have not ended, oldest first."""
    statement = sa.select(*_COLUMNS).where(table.c.asterisk == asterisk, table.c.ended_at.is_(None))
    return [AnsweredCall(*row) for row in conn.execute(statement.order_by(table.c.id))]


def unjudged(conn: sa.Connection, asterisk: str) -> list[AnsweredCall]:
    """Return the calls of that PBX that have ended and have no verdict, oldest first."""
    statement = sa.select(*_COLUMNS).where(
        table.c.asterisk == asterisk, table.c.ended_at.is_not(None), table.c.verdict == ""
    )
    return [AnsweredCall(*row) for row in conn.execute(statement.order_by(table.c.id))]


def recordings_of(
    conn: sa.Connection, asterisk: str, uniqueid: str, linkedids: Sequence[str], ids: Sequence[str] = ()
) -> list[Recording]:
    """Return the recordings of a channel, of the other channels of its call, and those with these ids; newest first, at
    most 1,000.
    """
    statement = sa.select(recording).where(
        recording.c.asterisk == asterisk,
        sa.or_(
            recording.c.uniqueid == uniqueid,
            recording.c.linkedid.in_(list(linkedids)),
            recording.c.id.in_(list(ids)),
        ),
    )
    rows = conn.execute(statement.order_by(recording.c.id.desc()).limit(1000)).mappings()
    return [recording_of(row) for row in rows]


def recorded_on(conn: sa.Connection, calls: Sequence[AnsweredCall]) -> list[list[str]]:
    """Return for each call the ids of the recordings made on its channel while it was up, oldest first. The recording
    that covers the call comes last if it was made on another channel.
    """
    r = recording.c
    statement = sa.select(r.id, r.asterisk, r.uniqueid, r.requested_at, r.ended_at).where(
        r.uniqueid.in_([call.uniqueid for call in calls])
    )
    found: dict[tuple[str, str], list[tuple[str, float, float | None]]] = {}
    for recording_id, asterisk, uniqueid, begun, ended in conn.execute(statement.order_by(r.id)) if calls else ():
        found.setdefault((asterisk, uniqueid), []).append((recording_id, begun, ended))
    own = [
        [
            recording_id
            for recording_id, begun, ended in found.get((call.asterisk, call.uniqueid), ())
            # uniqueids are used again: a recording of another call ended before this one, or began after it
            if (ended is None or ended >= call.answered_at) and (call.ended_at is None or begun <= call.ended_at)
        ]
        for call in calls
    ]
    return [
        [*ids, call.recording_id] if call.recording_id and call.recording_id not in ids else ids
        for call, ids in zip(calls, own, strict=True)
    ]


def page(
    conn: sa.Connection,
    *,
    since: float | None = None,
    until: float | None = None,
    incomplete: bool = False,
    asterisk: str = "",
    uniqueid: str = "",
    cursor: int | None = None,
    limit: int = 50,
) -> tuple[list[AnsweredCall], int | None]:
    """Return a page of calls, newest first.

    :param since: answered at or after, unix seconds
    :param until: answered before, unix seconds
    :param incomplete: only ended calls that had to be recorded and whose verdict is not `RECORDED`
    :returns: the page, and the cursor of the next one (None for the last page)
    :raises StoreError: the limit is out of range
    """
    if not 1 <= limit <= 1000:
        raise StoreError(f"limit={limit} must be 1 to 1000")
    statement = sa.select(*_COLUMNS)
    if since is not None:
        statement = statement.where(table.c.answered_at >= since)
    if until is not None:
        statement = statement.where(table.c.answered_at < until)
    if asterisk:
        statement = statement.where(table.c.asterisk == asterisk)
    if uniqueid:
        statement = statement.where(table.c.uniqueid == uniqueid)
    if incomplete:
        statement = statement.where(
            table.c.required.is_(True), table.c.ended_at.is_not(None), table.c.verdict != RECORDED
        )
    if cursor is not None:
        statement = statement.where(table.c.id < cursor)
    found = [AnsweredCall(*row) for row in conn.execute(statement.order_by(table.c.id.desc()).limit(limit + 1))]
    return found[:limit], found[limit - 1].id if len(found) > limit else None
