"""`/metrics`: read from the app's parts at each scrape, so that no figure is stored twice and none can drift.

Figures that cost a disk access or a query are fetched beside the loop first, with a time limit. One that does not
arrive is left out of that scrape and counted in `fastagi_scrape_faults_total`. The text is made in a thread.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from fastagi.errors import StoreError
from fastagi.store.queries import deliveries
from fastagi.web.collectors import Figures, Slow
from fastagi.web.connections import Connections
from fastagi.web.counters import Observations
from fastagi.web.dependencies import WebDependencies
from fastagi.web.disks import Disks
from fastagi.web.lag import LoopLag

LEDGER_SECONDS = 2.0
"""Seconds that a scrape waits for the ledger."""


class Metrics:
    """Answers scrapes.

    :param observed: its registry gets the other collectors
    """

    def __init__(
        self, sources: WebDependencies, observed: Observations, disks: Disks, lag: LoopLag, connections: Connections
    ) -> None:
        self._sources = sources
        self._observed = observed
        self._disks = disks
        self._figures = Figures(sources, observed.sinks, lag, connections)
        self._faults: Tally[str] = Tally({"ledger": 0, "disk": 0})
        self._live = _Prepared()
        self._under_way: asyncio.Task[bytes] | None = None
        self._asking: asyncio.Task[list[deliveries.Depth]] | None = None
        observed.registry.register(self._live)
        ProcessCollector(registry=observed.registry)

    async def handle(self, request: web.Request) -> web.Response:
        """Answer GET /metrics. Scrapes that come at once share one answer."""
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self.text(), name="scrape")
            self._under_way.add_done_callback(_seen)
        text = await asyncio.shield(self._under_way)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"})

    async def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        measured, depths = await asyncio.gather(self._disks.measure(), self._depths())
        if not measured.answered:
            self._faults["disk"] += 1
        self._live.families = list(self._figures.families(Slow(measured, depths, self._faults)))
        return await asyncio.to_thread(generate_latest, _Plain(self._observed.registry))

    async def close(self) -> None:
        """Cancel running queries."""
        left = [task for task in (self._under_way, self._asking) if task is not None and not task.done()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _depths(self) -> list[deliveries.Depth] | None:
        """Read the depths from the ledger. While one query is not answered, no second one is sent: they would pile up
        there.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="scrape-ledger")
            self._asking.add_done_callback(_seen)
        try:
            async with asyncio.timeout(LEDGER_SECONDS):
                return await asyncio.shield(self._asking)
        except (StoreError, TimeoutError):
            self._faults["ledger"] += 1
            return None

    async def _ask(self) -> list[deliveries.Depth]:
        return await self._sources.ledger.depths(self._sources.clock())


def _seen(task: asyncio.Task[Any]) -> None:
    """Retrieve the error of a query: its caller has it already, or is gone."""
    if not task.cancelled():
        task.exception()


class _Plain(Collector):
    """A registry without the `_created` samples of its counters (when a counter began), which are not needed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class _Prepared(Collector):
    """Metrics that were made on the loop, for the thread that writes the text."""

    def __init__(self) -> None:
        self.families: list[Metric] = []

    def collect(self) -> Iterable[Metric]:
        return self.families
