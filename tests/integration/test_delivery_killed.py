"""Servers that are killed: nothing that was finished is lost, on either database, alone or among others."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp import web

from fastagi.delivery import DeliveryWorker, SinkRegistry, WebhookSink, open_dispatcher
from fastagi.errors import SinkError
from fastagi.store import Store, open_store
from fastagi.store.queries import deliveries, servers
from support.delivery_harness import NotingSink, finish, finish_many, until
from support.postgres_server import PostgresServer, postgres_server, postgres_url, store_url  # noqa: F401

SERVER = Path(__file__).parents[1] / "support" / "delivery_server.py"


class Receiver:
    """Takes webhooks; holds them while `open` is not set."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[tuple[str, str]] = []
        self.arrived: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.delay = 0.0

    async def take(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = json.loads(await request.read())
        recording = body["extra"]["recording_id"]
        self.arrived.append(recording)
        await self.open.wait()
        await asyncio.sleep(self.delay)
        self.got.append((recording, request.headers["webhook-id"]))
        return web.Response()

    @property
    def recordings(self) -> set[str]:
        return {recording for recording, _ in self.got}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/", made.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield made
    made.open.set()
    await runner.cleanup()


class Process:
    """A `delivery_server`, and what it said."""

    def __init__(self, url: str, node: str, receiver: Receiver, count: int, first: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), url, node, receiver.url, str(count), str(first)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []

    def _read(self, lines: int) -> None:
        assert self._process.stdout is not None
        while len(self.said) < lines:
            line = self._process.stdout.readline()
            if not line:
                raise AssertionError("the server ended by itself")
            self.said.append(line.strip())

    async def says(self, lines: int) -> None:
        await asyncio.wait_for(asyncio.to_thread(self._read, lines), 60)

    def kill(self) -> None:
        """SIGKILL; what it had written before is read to the end."""
        self._process.kill()
        assert self._process.stdout is not None
        rest = self._process.stdout.read()
        self.said += [line for line in rest.split("\n")[:-1] if line]
        self._process.stdout.close()
        self._process.wait(10)

    @property
    def finished(self) -> set[str]:
        return {line for line in self.said if line.startswith("rec-")}


OPENED: list[tuple[Store, DeliveryWorker]] = []


@pytest.fixture(autouse=True)
async def _closes_what_a_failed_test_left() -> AsyncIterator[None]:
    yield
    while OPENED:
        store, courier = OPENED.pop()
        await courier.stop(0.1)
        await store.stop()


async def open_courier(url: str, node: str, **sinks: Any) -> tuple[Store, DeliveryWorker]:
    store = open_store(url, node=node)
    await store.start()
    registry = SinkRegistry()
    for name, sink in sinks.items():
        registry.register(name, sink)
    courier = DeliveryWorker(store, open_dispatcher(store, clock=time.time), registry)
    OPENED.append((store, courier))
    await courier.start()
    return store, courier


async def close(store: Store, courier: DeliveryWorker) -> None:
    OPENED.remove((store, courier))
    await courier.stop(5.0)
    await store.stop()


async def undelivered(store: Store) -> int:
    statement = sa.text("select count(*) from delivery where status <> 'delivered'")
    return await store.read(lambda conn: conn.execute(statement).scalar_one())


async def test_kill_9_in_the_middle_loses_nothing(store_url: str, receiver: Receiver) -> None:  # noqa: F811
    receiver.delay = 0.01
    finished: set[str] = set()
    for turn in range(3):
        process = Process(store_url, "one", receiver, 2000, turn * 10_000)
        await process.says(60)
        await asyncio.to_thread(process.kill)
        finished |= process.finished
    assert len(finished) >= 30, "killed in the middle"
    hook = WebhookSink(receiver.url)
    store, courier = await open_courier(store_url, "one", crm=hook)

    async def all_there() -> bool:
        return await undelivered(store) == 0

    await until(all_there, 60)
    assert finished <= receiver.recordings, "what was answered as finished has been delivered"
    ids = dict(receiver.got)
    assert all(ids[recording] == id for recording, id in receiver.got), "each attempt with the same id"
    rows = await store.read(lambda conn: conn.execute(sa.text("select recording_id, id from delivery")).all())
    assert {tuple(row) for row in rows} == set(ids.items())
    again = Counter(recording for recording, _ in receiver.got)
    assert sum(again.values()) - len(again) <= 3 * 2 * 8, "only what was under way is sent twice"
    await close(store, courier)
    await hook.aclose()


@pytest.mark.postgres
async def test_a_dead_server_is_relieved_within_half_a_minute(
    postgres_url: str,  # noqa: F811
    receiver: Receiver,
) -> None:
    receiver.open.clear()
    doomed = Process(postgres_url, "doomed", receiver, 12)
    await doomed.says(13)
    await until(lambda: len(receiver.arrived) == 8)  # its sink's limit: these are running when it dies
    await asyncio.to_thread(doomed.kill)
    started = time.monotonic()
    receiver.open.set()
    hook = WebhookSink(receiver.url)
    store, courier = await open_courier(postgres_url, "successor", crm=hook)

    async def all_there() -> bool:
        return await undelivered(store) == 0

    await until(all_there, 60)
    assert time.monotonic() - started < 35
    assert receiver.recordings == doomed.finished
    rows = await store.read(lambda conn: conn.execute(sa.text("select fence, attempts from delivery")).all())
    assert sorted(tuple(r) for r in rows) == [(1, 1)] * 4 + [(2, 1)] * 8
    await close(store, courier)
    await hook.aclose()


@pytest.mark.postgres
async def test_two_servers_share_and_deliver_each_once(postgres_url: str, receiver: Receiver) -> None:  # noqa: F811
    receiver.delay = 0.02
    one = Process(postgres_url, "one", receiver, 150, 0)
    two = Process(postgres_url, "two", receiver, 150, 1000)
    await asyncio.gather(one.says(151), two.says(151))
    await until(lambda: len(receiver.recordings) == 300, 60)
    for process in (one, two):
        await asyncio.to_thread(process.kill)
    assert len(receiver.got) == 300, "claims let one through"


@pytest.mark.postgres
async def test_a_server_that_only_stalled_cannot_overwrite_its_heir(postgres_url: str) -> None:  # noqa: F811
    gate = asyncio.Event()
    slow, quick = NotingSink(lambda metadata: gate.wait()), NotingSink()
    stalled, first = await open_courier(postgres_url, "stalled", crm=slow)
    [made] = await finish(stalled, first, 1, at=time.time(), node="stalled")
    await until(lambda: slow.running == 1)
    # as far as the others can see, its loop is blocked: no heartbeat, and it takes nothing
    first._upkeep._beat = 3600.0
    first._upkeep.soon()
    first._dispatcher.unregister("deliver.crm")
    successor, second = await open_courier(postgres_url, "successor", crm=quick)
    await until(lambda: quick.deliveries == [made.id], 40)
    gate.set()
    await until(lambda: first.stats()["refused_outcomes"] == 1)

    async def heirs_outcome_is_written() -> bool:
        return await undelivered(successor) == 0

    await until(heirs_outcome_is_written)
    after = await successor.read(deliveries.get, made.id)
    assert after is not None
    assert (after.status, after.fence, after.attempts) == ("delivered", 2, 1)
    await close(successor, second)
    await close(stalled, first)


@pytest.mark.postgres
async def test_what_needs_the_file_waits_for_the_node_that_has_it(postgres_url: str) -> None:  # noqa: F811
    reads, elsewhere, tells = NotingSink(), NotingSink(), NotingSink()
    reads.needs_file = elsewhere.needs_file = True
    writer = open_store(postgres_url, node="home")
    await writer.start()
    await finish(writer, None, 1, ("archive", "crm"), at=time.time(), node="home")
    await writer.stop()
    other, second = await open_courier(postgres_url, "other", archive=elsewhere, crm=tells)
    await until(lambda: len(tells.seen) == 1)
    assert elsewhere.seen == []
    home, first = await open_courier(postgres_url, "home", archive=reads, crm=tells)
    await until(lambda: len(reads.seen) == 1)
    assert elsewhere.seen == []
    await close(home, first)
    await close(other, second)


@pytest.mark.postgres
async def test_a_sink_that_one_server_has_is_not_parked_by_another(postgres_url: str) -> None:  # noqa: F811
    down = NotingSink(lambda metadata: SinkError("down"))
    one, first = await open_courier(postgres_url, "one", crm=down)
    [made] = await finish(one, first, 1, at=time.time(), node="one")
    [gone] = await finish(one, first, 2, ("gone",), at=time.time(), node="one")
    two, second = await open_courier(postgres_url, "two")
    await second._upkeep.round()
    assert {s.node for s in await two.read(servers.servers, time.time())} == {"one", "two"}
    assert (await two.read(deliveries.get, made.id)).status in ("waiting", "running")
    assert (await two.read(deliveries.get, gone.id)).status == "parked"
    await close(two, second)
    await close(one, first)


@pytest.mark.postgres
async def test_row_and_job_come_and_go_together(postgres_url: str) -> None:  # noqa: F811
    store, courier = await open_courier(postgres_url, "one", crm=NotingSink(lambda metadata: SinkError("down")))
    await courier.stop(1.0)

    def fails(conn: sa.Connection) -> None:
        finish_many(conn, courier, 0, 5, "crm", time.time())
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.run(fails)

    def counts(conn: sa.Connection) -> tuple[int, int]:
        return tuple(
            conn.execute(sa.text(f"select count(*) from {table}")).scalar_one()
            for table in ("delivery", "fastagi_pgqueuer")
        )

    assert await store.read(counts) == (0, 0)
    await store.run(finish_many, courier, 0, 5, "crm", time.time())
    assert await store.read(counts) == (5, 5)
    await store.stop()


@pytest.mark.postgres
async def test_a_restart_of_postgresql_is_survived(
    postgres_server: PostgresServer,  # noqa: F811
    postgres_url: str,  # noqa: F811
) -> None:
    sink = NotingSink()
    store, courier = await open_courier(postgres_url, "one", crm=sink)
    await finish(store, courier, 1, at=time.time())
    await until(lambda: len(sink.seen) == 1)
    await asyncio.to_thread(postgres_server.restart)
    await finish(store, courier, 2, at=time.time())
    await until(lambda: len(set(sink.seen)) == 2, 60)
    await finish(store, courier, 3, at=time.time())
    await until(lambda: len(set(sink.seen)) == 3, 60)
    await close(store, courier)


@pytest.mark.parametrize("count", [10_000])
async def test_ten_thousand_waiting_slow_nothing(store_url: str, count: int) -> None:  # noqa: F811
    down = True
    sink, quick = NotingSink(lambda metadata: SinkError("down") if down else None), NotingSink()
    store, courier = await open_courier(store_url, "one", crm=sink, quick=quick)

    async def seconds(first: int) -> float:
        started = time.perf_counter()
        for n in range(first, first + 30):
            await finish(store, courier, n, ("quick",), at=time.time())
            await until(lambda n=n: f"rec-{n:06}" in quick.seen)
        return time.perf_counter() - started

    await seconds(500_000)
    alone = await seconds(510_000)
    for first in range(0, count, 1000):
        await store.run(finish_many, courier, first, 1000, "crm", time.time())
    await until(lambda: courier.stats()["down"] == ["crm"])
    beside = await seconds(520_000)
    assert beside < max(3 * alone, alone + 3.0)
    depths = {d.sink: d.count for d in await store.read(deliveries.depths, time.time()) if d.status == "waiting"}
    assert depths["crm"] >= count - 8
    tried = len(sink.seen)
    assert tried <= 30, "ten thousand do not knock at a door that is shut"
    down = False

    async def flowing() -> bool:
        return courier.stats()["delivered"] >= 90 + 500

    await until(flowing, 90)
    await close(store, courier)
