"""Keys of encrypted recordings, wrapped by the server's master key. A clear key never reaches the ledger."""

from __future__ import annotations

import sqlalchemy as sa

from fastagi.store.erasing import mark_erased
from fastagi.store.schema import recording_key as table


def put(conn: sa.Connection, recording_id: str, scheme: str, wrapped: bytes) -> None:
    """Store the wrapped key of a recording, replacing one that it had."""
    forget(conn, recording_id)
    conn.execute(sa.insert(table), {"recording_id": recording_id, "scheme": scheme, "wrapped": wrapped})


def get(conn: sa.Connection, recording_id: str) -> tuple[str, bytes] | None:
    """Return (scheme, wrapped key), or None."""
    row = conn.execute(sa.select(table.c.scheme, table.c.wrapped).where(table.c.recording_id == recording_id)).first()
    return None if row is None else (row.scheme, bytes(row.wrapped))


def newest(conn: sa.Connection) -> tuple[str, bytes] | None:
    """Return (recording id, wrapped key) of the newest recording that has a key, or None."""
    row = conn.execute(sa.select(table.c.recording_id, table.c.wrapped).order_by(table.c.recording_id.desc())).first()
    return None if row is None else (row.recording_id, bytes(row.wrapped))


def forget(conn: sa.Connection, recording_id: str) -> bool:
    """Delete a recording's key; return whether there was one.

    SQLite overwrites the key with zeros (`secure_delete`) and truncates its log. On PostgreSQL the bytes stay in the
    table until the next VACUUM.
    """
    there = conn.execute(sa.delete(table).where(table.c.recording_id == recording_id)).rowcount > 0
    if there:
        mark_erased(conn)
    return there
