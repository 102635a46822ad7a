"""List the metrics of a real App: alerts, dashboard and guide are compared with them."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.core import Metric

from support.web_harness import web_scene


async def names_of(folder: Path) -> set[str]:
    """Names as they are asked for: counters with ``_total``, histograms without ``_bucket``."""
    async with web_scene(folder) as scene:
        await scene.metrics()
        families: list[Metric] = list(scene.parts.observed.registry.collect())
    return {f.name + ("_total" if f.type == "counter" else "") for f in families if f.name.startswith("fastagi_")}
