"""CompositeSink: one recording to several sinks (seed: recording-sink, class CompositeSink)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cached_property
from typing import TypeGuard

import structlog

from fastagi.delivery.calling import Threads, call
from fastagi.delivery.closing import close
from fastagi.delivery.sink import (
    CONCURRENCY,
    TIME_LIMIT_SECONDS,
    AnySink,
    RecordingSink,
    current_delivery,
    flag_of,
    is_number,
    must_be_sink,
    number_of,
    recording_id_of,
)
from fastagi.domain.metadata import RecordingMetadata
from fastagi.errors import SinkError

log = structlog.get_logger(__name__)


class CompositeSink(RecordingSink):
    """Sends a recording to several sinks. The server makes one delivery per child (`leaves`), each with its own
    attempts.

    Called directly it runs the children side by side; a child's error is logged and does not affect the others. A
    subclass with an `on_recording_complete` of its own is one sink with one delivery: when a child fails in it, the
    whole is tried again.

    :param sinks: the children; may be composites themselves
    :raises BadArgument: one of them is no sink
    """

    def __init__(self, *sinks: AnySink) -> None:
        for sink in sinks:
            must_be_sink(sink)
        self.sinks = sinks
        self._threads: dict[int, Threads] = {}

    def leaves(self) -> Iterator[AnySink]:
        """Yield the children that are no composites, in order; a composite that is one sink counts as a child."""
        for sink in self.sinks:
            if splits(sink):
                yield from sink.leaves()
            else:
                yield sink

    # attributes of a composite that is one sink

    @cached_property
    def needs_file(self) -> bool:
        return any(flag_of(sink, "needs_file", True) for sink in self.leaves())

    @cached_property
    def delete_local(self) -> bool:
        return any(flag_of(sink, "delete_local", False) for sink in self.leaves())

    @cached_property
    def time_limit_seconds(self) -> float:
        limits = [number_of(sink, "time_limit_seconds", TIME_LIMIT_SECONDS) for sink in self.leaves()]
        return max(limits, default=TIME_LIMIT_SECONDS)

    @cached_property
    def reopens(self) -> bool:
        return all(flag_of(sink, "reopens", not hasattr(sink, "aclose")) for sink in self.leaves())

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        """Call the children side by side.

        :raises SinkError: called for a delivery, and a child failed
        """
        failed: list[Exception] = []
        async with asyncio.TaskGroup() as group:
            for sink in self.leaves():
                group.create_task(self._call(sink, metadata, failed))
        if failed and current_delivery.get() is not None:
            asked = [exc.retry_after for exc in failed if isinstance(exc, SinkError) and is_number(exc.retry_after)]
            raise SinkError(
                "; ".join(str(exc) or type(exc).__name__ for exc in failed),
                retry=any(not isinstance(exc, SinkError) or exc.retry for exc in failed),
                retry_after=max((seconds for seconds in asked if seconds is not None), default=None),
            )

    async def aclose(self) -> None:
        """Close the children that can be closed."""
        await close({f"{type(sink).__name__} {n}": sink for n, sink in enumerate(self.leaves(), 1)})

    async def _call(self, sink: AnySink, metadata: RecordingMetadata, failed: list[Exception]) -> None:
        try:
            await call(sink.on_recording_complete, metadata, threads=self._threads_of(sink))
        except Exception as exc:
            failed.append(exc)
            log.warning("sink_failed", sink=type(sink).__name__, recording_id=recording_id_of(metadata), error=str(exc))

    def _threads_of(self, sink: AnySink) -> Threads:
        if id(sink) not in self._threads:
            self._threads[id(sink)] = Threads(f"fastagi-sink-{type(sink).__name__[:40]}", CONCURRENCY)
        return self._threads[id(sink)]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.sinks))})"


def splits(sink: object) -> TypeGuard[CompositeSink]:
    """Return whether a sink is a composite that only fans out, so that each child can have its own delivery."""
    return (
        isinstance(sink, CompositeSink)
        and type(sink).on_recording_complete is CompositeSink.on_recording_complete
        and "on_recording_complete" not in vars(sink)
    )
