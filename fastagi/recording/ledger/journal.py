"""The only door from the recorder to the ledger: every transition is on disk before what it announces is done.

When the database cannot take it (locked, full, gone), the recording goes on: its row is written as a side file
(`sidefile`), and the entries are put into the ledger, in order, once it is back. A process that dies before that leaves
the side files to the next one, which reads them before anything else.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog

from fastagi.delivery import Courier
from fastagi.domain.recording import Recording
from fastagi.domain.states import Event, advance
from fastagi.errors import FastAGIError, StoreDown, StoreError, TakenOver
from fastagi.recording.ledger.job import Job
from fastagi.recording.spool import sidefile
from fastagi.recording.spool.sidefile import Side, WrappedKey
from fastagi.store import Store
from fastagi.store.units import keys as key_units
from fastagi.store.units import recordings as units

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 3.0
"""How long a call may wait for the ledger before the side file is used: below what a caller notices as dead air."""

CATCH_UP_SECONDS = 1.0

Listener = Callable[[Recording, str, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class _Entry:
    """What waits for the ledger: a unit with its arguments, and the whole row, should the ledger not know it."""

    after: Recording
    at: float
    unit: Callable[..., Any]
    args: tuple[Any, ...]


class Journal:
    """Writes transitions; keeps what the ledger could not take; tells listeners what happened.

    :param spool_of: the folder for side files, by Asterisk name
    :ivar refused: writes that the ledger did not take at once, since the start; a metric
    :ivar on_lost: called with a job that another server has taken over
    :ivar on_caught_up: called when the ledger has everything again
    """

    def __init__(
        self, store: Store, courier: Courier, spool_of: Callable[[str], Path], clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._courier = courier
        self._spool_of = spool_of
        self._clock = clock
        self._backlog: deque[_Entry] = deque()
        self._keys: dict[str, WrappedKey] = {}
        self._side_files: dict[str, Path] = {}
        self._flushing = asyncio.Lock()
        self._listeners: list[Listener] = []
        self.refused = 0
        self.on_lost: Callable[[Job], None] = lambda job: None
        self.on_caught_up: Callable[[], None] = lambda: None

    @property
    def behind(self) -> int:
        """Entries that wait for the ledger."""
        return len(self._backlog)

    def listen(self, listener: Listener) -> None:
        """Call `listener(recording, event, detail)` after each entry. Must not block or raise."""
        self._listeners.append(listener)

    def tell(self, recording: Recording, event: str, detail: dict[str, Any]) -> None:
        """Tell the listeners of a change that another unit has written (a hold, a deletion)."""
        self._tell(recording, event, detail)

    async def enter(self, recording: Recording, detail: dict[str, Any] | None = None) -> None:
        """A new recording's intent. Returns when it is on disk."""
        await self._write(recording, units.insert, recording, detail or {})
        self._tell(recording, "requested" if not recording.adopted else "adopted", detail or {})

    async def keep_key(self, recording: Recording, scheme: str, wrapped: bytes) -> None:
        """The wrapped key of an encrypted recording. Returns when it is on disk, in the ledger or in the side file."""
        self._keys[recording.id] = (scheme, wrapped)
        await self._write(recording, key_units.put, recording.id, scheme, wrapped)
        if not self.waits(recording.id):
            self._keys.pop(recording.id, None)

    async def move(self, job: Job, event: Event, **changes: Any) -> Recording:
        """One transition of the state table, with what changes in the row. The job's lock must be held.

        :raises IllegalTransition: the table does not have it; nothing was written
        :raises TakenOver: another server has the recording
        """
        now = self._clock()
        after = replace(job.recording, phase=advance(job.phase, event), **changes)
        await self._of_job(job, self._write(after, self._advance, job.recording, event, now, dict(changes)))
        job.recording = after
        self._tell(after, event.value, changes)
        return after

    async def note(self, job: Job, what: str, **changes: Any) -> Recording:
        """A change that is no transition (a pause's span, a piece more), journalled under the name `what`."""
        after = replace(job.recording, **changes)
        await self._of_job(job, self._write(after, self._change, job.id, self._clock(), what, dict(changes)))
        job.recording = after
        self._tell(after, what, changes)
        return after

    async def finish(self, job: Job, **changes: Any) -> Recording:
        """FINISHED and its deliveries, in one transaction: from here on the sinks' turn is certain."""
        now = self._clock()
        after = replace(job.recording, phase=advance(job.phase, Event.FINISHED), **changes)
        await self._of_job(job, self._write(after, self._finish_unit, job.recording, now, dict(changes), after.sinks))
        job.recording = after
        self._courier.wake()
        await self._drop_side_file(after.id)
        self._tell(after, Event.FINISHED.value, changes)
        return after

    async def _of_job(self, job: Job, write: Awaitable[None]) -> None:
        try:
            await write
        except TakenOver:
            self.on_lost(job)
            raise

    def _advance(self, conn: sa.Connection, before: Recording, event: Event, at: float, changes: dict[str, Any]) -> Any:
        return units.advance(conn, before.id, event, at, changes, holder=self._store.node, known=before)

    def _change(self, conn: sa.Connection, recording_id: str, at: float, what: str, changes: dict[str, Any]) -> Any:
        return units.change(conn, recording_id, at, what, changes, holder=self._store.node)

    def _finish_unit(
        self, conn: sa.Connection, before: Recording, at: float, changes: dict[str, Any], sinks: tuple[str, ...]
    ) -> None:
        _, deliveries = units.finish(conn, before.id, at, changes, sinks, holder=self._store.node, known=before)
        self._courier.enqueue(conn, deliveries)

    # -- writing, and what could not be written

    async def _write(self, after: Recording, unit: Callable[..., Any], *args: Any) -> None:
        entry = _Entry(after, self._clock(), unit, args)
        if not self._backlog:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._store.run(self._certain, entry)
                return
            except (StoreDown, TimeoutError) as exc:
                log.error("ledger_unreachable", recording_id=after.id, error=str(exc) or "time-out")
        self.refused += 1
        self._backlog.append(entry)
        await asyncio.to_thread(self._write_side_file, after)

    def _certain(self, conn: sa.Connection, entry: _Entry) -> None:
        """The entry's unit; where the ledger does not know the recording (an old copy of it was put back), the row."""
        try:
            entry.unit(conn, *entry.args)
        except TakenOver:
            raise
        except StoreError:
            if units.get(conn, entry.after.id) is not None:
                raise
            log.error("recording_not_in_ledger", recording_id=entry.after.id, hint="it is written again")
            self._restore(conn, entry.after, entry.at)

    def _restore(self, conn: sa.Connection, recording: Recording, at: float) -> None:
        _, deliveries = units.restore(conn, recording, at)
        self._courier.enqueue(conn, deliveries)

    def _write_side_file(self, recording: Recording) -> None:
        side = Side(recording, self._clock(), self._keys.get(recording.id))
        try:
            self._side_files[recording.id] = sidefile.write(self._spool_of(recording.asterisk), side)
        except OSError as exc:
            log.error("side_journal_failed", recording_id=recording.id, error=str(exc))

    async def _drop_side_file(self, recording_id: str) -> None:
        if self.waits(recording_id):
            return
        self._keys.pop(recording_id, None)
        path = self._side_files.pop(recording_id, None)
        if path is not None:
            await asyncio.to_thread(path.unlink, True)

    def waits(self, recording_id: str) -> bool:
        """Is there anything of that recording which the ledger does not have yet?"""
        return any(entry.after.id == recording_id for entry in self._backlog)

    async def catch_up(self) -> None:
        """For ever: put the backlog into the ledger as soon as it takes it. Owned by the app."""
        while True:
            await asyncio.sleep(CATCH_UP_SECONDS)
            if self._backlog and await self.flush():
                log.warning("ledger_caught_up")
                self.on_caught_up()

    async def flush(self) -> bool:
        """Try to write the backlog now, in order. True when nothing is left."""
        async with self._flushing:
            while self._backlog:
                entry = self._backlog[0]
                try:
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        await self._store.run(self._certain, entry)
                except (StoreDown, TimeoutError):
                    return False
                except (FastAGIError, KeyError, ValueError) as exc:
                    # written before after all (the time-out hid the commit): the ledger is ahead, not behind
                    log.warning("backlog_entry_skipped", recording_id=entry.after.id, error=str(exc))
                self._backlog.popleft()
                self._courier.wake()
                await self._drop_side_file(entry.after.id)
        return True

    # -- what a process left that died

    async def read_side_files(self, folders: Iterable[Path], ours: Callable[[str], bool]) -> int:
        """Bring the side files of a process that died into the ledger. Idempotent: a file goes once its row is there.

        :param ours: is a node's file ours to read? A living node puts its own into the ledger by itself
        :returns: how many were read
        :raises StoreDown: the ledger cannot be written now
        """
        count = 0
        for path in await asyncio.to_thread(sidefile.find, folders):
            if path in self._side_files.values():
                continue
            try:
                side = await asyncio.to_thread(sidefile.read, path)
            except ValueError as exc:
                moved = await asyncio.to_thread(sidefile.put_aside, path, str(exc))
                log.error("side_file_unreadable", file=str(path), error=str(exc), moved_to=str(moved))
                continue
            except OSError as exc:
                log.error("side_file_unreadable", file=str(path), error=str(exc))
                continue
            if not ours(side.recording.node):
                continue
            try:
                await self._store.run(self._restore_side, side)
            except StoreDown:
                raise
            except StoreError as exc:
                moved = await asyncio.to_thread(sidefile.put_aside, path, str(exc))
                log.error("side_file_refused", file=str(path), error=str(exc), moved_to=str(moved))
                continue
            await asyncio.to_thread(path.unlink, True)
            log.warning("side_file_read", recording_id=side.recording.id, phase=side.recording.phase.value)
            count += 1
        return count

    def _restore_side(self, conn: sa.Connection, side: Side) -> None:
        if side.key is not None:
            key_units.put(conn, side.recording.id, *side.key)
        self._restore(conn, side.recording, side.at)

    def _tell(self, recording: Recording, event: str, detail: dict[str, Any]) -> None:
        for listener in self._listeners:
            try:
                listener(recording, event, detail)
            except Exception:
                log.exception("journal_listener_failed", recording_id=recording.id, journal_event=event)
