"""The only door from the recorder to the ledger: every transition is on disk before what it announces is done.

What the entries are, and who is told of them. How they get into the ledger, and what becomes of those that it does not
take, is `writing`'s; what a process left that died is read before anything else (`left_side_files`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import sqlalchemy as sa
import structlog

from fastagi.delivery import DeliveryWorker
from fastagi.domain.lifecycle import Decision
from fastagi.domain.recording import Recording
from fastagi.domain.states import OPEN, Event
from fastagi.errors import TakenOver
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.ledger.bounds import Bounds
from fastagi.recording.ledger.spill_file import SpillFolder, WrappedKey
from fastagi.recording.ledger.write_behind import WriteBehind
from fastagi.store import Store
from fastagi.store.queries import keys as key_units
from fastagi.store.queries import recordings as units
from fastagi.store.queries.servers import SILENT_SECONDS

log = structlog.get_logger(__name__)

Listener = Callable[[Recording, str, dict[str, Any]], None]


class Journal(WriteBehind):
    """Writes transitions; tells listeners what happened."""

    def __init__(
        self,
        store: Store,
        courier: DeliveryWorker,
        sides: SpillFolder,
        bounds: Bounds,
        clock: Callable[[], float] = time.time,
        *,
        on_lost: Callable[[ActiveRecording], None] = lambda job: None,
        on_caught_up: Callable[[], None] = lambda: None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        super().__init__(store, courier, sides, bounds, clock, on_lost=on_lost, on_caught_up=on_caught_up)
        self._listeners: list[Listener] = list(listeners)

    @property
    def alone(self) -> bool:
        """True where no other server is on this ledger."""
        return self._store.alone

    async def held_here(self, recording_id: str) -> bool:
        """Return whether no other server has taken the recording over. One that the ledger does not know yet is this
        server's.

        :raises StoreError: the ledger cannot be asked
        """
        there: Recording | None = await self._store.read(units.get, recording_id)
        return there is None or there.node == self._store.node

    def listen(self, listener: Listener) -> None:
        """Call `listener(recording, event, detail)` after each entry. Must not block or raise."""
        self._listeners.append(listener)

    def tell(self, recording: Recording, event: str, detail: dict[str, Any]) -> None:
        """Tell the listeners of a change that another unit has written (a hold, a deletion)."""
        self._tell(recording, event, detail)

    async def enter(
        self, recording: Recording, detail: dict[str, Any] | None = None, key: WrappedKey | None = None
    ) -> None:
        """A new recording's intent, with its wrapped key if it is to be encrypted: without that nothing could be made
        of what is recorded, so there is no moment between the two. Returns when it is on disk.

        :raises HeldElsewhere: another server beside the same Asterisk does that already
        """
        if key is not None:
            self._aside.keys[recording.id] = key
        try:
            await self._write(recording, self._clock(), self._enter_unit, recording, detail or {}, key)
        except TakenOver:
            self._aside.keys.pop(recording.id, None)
            raise
        self._tell(recording, "requested" if not recording.adopted else "adopted", detail or {})

    async def record(self, job: ActiveRecording, decision: Decision) -> None:
        """Write a decision: returns when it is on disk, and the job has its new row. The job's lock must be held.

        FINISHED and its deliveries are one transaction: from there on the sinks' turn is certain.

        :raises TakenOver: another server has the recording
        """
        if not decision.entry:
            return  # nothing changes
        now, before, after, changes = self._clock(), job.recording, decision.after, dict(decision.changes)
        finished = decision.transition is Event.FINISHED
        if finished:
            write = self._write(after, now, self._finish_unit, before, now, changes, after.sinks, job=job)
        elif decision.transition is not None:
            write = self._write(after, now, self._advance, before, decision.transition, now, changes, job=job)
        else:
            write = self._write(after, now, self._change, job.id, now, decision.entry, changes, job=job)
        await self._of_job(job, write)
        job.recording = after
        if finished:
            self._courier.wake()
        if after.phase not in OPEN:
            await self._over(after)
        self._tell(after, decision.entry, changes)

    async def _of_job(self, job: ActiveRecording, write: Awaitable[None]) -> None:
        try:
            await write
        except TakenOver:
            self._aside.keys.pop(job.id, None)
            self._on_lost(job)
            raise

    def _enter_unit(
        self, conn: sa.Connection, recording: Recording, detail: dict[str, Any], key: WrappedKey | None
    ) -> None:
        units.claim(conn, recording, SILENT_SECONDS)
        units.insert(conn, recording, detail)
        if key is not None:
            key_units.put(conn, recording.id, *key)

    def _advance(self, conn: sa.Connection, before: Recording, event: Event, at: float, changes: dict[str, Any]) -> Any:
        return units.advance(conn, before.id, event, at, changes, holder=self._store.node, known=before)

    def _change(self, conn: sa.Connection, recording_id: str, at: float, what: str, changes: dict[str, Any]) -> Any:
        return units.change(conn, recording_id, at, what, changes, holder=self._store.node)

    def _finish_unit(
        self, conn: sa.Connection, before: Recording, at: float, changes: dict[str, Any], sinks: tuple[str, ...]
    ) -> None:
        after, deliveries = units.finish(conn, before.id, at, changes, sinks, holder=self._store.node, known=before)
        self._courier.enqueue(conn, deliveries, recording=after)

    async def side_files_of_others(self) -> list[str]:
        """Ids of the recordings that another process has left a side file of, oldest first."""
        return [i for i in await asyncio.to_thread(self.sides.ids) if not self._aside.has(i)]

    def _tell(self, recording: Recording, event: str, detail: dict[str, Any]) -> None:
        for listener in self._listeners:
            try:
                listener(recording, event, detail)
            except Exception:
                log.exception("journal_listener_failed", **recording.ids, journal_event=event)
