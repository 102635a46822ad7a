"""Removes deleted secrets from SQLite's write-ahead log, where later writes may take days to overwrite them.

`secure_delete` zeroes the page, but the log keeps the page's earlier content until it is truncated. A unit that deletes
a secret calls `mark_erased`; the thread that commits the unit truncates the log.
"""

from __future__ import annotations

import sqlite3
import time

import sqlalchemy as sa
import structlog

log = structlog.get_logger(__name__)

PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0
"""First pause between two tries; it doubles up to the second number. A try costs nothing while a reader blocks it."""

WARN_TRIES = 20
"""More than a minute of tries: a reader that holds the log so long (a `sqlite3` shell, a backup) is logged."""

_ERASED = "fastagi.erased"


def mark_erased(conn: sa.Connection) -> None:
    """Have the log truncated after the transaction that `conn` is in. Does nothing on PostgreSQL."""
    conn.info[_ERASED] = True


def take_erased(conn: sa.Connection) -> bool:
    """Return whether something was erased since the last call."""
    return bool(conn.info.pop(_ERASED, False))


class Erasure:
    """Truncations that one connection's thread still has to do; each is tried until it succeeds.

    :param shown: the database's address, for messages
    """

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._owed = True  # a process that was killed may have left its deletions in the log
        self._tries = 0
        self._at = 0.0

    def owe(self) -> None:
        """Have the log truncated at the next opportunity. May be called from any thread."""
        self._owed = True

    def due_in(self) -> float | None:
        """Return the seconds until the next try; None when nothing is due."""
        return self._at - time.monotonic() if self._owed else None

    def attempt(self, conn: sa.Connection) -> None:
        """Try once, outside a transaction."""
        self._owed = False  # cleared before the try: `owe` may be called meanwhile
        if truncate_log(conn):
            self._tries, self._at = 0, 0.0
            return
        self._owed = True
        self._at = time.monotonic() + min(PAUSE_SECONDS * 2 ** min(self._tries, 10), LONGEST_PAUSE_SECONDS)
        self._tries += 1
        if self._tries == WARN_TRIES:
            log.warning(
                "deleted_still_in_log",
                store=self._shown,
                hint="end what reads the ledger beside the server: until then its -wal holds what was deleted",
            )


def truncate_log(conn: sa.Connection) -> bool:
    """Write the log into the database and truncate it, outside a transaction. Return False while a reader or a writer
    blocks it. Waits for neither, because other writes would wait too.
    """
    raw: sqlite3.Connection = conn.connection.dbapi_connection  # type: ignore[assignment]
    (patience,) = raw.execute("PRAGMA busy_timeout").fetchone()
    raw.execute("PRAGMA busy_timeout = 0")
    try:
        (busy, _, _) = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error:  # the next unit reports the fault
        return False
    finally:
        raw.execute(f"PRAGMA busy_timeout = {patience}")
    return not busy
