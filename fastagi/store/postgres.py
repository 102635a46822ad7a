"""The ledger in PostgreSQL, shared by several servers. The units are the same as on SQLite, each in its own
transaction.

Servers are told apart by their node name. One session-long advisory lock per node keeps two servers of one name away
from each other; PostgreSQL drops it with the connection, that is with the process.
"""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate

import asyncpg
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from fastagi.errors import StoreDown, StoreError
from fastagi.store.ledger import SEARCH_SECONDS, P, Store, T, shown_address, take_hooks
from fastagi.store.migrate import WAIT_SECONDS, MigrationUnderWay, migrate

log = structlog.get_logger(__name__)

CONNECTIONS = 8
"""Connections to the database for units; a ninth unit waits. PostgreSQL allows 100 to all its clients by default."""

QUEUE_UNITS = 10_000
"""Units that may wait for a connection; more are refused at once."""

SEARCHES = 2
"""Connections that searches may use at once; the others are for recordings and deliveries."""

STATEMENT_SECONDS = 30.0
CONNECT_SECONDS = 10.0
STOP_SECONDS = 10.0
"""Seconds that a stop waits for running units. Their data is on disk elsewhere, or the unit will be run again."""

TRIES = 4
"""Most runs of one unit that met a deadlock or a connection that had died while idle."""

_AGAIN = {"40001", "40P01"}  # serialization_failure, deadlock_detected: nothing was written
_DOWN_CLASSES = ("08", "53", "57", "58", "25006", "XX")  # connection, resources, shutdown, system; read-only standby
_NODE_LOCKS = 0x66617374
_WATCH_SECONDS = 5.0


def _state(exc: BaseException) -> str:
    """Return the SQLSTATE of an exception, empty when it has none."""
    origin = getattr(exc, "orig", exc)
    return str(getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None) or "")


