"""Checks each sink of the settings: that it can be reached, and that it accepts this server.

Nothing is delivered. Each sink is probed. With `--send-ping` a sink with `ping()` gets a signed event of
type ``ping`` instead; its answer is the one that a recording would get.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fastagi.app.doctor.finding import Finding, Findings, Reporter
from fastagi.delivery.sink_type import build_sink
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
    check = "ping" if ping is not None else "reachable"
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            return say.ok(check, await (ping or sink.probe)())
    except TimeoutError:
        return say.fail(check, f"{sink!r}: no answer within {PROBE_SECONDS:g} s", sink.remedy(section.retry_hours))
    except SinkError as exc:
        if exc.refused:
            return say.fail(check, str(exc), sink.remedy_of_refusal(pinged=ping is not None))
        if exc.retry or ping is not None:
            return say.fail(check, str(exc), sink.remedy(section.retry_hours))
        return say.warn(check, str(exc), sink.remedy(section.retry_hours))
    finally:
        close = getattr(sink, "aclose", None)
        if callable(close):
            await close()
