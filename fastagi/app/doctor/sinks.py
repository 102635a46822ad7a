"""Each sink of the settings: can it be reached? No delivery is made up; a sink that has `probe()` is asked."""

from __future__ import annotations

import asyncio

from fastagi.app.doctor.finding import Finding, Findings, Reporter
from fastagi.delivery.registry import build_sink
from fastagi.errors import ConfigError, SinkError
from fastagi.settings import Settings, SinkSettings

PROBE_SECONDS = 10.0


async def examine(settings: Settings) -> Findings:
    """One finding per sink, side by side, in their order."""
    if not settings.sinks:
        yield Reporter("sinks").warn(
            "sinks", "none in the settings: recordings stay here, unless your App brings sinks", "add [[sinks]]"
        )
    for finding in await asyncio.gather(*(_examine(section) for section in settings.sinks)):
        yield finding


async def _examine(section: SinkSettings) -> Finding:
    say = Reporter(f"sink {section.name}")
    try:
        sink = build_sink(section)
    except ConfigError as exc:
        return say.fail("settings", "; ".join(str(exc).splitlines()), "correct it: the server does not start so")
    probe = getattr(sink, "probe", None)
    try:
        if probe is None:
            return say.ok("reachable", f"{sink!r}: nothing to reach")
        async with asyncio.timeout(PROBE_SECONDS):
            return say.ok("reachable", await probe())
    except TimeoutError:
        return say.fail("reachable", f"{sink!r}: no answer within {PROBE_SECONDS:g} s", _remedy(section))
    except SinkError as exc:
        if exc.retry:
            return say.fail("reachable", str(exc), _remedy(section))
        return say.warn("reachable", str(exc), _remedy(section))
    finally:
        close = getattr(sink, "aclose", None)
        if callable(close):
            await close()


def _remedy(section: SinkSettings) -> str:
    match section.type:
        case "webhook" | "vcon":
            hours = f"{section.retry_hours:g} h"
            return f"is the receiver up, and may this machine reach it? deliveries are tried again for {hours}"
        case "objectstore":
            return "look at bucket, region, credentials and the way out of this network"
        case "command":
            return "name the program by its full path, and make it executable for the server's user"
    return "look at its settings"
