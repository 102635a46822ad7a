"""The heap of the in-process dispatcher: what is bounded, and what comes back from the ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa

import fastagi.delivery.inprocess as inprocess
from fastagi.delivery.dispatch import Item, Reschedule
from fastagi.delivery.inprocess import InProcessDispatcher
from fastagi.errors import StoreDown
from fastagi.store.sqlite import SqliteStore
from support.delivery_harness import Clock, until


class Ledger:
    """What a source would read."""

    def __init__(self) -> None:
        self.items: dict[str, float] = {}
        self.reads = 0
        self.down = False

    def source(self, conn: sa.Connection, limit: int) -> list[Item]:
        self.reads += 1
        if self.down:
            raise StoreDown("gone")
        return [Item(id, at) for id, at in sorted(self.items.items(), key=lambda i: i[1])][:limit]


@pytest.fixture
async def store(tmp_path: Path):
    opened = SqliteStore(tmp_path / "a.db", node="one")
    await opened.start()
    yield opened
    await opened.stop()


async def test_ids_left_in_ledger_come_due(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that was left in the ledger comes when it is due, not when the others are done."""
    monkeypatch.setattr(inprocess, "HELD", 10)
    monkeypatch.setattr(inprocess, "LOW", 3)
    clock, ledger, done = Clock(1000.0), Ledger(), []
    dispatcher = InProcessDispatcher(store, clock=clock)

    async def handler(id: str) -> None:
        done.append(id)
        ledger.items.pop(id, None)

    dispatcher.register("q", handler, 2, ledger.source)
    await dispatcher.start()
    await until(lambda: ledger.reads >= 1)
    for n in range(10):  # all places taken by what is due in an hour
        ledger.items[f"late-{n}"] = 4600.0
        await store.run(lambda conn, n=n: dispatcher.enqueue(conn, "q", f"late-{n}", 4600.0))
    ledger.items["now"] = 1000.0
    await store.run(lambda conn: dispatcher.enqueue(conn, "q", "now", 1000.0))
    await until(lambda: done == ["now"])
    assert len(dispatcher._queues["q"].waiting) <= 10
    clock.now = 5000.0
    dispatcher.nudge()
    await until(lambda: len(set(done)) == 11)  # it may give one twice
    await dispatcher.stop(1.0)


async def test_queue_survives_ledger_outage(store: SqliteStore) -> None:
    clock, ledger, done = Clock(1000.0), Ledger(), []
    ledger.down, ledger.items = True, {"a": 0.0}
    dispatcher = InProcessDispatcher(store, clock=clock)

    async def handler(id: str) -> None:
        done.append(id)
        ledger.items.clear()

    dispatcher.register("q", handler, 1, ledger.source)
    await dispatcher.start()
    await until(lambda: ledger.reads == 1)
    ledger.down = False
    clock.now += 1
    dispatcher.nudge()
    await until(lambda: done == ["a"])
    await dispatcher.stop(1.0)


async def test_idle_queue_reads_ledger_again(store: SqliteStore) -> None:
    clock, ledger, done = Clock(1000.0), Ledger(), []
    dispatcher = InProcessDispatcher(store, clock=clock)

    async def handler(id: str) -> None:
        done.append(id)
        ledger.items.clear()

    dispatcher.register("q", handler, 1, ledger.source)
    await dispatcher.start()
    await until(lambda: ledger.reads == 1)
    ledger.items["somebody-else-wrote-it"] = 0.0
    clock.now += inprocess.REFRESH_SECONDS + 1
    dispatcher.nudge()
    await until(lambda: done == ["somebody-else-wrote-it"])
    await dispatcher.stop(1.0)


async def test_moved_id_does_not_grow_heap(store: SqliteStore) -> None:
    """An id that is moved often does not grow the heap."""
    clock, ledger = Clock(1000.0), Ledger()
    dispatcher = InProcessDispatcher(store, clock=clock)

    async def handler(id: str) -> None:
        raise Reschedule(1.0)

    dispatcher.register("q", handler, 1, ledger.source)
    await dispatcher.start()
    queue = dispatcher._queues["q"]
    await until(lambda: ledger.reads == 1)
    for n in range(1000):
        dispatcher._add("q", "a", 2000.0 + n)
    assert len(queue.heap) < 100
    assert queue.first() == (2999.0, "a")
    await dispatcher.stop(1.0)


async def test_stop_cancels_what_does_not_end(store: SqliteStore) -> None:
    clock, ledger, cancelled = Clock(1000.0), Ledger(), []
    ledger.items = {"a": 0.0}
    dispatcher = InProcessDispatcher(store, clock=clock)
    running = asyncio.Event()

    async def handler(id: str) -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(id)
            raise

    dispatcher.register("q", handler, 1, ledger.source)
    await dispatcher.start()
    await running.wait()
    await dispatcher.stop(0.05)
    assert cancelled == ["a"]
    assert not dispatcher._tasks
    await dispatcher.stop(0.05)
