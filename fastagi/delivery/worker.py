"""The delivery worker: takes due deliveries from the ledger, calls the sinks, and writes the outcomes.

The ledger knows who may try and what was tried (`fastagi.store.queries.deliveries`), the domain decides when to try
again (`judge`), the dispatcher knows when it is due; here they meet. A claimed delivery is always settled or given
back. When this process dies, another one, or its successor, releases it.
"""

from __future__ import annotations

import asyncio
import random as random_module
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import sqlalchemy as sa
import structlog
from structlog.contextvars import bound_contextvars

from fastagi.delivery.attempt import attempt
from fastagi.delivery.breaker import Breaker
from fastagi.delivery.dispatch import Dispatcher, Reschedule
from fastagi.delivery.holding import Change, SinkHolds
from fastagi.delivery.ledger import Made, settle, waiting_for, write_outcome
from fastagi.delivery.maintenance import DeliveryMaintenance, remove_local
from fastagi.delivery.registry import Entry, SinkRegistry
from fastagi.delivery.sink import CurrentDelivery
from fastagi.domain.delivery import OBJECT, Delivery, DeliveryStatus, Outcome, SinkRefusals
from fastagi.domain.recording import Recording
from fastagi.errors import StoreError
from fastagi.store import Store, after_commit
from fastagi.store.queries import deliveries, holds, recordings, servers
from fastagi.store.queries.servers import SILENT_SECONDS

log = structlog.get_logger(__name__)

GIVE_BACK_SECONDS = 5.0

FRESH = 200
"""Most recently finished recordings that are kept: their first deliveries are made within moments."""

STALE_SECONDS = 2.0
"""Seconds until a delivery that still runs here is checked again, when the ledger says that it is due."""

OnAttempt = Callable[[Delivery, Outcome, float], None]
OnDead = Callable[[Delivery, Recording], None]


