"""One suite for both dispatchers: what `fastagi.delivery.dispatch.Dispatcher` promises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa

from fastagi.delivery.dispatch import Dispatcher, Item, Reschedule
from fastagi.delivery.opening import open_dispatcher
from fastagi.errors import StoreDown
from fastagi.store import Store, open_store
from support.delivery_harness import until
from support.postgres_server import postgres_server, store_url  # noqa: F401


class Bench:
    """A dispatcher over a ledger table of its own, whose handler notes what it is given."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.dispatcher: Dispatcher = open_dispatcher(store, clock=time.time)
        self.calls: list[tuple[str, float]] = []
        self.running = 0
        self.most = 0
        self.behave: Any = lambda id: None

    @property
    def ids(self) -> list[str]:
        return [id for id, _ in self.calls]

    async def handler(self, id: str) -> None:
        self.calls.append((id, time.time()))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            answer = self.behave(id)
            if isinstance(answer, BaseException):
                raise answer
            if answer is not None:
                await answer
            await self.store.run(_done, id)
        finally:
            self.running -= 1

    def register(self, queue: str = "q", limit: int = 10) -> None:
        self.dispatcher.register(queue, self.handler, limit, lambda conn, n: _waiting(conn, queue, n))

    async def enqueue(self, *ids: str, queue: str = "q", after: float = 0.0) -> None:
        await self.store.run(self.unit, ids, queue, time.time() + after)

    def unit(self, conn: sa.Connection, ids: tuple[str, ...], queue: str, run_at: float) -> None:
        for id in ids:
            _write(conn, queue, id, run_at)
            self.dispatcher.enqueue(conn, queue, id, run_at)


def _write(conn: sa.Connection, queue: str, id: str, run_at: float) -> None:
    conn.execute(sa.text("insert into job values (:id, :queue, :at, 0)"), {"id": id, "queue": queue, "at": run_at})


def _waiting(conn: sa.Connection, queue: str, limit: int) -> list[Item]:
    rows = conn.execute(
        sa.text("select id, run_at from job where queue = :queue and done = 0 order by run_at limit :limit"),
        {"queue": queue, "limit": limit},
    )
    return [Item(*row) for row in rows]


def _done(conn: sa.Connection, id: str) -> None:
    conn.execute(sa.text("update job set done = done + 1 where id = :id"), {"id": id})


@pytest.fixture
async def bench(store_url: str) -> AsyncIterator[Bench]:  # noqa: F811
    store = open_store(store_url, node="one")
    await store.start()
    await store.run(
        lambda conn: conn.execute(
            sa.text("create table job (id text primary key, queue text, run_at double precision, done integer)")
        )
    )
    made = Bench(store)
    yield made
    await made.dispatcher.stop(5.0)
    await store.stop()


async def test_what_is_queued_is_handled_once_and_at_once(bench: Bench) -> None:
    bench.register()
    await bench.dispatcher.start()
    await bench.enqueue("warm-up")
    await until(lambda: len(bench.calls) == 1)
    started = time.time()
    await bench.enqueue("a", "b", "c")
    await until(lambda: len(bench.calls) == 4)
    assert sorted(bench.ids[1:]) == ["a", "b", "c"]
    assert max(at for _, at in bench.calls) - started < 3
    await asyncio.sleep(0.3)
    assert len(bench.calls) == 4


async def test_a_transaction_that_fails_queues_nothing(bench: Bench) -> None:
    bench.register()
    await bench.dispatcher.start()

    def unit(conn: sa.Connection) -> None:
        bench.unit(conn, ("lost",), "q", time.time())
        raise ValueError("after all not")

    with pytest.raises(ValueError, match="after all"):
        await bench.store.run(unit)
    await bench.enqueue("kept")
    await until(lambda: bool(bench.calls))
    await asyncio.sleep(0.2)
    assert bench.ids == ["kept"]


async def test_not_before_its_time(bench: Bench) -> None:
    bench.register()
    await bench.dispatcher.start()
    started = time.time()
    await bench.enqueue("later", after=1.0)
    await bench.enqueue("now")
    await until(lambda: len(bench.calls) == 2)
    assert bench.ids == ["now", "later"]
    assert 0.9 <= bench.calls[1][1] - started <= 10


async def test_no_more_than_the_limit_at_once_and_no_queue_holds_another(bench: Bench) -> None:
    gate = asyncio.Event()
    bench.behave = lambda id: gate.wait() if id.startswith("slow") else None
    bench.register("slow", limit=3)
    bench.register("quick", limit=3)
    await bench.dispatcher.start()
    await bench.enqueue(*(f"slow-{n}" for n in range(60)), queue="slow")
    await until(lambda: bench.running == 3)
    await bench.enqueue(*(f"quick-{n}" for n in range(20)), queue="quick")
    await until(lambda: sum(id.startswith("quick") for id in bench.ids) == 20)
    await until(lambda: bench.running == 3)
    bench.most = 0
    gate.set()
    await until(lambda: len(set(bench.ids)) == 80, 40)
    assert bench.most <= 3


async def test_a_handler_that_raises_is_called_again(bench: Bench) -> None:
    bench.behave = lambda id: StoreDown("gone") if len(bench.calls) < 3 else None
    bench.register()
    await bench.dispatcher.start()
    await bench.enqueue("a")
    await until(lambda: len(bench.calls) == 3)
    times = [at for _, at in bench.calls]
    assert times[1] - times[0] > 0.3
    await asyncio.sleep(0.3)
    assert bench.ids == ["a"] * 3


