"""The dispatcher beside PostgreSQL: PgQueuer gives each id to any free server.

A job of PgQueuer's is written in the ledger's own transaction and dropped once its handler returned; a repetition is a
new job. A job may get lost (a server dies between pick and claim): a sweep compares the ledger with the jobs and queues
items without one. PgQueuer's limits count over all servers, the limits here are per server. PgQueuer may therefore pick
a few more jobs than run (`_ahead`), and these wait here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg
import sqlalchemy as sa
import structlog
from pgqueuer.adapters.persistence.qb import (
    DBSettings,
    Durability,
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgqueuer.core.executors import EntrypointExecutor, EntrypointExecutorParameters
from pgqueuer.core.qm import QueueManager
from pgqueuer.domain.errors import RetryRequested
from pgqueuer.domain.models import Job
from pgqueuer.domain.types import QueueEntrypoint
from pgqueuer.queries import Queries

from fastagi.delivery.dispatch import Handler, Reschedule, Source
from fastagi.delivery.gate import Gate
from fastagi.errors import StoreError
from fastagi.store.postgres import PostgresStore

log = structlog.get_logger(__name__)

PREFIX = "fastagi_"
"""Prefix of PgQueuer's tables and channel: the database may have a PgQueuer of another program."""

HEARTBEAT_SECONDS = 10.0
"""Seconds without a heartbeat after which another server picks the job (engines.md: taken over in 10 s)."""

POLL_SECONDS = 5.0
"""Seconds between PgQueuer's looks without a notification. Only a newly served queue has to wait for one."""

SWEEP_SECONDS = 5.0
SWEEP_ITEMS = 1000
LATE_SECONDS = 3.0
"""Seconds after which a due item without a job is swept: the job of a transaction is picked within moments."""

LOG_MINUTES = 10
"""PgQueuer logs every job and never forgets; the history of deliveries is in the ledger."""

RETRY_SECONDS = (0.5, 30.0)
RECONNECT_SECONDS = (0.5, 10.0)
CANCEL_SECONDS = 5.0
"""Seconds that a cancelled handler has to end before it is left: a sink may swallow its cancellation."""

INSTALL_LOCK = 0x66617374716D


def _ahead(limit: int) -> int:
    """Return how many jobs of a queue may be picked. PgQueuer writes finished ones in batches, so more than run at
    once.
    """
    return 2 * limit + 16


class _Queue:
    """One queue.

    :param requeue: writes a new job of this queue for an id, due after so many seconds
    """

    def __init__(
        self,
        name: str,
        handler: Handler,
        limit: int,
        source: Source,
        gate: Gate,
        requeue: Callable[[str, str, float], Awaitable[None]],
    ) -> None:
        self.name = name
        self.handler = handler
        self.limit = limit
        self.source = source
        self.gate = gate
        self.failures: dict[str, int] = {}
        self._requeue = requeue

    async def run(self, job: Job) -> None:
        """Run a job. PgQueuer's entrypoint: returning drops the job.

        A repetition is a new job, in place of PgQueuer's own retry: that is an UPDATE, which notifies no worker
        (PgQueuer 1.6: its trigger is per statement), so a worker that was about to sleep sees it a poll interval later.
        """
        id = (job.payload or b"").decode()
        try:
            await self.gate.enter()
            try:
                await self.handler(id)
            finally:
                await self.gate.leave()
            self.failures.pop(id, None)
            return
        except Reschedule as later:
            delay = later.seconds
        except Exception as exc:
            first, longest = RETRY_SECONDS
            count = self.failures[id] = min(self.failures.get(id, 0) + 1, 10)
            delay = min(longest, first * 2 ** (count - 1))
            log.warning("handler_failed", queue=self.name, id=id, error=str(exc), seconds=delay)
        try:
            await self._requeue(self.name, id, delay)
        except StoreError:
            raise RetryRequested(timedelta(seconds=delay)) from None

    def executor(self) -> EntrypointExecutor:
        return EntrypointExecutor(
            EntrypointExecutorParameters(func=self.run, concurrency_limit=_ahead(self.limit), accepts_context=False)
        )


