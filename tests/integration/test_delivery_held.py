"""A webhook whose receiver refuses everything, in a whole server on uvloop; and the hold on PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web

from fastagi.delivery.opening import open_dispatcher
from fastagi.delivery.registry import SinkRegistry
from fastagi.delivery.sinks.webhook import WebhookSink
from fastagi.delivery.worker import DeliveryWorker
from fastagi.errors import SinkError
from fastagi.store import open_store
from fastagi.store.queries import deliveries, holds
from support.delivery_harness import Clock, NotingSink, finish, until
from support.postgres_server import PostgresServer, postgres_server, postgres_url  # noqa: F401
from support.web_harness import web_scene


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusing_receiver_holds_its_sink(tmp_path: Path, status: int) -> None:
    """It is told everywhere, nothing is dead, and the first yes sends everything."""
    answers = {"status": status}
    got: list[str] = []

    async def take(request: web.Request) -> web.Response:
        if answers["status"] == 204:
            got.append((await request.json())["name"])
        return web.Response(status=answers["status"], text="wrong signature")

    async def scenario() -> None:
        receiver = web.Application()
        receiver.router.add_post("/recordings", take)
        runner = web.AppRunner(receiver, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with web_scene(tmp_path) as scene:
                url = f"http://127.0.0.1:{runner.addresses[0][1]}/recordings"
                scene.app.sink("crm", WebhookSink(url, signing_secret="please-rotate-me"), default=True)
                for n in range(4):
                    await scene.recorded(f"calls/{n}")
                await scene.until(lambda: scene.parts.courier.held)
                await shown(scene)
                answers["status"] = 204
                await scene.until(lambda: sorted(got) == [f"calls/{n}" for n in range(4)], 90)
                await scene.until(lambda: not scene.parts.courier.held)
                assert (await scene.get("/readyz"))[1]["warnings"] == []
                assert await scene.metric("fastagi_sink_held", sink="crm") == 0
        finally:
            await runner.cleanup()

    async def shown(scene: Any) -> None:
        ready, body = await scene.get("/readyz")
        assert ready == 200, "recordings go on"
        [warning] = body["warnings"]
        assert warning["what"] == "sink crm"
        assert f"answered {status}" in warning["problem"]
        assert await scene.metric("fastagi_sink_held", sink="crm") == 1
        _, body = await scene.get("/api/v1/deliveries?sink=crm", role="viewer")
        assert {d["status"] for d in body["deliveries"]} <= {"waiting", "running"}
        hints = [d["hint"] for d in body["deliveries"] if d["status"] == "waiting"]
        assert hints
        assert all("its sink is held since" in hint for hint in hints)

    uvloop.run(scenario())


@pytest.mark.postgres
@pytest.mark.timeout(300)
async def test_servers_share_a_hold(postgres_url: str) -> None:  # noqa: F811
    """What one server finds holds the sink of the other, and its success releases both."""
    clock, wrong = Clock(), True
    sinks = [NotingSink(lambda m: SinkError("401", retry=False, refused=True) if wrong else None) for _ in range(2)]
    stores, couriers = [], []
    for n, sink in enumerate(sinks):
        store = open_store(postgres_url, node=f"node{n}")
        await store.start()
        registry = SinkRegistry()
        registry.register("crm", sink, loop="main")
        dispatcher = open_dispatcher(store, clock=clock)
        courier = DeliveryWorker(store, dispatcher, registry, clock=clock, random=lambda: 0.5)
        await courier.start()
        stores.append(store)
        couriers.append(courier)
    try:
        made = []
        for n in range(1, 7):
            made += await finish(stores[0], couriers[0], n, ("crm",), clock.now)
        await until(lambda: all(courier.held for courier in couriers), 60)

        async def waiting() -> bool:
            found = [await stores[0].read(deliveries.get, d.id) for d in made]
            return all(d is not None and d.status in ("waiting", "running") for d in found)

        await until(waiting, 30)
        assert list(await stores[1].read(holds.known)) == ["crm"]
        wrong = False

        async def delivered() -> bool:
            clock.now += 1.0
            found = [await stores[0].read(deliveries.get, d.id) for d in made]
            return all(d is not None and d.status == "delivered" for d in found)

        await until(delivered, 150)  # PgQueuer waits by PostgreSQL's clock: up to a minute for the next probe
        await until(lambda: not any(courier.held for courier in couriers), 60)
        assert await stores[0].read(holds.known) == {}
    finally:
        for courier, store in zip(couriers, stores, strict=True):
            await courier.stop(1)
            await store.stop()
