"""The only door from the recorder to the ledger: every transition is on disk before what it announces is done.

When the database cannot take it (locked, full, gone, too slow), the recording goes on: its row is written as a side
file (`sidefile`), and the entries (`backlog`) are put into the ledger, in order, once it is back. Where there are too
many of them, only the side files are kept (`overflow`). A process that dies before that leaves the side files to the
next one, which reads them before anything else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog

from fastagi.delivery import Courier
from fastagi.domain.recording import Recording
from fastagi.domain.states import OPEN, Event, Phase, advance
from fastagi.errors import IllegalTransition, StoreDown, StoreError, TakenOver
from fastagi.recording.ledger.aside import Aside
from fastagi.recording.ledger.backlog import Backlog, Call, Entry, call_of
from fastagi.recording.ledger.job import Job
from fastagi.recording.ledger.overflow import MOST_ASIDE, Overflow
from fastagi.recording.spool import sidefile
from fastagi.recording.spool.sidefile import Side, WrappedKey
from fastagi.store import Store
from fastagi.store.sqlite import SqliteStore
from fastagi.store.units import keys as key_units
from fastagi.store.units import recordings as units
from fastagi.store.units.servers import SILENT_SECONDS

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 1.0
"""How long a call may wait for the ledger before the side file is used: a caller takes no more for a breath, and
a write takes milliseconds. One that is still under way is made once all the same, so impatience costs a small file."""

SLOW_PATIENCE_SECONDS = 0.5
"""The same while the ledger is slow: a recording has some five entries, and its call is to wait once."""

FLUSH_PATIENCE_SECONDS = 3.0
"""The same where no call waits."""

CATCH_UP_SECONDS = 1.0

Listener = Callable[[Recording, str, dict[str, Any]], None]
T = TypeVar("T")


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
        self._clock = clock
        self._aside = Aside(spool_of, clock)
        self._backlog = Backlog()
        self._overflow = Overflow(self._aside)
        self._unread: set[str] = set()
        self._writing: set[asyncio.Task[None]] = set()
        self._flushing = asyncio.Lock()
        self._slow = False
        self._listeners: list[Listener] = []
        self.refused = 0
        self.on_lost: Callable[[Job], None] = lambda job: None
        self.on_caught_up: Callable[[], None] = lambda: None

    @property
    def behind(self) -> int:
        """Entries that wait for the ledger; of a recording that is kept in its side file only, one."""
        return len(self._backlog) + len(self._overflow)

    @property
    def full(self) -> str:
        """Why no recording may be begun now; empty when one may."""
        if not self._overflow.full:
            return ""
        return f"{MOST_ASIDE} recordings wait for the ledger in side files: bring the database back"

    @property
    def alone(self) -> bool:
        """Is no other server on this ledger?"""
        return isinstance(self._store, SqliteStore)

    async def held_here(self, recording_id: str) -> bool:
        """Has no other server taken it over? What the ledger does not know yet is this one's.

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

    async def move(self, job: Job, event: Event, **changes: Any) -> Recording:
        """One transition of the state table, with what changes in the row. The job's lock must be held.

        :raises IllegalTransition: the table does not have it; nothing was written
        :raises TakenOver: another server has the recording
        """
        now = self._clock()
        after = job.recording.changed(phase=advance(job.phase, event), **changes)
        await self._of_job(
            job, self._write(after, now, self._advance, job.recording, event, now, dict(changes), job=job)
        )
        job.recording = after
        if after.phase is Phase.FAILED:
            await self._over(after)
        self._tell(after, event.value, changes)
        return after

    async def note(self, job: Job, what: str, **changes: Any) -> Recording:
        """A change that is no transition (a pause's span, a piece more), journalled under the name `what`."""
        now = self._clock()
        after = job.recording.changed(**changes)
        await self._of_job(job, self._write(after, now, self._change, job.id, now, what, dict(changes), job=job))
        job.recording = after
        self._tell(after, what, changes)
        return after

    async def finish(self, job: Job, **changes: Any) -> Recording:
        """FINISHED and its deliveries, in one transaction: from here on the sinks' turn is certain."""
        now = self._clock()
        after = job.recording.changed(phase=advance(job.phase, Event.FINISHED), **changes)
        write = self._write(after, now, self._finish_unit, job.recording, now, dict(changes), after.sinks, job=job)
        await self._of_job(job, write)
        job.recording = after
        self._courier.wake()
        await self._over(after)
        self._tell(after, Event.FINISHED.value, changes)
        return after

    async def _of_job(self, job: Job, write: Awaitable[None]) -> None:
        try:
            await write
        except TakenOver:
            self._aside.keys.pop(job.id, None)
            self.on_lost(job)
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

    # -- writing, and what could not be written

    async def _write(
        self, after: Recording, at: float, unit: Callable[..., Any], *args: Any, job: Job | None = None
    ) -> None:
        """Returns when it is on disk, in the ledger or in a side file.

        :raises TakenOver: another server has the recording; :raises IllegalTransition: the ledger's row is elsewhere
        """
        entry = Entry(after, at, unit, args, job)
        if not self.behind:
            patience = SLOW_PATIENCE_SECONDS if self._store.pace.slow else PATIENCE_SECONDS
            error = f"no answer within {patience:g} s"
            try:
                if await self._done(entry, patience):
                    return
            except TakenOver:
                raise
            except StoreError as exc:
                error = str(exc)
            log.error("ledger_unreachable", **after.ids, error=error)
        self.refused += 1
        if entry.write is None and (self._overflow or self._backlog.full):
            await self._keep_aside(entry)
            return
        self._backlog.add(entry)
        await self._aside.write(after)
        await self._aside.drop(after.id, self.waits)  # it may be in the ledger by now

    async def _keep_aside(self, entry: Entry) -> None:
        """As long as one recording is kept so, all new entries are: what is in memory is older than that, always."""
        if not self._overflow:
            log.error(
                "ledger_backlog_full", entries=len(self._backlog), hint="side files are all there is from here on"
            )
        await self._overflow.add(entry)
        await self._aside.drop(entry.after.id, self.waits)  # it may be in the ledger by now

    async def _done(self, entry: Entry, seconds: float) -> bool:
        """Write an entry, or wait on for the write that is under way: it may be carried out yet, so there is never a
        second one beside it, which could overtake later entries.

        :returns: False when it is still under way after so long
        """
        if entry.write is None:
            entry.write = asyncio.create_task(self._store.run(self._certain, entry), name=f"entry of {entry.after.id}")
            self._writing.add(entry.write)
            entry.write.add_done_callback(self._written)
        done, _ = await asyncio.wait((entry.write,), timeout=seconds)
        if not done:
            return False
        write, entry.write = entry.write, None
        write.result()
        return True

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: whoever waited may be gone

    def _certain(self, conn: sa.Connection, entry: Entry) -> None:
        """The entry's unit; where the ledger does not know the recording (an old copy of it was put back), the row."""
        try:
            entry.unit(conn, *entry.args)
        except TakenOver:
            raise
        except StoreError:
            if units.get(conn, entry.after.id) is not None:
                raise
            log.error("recording_not_in_ledger", **entry.after.ids, hint="it is written again")
            self._restore(conn, entry.after, entry.at)
            key = self._aside.keys.get(entry.after.id)
            if key is not None:
                key_units.put(conn, entry.after.id, *key)

    def _restore(self, conn: sa.Connection, recording: Recording, at: float) -> None:
        _, deliveries = units.restore(conn, recording, at)
        self._courier.enqueue(conn, deliveries)

    async def _over(self, recording: Recording) -> None:
        """Nothing more comes of it."""
        await self._aside.drop(recording.id, self.waits)
        if not self.waits(recording.id):
            self._aside.keys.pop(recording.id, None)

    def waits(self, recording_id: str) -> bool:
        """Is there anything of that recording which the ledger does not have yet?"""
        return self._backlog.has(recording_id) or recording_id in self._overflow

    async def catch_up(self) -> None:
        """For ever: put the backlog into the ledger once it takes it, and say when it is slow. Owned by the app."""
        while True:
            await asyncio.sleep(CATCH_UP_SECONDS)
            self._look_at_pace()
            if self.behind and await self.flush():
                log.warning("ledger_caught_up")
                self.on_caught_up()

    def _look_at_pace(self) -> None:
        pace = self._store.pace
        if pace.slow and not self._slow:
            log.warning("ledger_slow", store=self._store.shown, seconds=round(pace.seconds(), 1))
        elif self._slow and not pace.slow:
            log.info("ledger_quick_again", store=self._store.shown)
        self._slow = pace.slow

    async def flush(self) -> bool:
        """Try to write what waits now: that of a call in order, several calls at once. True when nothing is left."""
        async with self._flushing:
            left = self.behind + 1
            while 0 < self.behind < left:  # more came meanwhile: with many calls, it would always be some
                left = self.behind
                if await self._side_by_side(self._flush_call, self._backlog.calls()) and not self._backlog:
                    await self._side_by_side(self._flush_aside, self._overflow.lanes(self._store.side_by_side))
        return not self.behind

    async def _side_by_side(self, flush: Callable[[T], Awaitable[bool]], what: list[T]) -> bool:
        """`flush` each, several at once. False when one of them said that there is no use in trying another."""
        left = iter(what)
        stuck = False

        async def lane() -> None:
            nonlocal stuck
            for one in left:
                if stuck or not await flush(one):
                    stuck = True
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._store.side_by_side, len(what))):
                group.create_task(lane())
        return not stuck

    async def _flush_call(self, call: Call) -> bool:
        """Write what waits of one call. False when there is no use in trying another one now."""
        while (entry := self._backlog.first(call)) is not None:
            try:
                if not await self._done(entry, FLUSH_PATIENCE_SECONDS):
                    return False
            except TakenOver as exc:
                log.warning("backlog_entry_skipped", **entry.after.ids, error=str(exc))
                if entry.job is not None:
                    self.on_lost(entry.job)
            except (IllegalTransition, KeyError, ValueError) as exc:
                # written before after all (an answer was lost): then the row is as new as this, or newer
                log.warning("backlog_entry_skipped", **entry.after.ids, error=str(exc))
                try:
                    await self._store.run(self._restore, entry.after, entry.at)
                except StoreError:
                    return False
            except StoreError as exc:
                if not isinstance(exc, StoreDown) and not entry.refused:
                    entry.refused = True  # said once; it is tried again for ever, and nothing of this call is lost
                    log.error("ledger_refuses", **entry.after.ids, error=str(exc))
                return not isinstance(exc, StoreDown)  # the others may be taken
            self._backlog.drop(call)
            self._courier.wake()
            if entry.after.phase not in OPEN:
                await self._over(entry.after)
            else:
                await self._aside.drop(entry.after.id, self.waits)
        return True

    async def _flush_aside(self, ids: list[str]) -> bool:
        """Write what is kept of these in side files only. False when there is no use in trying others now."""
        for recording_id in ids:
            try:
                kept, side = await self._overflow.newest(recording_id)
            except (OSError, ValueError) as exc:
                if recording_id not in self._unread:
                    self._unread.add(recording_id)  # said once; it is tried again for ever
                    log.error("side_file_unreadable", recording_id=recording_id, error=str(exc))
                continue
            try:
                await self._store.run(self._restore_ours, side)
            except TakenOver as exc:
                log.warning("backlog_entry_skipped", recording_id=recording_id, error=str(exc))
                if kept.job is not None:
                    self.on_lost(kept.job)
            except StoreDown:
                return False
            except StoreError as exc:
                if recording_id not in self._unread:
                    self._unread.add(recording_id)
                    log.error("ledger_refuses", recording_id=recording_id, error=str(exc))
                continue
            self._overflow.drop(recording_id, kept)
            self._unread.discard(recording_id)
            self._courier.wake()
            await self._aside.drop(recording_id, self.waits)
            if side.recording.phase not in OPEN:
                await self._over(side.recording)
        return True

    def _restore_ours(self, conn: sa.Connection, side: Side) -> None:
        """:raises TakenOver: another server has the recording"""
        there = units.get(conn, side.recording.id)
        if there is not None and there.node != self._store.node:
            raise TakenOver(f"recording {side.recording.id} was taken over by {there.node}")
        self._restore_side(conn, side)

    # -- what a process left that died

    async def read_side_files(self, folders: Iterable[Path], ours: Callable[[str], bool]) -> int:
        """Bring the side files of a process that died into the ledger. Idempotent: a file goes once its row is there.

        :param ours: is a node's file ours to read? A living node puts its own into the ledger by itself
        :returns: how many were read
        :raises StoreDown: the ledger cannot be written now
        """
        found = [path for path in await asyncio.to_thread(sidefile.find, folders) if not self._aside.has(path)]
        count = 0
        for first in range(0, len(found), self._store.side_by_side):
            calls: dict[Call, list[tuple[Path, Side]]] = {}
            for path in found[first : first + self._store.side_by_side]:
                side = await self._read_side(path)
                if side is not None and ours(side.recording.node):
                    calls.setdefault(call_of(side.recording), []).append((path, side))
            for taken in await asyncio.gather(*map(self._take_sides, calls.values()), return_exceptions=True):
                if isinstance(taken, BaseException):
                    raise taken
                count += taken
        return count

    async def _read_side(self, path: Path) -> Side | None:
        try:
            return await asyncio.to_thread(sidefile.read, path)
        except ValueError as exc:
            moved = await asyncio.to_thread(sidefile.put_aside, path, str(exc))
            log.error("side_file_unreadable", file=str(path), error=str(exc), moved_to=str(moved))
        except OSError as exc:
            log.error("side_file_unreadable", file=str(path), error=str(exc))
        return None

    async def _take_sides(self, sides: list[tuple[Path, Side]]) -> int:
        """Those of one call, in their order; how many. :raises StoreDown: the ledger cannot be written now"""
        count = 0
        for path, side in sides:
            try:
                await self._store.run(self._restore_side, side)
            except StoreDown:
                raise
            except StoreError as exc:
                moved = await asyncio.to_thread(sidefile.put_aside, path, str(exc))
                log.error(
                    "side_file_refused", **side.recording.ids, file=str(path), error=str(exc), moved_to=str(moved)
                )
                continue
            await asyncio.to_thread(path.unlink, True)
            log.warning("side_file_read", **side.recording.ids, phase=side.recording.phase.value)
            count += 1
        return count

    def _restore_side(self, conn: sa.Connection, side: Side) -> None:
        self._restore(conn, side.recording, side.at)
        row = units.get(conn, side.recording.id)
        if side.key is not None and row is not None and row.deleted_at is None:  # a deletion took the key, too
            key_units.put(conn, side.recording.id, *side.key)

    def _tell(self, recording: Recording, event: str, detail: dict[str, Any]) -> None:
        for listener in self._listeners:
            try:
                listener(recording, event, detail)
            except Exception:
                log.exception("journal_listener_failed", **recording.ids, journal_event=event)
