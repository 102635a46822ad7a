"""Legal holds and deletions of recordings: each change writes a journal line that says who and why.

A deletion is two units. `condemn` decides: from its commit on the recording is deleted and its key is gone, though the
file may still be there. `removed` notes that the file is gone, too. Between the two `updated_at` equals `deleted_at`,
by which a restart finds unfinished deletions (`pending_deletion`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import sqlalchemy as sa

from fastagi.domain.delivery import DeliveryStatus
from fastagi.domain.recording import Recording
from fastagi.domain.states import OPEN
from fastagi.errors import Error, StoreError
from fastagi.store.queries import deliveries, journal, keys
from fastagi.store.rows import recording_of
from fastagi.store.schema import delivery, recording

_UNDELIVERED = tuple(s.value for s in DeliveryStatus if s is not DeliveryStatus.DELIVERED)


def _load(conn: sa.Connection, recording_id: str) -> Recording:
    statement = sa.select(recording).where(recording.c.id == recording_id).with_for_update()
    row = conn.execute(statement).mappings().first()
    if row is None:
        raise StoreError(f"there is no recording {recording_id}")
    return recording_of(row)


def hold(conn: sa.Connection, recording_id: str, at: float, on: bool, who: str, reason: str) -> Recording:
    """Set or release the legal hold. A second hold is journalled too: its reason may be another one.

    :raises StoreError: there is no such recording
    :raises Error: it is deleted, or not on hold when it is released
    """
    before = _load(conn, recording_id)
    if before.deleted_at is not None and on:
        raise Error(f"recording {recording_id} is deleted: there is nothing left to hold")
    if not before.legal_hold and not on:
        raise Error(f"recording {recording_id} is not on legal hold: there is nothing to release")
    conn.execute(sa.update(recording).where(recording.c.id == recording_id).values(legal_hold=on))
    detail = {"who": who, "reason": reason}
    journal.write(conn, recording_id, at=at, event="hold_set" if on else "hold_released", detail=detail)
    return replace(before, legal_hold=on)


def condemn(
    conn: sa.Connection, recording_id: str, at: float, who: str, reason: str, force: bool = False
) -> tuple[Recording, bool]:
    """Decide a deletion in one transaction: journal line, `deleted_at`, key removed, open deliveries dead.

    :param force: also when a delivery is still open
    :returns: the recording, and whether its files are still to be removed (False: it was deleted before, and only a key
        that it still had is removed)
    :raises StoreError: there is no such recording
    :raises Error: it is on legal hold, not ended, or not delivered
    """
    before = _load(conn, recording_id)
    if before.legal_hold:
        raise Error(f"recording {recording_id} is on legal hold: release the hold first")
    if before.phase in OPEN:
        raise Error(f"recording {recording_id} has not ended ({before.phase.value}): stop it first")
    waiting = [d for d in deliveries.of_recording(conn, recording_id) if d.status.value in _UNDELIVERED]
    if waiting and not force:
        what = ", ".join(f"{d.sink} ({d.status.value})" for d in waiting)
        raise Error(f"recording {recording_id} is not delivered to {what}: force the deletion to give that up")
    detail = {"who": who, "reason": reason, "forced": bool(waiting)}
    if before.deleted_at is not None:
        if keys.forget(conn, recording_id):
            journal.write(conn, recording_id, at=at, event="key_removed", detail=detail)
        return before, _unfinished(conn, recording_id)
    conn.execute(
        sa.update(delivery)
        .where(delivery.c.recording_id == recording_id, delivery.c.status.in_(_UNDELIVERED))
        .values(
            status=DeliveryStatus.DEAD.value,
            fence=delivery.c.fence + 1,  # an attempt that is under way may end either way
            held_by="",
            done_at=at,
            last_error="the recording was deleted",
        )
    )
    detail["key_removed"] = keys.forget(conn, recording_id)
    conn.execute(sa.update(recording).where(recording.c.id == recording_id).values(deleted_at=at, updated_at=at))
    journal.write(conn, recording_id, at=at, event="deleting", detail=detail)
    return replace(before, deleted_at=at), True


def _unfinished(conn: sa.Connection, recording_id: str) -> bool:
    statement = sa.select(recording.c.id).where(
        recording.c.id == recording_id, recording.c.updated_at == recording.c.deleted_at
    )
    return conn.execute(statement).first() is not None


def pending_deletion(conn: sa.Connection, node: str, limit: int = 500) -> list[Recording]:
    """Return recordings of that node whose deletion was decided and whose files may still be there."""
    statement = (
        sa.select(recording)
        .where(
            recording.c.deleted_at.is_not(None),
            recording.c.updated_at == recording.c.deleted_at,
            recording.c.node == node,
        )
        .order_by(recording.c.id)
        .limit(limit)
    )
    return [recording_of(row) for row in conn.execute(statement).mappings()]


def removed(conn: sa.Connection, recording_ids: Iterable[str], at: float) -> None:
    """Note that the files of these deleted recordings are gone. Idempotent."""
    for recording_id in recording_ids:
        statement = (
            sa.update(recording)
            .where(
                recording.c.id == recording_id,
                recording.c.deleted_at.is_not(None),
                recording.c.updated_at == recording.c.deleted_at,
            )
            # later in any case, even when the clock was set back
            .values(updated_at=sa.case((recording.c.deleted_at < at, at), else_=recording.c.deleted_at + 0.001))
        )
        if conn.execute(statement).rowcount:
            journal.write(conn, recording_id, at=at, event="deleted")


def name_reused(conn: sa.Connection, path: str, recording_id: str) -> bool:
    """Return whether another recording that is not deleted has this file by now."""
    statement = sa.select(recording.c.id).where(
        recording.c.file_path == path, recording.c.id != recording_id, recording.c.deleted_at.is_(None)
    )
    return conn.execute(statement.limit(1)).first() is not None
