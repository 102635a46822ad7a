"""Side files that another process left behind: their rows are put into the ledger.

Those of the ledger's servers are signed. Those of the version before lie in the spools, where others may write: they
are read once, and what has no business there is set aside.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
import structlog

from fastagi.errors import StoreDown, StoreError
from fastagi.recording.asterisk import raw_files
from fastagi.recording.ledger import old_spill_file
from fastagi.recording.ledger.backlog import Call, call_of
from fastagi.recording.ledger.bounds import Bounds
from fastagi.recording.ledger.spill_file import SpillFile, SpillFolder
from fastagi.store import Store
from fastagi.store.queries import recordings as units

log = structlog.get_logger(__name__)

AT_ONCE = 200
"""Side files read at once. In one transaction they hold the ledger's writer for some 50 ms, which calls wait for."""

PLANTED = (errno.ELOOP, errno.EPERM, errno.EMLINK)
"""What `exposed_files` says of a name that somebody else has put there."""

OLD_READ = "read-old"
"""Begins the mark of a server that has read the side files of the version before."""


@dataclass(slots=True)
class _Batch:
    sides: list[SpillFile] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)


class SpillReplay:
    """Reads side files.

    :param restore: puts one into the ledger; runs in a transaction
    :ivar refused: how many were not believed, since the start; a metric
    """

    def __init__(
        self, store: Store, folder: SpillFolder, bounds: Bounds, restore: Callable[[sa.Connection, SpillFile], None]
    ) -> None:
        self._store = store
        self._folder = folder
        self._bounds = bounds
        self._restore = restore
        self._said: set[str] = set()
        self.refused = 0

    # -- signed

    async def read(self, ids: list[str], ours: Callable[[str], bool]) -> int:
        """Put the side files of these recordings into the ledger. A file goes once its row is there.

        :param ours: is a node's file this server's to read? A living node puts its own into the ledger by itself
        :returns: how many were read
        :raises StoreDown: the ledger cannot be written now
        """
        count = 0
        for first in range(0, len(ids), AT_ONCE):
            batch = await asyncio.to_thread(self._read, ids[first : first + AT_ONCE])
            for recording_id, reason in batch.refused:
                await self._refuse(self._folder.path / recording_id, reason, recording_id)
            for recording_id, reason in batch.unread:
                if recording_id not in self._said:
                    self._said.add(recording_id)
                    log.error("side_file_unreadable", recording_id=recording_id, error=reason)
            calls: dict[Call, list[SpillFile]] = {}
            for side in batch.sides:
                if ours(side.recording.node):
                    calls.setdefault(call_of(side.recording), []).append(side)
            lanes: list[list[SpillFile]] = [[] for _ in range(min(self._store.side_by_side, len(calls)))]
            for number, sides in enumerate(calls.values()):
                lanes[number % len(lanes)] += sides
            for taken in await asyncio.gather(*map(self._take, lanes), return_exceptions=True):
                if isinstance(taken, BaseException):
                    raise taken
                count += taken
        return count

    def _read(self, ids: list[str]) -> _Batch:
        batch = _Batch()
        for recording_id in ids:
            try:
                side = self._folder.read(recording_id)
                fault = self._bounds.fault(side.recording, adopted_anywhere=True)
                if fault:
                    raise ValueError(fault)
                batch.sides.append(side)
            except FileNotFoundError:
                continue  # another server was quicker
            except OSError as exc:
                kind = batch.refused if exc.errno in PLANTED else batch.unread
                kind.append((recording_id, str(exc)))
            except ValueError as exc:
                batch.refused.append((recording_id, str(exc)))
        return batch

    async def _take(self, sides: list[SpillFile]) -> int:
        """Put them into the ledger in their order, in one transaction where it takes all; how many it took.

        :raises StoreDown: the ledger cannot be written now
        """
        taken = list(sides)
        try:
            await self._store.run(self._restore_all, sides)
        except StoreDown:
            raise
        except StoreError:
            for side in sides:
                if not await self._take_one(side):
                    taken.remove(side)
        await asyncio.to_thread(self._remove, [side.recording.id for side in taken])
        for side in taken:
            log.warning("side_file_read", **side.recording.ids, phase=side.recording.phase.value)
        return len(taken)

    async def _take_one(self, side: SpillFile) -> bool:
        try:
            await self._store.run(self._restore, side)
        except StoreDown:
            raise
        except StoreError as exc:
            await self._refuse(self._folder.path / side.recording.id, str(exc), side.recording.id)
            return False
        return True

    def _restore_all(self, conn: sa.Connection, sides: list[SpillFile]) -> None:
        for side in sides:
            self._restore(conn, side)

    def _remove(self, ids: list[str]) -> None:
        for recording_id in ids:
            self._folder.remove(recording_id)

    # -- unsigned, of the version before

    async def read_old(self, folders: Iterable[Path], ours: Callable[[str], bool], mark: str) -> int:
        """Put unsigned side files into the ledger, once; at each later time set aside what lies there.

        :param mark: whose files they are: noted when they were read
        :returns: how many were read
        :raises StoreDown: the ledger cannot be written now
        """
        if await asyncio.to_thread(self._folder.fault):
            return 0  # it could not be noted that they were read: they stay until it can
        name = f"{OLD_READ}-{mark}"
        before = not await asyncio.to_thread(self._folder.marked, name)
        count = 0
        for path in await asyncio.to_thread(old_spill_file.find, folders):
            try:
                side = await asyncio.to_thread(old_spill_file.read, path, self._folder)
                if not ours(side.recording.node):
                    continue  # a server that is not upgraded yet writes such files, and reads them again
                if not before:
                    raise ValueError("side files are not in the spool any more: somebody has put it there")
                await self._store.run(self._restore_old, side)
                await asyncio.to_thread(raw_files.remove, (str(path),))
                log.warning("side_file_read", **side.recording.ids, phase=side.recording.phase.value, file=str(path))
                count += 1
            except FileNotFoundError:
                continue
            except StoreDown:
                raise
            except (StoreError, ValueError, OSError) as exc:
                await self._refuse(path, str(exc))
        if before:
            await asyncio.to_thread(self._folder.mark, name)
        return count

    def _restore_old(self, conn: sa.Connection, side: SpillFile) -> None:
        self._restore(conn, old_spill_file.acceptable(side, units.get(conn, side.recording.id), self._bounds))

    async def _refuse(self, path: Path, reason: str, recording_id: str = "") -> None:
        """Set a file aside that is not believed, and say so.

        :param recording_id: of a signed one
        """
        self.refused += 1
        moved = ""
        try:
            if recording_id:
                moved = str(await asyncio.to_thread(self._folder.set_aside, recording_id, reason) or "")
            else:
                moved = " ".join(map(str, await asyncio.to_thread(raw_files.set_aside, (str(path),), reason)))
        except OSError as exc:
            moved = f"nowhere: {exc.strerror}"
        log.error("side_file_refused", file=str(path), error=reason, moved_to=moved)
