"""A delivering server as a process that is killed: finishes recordings and delivers them to a webhook.

    python tests/support/delivery_server.py STORE_URL NODE WEBHOOK_URL HOW_MANY [FIRST]

Writes ``ready``, then a line per recording once its finish has returned; delivers until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
import time

from delivery_harness import finish

from fastagi.delivery import DeliveryWorker, SinkRegistry, WebhookSink, open_dispatcher
from fastagi.store import open_store


async def main(url: str, node: str, hook: str, count: int, first: int) -> None:
    store = open_store(url, node=node)
    await store.start()
    registry = SinkRegistry()
    registry.register("crm", WebhookSink(hook, timeout_seconds=60))
    courier = DeliveryWorker(store, open_dispatcher(store, clock=time.time), registry)
    await courier.start()
    print("ready", flush=True)
    lanes = asyncio.Semaphore(20)

    async def one(n: int) -> None:
        async with lanes:
            await finish(store, courier, n, at=time.time(), node=node)
            print(f"rec-{n:06}", flush=True)

    await asyncio.gather(*(one(n) for n in range(first, first + count)))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4], int(sys.argv[4]), int([*sys.argv, "0"][5])))
