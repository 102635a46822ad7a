"""One call of one sink, with a time limit, and what it means. Knows no queue and no ledger."""

from __future__ import annotations

import asyncio

from fastagi.delivery.calling import Threads, call
from fastagi.delivery.registry import Entry
from fastagi.delivery.sink import CurrentDelivery, current_delivery, is_number
from fastagi.domain.delivery import Outcome
from fastagi.domain.metadata import RecordingMetadata
from fastagi.errors import SinkError


class Caller:
    """Calls the sinks of one process: async ones on the loop, plain ones in threads, each sink its own threads.

    A plain sink that never returns holds its own threads only; a thread cannot be killed, so its delivery is tried
    again when one of them is free.
    """

    def __init__(self) -> None:
        self._threads: dict[str, Threads] = {}

    async def call(self, entry: Entry, metadata: RecordingMetadata, current: CurrentDelivery) -> Outcome:
        """What became of it. Whatever the sink raises is an outcome; only the cancelling of this attempt passes (and
        Ctrl-C, where nobody handles SIGINT)."""
        token = current_delivery.set(current)
        limit = asyncio.timeout(entry.time_limit_seconds)
        try:
            async with limit:
                await self._call(entry, metadata)
        except SinkError as exc:
            asked = exc.retry_after if is_number(exc.retry_after) else None  # a sink of the user's may say anything
            return Outcome(False, str(exc), retry=bool(exc.retry), retry_after=asked)
        except Exception as exc:
            if isinstance(exc, TimeoutError) and limit.expired():
                return Outcome(False, f"the sink took longer than {entry.time_limit_seconds:g} s")
            return Outcome(False, f"{type(exc).__name__}: {exc}")
        finally:
            current_delivery.reset(token)
        return Outcome(True)

    def forget(self, name: str) -> None:
        """The sink is gone; what still runs in its threads ends by itself."""
        self._threads.pop(name, None)

    async def _call(self, entry: Entry, metadata: RecordingMetadata) -> None:
        threads = self._threads.get(entry.name)
        if threads is None:
            threads = self._threads[entry.name] = Threads(f"fastagi-sink-{entry.name[:40]}", entry.concurrency)
        await call(entry.sink.on_recording_complete, metadata, threads=threads)
