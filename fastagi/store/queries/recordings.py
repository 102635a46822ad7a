"""Changes of recordings, each with its line in the journal.

`advance` and `finish` are the only writers of `phase`; `fastagi.domain.states` decides the transitions. Queries for
lists are in `catalogue`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fastagi.domain import states
from fastagi.domain.delivery import Delivery
from fastagi.domain.recording import Recording
from fastagi.domain.states import OPEN, Event, Phase
from fastagi.errors import HeldElsewhere, StoreError, TakenOver
from fastagi.store.prepared import Prepared
from fastagi.store.queries import deliveries, journal
from fastagi.store.rows import recording_columns, recording_of, recording_of_copy
from fastagi.store.schema import recording as table
from fastagi.store.schema import server

_INSERT = Prepared(
    sqlite.insert(table).on_conflict_do_nothing(),
    table.c.keys(),
    elsewhere=postgresql.insert(table).on_conflict_do_nothing(),
)
_BY_ID = Prepared(sa.select(table).where(table.c.id == sa.bindparam("id")))
_BY_ID_LOCKED = Prepared(sa.select(table).where(table.c.id == sa.bindparam("id")).with_for_update())
"""The lock is for PostgreSQL, where two servers may write; SQLite has one writer and ignores it."""
_BY_CALL = sa.select(table).where(table.c.uniqueid == sa.bindparam("uniqueid")).order_by(table.c.id.desc()).limit(1000)
# the phases are written out so that SQLite recognises its partial index
_OPEN_ON_NODE = (
    sa.select(table)
    .where(
        table.c.node == sa.bindparam("node"),
        table.c.phase.in_(sa.literal_column(f"'{p.value}'") for p in states.Phase if p in OPEN),
    )
    .order_by(table.c.id)
)

_OPEN_ELSEWHERE = (
    sa.select(table)
    .where(
        table.c.node != sa.bindparam("node"),
        table.c.phase.in_(sa.literal_column(f"'{p.value}'") for p in states.Phase if p in OPEN),
    )
    .order_by(table.c.id)
    .limit(sa.bindparam("limit"))
)

_OPEN_NODES = (
    sa.select(table.c.node)
    .where(
        table.c.node != sa.bindparam("node"),
        table.c.phase.in_(sa.literal_column(f"'{p.value}'") for p in states.Phase if p in OPEN),
    )
    .distinct()
)

to_row = recording_columns
"""Turn a recording into JSON values, for a copy outside the ledger; `from_copy` reads it again."""

from_copy = recording_of_copy

_FIXED = frozenset({"id", "phase"})


@lru_cache(maxsize=256)
def _update(columns: tuple[str, ...], guarded: bool, held: bool = False) -> Prepared:
    """Return an UPDATE of these columns, built once: building costs four times what running it does."""
    statement = sa.update(table).where(table.c.id == sa.bindparam("_id"))
    if guarded:
        statement = statement.where(table.c.phase == sa.bindparam("_phase"))
    if held:
        statement = statement.where(table.c.node == sa.bindparam("_holder"))
    return Prepared(statement.values({name: sa.bindparam(name) for name in columns}))


def insert(conn: sa.Connection, recording: Recording, detail: Mapping[str, Any] | None = None) -> Recording:
    """Insert a recording and the journal line ``requested``. Idempotent.

    Call it before the command that starts the recording is sent: a recording that is not journalled cannot be found
    again.

    :param detail: for the journal; JSON values
    :raises StoreError: that id belongs to another recording
    """
    row = {**recording_columns(recording), "updated_at": recording.requested_at}
    if _INSERT.run(conn, row) != 1:
        there = get(conn, recording.id)
        if there is None or (there.asterisk, there.uniqueid) != (recording.asterisk, recording.uniqueid):
            raise StoreError(f"recording {recording.id} is there already and is another one")
        return there
    journal.write(
        conn,
        recording.id,
        at=recording.requested_at,
        event="requested",
        to_phase=recording.phase.value,
        detail=detail,
    )
    return recording


def claim(conn: sa.Connection, recording: Recording, silent_seconds: float) -> None:
    """Check before `insert` that no other living server records the same. Two servers that are connected to one
    Asterisk hear the same command and see the same MixMonitor. Does nothing on SQLite, which has one server.

    :param silent_seconds: a server without a heartbeat for longer counts as dead
    :raises HeldElsewhere: another server has the recording, or that recorder of that channel
    """
    if conn.dialect.name != "postgresql":
        return
    same = f"{recording.asterisk}\n{recording.uniqueid}\n{recording.recorder}"
    conn.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:same, 0))"), {"same": same})
    holder = held_elsewhere(conn, recording.node, silent_seconds, recording.asterisk, recording.uniqueid, recording)
    if holder:
        raise HeldElsewhere(f"channel {recording.channel} is recorded already, by the server {holder}")


def held_elsewhere(
    conn: sa.Connection,
    node: str,
    silent_seconds: float,
    asterisk: str,
    uniqueid: str,
    like: Recording | None = None,
    *,
    recording_id: str = "",
) -> str:
    """Return another living server that records that channel, or has that recording; empty when there is none.

    :param like: match only the same recorder of the channel, or the same id (whatever its phase, and whether the server
        lives or not)
    """
    if conn.dialect.name != "postgresql":
        return ""
    live = sa.and_(
        table.c.asterisk == asterisk,
        sa.or_(table.c.uniqueid == uniqueid, table.c.id == recording_id),
        table.c.phase.in_([p.value for p in states.LIVE]),
        table.c.node.in_(
            sa.select(server.c.node).where(
                server.c.heartbeat_at
                > sa.literal_column("extract(epoch FROM clock_timestamp())::float8", sa.Float) - silent_seconds
            )
        ),
    )
    if like is not None:
        live = sa.or_(sa.and_(live, table.c.recorder == like.recorder), table.c.id == like.id)
    return str(conn.execute(sa.select(table.c.node).where(table.c.node != node, live).limit(1)).scalar() or "")


def get(conn: sa.Connection, recording_id: str) -> Recording | None:
    """Return the recording of that id, or None."""
    row = _BY_ID.first(conn, {"id": recording_id})
    return None if row is None else recording_of(row)


def _load(conn: sa.Connection, recording_id: str, holder: str = "") -> Recording:
    row = _BY_ID_LOCKED.first(conn, {"id": recording_id})
    if row is None:
        raise StoreError(f"there is no recording {recording_id}")
    if holder and row["node"] != holder:
        raise TakenOver(f"recording {recording_id} was taken over by {row['node']}")
    return recording_of(row)


def advance(
    conn: sa.Connection,
    recording_id: str,
    event: Event,
    at: float,
    changes: Mapping[str, Any] | None = None,
    detail: Mapping[str, Any] | None = None,
    *,
    holder: str = "",
    known: Recording | None = None,
) -> Recording:
    """Move a recording along the state table and journal it, in one transaction.

    :param at: when it happened, unix seconds
    :param changes: other fields of `Recording` that change with it
    :param detail: for the journal; JSON values
    :param holder: the node that writes; empty for any
    :param known: the recording as its caller last wrote it; the row is not read again if it still matches
    :returns: the changed recording
    :raises IllegalTransition: its phase does not allow the event; nothing is written
    :raises TakenOver: it belongs to another node than `holder`
    :raises StoreError: there is no such recording
    """
    before = known or _load(conn, recording_id, holder)
    changes = dict(changes or {})
    _check_names(changes)
    phase = states.advance(before.phase, event)
    after = before.changed(phase=phase, **changes)
    columns = recording_columns(after, ("phase", *changes))
    columns["updated_at"] = at
    values = {**columns, "_id": recording_id, "_phase": before.phase.value}
    if holder:
        values["_holder"] = holder
    if _update(tuple(columns), True, bool(holder)).run(conn, values) != 1:
        if known is not None:  # the row gives the reason
            return advance(conn, recording_id, event, at, changes, detail, holder=holder)
        raise StoreError(f"recording {recording_id} was changed by another server meanwhile")
    journal.write(
        conn,
        recording_id,
        at=at,
        event=event.value,
        from_phase=before.phase.value,
        to_phase=phase.value,
        detail=detail,
    )
    return after


def change(
    conn: sa.Connection,
    recording_id: str,
    at: float | None = None,
    event: str = "",
    changes: Mapping[str, Any] | None = None,
    *,
    holder: str = "",
    **more: Any,
) -> Recording:
    """Write facts that are no transition: file_path, pieces, pauses, legal_hold, deleted_at, ...

    :param at: when, unix seconds; None leaves `updated_at` as it is
    :param event: the name of the journal line; empty for no line (the call is then idempotent)
    :param changes: fields of `Recording`; `more` is the same by keyword
    :param holder: the node that writes; empty for any
    :raises TakenOver: it belongs to another node than `holder`
    :raises StoreError: there is no such recording, or no such field
    """
    wanted = {**(changes or {}), **more}
    _check_names(wanted)
    before = _load(conn, recording_id, holder)
    after = before.changed(**wanted)
    columns = recording_columns(after, tuple(wanted))
    if at is not None:
        columns["updated_at"] = at
    if columns:
        _update(tuple(columns), False).run(conn, {**columns, "_id": recording_id})
    if event:
        journal.write(conn, recording_id, at=before.requested_at if at is None else at, event=event)
    return after


def _check_names(changes: Mapping[str, Any]) -> None:
    for name in changes:
        if name in _FIXED or name not in Recording.__dataclass_fields__:
            raise StoreError(f"a recording has no field {name!r} that may be changed so")


def finish(
    conn: sa.Connection,
    recording_id: str,
    at: float,
    changes: Mapping[str, Any] | None = None,
    sinks: Iterable[str] = (),
    *,
    event: Event = Event.FINISHED,
    detail: Mapping[str, Any] | None = None,
    holder: str = "",
    known: Recording | None = None,
) -> tuple[Recording, list[Delivery]]:
    """End a recording: its last transition and one delivery per sink, in one transaction.

    Sync the file to disk before the call. A sink that already has a delivery of this recording keeps it: the ledger
    delivers once per recording and sink.

    :param event: FINISHED, or FAILED when a failure is to be delivered too
    :param sinks: names; order and repetition do not matter
    :param known: as in `advance`
    :returns: the recording, and all its deliveries to these sinks
    """
    changes = dict(changes or {})
    names = tuple(dict.fromkeys(sinks))
    changes.setdefault("sinks", names)
    if event is Event.FINISHED:
        changes.setdefault("finished_at", at)
    recording = advance(conn, recording_id, event, at, changes, detail, holder=holder, known=known)
    return recording, [deliveries.insert(conn, recording, sink, now=at) for sink in names]


_ORDER = (Phase.REQUESTED, Phase.ACTIVE, Phase.PAUSED, Phase.STOPPING, Phase.CLOSING, Phase.FINISHING)


def _later(copy: Recording, at: float, there: Recording, there_at: float) -> bool:
    """Return whether a copy written outside of the ledger is newer than the ledger's row. Clocks may have jumped;
    phases only go forwards.
    """
    if there.phase is Phase.FINISHED:
        return False
    if there.phase is Phase.FAILED or copy.phase is there.phase:
        return at > there_at
    if copy.phase not in _ORDER:  # the recording ended, and the ledger does not have the end
        return True
    # a pause and its end alternate; all other phases only go forwards
    if {copy.phase, there.phase} == {Phase.ACTIVE, Phase.PAUSED}:
        return at > there_at
    return _ORDER.index(copy.phase) > _ORDER.index(there.phase)


def restore(conn: sa.Connection, copy: Recording, at: float) -> tuple[Recording, list[Delivery]]:
    """Bring the ledger up to a copy of a recording that was written while the ledger was down. Idempotent.

    A row that is as new as the copy, or newer, stays as it is. A FINISHED copy inserts its deliveries, too.

    :param at: when the copy was written, unix seconds
    :returns: the recording as the ledger has it now, and its deliveries when it is FINISHED
    :raises StoreError: that id belongs to another recording
    """
    row = _BY_ID_LOCKED.first(conn, {"id": copy.id})
    there = None if row is None else recording_of(row)
    columns = {**recording_columns(copy), "updated_at": at}
    if there is None:
        _INSERT.run(conn, columns)
    else:
        assert row is not None
        if (there.asterisk, there.uniqueid) != (copy.asterisk, copy.uniqueid):
            raise StoreError(f"recording {copy.id} is there already and is another one")
        if not _later(copy, at, there, row["updated_at"]):
            copy = there
    if copy is not there:
        if there is not None:
            columns["node"] = there.node  # the ledger decides which node has it now
            copy = copy.changed(node=there.node)
            del columns["id"]
            _update(tuple(columns), False).run(conn, {**columns, "_id": copy.id})
        journal.write(
            conn,
            copy.id,
            at=at,
            event="restored",
            from_phase=there.phase.value if there is not None else "",
            to_phase=copy.phase.value,
        )
    if copy.phase is not Phase.FINISHED:
        return copy, []
    return copy, [deliveries.insert(conn, copy, sink, now=at) for sink in copy.sinks]


def take_over(conn: sa.Connection, recording_id: str, before: str, node: str, at: float) -> Recording | None:
    """Give a dead server's open recording to this one; later writes of the dead server are refused.

    :param before: the dead node
    :returns: the recording; None when another server was quicker, or it has ended
    """
    there = _load(conn, recording_id)
    if there.node != before or there.phase not in OPEN:
        return None
    _update(("node", "updated_at"), False).run(conn, {"node": node, "updated_at": at, "_id": recording_id})
    journal.write(conn, recording_id, at=at, event="taken_over", detail={"from": before, "by": node})
    return there.changed(node=node)


def open_nodes(conn: sa.Connection, node: str) -> set[str]:
    """Return the other nodes that have open recordings."""
    return set(conn.execute(_OPEN_NODES, {"node": node}).scalars())


def open_elsewhere(conn: sa.Connection, node: str, limit: int = 1000) -> list[Recording]:
    """Return open recordings of other nodes, oldest first."""
    return [recording_of(row) for row in conn.execute(_OPEN_ELSEWHERE, {"node": node, "limit": limit}).mappings()]


def open_recordings(conn: sa.Connection, node: str) -> list[Recording]:
    """Return all recordings of this node that still have work left, oldest first: a restart picks them up."""
    return [recording_of(row) for row in conn.execute(_OPEN_ON_NODE, {"node": node}).mappings()]


def find(
    conn: sa.Connection, uniqueid: str, recorder: str | None = None, *, asterisk: str | None = None
) -> list[Recording]:
    """Return the recordings of a channel, newest first.

    :param recorder: only those of that recorder of the call ("" is the first one); None for all
    :param asterisk: only those of that PBX, because two may use the same uniqueids
    """
    rows = conn.execute(_BY_CALL, {"uniqueid": uniqueid}).mappings()
    return [
        recording_of(row)
        for row in rows
        if (recorder is None or row["recorder"] == recorder) and (asterisk is None or row["asterisk"] == asterisk)
    ]
