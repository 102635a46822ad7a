"""Entries on their way into the ledger: each is on disk before anything is done about it, in the ledger or beside it.

When the database cannot take it (locked, full, gone, too slow), the recording goes on: its row is written as a side
file (`aside`), and the entries (`backlog`) are put into the ledger, in order, once it is back. Where there are too
many of them, only the side files are kept (`overflow`). What the entries are is `journal`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog

from fastagi.delivery import DeliveryWorker
from fastagi.domain.recording import Recording
from fastagi.domain.states import OPEN
from fastagi.errors import IllegalTransition, StoreDown, StoreError, TakenOver
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.ledger.backlog import Backlog, Call, Entry, call_of
from fastagi.recording.ledger.bounds import Bounds
from fastagi.recording.ledger.spill_file import SpillFile, SpillFolder, WrappedKey
from fastagi.recording.ledger.spill_index import MOST_ASIDE, SpillIndex
from fastagi.recording.ledger.spill_replay import SpillReplay
from fastagi.recording.ledger.spill_store import SpillStore
from fastagi.store import Store
from fastagi.store.queries import catalogue
from fastagi.store.queries import keys as key_units
from fastagi.store.queries import recordings as units

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 1.0
"""How long a call may wait for the ledger before the side file is used: a caller takes no more for a breath, and
a write takes milliseconds. One that is still under way is made once all the same, so impatience costs a small file."""

SLOW_PATIENCE_SECONDS = 0.5
"""The same while the ledger is slow: a recording has some five entries, and its call is to wait once."""

FLUSH_PATIENCE_SECONDS = 3.0
"""The same where no call waits."""

CATCH_UP_SECONDS = 1.0

T = TypeVar("T")


class WriteBehind:
    """Writes entries; keeps what the ledger could not take.

    :param sides: the folder for side files; :param bounds: where a recording's files may lie
    :param clock: unix seconds
    :param on_lost: called with a job that another server has taken over
    :param on_caught_up: called when the ledger has everything again
    :ivar left: reads the side files of another process
    :ivar stuck: the ledger takes nothing now, or not as quickly as it comes. What it refuses of one call is not that
    :ivar refused: writes that the ledger did not take at once, since the start; a metric
    """

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
    ) -> None:
        self._store = store
        self._courier = courier
        self._clock = clock
        self.sides = sides
        self._aside = SpillStore(sides, clock)
        self.left = SpillReplay(store, sides, bounds, self._restore_side)
        self._backlog = Backlog()
        self._overflow = SpillIndex(self._aside)
        self._unread: set[str] = set()
        self._writing: set[asyncio.Task[None]] = set()
        self._flushing = asyncio.Lock()
        self._slow = False
        self.stuck = False
        self.refused = 0
        self._on_lost = on_lost
        self._on_caught_up = on_caught_up

    @property
    def behind(self) -> int:
        """Entries that wait for the ledger; of a recording that is kept in its side file only, one."""
        return len(self._backlog) + len(self._overflow)

    @property
    def full(self) -> str:
        """The reason why no recording may be begun now; empty when one may."""
        if not self._overflow.full:
            return ""
        return f"{MOST_ASIDE} recordings wait for the ledger in side files: bring the database back"

    async def _write(
        self, after: Recording, at: float, unit: Callable[..., Any], *args: Any, job: ActiveRecording | None = None
    ) -> None:
        """Returns when it is on disk, in the ledger or in a side file.

        :raises TakenOver: another server has the recording; :raises IllegalTransition: the ledger's row is elsewhere
        """
        entry = Entry(after, at, unit, args, job)
        call = call_of(after)
        if not (self.stuck or self._backlog.first(call) or self._overflow.has(call)):
            patience = SLOW_PATIENCE_SECONDS if self._store.pace.slow else PATIENCE_SECONDS
            error = f"no answer within {patience:g} s"
            try:
                if await self._done(entry, patience):
                    return
            except TakenOver:
                raise
            except StoreError as exc:
                error = str(exc)
            self.stuck = True
            log.error("ledger_unreachable", **after.ids, error=error)
        self.refused += 1
        if entry.write is None and (self._overflow.has(call) or self._backlog.full):
            await self._keep_aside(entry)
            return
        self._backlog.add(entry)
        await self._aside.write(after)
        await self._aside.drop(after.id, self.waits)  # it may be in the ledger by now

    async def _keep_aside(self, entry: Entry) -> None:
        """As long as a recording of a call is kept so, all its new entries are: what is in memory is older, always."""
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
            self._put_key(conn, entry.after.id, self._aside.keys.get(entry.after.id))

    def _restore(self, conn: sa.Connection, recording: Recording, at: float) -> None:
        _, deliveries = units.restore(conn, recording, at)
        self._courier.enqueue(conn, deliveries)

    async def _over(self, recording: Recording) -> None:
        """Nothing more comes of it."""
        await self._aside.drop(recording.id, self.waits)
        if not self.waits(recording.id):
            self._aside.keys.pop(recording.id, None)

    def waits(self, recording_id: str) -> bool:
        """Return whether anything of that recording is not in the ledger yet."""
        return self._backlog.has(recording_id) or recording_id in self._overflow

    async def catch_up(self) -> None:
        """For ever: put the backlog into the ledger once it takes it, and say when it is slow. Owned by the app."""
        while True:
            await asyncio.sleep(CATCH_UP_SECONDS)
            self._look_at_pace()
            if self.behind and await self.flush():
                log.warning("ledger_caught_up")
                self._on_caught_up()

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
                taken = await self._side_by_side(self._flush_call, self._backlog.calls())
                if taken:
                    lanes = self._overflow.lanes(self._store.side_by_side)
                    taken = await self._side_by_side(self._flush_aside, lanes)
                self.stuck = not taken or self.behind > self._backlog.refused + len(self._unread)
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
                    self._on_lost(entry.job)
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
            if self._backlog.first(self._overflow.call(recording_id)) is not None:
                continue  # what is older has been refused
            try:
                kept, side = await self._overflow.newest(recording_id)
            except FileNotFoundError as exc:
                log.error("side_file_gone", recording_id=recording_id, error=str(exc), hint="somebody has removed it")
                self._overflow.forget(recording_id)
                self._unread.discard(recording_id)
                continue
            except (OSError, ValueError) as exc:
                if recording_id not in self._unread:
                    self._unread.add(recording_id)  # said once; it is tried again for ever
                    log.error("side_file_unreadable", recording_id=recording_id, error=str(exc))
                continue
            try:
                await self._store.run(self._restore_ours, side)
            except TakenOver as exc:
                log.warning("backlog_entry_skipped", **side.recording.ids, error=str(exc))
                if kept.job is not None:
                    self._on_lost(kept.job)
            except StoreDown:
                return False
            except StoreError as exc:
                if recording_id not in self._unread:
                    self._unread.add(recording_id)
                    log.error("ledger_refuses", **side.recording.ids, error=str(exc))
                continue
            self._overflow.drop(recording_id, kept)
            self._unread.discard(recording_id)
            self._courier.wake()
            await self._aside.drop(recording_id, self.waits)
            if side.recording.phase not in OPEN:
                await self._over(side.recording)
        return True

    def _restore_ours(self, conn: sa.Connection, side: SpillFile) -> None:
        """:raises TakenOver: another server has the recording"""
        there = units.get(conn, side.recording.id)
        if there is not None and there.node != self._store.node:
            raise TakenOver(f"recording {side.recording.id} was taken over by {there.node}")
        self._restore_side(conn, side)

    def _restore_side(self, conn: sa.Connection, side: SpillFile) -> None:
        if catalogue.file_of_another(conn, side.recording):
            raise StoreError(f"{side.recording.file_path} is the file of another recording")
        self._restore(conn, side.recording, side.at)
        row = units.get(conn, side.recording.id)
        if row is not None and row.deleted_at is None:  # a deletion took the key, too
            self._put_key(conn, side.recording.id, side.key)

    def _put_key(self, conn: sa.Connection, recording_id: str, key: WrappedKey | None) -> None:
        """Keep a key that the ledger lacks; one that it has is never replaced."""
        if key is not None and key_units.get(conn, recording_id) is None:
            key_units.put(conn, recording_id, *key)
