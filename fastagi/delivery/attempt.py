"""One call of one sink, with a time limit, and what it means. Knows no queue and no ledger."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from concurrent.futures import ThreadPoolExecutor

from fastagi.delivery.registry import Entry
from fastagi.delivery.sink import CurrentDelivery, current_delivery
from fastagi.domain.delivery import Outcome
from fastagi.domain.metadata import RecordingMetadata
from fastagi.errors import SinkError


class Caller:
    """Calls the sinks of one process: async ones on the loop, plain ones in threads, each sink its own threads.

    A plain sink that never returns holds its own threads only; a thread cannot be killed, so its delivery is tried
    again when one of them is free.
    """

    def __init__(self) -> None:
        self._threads: dict[str, ThreadPoolExecutor] = {}

    async def call(self, entry: Entry, metadata: RecordingMetadata, current: CurrentDelivery) -> Outcome:
        """What became of it. Whatever the sink raises is an outcome; only cancellation passes."""
        token = current_delivery.set(current)
        limit = asyncio.timeout(entry.time_limit_seconds)
        try:
            async with limit:
                await self._call(entry, metadata)
        except SinkError as exc:
            return Outcome(False, str(exc), retry=exc.retry, retry_after=exc.retry_after)
        except Exception as exc:
            if isinstance(exc, TimeoutError) and limit.expired():
                return Outcome(False, f"the sink took longer than {entry.time_limit_seconds:g} s")
            return Outcome(False, f"{type(exc).__name__}: {exc}")
        finally:
            current_delivery.reset(token)
        return Outcome(True)

    def forget(self, name: str) -> None:
        """Lets the threads of a sink end."""
        pool = self._threads.pop(name, None)
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        for name in list(self._threads):
            self.forget(name)

    async def _call(self, entry: Entry, metadata: RecordingMetadata) -> None:
        method = entry.sink.on_recording_complete
        if inspect.iscoroutinefunction(method) or inspect.iscoroutinefunction(getattr(method, "__call__", None)):  # noqa: B004
            await method(metadata)
            return
        pool = self._threads.get(entry.name)
        if pool is None:
            pool = self._threads[entry.name] = ThreadPoolExecutor(
                entry.concurrency, thread_name_prefix=f"fastagi-sink-{entry.name[:40]}"
            )
        context = contextvars.copy_context()
        answer = await asyncio.get_running_loop().run_in_executor(pool, context.run, method, metadata)
        if inspect.isawaitable(answer):
            await answer
