"""The only door from the recorder to the ledger: every transition is on disk before what it announces is done.

When the database cannot take it (locked, full, gone), the recording goes on: its row is written as a side file in the
spool, and the entries are put into the ledger, in order, once it is back.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from fastagi.delivery import Courier
from fastagi.domain.recording import Recording
from fastagi.domain.states import Event, advance
from fastagi.errors import IllegalTransition, StoreDown
from fastagi.recording.job import Job
from fastagi.store import Store
from fastagi.store.units import recordings as units

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 3.0
"""How long a call may wait for the ledger before the side file is used: below what a caller notices as dead air."""

CATCH_UP_SECONDS = 1.0

SIDE_SUFFIX = ".journal"

Listener = Callable[[Recording, str, dict[str, Any]], None]


class Journal:
    """Writes transitions; keeps what the ledger could not take; tells listeners what happened.

    :param spool_of: the folder for side files, by Asterisk name
    """

    def __init__(
        self, store: Store, courier: Courier, spool_of: Callable[[str], Path], clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._courier = courier
        self._spool_of = spool_of
        self._clock = clock
        self._backlog: deque[tuple[str, Callable[..., Any], tuple[Any, ...]]] = deque()
        self._side_files: dict[str, Path] = {}
        self._listeners: list[Listener] = []

    @property
    def behind(self) -> int:
        """Entries that wait for the ledger."""
        return len(self._backlog)

    def listen(self, listener: Listener) -> None:
        """Call `listener(recording, event, detail)` after each entry. Must not block or raise."""
        self._listeners.append(listener)

    async def enter(self, recording: Recording, detail: dict[str, Any] | None = None) -> None:
        """A new recording's intent. Returns when it is on disk."""
        await self._write(recording, units.insert, recording, detail or {})
        self._tell(recording, "requested" if not recording.adopted else "adopted", detail or {})

    async def move(self, job: Job, event: Event, **changes: Any) -> Recording:
        """One transition of the state table, with what changes in the row. The job's lock must be held.

        :raises IllegalTransition: the table does not have it; nothing was written
        """
        now = self._clock()
        after = replace(job.recording, phase=advance(job.phase, event), **changes)
        await self._write(after, units.advance, job.id, event, now, dict(changes))
        job.recording = after
        self._tell(after, event.value, changes)
        return after

    async def note(self, job: Job, what: str, **changes: Any) -> Recording:
        """A change that is no transition (a pause's span, a piece more), journalled under the name `what`."""
        after = replace(job.recording, **changes)
        await self._write(after, units.change, job.id, self._clock(), what, dict(changes))
        job.recording = after
        self._tell(after, what, changes)
        return after

    async def finish(self, job: Job, **changes: Any) -> Recording:
        """FINISHED and its deliveries, in one transaction: from here on the sinks' turn is certain."""
        now = self._clock()
        after = replace(job.recording, phase=advance(job.phase, Event.FINISHED), **changes)
        await self._write(after, self._finish_unit, job.id, now, dict(changes), after.sinks)
        job.recording = after
        self._courier.wake()
        self._drop_side_file(after)
        self._tell(after, Event.FINISHED.value, changes)
        return after

    def _finish_unit(
        self, conn: Any, recording_id: str, now: float, changes: dict[str, Any], sinks: tuple[str, ...]
    ) -> None:
        _, deliveries = units.finish(conn, recording_id, now, changes, sinks)
        self._courier.enqueue(conn, deliveries)

    async def _write(self, after: Recording, unit: Callable[..., Any], *args: Any) -> None:
        if not self._backlog:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._store.run(unit, *args)
                return
            except (StoreDown, TimeoutError) as exc:
                log.error("ledger_unreachable", recording_id=after.id, error=str(exc) or "time-out")
        self._backlog.append((after.id, unit, args))
        await asyncio.to_thread(self._write_side_file, after)

    def _write_side_file(self, recording: Recording) -> None:
        """The row as JSON beside the raw file, synced: what a restart reads when the ledger never learned of it."""
        path = self._spool_of(recording.asterisk) / (recording.id + SIDE_SUFFIX)
        temporary = path.with_suffix(".journal-tmp")
        try:
            with open(temporary, "w", opener=_private) as file:
                json.dump(units.to_row(recording), file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as exc:
            log.error("side_journal_failed", recording_id=recording.id, error=str(exc))
            return
        self._side_files[recording.id] = path

    def _drop_side_file(self, recording: Recording) -> None:
        path = self._side_files.pop(recording.id, None)
        if path is not None and not any(entry[0] == recording.id for entry in self._backlog):
            path.unlink(missing_ok=True)

    async def catch_up(self) -> None:
        """For ever: put the backlog into the ledger as soon as it takes it. Owned by the app."""
        while True:
            await asyncio.sleep(CATCH_UP_SECONDS)
            await self.flush()

    async def flush(self) -> bool:
        """Try to write the backlog now, in order. True when nothing is left."""
        while self._backlog:
            recording_id, unit, args = self._backlog[0]
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._store.run(unit, *args)
            except (StoreDown, TimeoutError):
                return False
            except (IllegalTransition, KeyError, ValueError) as exc:
                # written before after all (the time-out hid the commit): the ledger is ahead, not behind
                log.warning("backlog_entry_skipped", recording_id=recording_id, error=str(exc))
            self._backlog.popleft()
            self._courier.wake()
            if not any(entry[0] == recording_id for entry in self._backlog):
                path = self._side_files.pop(recording_id, None)
                if path is not None:
                    path.unlink(missing_ok=True)
        return True

    def _tell(self, recording: Recording, event: str, detail: dict[str, Any]) -> None:
        for listener in self._listeners:
            try:
                listener(recording, event, detail)
            except Exception:
                log.exception("journal_listener_failed", recording_id=recording.id, journal_event=event)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
