"""The ledger in one SQLite file: the embedded default, one process, no set-up.

WAL with `synchronous=FULL`: everything that `run` has returned for survives a power cut. The threads are in
`connection_threads`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, TypeVar

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from fastagi.errors import StoreDown, StoreError
from fastagi.ownership import denied, inherit_owner
from fastagi.store.connection_threads import BATCH_UNITS, ConnectionThread, Reader, Searcher, Writer
from fastagi.store.ledger import P, Store, T
from fastagi.store.lock import ProcessLock
from fastagi.store.migrate import migrate

LaneKind = TypeVar("LaneKind", bound=ConnectionThread)

QUEUE_UNITS = 10_000
"""Most units that wait for the writer: some seconds' work and a few MB. Beyond it `run` makes its callers wait."""

BUSY_SECONDS = 5.0
"""Seconds that a batch waits for another process's lock (a backup, a `sqlite3` shell) before it fails."""


class SqliteStore(Store):
    """The SQLite store.

    :param path: the database file; its folder is made when missing
    """

    side_by_side = BATCH_UNITS
    alone = True

    def __init__(
        self, path: Path, *, node: str, queue_units: int = QUEUE_UNITS, busy_seconds: float = BUSY_SECONDS
    ) -> None:
        super().__init__(node, str(path))
        self.path = path
        self._queue_units = queue_units
        self._busy_seconds = busy_seconds
        self._lock = ProcessLock(path.with_name(path.name + ".lock"), f"server {node!r}")
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._searcher: Searcher | None = None
        self._version = 0

    async def start(self) -> None:
        if self._writer is not None:
            return
        self._make_file()
        self._lock.acquire()
        writer = Writer(
            lambda: self._connect(writes=True),
            identify=self._identify,
            shown=self.shown,
            limit=self._queue_units,
            told=self._told,
        )
        reader, searcher = self._lane(Reader), self._lane(Searcher)
        lanes: tuple[ConnectionThread, ...] = (writer, reader, searcher)
        begun: list[ConnectionThread] = []
        try:
            for lane in lanes:
                begun.append(lane)
                await lane.start()
        except BaseException as exc:
            if isinstance(exc, Exception):
                self._ill(exc)
            for opened in reversed(begun):
                await opened.stop()
            self._lock.release()
            raise
        self._writer, self._reader, self._searcher = writer, reader, searcher
        self._well()

    def _lane(self, kind: type[LaneKind]) -> LaneKind:
        """Return a thread that only reads; its failures say nothing about whether recordings can be kept."""
        return kind(
            lambda: self._connect(writes=False),
            identify=self._identify,
            shown=self.shown,
            limit=self._queue_units,
            told=lambda _: None,
        )

    async def stop(self) -> None:
        searcher, self._searcher = self._searcher, None
        reader, self._reader = self._reader, None
        writer, self._writer = self._writer, None
        if searcher is not None:
            await searcher.stop()
        if reader is not None:
            await reader.stop()
        if writer is not None:
            await writer.stop()
            self._lock.release()
            self.healthy, self.last_error = False, "stopped"

    async def migrate(self) -> None:
        await self.run(migrate)

    async def run(self, unit: Callable[Concatenate[sa.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._writer is None:
            raise StoreDown(f"{self.shown}: the store is not open")
        with self.pace.write():
            result: T = await self._writer.run(unit, args, kwargs)
        return result

    async def read(self, unit: Callable[Concatenate[sa.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._reader is None:
            raise StoreDown(f"{self.shown}: the store is not open")
        result: T = await self._reader.run(unit, args, kwargs)
        return result

    async def search(self, unit: Callable[Concatenate[sa.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._searcher is None:
            raise StoreDown(f"{self.shown}: the store is not open")
        result: T = await self._searcher.run(unit, args, kwargs)
        return result

    async def changed_elsewhere(self) -> bool:
        """Return whether another process (a command beside this server, a `sqlite3` shell) has written since the last
        call.

        :raises StoreDown: the database is locked or gone
        """
        version = await self.run(_data_version)
        changed = version != self._version
        self._version = version
        if changed and self._writer is not None:
            self._writer.erasure.owe()  # a command may have been killed before it truncated the log after a deletion
        return changed

    @property
    def commits(self) -> int:
        """Return how many transactions were committed since the start: many units share one."""
        return 0 if self._writer is None else self._writer.commits

    @property
    def waiting(self) -> int:
        """Return how many units wait for the writer."""
        return 0 if self._writer is None else self._writer.waiting

    def _told(self, error: Exception | None) -> None:
        if error is None:
            if not self.healthy:
                self._well()
        else:
            self._ill(error)

    def _make_file(self) -> None:
        """Create the file so that only its owner may read it: it holds who called whom. SQLite gives `-wal` and `-shm`
        the same rights.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                inherit_owner(fd, self.path.parent)
            finally:
                os.close(fd)
        except OSError as exc:
            raise StoreError(denied(self.path, exc)) from None

    def _identify(self) -> tuple[int, int]:
        found = os.stat(self.path)
        return found.st_dev, found.st_ino

    def _connect(self, *, writes: bool) -> sa.Connection:
        """Open a connection of the calling thread; the writer's has migrated the database."""
        engine = sa.create_engine("sqlite://", creator=self._raw, poolclass=NullPool, paramstyle="named")
        # sqlite3 itself opens no transaction (isolation_level None): a savepoint needs an explicit one, and a writer
        # that began as a reader could not wait for a lock
        statement = "BEGIN IMMEDIATE" if writes else "BEGIN"
        sa.event.listen(engine, "begin", lambda conn: conn.connection.dbapi_connection.execute(statement))
        conn = engine.connect()
        try:
            if writes:
                with conn.begin():
                    migrate(conn)
            else:
                conn.exec_driver_sql("PRAGMA query_only = ON")
                conn.rollback()
        except BaseException:
            conn.close()
            raise
        return conn

    def _raw(self) -> sqlite3.Connection:
        # mode=rw: a file that has vanished is an error, not an empty ledger
        uri = f"{self.path.absolute().as_uri()}?mode=rw"
        raw = sqlite3.connect(
            uri,
            uri=True,
            timeout=self._busy_seconds,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            # secure_delete: a deleted key of a recording must not stay in its page
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                "foreign_keys = ON",
                "cache_size = -8000",
                "secure_delete = ON",
            ):
                raw.execute(f"PRAGMA {pragma}")
        except BaseException:
            raw.close()
            raise
        return raw


def _data_version(conn: sa.Connection) -> int:
    """Return a number that changes when another connection commits, not by own writes. Costs no fsync."""
    return int(conn.exec_driver_sql("PRAGMA data_version").scalar_one())


def path_of(url: str) -> Path:
    """Return the file of ``sqlite:////absolute.db`` or ``sqlite:///relative.db``.

    :raises StoreError: the URL names no file
    """
    database = sa.make_url(url).database
    if not database or database == ":memory:":
        raise StoreError(f"{url}: a ledger in memory would lose recordings: name a file, sqlite:////var/lib/x.db")
    return Path(database)
