"""The dispatcher beside SQLite: a heap per queue in this process, filled from the ledger.

Memory is bounded: a queue holds up to `HELD` ids. Further ones stay in the ledger and are read when the queue runs low,
or when one of them comes due.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

import sqlalchemy as sa
import structlog

from fastagi.delivery.dispatch import Handler, Reschedule, Source
from fastagi.errors import StoreError
from fastagi.store import Store, after_commit

log = structlog.get_logger(__name__)

HELD = 10_000
"""Ids of one queue in memory, about 2 MB."""

LOW = HELD // 4

LONGEST_SLEEP = 60.0
"""Longest seconds between two looks at the clock, which may be set meanwhile."""

REFRESH_SECONDS = 60.0
"""Seconds after which an idle queue reads the ledger for items that were not enqueued here."""

FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 30.0
"""First and longest seconds until a handler that raised (the store is down) is called again."""

CANCEL_SECONDS = 5.0
"""Seconds that a cancelled handler has to end before it is left: a sink may swallow its cancellation."""


class _Queue:
    """One queue: the due times, the running ids, and what was left in the ledger."""

    def __init__(self, name: str, handler: Handler, limit: int, source: Source) -> None:
        self.name = name
        self.handler = handler
        self.limit = limit
        self.source = source
        self.heap: list[tuple[float, str]] = []
        self.waiting: dict[str, float] = {}  # the heap may hold older times of an id; these count
        self.running: set[str] = set()
        self.again: dict[str, float] = {}  # queued while it ran
        self.failures: dict[str, int] = {}
        self.throttled: int | None = None
        self.until = 0.0
        self.horizon: float | None = 0.0  # the earliest that may be only in the ledger; None for none
        self.loading: asyncio.Task[None] | None = None
        self.loaded_at = 0.0
        self.ended: set[str] | None = None  # ended or cancelled during a read of the ledger, which may still show them
        self.timer: asyncio.TimerHandle | None = None

    def add(self, id: str, run_at: float) -> None:
        if id in self.running:
            self.again[id] = run_at
            return
        if id not in self.waiting and len(self.waiting) >= HELD:
            self.horizon = run_at if self.horizon is None else min(self.horizon, run_at)
            return
        self.waiting[id] = run_at
        heapq.heappush(self.heap, (run_at, id))
        if len(self.heap) > 2 * len(self.waiting) + 64:  # most entries of the heap are outdated
            self.heap = [(at, waiting) for waiting, at in self.waiting.items()]
            heapq.heapify(self.heap)

    def drop(self, id: str) -> None:
        self.waiting.pop(id, None)
        self.again.pop(id, None)
        if self.ended is not None:
            self.ended.add(id)

    def first(self) -> tuple[float, str] | None:
        """Return the earliest waiting id without taking it."""
        while self.heap:
            run_at, id = self.heap[0]
            if self.waiting.get(id) == run_at:
                return self.heap[0]
            heapq.heappop(self.heap)
        return None

    def take(self) -> str:
        _, id = heapq.heappop(self.heap)
        del self.waiting[id]
        return id

    def must_load(self, now: float) -> bool:
        """Return whether the ledger may hold a more urgent id than the heap."""
        if self.loading is not None:
            return False
        if self.horizon is None:
            return not self.waiting and now >= self.loaded_at + REFRESH_SECONDS
        first = self.first()
        if first is None:
            return self.horizon <= now
        return self.horizon <= now and (len(self.waiting) < LOW or first[0] > self.horizon)


class InProcessDispatcher:
    """Implements `fastagi.delivery.dispatch.Dispatcher`.

    :param clock: unix seconds
    """

    def __init__(self, store: Store, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._queues: dict[str, _Queue] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = False

    def register(self, queue: str, handler: Handler, limit: int, source: Source) -> None:
        if queue in self._queues:
            raise ValueError(f"queue {queue!r} is registered")
        self._queues[queue] = _Queue(queue, handler, limit, source)
        self._pump(self._queues[queue])

    def unregister(self, queue: str) -> None:
        gone = self._queues.pop(queue, None)
        if gone is not None:
            _rest(gone)

    def refresh(self, queue: str) -> None:
        found = self._queues.get(queue)
        if found is not None:
            found.horizon = 0.0
            self._pump(found)

    def enqueue(self, conn: sa.Connection, queue: str, id: str, run_at: float) -> None:
        after_commit(conn, lambda: self._add(queue, id, run_at))

    def cancel(self, conn: sa.Connection, queue: str, id: str) -> None:
        after_commit(conn, lambda: self._drop(queue, id))

    def throttle(self, queue: str, limit: int | None, until: float = 0.0) -> None:
        found = self._queues.get(queue)
        if found is not None:
            found.throttled, found.until = limit, until
            self._pump(found)

    async def start(self) -> None:
        self._started = True
        self.nudge()

    async def stop(self, drain_seconds: float) -> None:
        self._started = False
        for queue in self._queues.values():
            _rest(queue)
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=drain_seconds)
        left = set(self._tasks)
        for task in left:
            task.cancel()
        if left:
            _, deaf = await asyncio.wait(left, timeout=CANCEL_SECONDS)
            if deaf:
                log.error("deliveries_left_behind", count=len(deaf), hint="a sink goes on although it was cancelled")

    def nudge(self) -> None:
        for queue in list(self._queues.values()):
            self._pump(queue)

    def _add(self, queue: str, id: str, run_at: float) -> None:
        found = self._queues.get(queue)
        if found is not None:  # otherwise it stays in the ledger until a server has that queue
            found.add(id, run_at)
            self._pump(found)

    def _drop(self, queue: str, id: str) -> None:
        found = self._queues.get(queue)
        if found is not None:
            found.drop(id)

    def _pump(self, queue: _Queue) -> None:
        """Start what is due and set the timer for the next."""
        if not self._started or self._queues.get(queue.name) is not queue:
            return
        now = self._clock()
        limit = queue.limit if queue.throttled is None else min(queue.limit, queue.throttled)
        if queue.must_load(now):
            queue.loading = self._own(self._load(queue))
        while now >= queue.until and len(queue.running) < limit:
            first = queue.first()
            if first is None or first[0] > now:
                break
            id = queue.take()
            queue.running.add(id)
            self._own(self._handle(queue, id))
        self._set_timer(queue, now, limit)

    def _set_timer(self, queue: _Queue, now: float, limit: int) -> None:
        if queue.timer is not None:
            queue.timer.cancel()
            queue.timer = None
        if len(queue.running) >= limit:
            return  # the end of a running one calls this again
        first = queue.first()
        times = [] if first is None else [max(first[0], queue.until)]
        if queue.loading is None:
            due = queue.loaded_at + REFRESH_SECONDS if queue.horizon is None else queue.horizon
            times.append(max(due, queue.until))
        if times:
            delay = min(max(min(times) - now, 0.001), LONGEST_SLEEP)
            queue.timer = asyncio.get_running_loop().call_later(delay, self._pump, queue)

    def _own(self, coroutine: object) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _load(self, queue: _Queue) -> None:
        """Read the earliest from the ledger."""
        try:
            queue.horizon = None  # an item that is left out from now on sets it again
            queue.loaded_at = self._clock()
            queue.ended = set()
            before = dict(queue.waiting)
            items = await self._store.read(queue.source, HELD)
        except StoreError as exc:
            log.warning("queue_not_loaded", queue=queue.name, error=str(exc))
            queue.horizon = self._clock() + FIRST_BACKOFF
        else:
            if len(items) == HELD:
                # ids here may be later than the ledger's; the ledger does not have those queued meanwhile
                for id, run_at in before.items():
                    if queue.waiting.get(id) == run_at:
                        del queue.waiting[id]
                last = items[-1].run_at
                queue.horizon = last if queue.horizon is None else min(queue.horizon, last)
            for item in items:
                if item.id not in queue.waiting and item.id not in queue.running and item.id not in queue.ended:
                    queue.add(item.id, item.run_at)
        finally:
            queue.loading = None
            queue.ended = None
        self._pump(queue)

    async def _handle(self, queue: _Queue, id: str) -> None:
        try:
            await queue.handler(id)
            queue.failures.pop(id, None)
        except Reschedule as later:
            queue.again.setdefault(id, self._clock() + later.seconds)
        except Exception as exc:
            count = queue.failures[id] = min(queue.failures.get(id, 0) + 1, 10)
            delay = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** (count - 1))
            log.warning("handler_failed", queue=queue.name, id=id, error=str(exc), seconds=delay)
            queue.again.setdefault(id, self._clock() + delay)
        finally:
            queue.running.discard(id)
            if queue.ended is not None:
                queue.ended.add(id)
            again = queue.again.pop(id, None)
            if again is not None:
                queue.add(id, again)
            self._pump(queue)


def _rest(queue: _Queue) -> None:
    if queue.timer is not None:
        queue.timer.cancel()
        queue.timer = None