class PgQueuerDispatcher:
    """Implements `fastagi.delivery.dispatch.Dispatcher`.

    :param clock: unix seconds
    """

    def __init__(
        self,
        store: PostgresStore,
        *,
        clock: Callable[[], float],
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        self._store = store
        self._clock = clock
        self._heartbeat = timedelta(seconds=heartbeat_seconds)
        self._sweep_seconds = sweep_seconds
        self._settings = DBSettings(prefix=PREFIX, durability=Durability.balanced)
        self._table = self._settings.queue_table
        self._insert = QueryQueueBuilder(self._settings).build_enqueue_query()
        self._queues: dict[str, _Queue] = {}
        self._manager: QueueManager | None = None
        self._serving: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._refreshed = asyncio.Event()
        self._wakes: set[asyncio.Task[None]] = set()

    def register(self, queue: str, handler: Handler, limit: int, source: Source) -> None:
        if queue in self._queues:
            raise ValueError(f"queue {queue!r} is registered")
        entry = self._queues[queue] = _Queue(queue, handler, limit, source, Gate(limit, self._clock), self._requeue)
        if self._manager is not None:
            self._manager.register_executor(queue, entry.executor())
        self._refreshed.set()

    def unregister(self, queue: str) -> None:
        entry = self._queues.pop(queue, None)
        if entry is not None:
            entry.gate.closed = True
        if self._manager is not None:
            self._manager.entrypoint_registry.pop(QueueEntrypoint(queue), None)

    def refresh(self, queue: str) -> None:
        self._refreshed.set()

    def enqueue(self, conn: sa.Connection, queue: str, id: str, run_at: float) -> None:
        delay = timedelta(seconds=max(0.0, run_at - self._clock()))
        conn.exec_driver_sql(self._insert, ([0], [queue], [id.encode()], [delay], [None], ["{}"]))

    async def _requeue(self, queue: str, id: str, delay: float) -> None:
        await self._store.run(self.enqueue, queue, id, self._clock() + delay)

    def cancel(self, conn: sa.Connection, queue: str, id: str) -> None:
        conn.exec_driver_sql(
            f"DELETE FROM {self._table} WHERE entrypoint = $1 AND payload = $2 AND status = 'queued'",
            (queue, id.encode()),
        )

    def throttle(self, queue: str, limit: int | None, until: float = 0.0) -> None:
        entry = self._queues.get(queue)
        if entry is None:
            return
        entry.gate.throttled, entry.gate.until = limit, until
        task = asyncio.create_task(entry.gate.wake())
        self._wakes.add(task)
        task.add_done_callback(self._wakes.discard)

    def nudge(self) -> None:
        pass  # PostgreSQL's clock decides what is due

    async def start(self) -> None:
        """Begin to call handlers.

        :raises StoreError: PgQueuer's tables cannot be made
        :raises StoreDown: PostgreSQL cannot be reached
        """
        await self._install()
        for entry in self._queues.values():
            entry.gate.closed = False
        self._serving = asyncio.create_task(self._serve(), name="fastagi-delivery-pgqueuer")
        self._sweeping = asyncio.create_task(self._sweeps(), name="fastagi-delivery-sweep")

    async def stop(self, drain_seconds: float) -> None:
        serving, self._serving = self._serving, None
        sweeping, self._sweeping = self._sweeping, None
        if sweeping is not None:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)
        for entry in self._queues.values():
            entry.gate.closed = True
            await entry.gate.wake()
        if serving is not None:
            if self._manager is not None:
                self._manager.shutdown.set()
                await asyncio.wait({serving}, timeout=drain_seconds)
            serving.cancel()
            _, deaf = await asyncio.wait({serving}, timeout=CANCEL_SECONDS)
            if deaf:
                log.error("deliveries_left_behind", hint="a sink goes on although it was cancelled")
            elif not serving.cancelled():
                serving.exception()  # mark the exception as retrieved

    # -- PgQueuer

    def _queries(self, pool: asyncpg.Pool) -> Queries:
        from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver

        return Queries(
            AsyncpgPoolDriver(pool),
            qbe=QueryBuilderEnvironment(self._settings),
            qbq=QueryQueueBuilder(self._settings),
            qbs=QuerySchedulerBuilder(self._settings),
        )

    async def _pool(self, size: int) -> asyncpg.Pool:
        return await asyncpg.create_pool(
            self._store.dsn,
            min_size=size,
            max_size=size,
            timeout=10,
            command_timeout=30,
            server_settings={
                "application_name": f"fastagi {self._store.node} (dispatch)",
                # a pick or a drop that PostgreSQL loses in a crash gives an id twice; the ledger's own writes are kept
                "synchronous_commit": "off",
            },
        )

    async def _install(self) -> None:
        """Make PgQueuer's tables, or bring them to its version; one server at a time."""
        try:
            async with (
                await self._pool(2) as pool,
                pool.acquire() as guard,
            ):
                await guard.execute("SELECT pg_advisory_lock($1::bigint)", INSTALL_LOCK)
                try:
                    queries = self._queries(pool)
                    if await queries.schema_is_installed():
                        if (await queries.plan_upgrade()).statements:
                            await queries.upgrade()
                    else:
                        await queries.install()
                finally:
                    await guard.execute("SELECT pg_advisory_unlock($1::bigint)", INSTALL_LOCK)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            raise StoreError(f"{self._store.shown}: PgQueuer's tables: {exc}") from None

    async def _serve(self) -> None:
        """Run PgQueuer, again after each outage of PostgreSQL."""
        pause, longest = RECONNECT_SECONDS
        while True:
            began = asyncio.get_running_loop().time()
            pool: asyncpg.Pool | None = None
            try:
                pool = await self._pool(3)
                manager = QueueManager(self._queries(pool), channel=self._settings.channel)
                for entry in self._queues.values():
                    manager.register_executor(entry.name, entry.executor())
                self._manager = manager
                await manager.run(
                    dequeue_timeout=timedelta(seconds=POLL_SECONDS),
                    batch_size=10,
                    heartbeat_timeout=self._heartbeat,
                    shutdown_on_listener_failure=True,
                    log_aggregation_interval=timedelta(0),
                )
                if self._serving is None:
                    return
            except Exception as exc:
                log.warning("dispatch_broken", store=self._store.shown, error=str(exc) or type(exc).__name__)
            finally:
                self._manager = None
                if pool is not None:
                    await _closed(pool)
            if asyncio.get_running_loop().time() - began > 60:
                pause = RECONNECT_SECONDS[0]
            await asyncio.sleep(pause)
            pause = min(longest, pause * 2)

    # -- sweep of lost jobs

    async def _sweeps(self) -> None:
        while True:
            self._refreshed.clear()
            for queue in list(self._queues.values()):
                try:
                    count = await self._store.run(self._sweep, queue)
                    if count:
                        log.info("jobs_restored", queue=queue.name, count=count)
                except StoreError as exc:
                    log.warning("sweep_failed", queue=queue.name, error=str(exc))
            try:
                await self._store.run(self._trim)
            except StoreError as exc:
                log.warning("sweep_failed", error=str(exc))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._sweep_seconds):
                    await self._refreshed.wait()

    def _sweep(self, conn: sa.Connection, queue: _Queue) -> int:
        """Queue items that are due and have no job."""
        late = self._clock() - LATE_SECONDS
        due = [item for item in queue.source(conn, SWEEP_ITEMS) if item.run_at <= late]
        if not due:
            return 0
        found = conn.exec_driver_sql(
            f"SELECT payload FROM {self._table} WHERE entrypoint = $1 AND payload = ANY($2::bytea[])",
            (queue.name, [item.id.encode() for item in due]),
        )
        there = {bytes(row[0]).decode() for row in found}
        missing = [item for item in due if item.id not in there]
        for item in missing:
            self.enqueue(conn, queue.name, item.id, 0.0)
        return len(missing)

    def _trim(self, conn: sa.Connection) -> None:
        logged = self._settings.queue_table_log
        conn.exec_driver_sql(
            f"DELETE FROM {logged} WHERE id IN (SELECT id FROM {logged}"
            f" WHERE created < now() - interval '{LOG_MINUTES} minutes' LIMIT 50000)"
        )


async def _closed(pool: asyncpg.Pool) -> None:
    try:
        async with asyncio.timeout(2):
            await pool.close()
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pool.terminate()
