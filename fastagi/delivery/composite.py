"""CompositeSink: one recording to several sinks (seed: recording-sink, class CompositeSink)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import structlog

from fastagi.delivery.calling import Threads, call
from fastagi.delivery.sink import CONCURRENCY, AnySink, RecordingSink, must_be_sink, recording_id_of
from fastagi.domain.metadata import RecordingMetadata

log = structlog.get_logger(__name__)


class CompositeSink(RecordingSink):
    """Fans out. The server makes one delivery per child (`leaves`), each with its own attempts.

    Called directly it runs the children side by side; a child's error is logged and disturbs no sister.

    :param sinks: the children; may be composites themselves
    :raises BadArgument: one of them is no sink
    """

    def __init__(self, *sinks: AnySink) -> None:
        for sink in sinks:
            must_be_sink(sink)
        self.sinks = sinks
        self._threads: dict[int, Threads] = {}

    def leaves(self) -> Iterator[AnySink]:
        """The children that are no composites, in order."""
        for sink in self.sinks:
            if isinstance(sink, CompositeSink):
                yield from sink.leaves()
            else:
                yield sink

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        async with asyncio.TaskGroup() as group:
            for sink in self.leaves():
                group.create_task(self._call(sink, metadata))

    async def _call(self, sink: AnySink, metadata: RecordingMetadata) -> None:
        try:
            await call(sink.on_recording_complete, metadata, threads=self._threads_of(sink))
        except Exception as exc:
            log.warning("sink_failed", sink=type(sink).__name__, recording_id=recording_id_of(metadata), error=str(exc))

    def _threads_of(self, sink: AnySink) -> Threads:
        if id(sink) not in self._threads:
            self._threads[id(sink)] = Threads(f"fastagi-sink-{type(sink).__name__[:40]}", CONCURRENCY)
        return self._threads[id(sink)]

    def __repr__(self) -> str:
        return f"CompositeSink({', '.join(map(repr, self.sinks))})"
