"""Finished recordings, misbehaving sinks and a clock that is set by hand, for tests of the delivery engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from fastagi.delivery.sink import current_delivery
from fastagi.delivery.worker import DeliveryWorker
from fastagi.domain.delivery import Delivery
from fastagi.domain.metadata import RecordingMetadata
from fastagi.domain.recording import Recording
from fastagi.domain.states import Event, Phase
from fastagi.store import Store, schema
from fastagi.store.queries import recordings
from fastagi.store.rows import delivery_columns, recording_columns


class Clock:
    """Unix seconds that a test turns by hand."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class NotingSink:
    """Notes what it is given, and behaves as `behave` says: an exception to raise, or an awaitable to wait for."""

    needs_file = False

    def __init__(self, behave: Callable[[RecordingMetadata], Any] = lambda metadata: None) -> None:
        self.behave = behave
        self.seen: list[str] = []
        self.deliveries: list[str] = []
        self.attempts: list[int] = []
        self.running = 0
        self.most = 0

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        current = current_delivery.get()
        assert current is not None
        assert current.recording_id == metadata.extra["recording_id"]
        self.seen.append(current.recording_id)
        self.deliveries.append(current.id)
        self.attempts.append(current.attempt)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            answer = self.behave(metadata)
            if isinstance(answer, BaseException):
                raise answer
            if answer is not None:
                await answer
        finally:
            self.running -= 1


def recording(n: int, **fields: Any) -> Recording:
    values: dict[str, Any] = {
        "node": "one",
        "asterisk": "pbx",
        "channel": f"SIP/a-{n}",
        "uniqueid": f"1700000000.{n}",
        "name": f"call-{n}",
        "file_path": f"/rec/{n}.wav",
        **fields,
    }
    return Recording(f"rec-{n:06}", **values)


def finish_unit(
    conn: sa.Connection, courier: DeliveryWorker | None, item: Recording, sinks: tuple[str, ...], at: float
) -> list[Delivery]:
    """A recording from intent to the end, in one unit: what the recorder does in five."""
    recordings.insert(conn, item)
    for event in (Event.STARTED, Event.HUNG_UP, Event.CLOSED):
        recordings.advance(conn, item.id, event, at=at)
    _, made = recordings.finish(conn, item.id, at=at, sinks=sinks)
    if courier is not None:
        courier.enqueue(conn, made)
    return made


async def finish(
    store: Store,
    courier: DeliveryWorker | None,
    n: int,
    sinks: tuple[str, ...] = ("crm",),
    at: float = 1_700_000_000.0,
    **f: Any,
) -> list[Delivery]:
    return await store.run(finish_unit, courier, recording(n, **f), sinks, at)


def finish_many(conn: sa.Connection, courier: DeliveryWorker, first: int, count: int, sink: str, at: float) -> None:
    """Many that are finished, in few statements: for backlogs."""
    made = [replace(recording(n), phase=Phase.FINISHED, requested_at=at) for n in range(first, first + count)]
    conn.execute(sa.insert(schema.recording), [{**recording_columns(r), "updated_at": at} for r in made])
    waiting = [Delivery(f"dlv-{r.id}", r.id, sink, next_at=at, created_at=at) for r in made]
    conn.execute(
        sa.insert(schema.delivery),
        [{**delivery_columns(d), "call_key": d.recording_id, "home": "one"} for d in waiting],
    )
    courier.enqueue(conn, waiting)


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 20.0) -> None:
    """Waits until it holds; it is looked at often."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = condition()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError("it did not come to that") from None
