"""Queries for recordings: filters, search, pages and counts. All of them only read; run them with `Store.read`."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from fastagi.domain.facts import MEMBER_NUMBERS, TALKED_WITH
from fastagi.domain.ids import new_id
from fastagi.domain.recording import Recording
from fastagi.domain.states import OPEN, Phase
from fastagi.errors import StoreError
from fastagi.store.rows import recording_of
from fastagi.store.schema import delivery
from fastagi.store.schema import recording as table

LARGEST_PAGE = 1000
"""Most recordings of a page, which is held in memory, about 2 kB each."""


@dataclass(frozen=True, slots=True)
class RecordingFilter:
    """Selects recordings. Empty fields do not filter; all others must match.

    :param caller_prefix: first digits of the caller's number
    :param called_prefix: first digits of the called number
    :param channel_prefix: first letters of the recorded channel, or of one that it talked with
    :param since: requested at or after, unix seconds
    :param until: requested before, unix seconds
    :param search: part, in any case, of the name, file, numbers, uniqueid, linkedid, channel, a channel that it talked
        with, or a number in its conference
    :param deleted: None for all, False for those that still have their file, True for the others
    """

    uniqueid: str = ""
    linkedid: str = ""
    channel: str = ""
    caller: str = ""
    called: str = ""
    cause: str = ""
    state: str = ""
    phase: str = ""
    asterisk: str = ""
    node: str = ""
    file_format: str = ""
    caller_prefix: str = ""
    called_prefix: str = ""
    channel_prefix: str = ""
    since: float | None = None
    until: float | None = None
    search: str = ""
    deleted: bool | None = None


_EQUAL = (
    "uniqueid",
    "linkedid",
    "channel",
    "caller",
    "called",
    "cause",
    "state",
    "phase",
    "asterisk",
    "node",
    "file_format",
)
_TALKED_WITH = table.c.facts[TALKED_WITH].as_string()
"""A list of channel names, as JSON text."""

_MEMBERS = table.c.facts[MEMBER_NUMBERS].as_string()
"""A list of numbers, as JSON text."""

_SEARCHED = (
    *(table.c[name] for name in ("name", "file_path", "caller", "called", "uniqueid", "linkedid", "channel")),
    _TALKED_WITH,
    _MEMBERS,
)


def _conditions(wanted: RecordingFilter) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = [
        table.c[name] == getattr(wanted, name) for name in _EQUAL if getattr(wanted, name)
    ]
    for column, prefix in ((table.c.caller, wanted.caller_prefix), (table.c.called, wanted.called_prefix)):
        if prefix:
            found.append(column.startswith(prefix, autoescape=True))
    if wanted.channel_prefix:
        found.append(
            sa.or_(
                table.c.channel.startswith(wanted.channel_prefix, autoescape=True),
                _TALKED_WITH.contains(f'"{wanted.channel_prefix}', autoescape=True),
            )
        )
    if wanted.since is not None:
        found.append(table.c.requested_at >= wanted.since)
    if wanted.until is not None:
        found.append(table.c.requested_at < wanted.until)
    if wanted.search:
        found.append(sa.or_(*(column.icontains(wanted.search, autoescape=True) for column in _SEARCHED)))
    if wanted.deleted is not None:
        found.append(table.c.deleted_at.is_not(None) if wanted.deleted else table.c.deleted_at.is_(None))
    return found


def page(
    conn: sa.Connection, wanted: RecordingFilter | None = None, *, cursor: str | None = None, limit: int = 50
) -> tuple[list[Recording], str | None]:
    """Return a page of recordings, newest first.

    :param cursor: from the page before; rows that were added meanwhile do not shift the pages
    :param limit: 1 to `LARGEST_PAGE`
    :returns: the page, and the cursor of the next one (None for the last page)
    :raises StoreError: the limit is out of range
    """
    if not 1 <= limit <= LARGEST_PAGE:
        raise StoreError(f"limit={limit} must be 1 to {LARGEST_PAGE}")
    statement = sa.select(table).where(*_conditions(wanted or RecordingFilter()))
    if cursor:
        statement = statement.where(table.c.id < cursor)
    rows = conn.execute(statement.order_by(table.c.id.desc()).limit(limit + 1)).mappings().all()
    found = [recording_of(row) for row in rows[:limit]]
    return found, found[-1].id if len(rows) > limit else None


def expired(conn: sa.Connection, before: float, *, limit: int = 100, node: str = "") -> list[Recording]:
    """Return the finished recordings that retention may delete, oldest first: ended before `before`, no legal hold, not
    deleted, and no delivery open.

    :param node: only those whose files are on that node
    """
    undelivered = sa.exists().where(
        delivery.c.recording_id == table.c.id, delivery.c.status.in_(("waiting", "running", "parked", "dead"))
    )
    statement = (
        sa.select(table)
        .where(
            table.c.phase == "finished",
            table.c.finished_at < before,
            table.c.deleted_at.is_(None),
            table.c.legal_hold.is_(False),
            ~undelivered,
        )
        .order_by(table.c.id)
        .limit(limit)
    )
    if node:
        statement = statement.where(table.c.node == node)
    return [recording_of(row) for row in conn.execute(statement).mappings()]


def named(conn: sa.Connection, start: str, limit: int = 3) -> list[Recording]:
    """Return the recordings whose id begins with `start`, newest first: people type the first letters."""
    statement = sa.select(table).where(table.c.id.startswith(start, autoescape=True))
    return [recording_of(row) for row in conn.execute(statement.order_by(table.c.id.desc()).limit(limit)).mappings()]


def of_file(conn: sa.Connection, path: str) -> Recording | None:
    """Return the newest recording with this absolute path, or None."""
    row = conn.execute(sa.select(table).where(table.c.file_path == path).order_by(table.c.id.desc())).mappings().first()
    return None if row is None else recording_of(row)


def called_so(conn: sa.Connection, text: str, limit: int = 3) -> list[Recording]:
    """Return the recordings with this uniqueid, requested name or file, newest first. A name or file also matches
    without its folders. Searches all names: slow among millions.
    """
    ends = [column.endswith(f"/{text}", autoescape=True) for column in (table.c.name, table.c.file_path)]
    statement = sa.select(table).where(sa.or_(table.c.uniqueid == text, table.c.name == text, *ends))
    return [recording_of(row) for row in conn.execute(statement.order_by(table.c.id.desc()).limit(limit)).mappings()]


def adopted_files(conn: sa.Connection, since: float) -> set[str]:
    """Return the raw files of adopted recordings that entered the ledger since then (unix seconds; ids sort by that
    time).
    """
    statement = sa.select(table).where(table.c.id >= new_id("rec", max(0.0, since), bytes(10)), table.c.adopted)
    rows = conn.execute(statement).mappings()
    return {path for row in rows for piece in recording_of(row).pieces for path in piece.paths}


def failed_adopted(conn: sa.Connection, node: str, since: float, limit: int) -> list[Recording]:
    """Return adopted recordings of that node that could not be finished and entered the ledger since then, oldest
    first.
    """
    statement = sa.select(table).where(
        table.c.id >= new_id("rec", max(0.0, since), bytes(10)),
        table.c.adopted,
        table.c.phase == "failed",
        table.c.node == node,
        table.c.deleted_at.is_(None),
    )
    return [recording_of(row) for row in conn.execute(statement.order_by(table.c.id).limit(limit)).mappings()]


_FILE_OF_ANOTHER = (
    sa.select(table.c.id)
    .where(
        table.c.file_path == sa.bindparam("path"),
        table.c.id != sa.bindparam("id"),
        table.c.phase != Phase.FAILED.value,
        table.c.deleted_at.is_(None),
    )
    .limit(1)
)

_OPEN_IDS = sa.select(table.c.id).where(
    table.c.phase.in_(sa.literal_column(f"'{p.value}'") for p in Phase if p in OPEN)
)


def file_of_another(conn: sa.Connection, recording: Recording) -> bool:
    """Return whether the finished file of the recording belongs to another one that is open, or finished and not
    deleted.
    """
    return conn.execute(_FILE_OF_ANOTHER, {"path": recording.file_path, "id": recording.id}).first() is not None


def open_ids(conn: sa.Connection) -> set[str]:
    """Return the ids of all recordings that still have work left, on any node."""
    return set(conn.execute(_OPEN_IDS).scalars())
