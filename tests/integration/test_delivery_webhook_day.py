"""A webhook's day: courier, ledger and a real receiver that answers everything there is, with a clock to turn."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from fastagi.delivery import DeliveryWorker, SinkRegistry, WebhookSink
from fastagi.delivery.inprocess import InProcessDispatcher
from fastagi.domain.delivery import Delivery
from fastagi.store.queries import deliveries
from fastagi.store.sqlite import SqliteStore
from support.delivery_harness import Clock, finish, until

ANSWERS = [
    (500, {}),
    (429, {"Retry-After": "300"}),
    (503, {"Retry-After": "Tue, 14 Nov 2023 23:13:20 GMT"}),  # an hour after the clock's start
    (408, {}),
    (204, {}),
]


async def test_every_answer_and_the_same_id_each_time(tmp_path: Path) -> None:
    clock = Clock(1_700_000_000.0)
    requests: list[tuple[str, str, bytes]] = []

    async def take(request: web.Request) -> web.Response:
        status, headers = ANSWERS[len(requests)]
        body = await request.read()
        requests.append((request.headers["webhook-id"], request.headers["X-Voxtra-Signature"], body))
        return web.Response(status=status, headers=headers)

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    store = SqliteStore(tmp_path / "a.db", node="one")
    await store.start()
    registry = SinkRegistry()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    registry.register("crm", WebhookSink(url, signing_secret="please-rotate-me", clock=clock))
    dispatcher = InProcessDispatcher(store, clock=clock)
    courier = DeliveryWorker(store, dispatcher, registry, clock=clock, random=lambda: 0.0)
    await courier.start()
    [made] = await finish(store, courier, 1, at=clock.now)

    async def after(attempts: int) -> Delivery:
        async def settled() -> bool:
            return len(await store.read(deliveries.attempts, made.id)) == attempts

        await until(settled)
        found = await store.read(deliveries.get, made.id)
        assert found is not None
        return found

    waits = []
    for attempts in range(1, 5):
        now = await after(attempts)
        assert now.status == "waiting"
        waits.append(now.next_at - clock.now)
        clock.now = now.next_at
        dispatcher.nudge()
    assert waits == [2.5, 300.0, pytest.approx(3600 - 302.5), 20.0]
    done = await after(5)
    assert done.status == "delivered"
    assert {id for id, _, _ in requests} == {made.id}
    assert len({signature for _, signature, _ in requests}) == 1
    assert len({body for _, _, body in requests}) == 1
    errors = [a.error for a in await store.read(deliveries.attempts, made.id)]
    assert errors == [f"{url}: answered {status}" for status, _ in ANSWERS[:4]] + [""]
    await courier.stop(1.0)
    await registry.aclose()
    await store.stop()
    await runner.cleanup()