async def test_later_is_later(bench: Bench) -> None:
    bench.behave = lambda id: Reschedule(0.7) if len(bench.calls) == 1 else None
    bench.register()
    await bench.dispatcher.start()
    await bench.enqueue("a")
    await until(lambda: len(bench.calls) == 2)
    assert bench.calls[1][1] - bench.calls[0][1] >= 0.6


async def test_what_queues_itself_again_while_it_runs_comes_again(bench: Bench) -> None:
    async def again(id: str) -> None:
        if len(bench.calls) < 3:
            await bench.store.run(lambda conn: bench.dispatcher.enqueue(conn, "q", id, time.time() + 0.2))

    bench.behave = again
    bench.register()
    await bench.dispatcher.start()
    await bench.enqueue("a")
    await until(lambda: len(bench.calls) == 3)
    await asyncio.sleep(0.4)
    assert bench.ids == ["a"] * 3
    assert bench.most == 1, "never two of one id at once here"


async def test_cancel(bench: Bench) -> None:
    bench.register()
    await bench.dispatcher.start()
    await bench.enqueue("a", "b", after=0.7)

    def cancel(conn: sa.Connection) -> None:
        bench.dispatcher.cancel(conn, "q", "a")
        bench.dispatcher.cancel(conn, "q", "unknown")
        _done(conn, "a")

    await bench.store.run(cancel)
    await until(lambda: "b" in bench.ids)
    await asyncio.sleep(0.2)
    assert bench.ids == ["b"]


async def test_what_waits_in_the_ledger_is_found(bench: Bench) -> None:
    await bench.store.run(_write, "q", "before", time.time() - 100)
    bench.register()
    await bench.dispatcher.start()
    await until(lambda: bench.ids == ["before"])
    await bench.store.run(_write, "late", "other", time.time() - 100)
    bench.register("late")
    await until(lambda: bench.ids == ["before", "other"])
    await bench.store.run(_write, "q", "third", time.time() - 100)
    bench.dispatcher.refresh("q")
    await until(lambda: "third" in bench.ids)


async def test_a_queue_nobody_serves_waits_for_one_who_does(bench: Bench) -> None:
    bench.register()
    await bench.dispatcher.start()
    bench.dispatcher.unregister("q")
    bench.dispatcher.unregister("unknown")
    await bench.enqueue("a")
    await asyncio.sleep(0.3)
    assert bench.ids == []
    bench.register()
    with pytest.raises(ValueError, match="registered"):
        bench.register()
    await until(lambda: bench.ids == ["a"])


async def test_throttle(bench: Bench) -> None:
    bench.behave = lambda id: asyncio.sleep(0.05)
    bench.register(limit=8)
    await bench.dispatcher.start()
    bench.dispatcher.throttle("q", 1, time.time() + 1.0)
    bench.dispatcher.throttle("unknown", 1)
    started = time.time()
    await bench.enqueue(*(f"a-{n}" for n in range(4)))
    await until(lambda: len(bench.calls) == 4)
    assert bench.calls[0][1] - started >= 0.9
    assert bench.most == 1
    bench.dispatcher.throttle("q", 1, time.time() + 300)
    await bench.enqueue(*(f"b-{n}" for n in range(8)))
    await asyncio.sleep(0.3)
    assert len(bench.calls) == 4
    gate = asyncio.Event()
    bench.behave = lambda id: gate.wait()
    bench.dispatcher.throttle("q", None)
    await until(lambda: bench.running == 8)
    gate.set()


async def test_stop_waits_for_what_runs_and_begins_nothing(bench: Bench) -> None:
    gate = asyncio.Event()
    bench.behave = lambda id: gate.wait()
    bench.register(limit=2)
    await bench.dispatcher.start()
    await bench.enqueue(*(f"a-{n}" for n in range(5)))
    await until(lambda: bench.running == 2)
    stopping = asyncio.create_task(bench.dispatcher.stop(10.0))
    await asyncio.sleep(0.1)
    assert not stopping.done()
    gate.set()
    await asyncio.wait_for(stopping, 10)
    assert len(bench.calls) == 2
    rest = {item.id for item in await bench.store.read(_waiting, "q", 10)}
    assert len(rest) == 3
    await bench.dispatcher.stop(1.0)
    # and on again: nothing was lost
    await bench.dispatcher.start()
    await until(lambda: len(set(bench.ids)) == 5)


async def test_stop_cancels_what_does_not_end(bench: Bench) -> None:
    bench.behave = lambda id: asyncio.Event().wait()
    bench.register()
    await bench.dispatcher.start()
    await bench.enqueue("a")
    await until(lambda: bench.running == 1)
    await asyncio.wait_for(bench.dispatcher.stop(0.1), 10)
    assert bench.running == 0


async def test_many(bench: Bench) -> None:
    bench.register(limit=50)
    await bench.dispatcher.start()
    for first in range(0, 1000, 100):
        await bench.enqueue(*(f"a-{n:04}" for n in range(first, first + 100)))
    await until(lambda: len(set(bench.ids)) == 1000, 60)
    await until(lambda: bench.running == 0)
    counts = await bench.store.read(lambda conn: set(conn.execute(sa.text("select done from job")).scalars()))
    assert counts == {1}
    assert bench.most <= 50
