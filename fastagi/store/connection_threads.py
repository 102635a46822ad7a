"""The threads of a SQLite store: `Writer` commits many units at once, `Reader` and `Searcher` read beside it.

Each owns its thread, its connection and a bounded queue. The cost of a write is SQLite's fsync, so the writer puts all
waiting units into one transaction. When one unit fails, the batch is rolled back and run again with each unit in a
savepoint of its own, so that a failing unit affects no other.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa
import structlog

from fastagi.errors import StoreDamaged, StoreDown, StoreError
from fastagi.store.erasing import Erasure, take_erased
from fastagi.store.ledger import SEARCH_SECONDS, hooks, take_hooks

log = structlog.get_logger(__name__)

BATCH_UNITS = 256
BATCH_SECONDS = 0.05
"""A batch ends at this age or at its limit: its first unit waits no longer than this for the others."""

CROWD_UNITS = 4
GATHER_SECONDS = 0.002
"""After a batch of this many units the writer waits this long before the next one: more are on their way, and a commit
costs as much as five of them. A single unit never waits.
"""

READ_SECONDS = 30.0
"""A read that takes longer is interrupted: it would keep the write-ahead log from being reset."""

ROOM_SECONDS = 30.0
"""Seconds that `ConnectionThread.run` waits for room in a full queue."""

STOP_SECONDS = 60.0
"""Seconds that `ConnectionThread.stop` waits for queued units: a full queue takes seconds, a locked database five."""

_DOWN = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
_GARBLED = (UnicodeDecodeError, json.JSONDecodeError)
DATABASE = (sa.exc.SQLAlchemyError, sqlite3.Error, *_GARBLED)
_BROKEN = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def error_code(exc: BaseException) -> int:
    """Return SQLite's primary result code of an exception, 0 when it is not SQLite's."""
    origin = getattr(exc, "orig", exc)
    code = getattr(origin, "sqlite_errorcode", 0)
    return int(code) & 0xFF if isinstance(origin, sqlite3.Error) and code else 0


def one_line(exc: BaseException, shown: str) -> StoreError:
    """Return the error of `fastagi.errors` for what SQLite or SQLAlchemy raised."""
    if isinstance(exc, StoreError):
        return exc
    text = " ".join(str(getattr(exc, "orig", exc)).split())[:300] or type(exc).__name__
    damaged = error_code(exc) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    if damaged or isinstance(exc, _GARBLED) or text.startswith("Could not decode"):
        return StoreDamaged(shown, text)
    kind = StoreDown if error_code(exc) in _DOWN or isinstance(exc, OSError) else StoreError
    return kind(f"{shown}: {text}")


class _Job:
    __slots__ = ("args", "error", "future", "kwargs", "unit", "value")

    def __init__(self, unit: Callable[..., Any], args: Any, kwargs: Any, future: asyncio.Future[Any]) -> None:
        self.unit = unit
        self.args = args
        self.kwargs = kwargs
        self.future = future
        self.value: Any = None
        self.error: Exception | None = None


class ConnectionThread:
    """A thread that runs units on a connection of its own, in the order in which they came.

    :param connect: opens the connection; called on the thread, and again when the file was replaced or the connection
        is broken
    :param identify: returns what tells the database's file from another one at its place; raises OSError when there is
        none
    :param limit: units that may wait; `run` waits for room beyond it
    :param told: called on the loop after each batch with None, or with the error that failed the whole batch
    """

    kind = "lane"

    def __init__(
        self,
        connect: Callable[[], sa.Connection],
        *,
        identify: Callable[[], object],
        shown: str,
        limit: int,
        told: Callable[[Exception | None], None],
    ) -> None:
        self._connect = connect
        self._identify = identify
        self._shown = shown
        self._told = told
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._limit = limit
        self._room = asyncio.Semaphore(limit)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False
        self._ended = False
        self._file: object = None

    async def start(self) -> None:
        """Start the thread and wait until its connection is open; raises what opening raised."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(
            target=self._work, args=(opened,), name=f"fastagi-store-{self.kind}", daemon=True
        )
        self._thread.start()
        await opened

    async def stop(self) -> None:
        """Run the waiting units, then end the thread. Idempotent."""
        self._closing = True
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(thread.join, STOP_SECONDS)
            if thread.is_alive():
                log.error("store_thread_left", store=self._shown, lane=self.kind)

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    async def run(self, unit: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run a unit and return its value once committed. A queued unit still runs when the caller is cancelled."""
        if self._room.locked():
            try:
                async with asyncio.timeout(ROOM_SECONDS):
                    await self._room.acquire()
            except TimeoutError:
                raise StoreDown(f"{self._shown}: {self._limit} units wait already") from None
        else:
            await self._room.acquire()
        if self._thread is None or self._closing or self._loop is None:
            self._room.release()
            raise StoreDown(f"{self._shown}: the store is not open")
        job = _Job(unit, args, kwargs, self._loop.create_future())
        self._queue.put(job)
        return await job.future

    # -- on the thread from here on, except `_answer`

    def _work(self, opened: asyncio.Future[None]) -> None:
        conn: sa.Connection | None = None
        try:
            conn = self._open()
        except Exception as exc:
            self._call(self._open_failed, opened, one_line(exc, self._shown))
            return
        self._call(self._opened, opened)
        while (job := self._await_job(conn)) is not None:
            jobs = [job]
            try:
                if conn is None or self._elsewhere():
                    conn = self._reopen(conn)
                self._batch(conn, jobs)
            except Exception as exc:
                # none of these was committed. Units that came meanwhile get the error too: each would wait as long
                # again
                self._refuse(jobs, exc)
                if conn is not None and error_code(exc) != sqlite3.SQLITE_BUSY:
                    _closed(conn)
                    conn = None
            if self._ended:
                break
        if conn is not None:
            _closed(conn)

    def _await_job(self, conn: sa.Connection | None) -> _Job | None:
        return self._queue.get()

    def _open(self) -> sa.Connection:
        conn = self._connect()
        self._file = self._identify()
        return conn

    def _opened(self, opened: asyncio.Future[None]) -> None:
        if not opened.done():  # `start` was cancelled; `stop` follows
            opened.set_result(None)

    def _open_failed(self, opened: asyncio.Future[None], error: Exception) -> None:
        self._thread = None
        if not opened.done():
            opened.set_exception(error)

    def _elsewhere(self) -> bool:
        """Return whether the database's file was replaced or removed: SQLite would go on with the deleted one."""
        try:
            return self._identify() != self._file
        except OSError:
            return True

    def _reopen(self, conn: sa.Connection | None) -> sa.Connection:
        if conn is not None:
            _closed(conn)
        conn = self._open()
        log.error("store_reopened", store=self._shown, lane=self.kind)
        return conn

    def _next(self) -> _Job | None:
        """Return the next waiting job, or None; never waits."""
        try:
            job = self._queue.get_nowait()
        except queue.Empty:
            return None
        self._ended = job is None
        return job

    def _refuse(self, jobs: list[_Job], exc: Exception) -> None:
        error = one_line(exc, self._shown)
        if not isinstance(error, StoreDown):
            error = StoreDown(str(error))
        for _ in range(self._queue.qsize()):
            if (job := self._next()) is None:
                break
            jobs.append(job)
        self._call(self._answer, jobs, [], error)

    def _batch(self, conn: sa.Connection, jobs: list[_Job]) -> None:
        """Run the job in `jobs` and further waiting ones, which are added to it. Answers all of them, or raises."""
        raise AssertionError(f"a {self.kind} runs nothing by itself")

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop is closed: nothing waits for the result
            pass

    def _answer(self, jobs: list[_Job], callbacks: list[Callable[[], None]], error: Exception | None) -> None:
        """Wake the callers of a batch. Called on the loop."""
        self._told(error)
        for callback in callbacks:
            callback()
        for job in jobs:
            self._room.release()
            failed = error or job.error
            if job.future.done():  # the caller was cancelled; the write stands
                if failed is not None:
                    log.warning("store_unit_failed_unseen", unit=job.unit.__name__, error=str(failed))
            elif failed is not None:
                job.future.set_exception(failed)
            else:
                job.future.set_result(job.value)


def _closed(conn: sa.Connection) -> None:
    """Close the connection, whatever its state."""
    try:
        conn.invalidate()
    except DATABASE:
        pass
    conn.close()


class Writer(ConnectionThread):
    """Runs all waiting units in one transaction. Truncates the log after a deletion, between two transactions."""

    kind = "writer"
    commits = 0
    _crowded = False

    def __init__(self, connect: Callable[[], sa.Connection], *, shown: str, **options: Any) -> None:
        super().__init__(connect, shown=shown, **options)
        self.erasure = Erasure(shown)

    def _await_job(self, conn: sa.Connection | None) -> _Job | None:
        while conn is not None and (wait := self.erasure.due_in()) is not None:
            if wait <= 0:
                self.erasure.attempt(conn)
                continue
            try:
                return self._queue.get(timeout=wait)
            except queue.Empty:
                continue
        return self._queue.get()

    def _batch(self, conn: sa.Connection, jobs: list[_Job]) -> None:
        if self._crowded:
            time.sleep(GATHER_SECONDS)
        take_hooks(conn)
        try:
            with conn.begin():
                for job in self._coming(jobs):
                    job.value = job.unit(conn, *job.args, **job.kwargs)
        except Exception as exc:
            if error_code(exc) in _DOWN | _BROKEN:
                raise
            take_hooks(conn)
            with conn.begin():
                raw: sqlite3.Connection = conn.connection.dbapi_connection  # type: ignore[assignment]
                for job in jobs:
                    self._one(conn, raw, job)
        self.commits += 1
        self._crowded = len(jobs) >= CROWD_UNITS
        if take_erased(conn):
            self.erasure.owe()
        self._call(self._answer, jobs, take_hooks(conn), None)

    def _coming(self, jobs: list[_Job]) -> Iterator[_Job]:
        """Yield the job in `jobs` and further waiting ones, which are added to the list."""
        deadline = time.monotonic() + BATCH_SECONDS
        yield jobs[0]
        while len(jobs) < BATCH_UNITS and time.monotonic() < deadline and (job := self._next()) is not None:
            jobs.append(job)
            yield job

    def _one(self, conn: sa.Connection, raw: sqlite3.Connection, job: _Job) -> None:
        callbacks = hooks(conn)
        mark = len(callbacks)
        raw.execute("SAVEPOINT unit")
        try:
            job.value = job.unit(conn, *job.args, **job.kwargs)
        except Exception as exc:
            del callbacks[mark:]
            if not raw.in_transaction:  # SQLite took back the whole batch (disk full, I/O error)
                raise
            raw.execute("ROLLBACK TO unit")
            job.error = one_line(exc, self._shown) if isinstance(exc, DATABASE) else exc
        raw.execute("RELEASE unit")


class Reader(ConnectionThread):
    """Runs one unit at a time, each on its own snapshot, interrupted after `seconds` or when its caller is gone."""

    kind = "reader"
    seconds = READ_SECONDS

    def _batch(self, conn: sa.Connection, jobs: list[_Job]) -> None:
        job = jobs[0]
        gone = job.future.cancelled
        try:
            with conn.begin():
                raw: sqlite3.Connection = conn.connection.dbapi_connection  # type: ignore[assignment]
                deadline = time.monotonic() + self.seconds
                # about every 10 ms of work; a non-zero answer interrupts the statement
                raw.set_progress_handler(lambda: int(gone() or time.monotonic() > deadline), 200_000)
                if not gone():
                    job.value = job.unit(conn, *job.args, **job.kwargs)
        except Exception as exc:
            if error_code(exc) in _BROKEN:
                raise
            if error_code(exc) == sqlite3.SQLITE_INTERRUPT:
                job.error = StoreDown(f"{self._shown}: broken off after {self.seconds:g} s: ask for less")
            else:
                job.error = one_line(exc, self._shown) if isinstance(exc, DATABASE) else exc
        self._call(self._answer, jobs, [], None)


class Searcher(Reader):
    """A second reader, for searches that may take long."""

    kind = "searcher"
    seconds = SEARCH_SECONDS
