"""The journal: what happened to each recording, in the order in which it was decided. Append only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fastagi.store.prepared import Prepared
from fastagi.store.schema import journal as table

_INSERT = Prepared(sa.insert(table).inline(), [c.name for c in table.c if c.name != "seq"])
_HISTORY = sa.select(table).where(table.c.recording_id == sa.bindparam("id")).order_by(table.c.seq)
_AFTER = sa.select(table).where(table.c.seq > sa.bindparam("seq")).order_by(table.c.seq).limit(sa.bindparam("limit"))
_LAST = sa.select(sa.func.coalesce(sa.func.max(table.c.seq), 0))


@dataclass(frozen=True, slots=True)
class Entry:
    """One journal line. `from_phase` and `to_phase` are empty when it is no transition."""

    seq: int
    recording_id: str
    at: float
    event: str
    from_phase: str
    to_phase: str
    detail: dict[str, Any]


def write(
    conn: sa.Connection,
    recording_id: str,
    *,
    at: float,
    event: str,
    from_phase: str = "",
    to_phase: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Add a line.

    :param at: unix seconds
    :param detail: JSON values; no secrets
    """
    _INSERT.run(
        conn,
        {
            "recording_id": recording_id,
            "at": at,
            "event": event,
            "from_phase": from_phase,
            "to_phase": to_phase,
            "detail": dict(detail or {}),
        },
    )


def history(conn: sa.Connection, recording_id: str) -> list[Entry]:
    """Return all lines of a recording, oldest first."""
    return [Entry(*row) for row in conn.execute(_HISTORY, {"id": recording_id})]


def after(conn: sa.Connection, seq: int, limit: int = 500) -> list[Entry]:
    """Return lines later than `seq`, oldest first."""
    return [Entry(*row) for row in conn.execute(_AFTER, {"seq": seq, "limit": limit})]


def last_seq(conn: sa.Connection) -> int:
    """Return the number of the newest line; 0 when there is none."""
    return int(conn.execute(_LAST).scalar_one())
