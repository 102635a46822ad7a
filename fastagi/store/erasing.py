"""What was deleted must not stay in SQLite's write-ahead log, where later writes may take days to overwrite it.

`secure_delete` zeroes the page; the page's earlier content is in the log until that is truncated. A unit that deletes
something secret says so with `mark_erased`; whoever commits it truncates the log.
"""

from __future__ import annotations

import sqlite3
import time

import sqlalchemy as sa
import structlog

log = structlog.get_logger(__name__)

PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0
"""Between two tries: the first pause, doubled up to the second one. Trying costs nothing where a reader hinders it."""

WARN_TRIES = 20
"""More than a minute: whoever reads so long (a `sqlite3` shell, a backup) is told of."""

_ERASED = "fastagi.erased"


def mark_erased(conn: sa.Connection) -> None:
    """Has the log truncated after the transaction that `conn` is in. Nothing follows on PostgreSQL."""
    conn.info[_ERASED] = True


def take_erased(conn: sa.Connection) -> bool:
    """Whether something was erased since this was asked last."""
    return bool(conn.info.pop(_ERASED, False))


class Erasure:
    """What one connection's thread still owes: tried again until it succeeds.

    :param shown: the database's address, for messages
    """

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._owed = True  # a process that was killed may have left its deletions in the log
        self._tries = 0
        self._at = 0.0

    def owe(self) -> None:
        """Has the log truncated at the next opportunity. May be called from any thread."""
        self._owed = True

    def due_in(self) -> float | None:
        """Seconds until the next try; None where nothing is owed."""
        return self._at - time.monotonic() if self._owed else None

    def attempt(self, conn: sa.Connection) -> None:
        """Tries once, outside a transaction."""
        self._owed = False  # before it is done: `owe` may be called meanwhile
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
    """Brings the log into the database and truncates it, outside a transaction; False while a reader or a writer
    hinders it. Waits for neither: others could not write meanwhile."""
    raw: sqlite3.Connection = conn.connection.dbapi_connection  # type: ignore[assignment]
    (patience,) = raw.execute("PRAGMA busy_timeout").fetchone()
    raw.execute("PRAGMA busy_timeout = 0")
    try:
        (busy, _, _) = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error:  # the next unit says what is wrong with it
        return False
    finally:
        raw.execute(f"PRAGMA busy_timeout = {patience}")
    return not busy
