"""Periodic work beside delivering: heartbeat, takeover from dead servers, parking, removing files.

Several servers may do all of it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import sqlalchemy as sa
import structlog

from fastagi.delivery.registry import SinkRegistry
from fastagi.domain.delivery import GIVE_UP_SECONDS, OBJECT, DeliveryStatus
from fastagi.domain.recording import Recording
from fastagi.errors import StoreError
from fastagi.store import Store, after_commit
from fastagi.store.queries import deliveries, holds, journal, recordings, servers
from fastagi.store.queries.servers import SILENT_SECONDS
from fastagi.store.sqlite import SqliteStore

log = structlog.get_logger(__name__)

BEAT_SECONDS = 5.0

GOODBYE_SECONDS = 3.0

ALONE_BEAT_SECONDS = 60.0
"""Seconds between heartbeats on SQLite, where no other server reads them."""

FAR_SECONDS = 3600.0
"""Step of the clock after which the retry periods of deliveries are wrong."""

LOOK_SECONDS = 2.0
"""Seconds between checks whether a command beside this server (a retry) has written to SQLite. A check costs 0.1 ms and
no fsync.
"""


class DeliveryMaintenance:
    """The delivery worker's own periodic task.

    :param enqueue: queues a delivery that became due
    :param other_servers: called after each round when other servers share the ledger
    :param refresh: reads a sink's queue from the ledger again
    """

    def __init__(
        self,
        store: Store,
        registry: SinkRegistry,
        *,
        clock: Callable[[], float],
        enqueue: Callable[[sa.Connection, deliveries.Due], None],
        refresh: Callable[[str], None],
        other_servers: Callable[[], Awaitable[None]],
        version: str,
    ) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        self._enqueue = enqueue
        self._refresh = refresh
        self._other_servers = other_servers
        self._beat = ALONE_BEAT_SECONDS if store.alone else BEAT_SECONDS
        self._version = version
        self._started_at = 0.0
        self._set_by = 0.0
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    async def start(self) -> None:
        """Announce this server and release the deliveries that its predecessor was running.

        :raises StoreError: the ledger cannot be written now
        """
        self._started_at = self._clock()
        await self.round(first=True)
        self._task = asyncio.create_task(self._rounds(), name="fastagi-delivery-upkeep")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            # without the goodbye this server counts as dead only after its heartbeat is old
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await self._store.run(servers.goodbye, [self._store.node])

    def soon(self) -> None:
        """Run the next round now: a sink with a name was registered."""
        self._wake.set()

    def clock_set(self, by: float) -> None:
        """Run a round now, which judges the waiting deliveries by the new time.

        :param by: seconds that it was set ahead; negative for back
        """
        self._set_by += by
        self._wake.set()

    async def round(self, *, first: bool = False) -> None:
        """Heartbeat, takeover and parking, once, in one transaction.

        :raises StoreError: the ledger is down
        """
        by, self._set_by = self._set_by, 0.0
        try:
            await self._store.run(self._round, first, by)
        except StoreError:
            self._set_by += by
            raise

    async def _rounds(self) -> None:
        while True:
            try:
                if await self._foreign_write():
                    self._refresh_all([entry.name for entry in self._registry])
                self._wake.clear()
                await self.round()
                if not self._store.alone:
                    await self._other_servers()
            except StoreError as exc:
                log.warning("upkeep_failed", error=str(exc))

    async def _foreign_write(self) -> bool:
        """Wait until the next round is due. Return True as soon as another process has written into this server's
        SQLite file; on PostgreSQL the dispatcher reads the database itself.
        """
        deadline = time.monotonic() + self._beat
        store = self._store
        while (left := deadline - time.monotonic()) > 0 and not self._wake.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK_SECONDS)):
                    await self._wake.wait()
            with contextlib.suppress(StoreError):  # SQLite cannot be checked now: the next check sees the change
                if isinstance(store, SqliteStore) and await store.changed_elsewhere():
                    return True
        return False

    def _round(self, conn: sa.Connection, first: bool, set_by: float) -> None:
        now = self._clock()
        mine = self._store.node
        names = [entry.name for entry in self._registry if not entry.name.startswith(OBJECT)]
        servers.heartbeat(
            conn,
            mine,
            now,
            started_at=self._started_at,
            version=self._version,
            # one name stands for all unnamed objects of this process: there may be one per call
            sinks=[*names, f"{OBJECT}@{self._registry.process}"],
        )
        living = [s for s in servers.servers(conn, now) if s.silent_seconds <= SILENT_SECONDS]
        keep = [s.node for s in living if not (first and s.node == mine)]
        for due in deliveries.release(conn, keep, now):
            log.info("delivery_taken_over", delivery_id=due.id, sink=due.sink)
            self._enqueue(conn, due)
        if first or set_by:
            self._follow_clock(conn, now, set_by)
        served = {name for server in living for name in server.sinks}
        holds.forget(conn, served)
        self._park(conn, served, now)

    def _follow_clock(self, conn: sa.Connection, now: float, set_by: float) -> None:
        """Judge waiting deliveries by the new time: none waits too long or is given up because the clock went ahead."""
        home = None if self._store.alone else self._store.node  # the other servers' clocks were not set
        if set_by > FAR_SECONDS:
            deliveries.new_day(conn, home)
        brought = deliveries.bring_forward(conn, now, home, self._retry_seconds())
        for due in brought:
            self._enqueue(conn, due)
        if brought:
            log.warning("deliveries_brought_forward", count=len(brought), hint="the clock was ahead before")
        if set_by:
            after_commit(conn, lambda: self._refresh_all([entry.name for entry in self._registry]))

    def _park(self, conn: sa.Connection, served: set[str], now: float) -> None:
        """Park the deliveries of sinks that no server has, and unpark those of sinks that this server has."""
        processes = [name.removeprefix(f"{OBJECT}@") for name in served if name.startswith(f"{OBJECT}@")]

        def unserved(sink: str) -> bool:
            return sink not in served and not self._registry.serves(sink, processes)

        waiting = deliveries.sinks(conn, DeliveryStatus.WAITING)
        homeless = [sink for sink in waiting if unserved(sink)]
        if homeless:
            count = deliveries.park(conn, homeless)
            log.warning("deliveries_parked", sinks=homeless[:20], count=count)
        back = [sink for sink in deliveries.sinks(conn, DeliveryStatus.PARKED) if sink in self._registry]
        if back:
            count = deliveries.unpark(conn, back, now)
            log.info("deliveries_unparked", sinks=back[:20], count=count)
            after_commit(conn, lambda: self._refresh_all(back))

    def _retry_seconds(self) -> dict[str, float]:
        return {e.name: e.retry_seconds for e in self._registry if e.retry_seconds != GIVE_UP_SECONDS}

    def _refresh_all(self, sinks: list[str]) -> None:
        for sink in sinks:
            self._refresh(sink)


async def remove_local(store: Store, registry: SinkRegistry, recording: Recording, *, at: float, shared: bool) -> None:
    """Delete a recording's file when one of its sinks has `delete_local` and all of them have taken it.

    Journalled before it is done. A legal hold keeps the file.
    """
    if not any(entry.delete_local for entry in registry):
        return
    if recording.node != store.node and not shared:
        return

    def unit(conn: sa.Connection) -> Path | None:
        made = deliveries.of_recording(conn, recording.id)
        wanted = any((entry := registry.get(d.sink)) is not None and entry.delete_local for d in made)
        if not wanted or any(d.status is not DeliveryStatus.DELIVERED for d in made):
            return None
        now = recordings.get(conn, recording.id)
        if now is None or now.legal_hold or now.deleted_at is not None:
            return None
        recordings.change(conn, recording.id, at, deleted_at=at)
        journal.write(conn, recording.id, at=at, event="file_removed", detail={"file_path": now.file_path})
        return Path(now.file_path)

    try:
        path = await store.run(unit)
        if path is not None:
            await asyncio.to_thread(path.unlink, missing_ok=True)
    except (StoreError, OSError) as exc:
        log.warning("file_not_removed", **recording.ids, error=str(exc))