class PostgresStore(Store):
    """The PostgreSQL store.

    :param url: ``postgresql://user:password@host/database``; a socket's folder is given as ``?host=/run/postgresql``
    """

    def __init__(self, url: str, *, node: str, connections: int = CONNECTIONS) -> None:
        try:
            parsed = sa.make_url(url)
        except sa.exc.ArgumentError:
            raise StoreError("store.url is no PostgreSQL URL: postgresql://user:password@host/database") from None
        super().__init__(node, shown_address(parsed))
        self.dsn = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
        self._url = parsed.set(drivername="postgresql+asyncpg")
        self._connections = connections
        self.side_by_side = max(1, connections // 2)
        self._searches = asyncio.Semaphore(SEARCHES)
        self._engine: AsyncEngine | None = None
        self._node_lock: asyncpg.Connection | None = None
        self._watch: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        if self._engine is not None:
            return
        self._engine = create_async_engine(
            self._url,
            pool_size=self._connections,
            max_overflow=0,
            pool_timeout=STATEMENT_SECONDS,
            connect_args={
                "timeout": CONNECT_SECONDS,
                "command_timeout": STATEMENT_SECONDS + 5,
                "server_settings": {
                    "application_name": f"fastagi {self.node}",
                    "statement_timeout": str(int(STATEMENT_SECONDS * 1000)),
                    "idle_in_transaction_session_timeout": "60000",
                },
            },
        )
        try:
            await self._lock_node()
            await self.migrate()
        except BaseException as exc:
            if isinstance(exc, Exception):
                self._ill(exc)
            for task in self._running:  # a migration whose caller is gone
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            await self._close()
            raise
        self._watch = asyncio.create_task(self._keep_node_lock(), name="fastagi-store-node-lock")

    async def stop(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        if self._running:
            await asyncio.wait(set(self._running), timeout=STOP_SECONDS)
        await self._close()

    async def _close(self) -> None:
        engine, self._engine = self._engine, None
        lock, self._node_lock = self._node_lock, None
        if lock is not None:
            await _bye(lock)
        if engine is not None:
            await engine.dispose()
            self.healthy = False
            self.last_error = self.last_error or "stopped"

    async def migrate(self) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                await self.run(migrate)
                return
            except MigrationUnderWay:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(0.05)

    async def run(self, unit: Callable[Concatenate[sa.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.pace.write():
            return await self._run(unit, *args, **kwargs)

    async def read(self, unit: Callable[Concatenate[sa.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(unit, *args, **kwargs)

    async def search(self, unit: Callable[Concatenate[sa.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        def limited(conn: sa.Connection) -> T:
            conn.execute(sa.text(f"SET LOCAL statement_timeout = {int(SEARCH_SECONDS * 1000)}"))
            return unit(conn, *args, **kwargs)

        engine = self._opened()
        try:
            async with asyncio.timeout(STATEMENT_SECONDS):
                await self._searches.acquire()
        except TimeoutError:
            raise StoreDown(f"{self.shown}: {SEARCHES} searches run already") from None
        try:
            return await self._unit(engine, limited, (), {})  # cancelling the caller interrupts the read
        finally:
            self._searches.release()

    async def _run(self, unit: Callable[Concatenate[sa.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._own(self._unit(self._opened(), unit, args, kwargs))

    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            raise StoreDown(f"{self.shown}: the store is not open")
        if len(self._running) >= QUEUE_UNITS:
            raise StoreDown(f"{self.shown}: {QUEUE_UNITS} units wait already")
        return self._engine

    async def _own(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work in a task of its own, so that cancelling the caller does not interrupt a write."""
        task: asyncio.Task[T] = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # mark the exception as retrieved: a cancelled caller never will

    async def _unit(self, engine: AsyncEngine, unit: Callable[..., T], args: Any, kwargs: Any) -> T:
        tries = 0
        while True:
            tries += 1
            try:
                return await self._once(engine, unit, args, kwargs)
            except _Again as again:
                if tries >= TRIES:
                    raise self._down(again.cause) from again.cause
                # two units that deadlocked must not meet again
                await asyncio.sleep(random.uniform(0, 0.02 * tries))

    async def _once(self, engine: AsyncEngine, unit: Callable[..., T], args: Any, kwargs: Any) -> T:
        committing = False
        try:
            async with engine.connect() as conn:
                await conn.begin()
                _callbacks(conn)  # a pooled connection keeps the callbacks that a failed unit had registered
                value = await conn.run_sync(unit, *args, **kwargs)
                committing = True
                await conn.commit()
                callbacks = _callbacks(conn)
        except sa.exc.DBAPIError as exc:
            if _state(exc) in _AGAIN or (exc.connection_invalidated and not committing):
                raise _Again(exc) from None
            if exc.connection_invalidated or _state(exc).startswith(_DOWN_CLASSES) or not _state(exc):
                raise self._down(exc) from None
            raise StoreError(self._line(exc)) from None
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, sa.exc.TimeoutError) as exc:
            raise self._down(exc) from None
        except sa.exc.SQLAlchemyError as exc:
            raise StoreError(self._line(exc)) from None
        self._well()
        for callback in callbacks:
            callback()
        return value

    def _line(self, exc: BaseException) -> str:
        text = " ".join(str(getattr(exc, "orig", None) or exc).split())[:300] or type(exc).__name__
        return f"{self.shown}: {text}"

    def _down(self, exc: BaseException) -> StoreDown:
        error = exc if isinstance(exc, StoreDown) else StoreDown(self._line(exc))
        self._ill(error)
        return error

    async def _lock_node(self) -> None:
        """Take the lock of this node's name on a connection that does nothing else.

        :raises StoreError: another server runs under that name
        :raises StoreDown: PostgreSQL cannot be reached
        """
        conn: asyncpg.Connection | None = None
        try:
            conn = await asyncpg.connect(
                self.dsn,
                timeout=CONNECT_SECONDS,
                command_timeout=CONNECT_SECONDS,
                # a machine that lost its power closes no connection: PostgreSQL probes after 10 s and drops the lock
                # within 25
                server_settings={
                    "application_name": f"fastagi {self.node} (node lock)",
                    "tcp_keepalives_idle": "10",
                    "tcp_keepalives_interval": "5",
                    "tcp_keepalives_count": "3",
                },
            )
            got = False
            for _ in range(10):  # PostgreSQL notices within moments that a predecessor was killed
                got = await conn.fetchval(
                    "SELECT pg_try_advisory_lock($1::int, $2::int)",
                    _NODE_LOCKS,
                    zlib.crc32(self.node.encode()) - (1 << 31),
                )
                if got:
                    break
                await asyncio.sleep(0.2)
        except (OSError, TimeoutError) as exc:
            raise StoreDown(self._line(exc)) from None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as exc:
            kind = StoreDown if _state(exc).startswith(_DOWN_CLASSES) else StoreError
            raise kind(self._line(exc)) from None
        else:
            if not got:
                raise StoreError(
                    f"{self.shown}: a server called {self.node!r} uses this store: set another [store] node"
                )
            self._node_lock, conn = conn, None
        finally:
            if conn is not None:  # refused, or given up while waiting for the answer
                conn.terminate()

    async def _keep_node_lock(self) -> None:
        """Take the lock again after PostgreSQL was restarted."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if self._node_lock is not None:
                try:
                    await self._node_lock.execute("SELECT 1")
                    continue
                except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
                    self._ill(StoreDown(self._line(exc)))
                    await _bye(self._node_lock)
                    self._node_lock = None
            try:
                await self._lock_node()
                self._well()
            except StoreDown as exc:
                self._ill(exc)
            except StoreError as exc:
                log.error("store_node_name_taken", store=self.shown, node=self.node, error=str(exc))
                self._ill(exc)


class _Again(Exception):
    """The transaction was rolled back without a fault of the unit and may be run again."""

    def __init__(self, cause: sa.exc.DBAPIError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _callbacks(conn: AsyncConnection) -> list[Callable[[], None]]:
    sync = conn.sync_connection
    return [] if sync is None else take_hooks(sync)


async def _bye(conn: asyncpg.Connection) -> None:
    try:
        await conn.close(timeout=2)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        conn.terminate()