class DeliveryWorker:
    """Delivers recordings.

    :param dispatcher: from `open_dispatcher` for this store
    :param clock: unix seconds
    :param random: numbers in [0, 1), for jitter
    :param on_dead: called with each delivery that died, and its recording; must not raise
    :param on_attempt: called with each attempt: the delivery after it, its outcome, seconds
    :param shared_files: whether every node can read every finished file (a shared folder); otherwise a sink that needs
        the file is called by the node that has it
    """

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        registry: SinkRegistry,
        *,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = random_module.random,
        on_dead: OnDead | None = None,
        on_attempt: OnAttempt | None = None,
        shared_files: bool = False,
        version: str = "",
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._registry = registry
        self._clock = clock
        self._random = random
        self._on_dead = on_dead
        self._on_attempt = on_attempt
        self._shared_files = shared_files
        self._breakers: dict[str, Breaker] = {}
        self._queues: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._under_way: set[str] = set()
        self._fresh: dict[str, Recording] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._holds = SinkHolds()
        self._upkeep = DeliveryMaintenance(
            store,
            registry,
            clock=clock,
            enqueue=self._enqueue_due,
            refresh=self._refresh,
            other_servers=self._adopt_holds,
            version=version,
        )
        self._stopping = False

    # -- for the app

    async def start(self) -> None:
        """Take over what a dead predecessor was running, then begin to deliver.

        :raises StoreDown: the ledger cannot be read now
        """
        self._stopping = False
        self._holds.load(await self._store.read(holds.known))
        for entry in self._registry:
            self._sink_changed(entry.name)
        self._registry.changed = self._sink_changed
        await self._upkeep.start()
        await self._dispatcher.start()

    async def stop(self, drain_seconds: float = 10.0) -> None:
        """Begin nothing new, wait `drain_seconds` for running attempts, give back the rest untried. Idempotent."""
        self._stopping = True
        self._registry.changed = lambda name: None
        await self._dispatcher.stop(drain_seconds)
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=GIVE_BACK_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._upkeep.stop()

    def clock_set(self, by: float) -> None:
        """Judge the waiting deliveries by the new time: none waits longer or is given up because the clock was set.

        :param by: seconds that it was set ahead; negative for back
        """
        for name, breaker in self._breakers.items():
            if breaker.open_until is not None:
                breaker.open_until += by
                self._dispatcher.throttle(self._queues.get(name, ""), 1, breaker.open_until)
        self._upkeep.clock_set(by)

    def enqueue(
        self,
        conn: sa.Connection,
        made: Iterable[Delivery],
        *,
        home: str | None = None,
        recording: Recording | None = None,
    ) -> None:
        """Queue new deliveries in the transaction that wrote them: call it in one unit with `recordings.finish`.

        Attempts begin once the transaction is committed.

        :param home: the node that has the file; this one when None
        :param recording: as this transaction writes it, so that the first attempts need not read it again
        """
        if recording is not None:
            after_commit(conn, lambda: self._remember(recording))
        for delivery in made:
            if delivery.status is DeliveryStatus.WAITING:
                self._enqueue_due(
                    conn,
                    deliveries.Due(delivery.id, delivery.sink, home or self._store.node, delivery.next_at),
                )

    def _remember(self, recording: Recording) -> None:
        self._fresh[recording.id] = recording
        if len(self._fresh) > FRESH:
            del self._fresh[next(iter(self._fresh))]

    def wake(self) -> None:
        """Read the clock now. Not needed after `enqueue`: the commit wakes the worker."""
        self._dispatcher.nudge()

    async def retry(self, delivery_id: str, to: str = "") -> None:
        """Retry a delivery for an operator: due now, with a new retry period if it was dead or parked.

        :param to: another sink, by name, which gets a dead or parked delivery instead
        :raises StoreError: there is no such delivery, it is delivered or running, or no server has its sink
        """

        def unit(conn: sa.Connection) -> None:
            now = self._clock()
            served = servers.sinks_served(conn, now, SILENT_SECONDS) | {entry.name for entry in self._registry}
            self._enqueue_due(conn, deliveries.requeue(conn, delivery_id, now, to=to, served=served, all_known=True))

        await self._store.run(unit)

    def stats(self) -> dict[str, Any]:
        """Return counters since the start (attempts, failures, delivered, dead, refused_outcomes), and sinks that are
        down.

        Waiting deliveries, by sink and age, are in the ledger: `deliveries.depths`.
        """
        names = ("attempts", "failures", "delivered", "dead", "refused_outcomes")
        return {
            **{name: self._counts[name] for name in names},
            "running": len(self._under_way),
            "down": sorted(name for name, breaker in self._breakers.items() if breaker.is_open),
        }

    @property
    def held(self) -> dict[str, SinkRefusals]:
        """Return the sinks whose receivers refuse everything, and whose deliveries therefore wait."""
        return {name: refusals for name, refusals in self._holds.held.items() if name in self._registry}

    # -- queues

    def _queue(self, entry: Entry, home: str) -> str:
        """Return the queue of a sink: one for all nodes, or one per node when the sink needs the file."""
        if entry.needs_file and not self._shared_files:
            return f"deliver.{entry.name}@{home}"
        return f"deliver.{entry.name}"

    def _sink_changed(self, name: str) -> None:
        """Serve a sink that came, or forget one that went."""
        entry = self._registry.get(name)
        if entry is None:
            self._dispatcher.unregister(self._queues.pop(name, ""))
            self._breakers.pop(name, None)
            if name.startswith(OBJECT):  # a sink with this name may come back, and is tried at once
                self._holds.forget(name)
            else:  # its waiting deliveries must be parked
                self._upkeep.soon()
        elif name not in self._queues:
            home = self._store.node if entry.needs_file and not self._shared_files else None
            queue = self._queues[name] = self._queue(entry, self._store.node)
            handler = partial(self._deliver, name)
            self._dispatcher.register(queue, handler, entry.concurrency, waiting_for(name, home))
            if self._holds.is_held(name):
                self._hold(name)
            if not name.startswith(OBJECT):  # parked deliveries may wait for it
                self._upkeep.soon()

    def _enqueue_due(self, conn: sa.Connection, due: deliveries.Due) -> None:
        entry = self._registry.get(due.sink)
        if entry is not None:  # otherwise a server that has that sink finds it in the ledger
            self._dispatcher.enqueue(conn, self._queue(entry, due.home), due.id, due.next_at)

    def _refresh(self, sink: str) -> None:
        if sink in self._queues:
            self._dispatcher.refresh(self._queues[sink])

    # -- one delivery

    async def _deliver(self, sink: str, delivery_id: str) -> None:
        """Make an attempt. The dispatcher's handler of a sink's queue."""
        entry = self._registry.get(sink)
        if entry is None:
            return  # the ledger keeps it for a server that has that sink
        if self._stopping:
            raise Reschedule(0.5)
        if delivery_id in self._under_way:
            # another server thought this one dead and made it due; leave it to that one, so that it does not run twice
            # here
            raise Reschedule(STALE_SECONDS)
        breaker = self._breakers.setdefault(sink, Breaker())
        wait = breaker.admit(self._clock())
        if wait > 0:  # the ledger is not touched: no attempt is counted, nothing is written
            raise Reschedule(wait * (1 + self._random() / 4))
        probe = breaker.is_open
        try:
            taken = await self._store.run(self._take, delivery_id, sink)
        except BaseException:
            if probe:
                breaker.abandoned()
            raise
        if taken is None:
            if probe:
                breaker.abandoned()
            return
        delivery, recording = taken
        started = time.monotonic()
        self._under_way.add(delivery_id)
        try:
            current = CurrentDelivery(delivery.id, delivery.attempts + 1, recording.id)
            with bound_contextvars(delivery_id=delivery.id, **recording.ids):  # for log lines of the sink
                outcome = await attempt(entry, recording.metadata(), current)
        except asyncio.CancelledError:
            if probe:
                breaker.abandoned()
            await self._own(self._give_back(delivery, recording))
            raise
        finally:
            self._under_way.discard(delivery_id)
        change = self._holds.note(sink, delivery.id, outcome, self._clock())
        self._judge_sink(entry, breaker, outcome)
        # the sink has been called: its outcome must be written even when this task is cancelled now
        await self._own(self._settle(entry, delivery, recording, outcome, change, time.monotonic() - started))

    def _take(self, conn: sa.Connection, delivery_id: str, sink: str) -> tuple[Delivery, Recording] | None:
        delivery = deliveries.claim(conn, delivery_id, self._clock(), self._store.node, sink)
        if delivery is None:
            due = deliveries.due_entry(conn, delivery_id)
            if due is not None and due.next_at > self._clock():  # two clocks differ, or it was put off meanwhile
                self._enqueue_due(conn, due)
            return None
        fresh = self._fresh.get(delivery.recording_id) if delivery.attempts == 0 else None
        recording = fresh or recordings.get(conn, delivery.recording_id)
        if recording is None:
            raise StoreError(f"delivery {delivery_id} is of a recording that is not there")
        return delivery, recording

    async def _give_back(self, delivery: Delivery, recording: Recording) -> None:
        """Note that the attempt was broken off: due at once, and not counted."""

        def unit(conn: sa.Connection) -> None:
            if deliveries.give_back(conn, delivery.id, delivery.fence, self._clock()):
                due = deliveries.due_entry(conn, delivery.id)
                if due is not None:
                    self._enqueue_due(conn, due)

        try:
            await self._store.run(unit)
        except StoreError as exc:  # it stays "running": the next start releases it
            log.warning("delivery_not_given_back", delivery_id=delivery.id, **recording.ids, error=str(exc))

    def _judge_sink(self, entry: Entry, breaker: Breaker, outcome: Outcome) -> None:
        """Open or close the sink's breaker by an outcome, and tell the dispatcher how many it may start."""
        queue, held = self._queues.get(entry.name, ""), self._holds.is_held(entry.name)
        if not held and (outcome.ok or not outcome.retry):
            if breaker.passed():
                log.info("sink_up", sink=entry.name)
                self._dispatcher.throttle(queue, None)
            return
        was_open = breaker.is_open
        if breaker.failed(self._clock(), outcome.retry_after, at_once=held) and breaker.open_until is not None:
            if not was_open and not held:
                log.warning("sink_down", sink=entry.name, error=outcome.error)
            self._dispatcher.throttle(queue, 1, breaker.open_until)

    def _hold(self, name: str) -> None:
        """Only probe a sink from now on: the ledger says that it is held."""
        breaker = self._breakers.setdefault(name, Breaker())
        if breaker.failed(self._clock(), at_once=True) and breaker.open_until is not None:
            self._dispatcher.throttle(self._queues[name], 1, breaker.open_until)

    async def _adopt_holds(self) -> None:
        """Take over the holds that other servers wrote."""
        for name, change in self._holds.adopt(await self._store.read(holds.known), self._clock()).items():
            if name not in self._queues:
                continue
            if change is Change.HELD:
                self._hold(name)
            elif self._breakers.setdefault(name, Breaker()).passed():
                self._dispatcher.throttle(self._queues[name], None)
                self._refresh(name)

    async def _settle(
        self, entry: Entry, delivery: Delivery, recording: Recording, outcome: Outcome, change: Change, seconds: float
    ) -> None:
        now = self._clock()
        made = Made(delivery, outcome, change, now, seconds)
        unit = partial(
            write_outcome, made, entry, self._holds, self._enqueue_due, self._random(), not self._store.alone
        )
        settled, refusals = await settle(self._store, unit, delivery, recording)
        if self._holds.learn(entry.name, refusals):
            self._hold(entry.name)
        if settled is None:
            self._counts["refused_outcomes"] += 1
            log.warning("outcome_refused", delivery_id=delivery.id, **recording.ids, sink=delivery.sink, ok=outcome.ok)
            return
        after = settled.delivery
        self._counts["attempts"] += 1
        self._counts["failures"] += not outcome.ok
        bound = log.bind(
            delivery_id=after.id, **recording.ids, sink=after.sink, attempts=after.attempts, seconds=seconds
        )
        if self._on_attempt is not None:
            self._on_attempt(after, outcome, seconds)
        if after.status is DeliveryStatus.WAITING:
            bound.info("delivery_failed", error=outcome.error, again_in=round(after.next_at - now, 1))
            return
        self._counts[after.status.value] += 1
        if after.status is DeliveryStatus.DELIVERED:
            bound.debug("delivered")
            await remove_local(self._store, self._registry, recording, at=now, shared=self._shared_files)
        else:
            bound.error("delivery_dead", error=outcome.error)
            if self._on_dead is not None:
                self._on_dead(after, recording)
        if entry.name.startswith(OBJECT) and after.status is DeliveryStatus.DELIVERED:
            self._registry.release(entry.name)

    async def _own(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Await work in a task of its own; a cancelled caller leaves it to end by itself (`stop` waits for it)."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)
