"""Closes sinks side by side, within a bounded time, whatever the sinks do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from fastagi.delivery.calling import Threads, call

log = structlog.get_logger(__name__)

CLOSE_SECONDS = 5.0
"""Seconds in which a connection can say goodbye; a server that stops waits no longer."""

CANCEL_SECONDS = 1.0


async def close(sinks: Mapping[str, object], how: Mapping[str, Callable[[], Awaitable[None]]] | None = None) -> None:
    """Call `aclose`, async or plain (in a thread), of the sinks that have it. Logs those that fail or take too long.

    :param sinks: by name, for the log; the same object twice is closed once
    :param how: by name, the function that closes a sink on another loop
    """
    once = {id(sink): (name, sink) for name, sink in sinks.items() if callable(getattr(sink, "aclose", None))}
    tasks = {asyncio.create_task(_close(name, sink, (how or {}).get(name))): name for name, sink in once.values()}
    if not tasks:
        return
    try:
        _, late = await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
    for task in late:
        log.error("sink_not_closed", sink=tasks[task], error=f"it took longer than {CLOSE_SECONDS:g} s")
    if late:
        await asyncio.wait(late, timeout=CANCEL_SECONDS)


async def _close(name: str, sink: object, how: Callable[[], Awaitable[None]] | None) -> None:
    try:
        if how is not None:
            await how()
            return
        await call(sink.aclose, threads=Threads(f"fastagi-close-{name[:40]}", 1))  # type: ignore[attr-defined]
    except Exception as exc:
        log.error("sink_not_closed", sink=name, error=f"{type(exc).__name__}: {exc}")
