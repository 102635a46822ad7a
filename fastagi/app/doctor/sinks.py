"""Checks each sink of the settings: that it can be reached, and that it accepts this server.

Nothing is delivered. A sink with `probe()` is probed. With `--send-ping` a sink with `ping()` gets a signed event of
type ``ping`` instead; its answer is the one that a recording would get.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fastagi.app.doctor.finding import Finding, Findings, Reporter
from fastagi.delivery.registry import build_sink
from fastagi.errors import ConfigError, SinkError
from fastagi.settings import Settings, SinkSettings

PROBE_SECONDS = 10.0


async def examine(settings: Settings, *, send_ping: bool = False) -> Findings:
    """Yield one finding per sink, in their order; all are examined at once.

    :param send_ping: send a ping to the sinks that take one
    """
    if not settings.sinks:
        yield Reporter("sinks").warn(
            "sinks", "none in the settings: recordings stay here, unless your App brings sinks", "add [[sinks]]"
        )
    for finding in await asyncio.gather(*(_examine(section, send_ping) for section in settings.sinks)):
        yield finding


async def _examine(section: SinkSettings, send_ping: bool) -> Finding:
    say = Reporter(f"sink {section.name}")
    try:
        sink = build_sink(section)
    except ConfigError as exc:
        return say.fail("settings", "; ".join(str(exc).splitlines()), "correct it: the server does not start so")
    ping: Callable[[], Awaitable[str]] | None = getattr(sink, "ping", None) if send_ping else None
    probe: Callable[[], Awaitable[str]] | None = ping or getattr(sink, "probe", None)
    check = "ping" if ping is not None else "reachable"
    try:
        if probe is None:
            return say.ok(check, f"{sink!r}: nothing to reach")
        async with asyncio.timeout(PROBE_SECONDS):
            return say.ok(check, await probe())
    except TimeoutError:
        return say.fail(check, f"{sink!r}: no answer within {PROBE_SECONDS:g} s", _remedy(section))
    except SinkError as exc:
        if exc.refused:
            return say.fail(check, str(exc), _remedy_of_refusal(section, pinged=ping is not None))
        if exc.retry or ping is not None:
            return say.fail(check, str(exc), _remedy(section))
        return say.warn(check, str(exc), _remedy(section))
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


def _remedy_of_refusal(section: SinkSettings, *, pinged: bool) -> str:
    if section.type == "objectstore":
        return "make the bucket, or correct its name in the url"
    where = "look at the path of the url, at user and password in it" + (
        ", and whether signing_secret is the receiver's" if section.type == "webhook" else ""
    )
    if pinged or section.type != "webhook":
        return where
    return f"{where}; a receiver that knows POST alone: fastagi doctor --send-ping tells for certain"
