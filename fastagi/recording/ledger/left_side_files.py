"""Side files that a process left which died: their rows are put into the ledger before anything else is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import sqlalchemy as sa
import structlog

from fastagi.errors import StoreDamaged, StoreDown, StoreError
from fastagi.recording.ledger.backlog import Call, call_of
from fastagi.recording.spool import sidefile
from fastagi.recording.spool.sidefile import Side
from fastagi.store import Store

log = structlog.get_logger(__name__)


class LeftSides:
    """Reads them.

    :param restore: puts one into the ledger; runs in a transaction
    """

    def __init__(self, store: Store, restore: Callable[[sa.Connection, Side], None]) -> None:
        self._store = store
        self._restore = restore

    async def read(self, folders: Iterable[Path], ours: Callable[[str], bool], known: Callable[[Path], bool]) -> int:
        """Those in these folders; how many. A file goes once its row is there.

        :param ours: is a node's file ours to read?
        :param known: is that file one of this process?
        :raises StoreDown: the ledger cannot be written now
        """
        found = [path for path in await asyncio.to_thread(sidefile.find, folders) if not known(path)]
        count = 0
        for first in range(0, len(found), self._store.side_by_side):
            calls: dict[Call, list[tuple[Path, Side]]] = {}
            for path in found[first : first + self._store.side_by_side]:
                side = await _read(path)
                if side is not None and ours(side.recording.node):
                    calls.setdefault(call_of(side.recording), []).append((path, side))
            for taken in await asyncio.gather(*map(self._take, calls.values()), return_exceptions=True):
                if isinstance(taken, BaseException):
                    raise taken
                count += taken
        return count

    async def _take(self, sides: list[tuple[Path, Side]]) -> int:
        """Those of one call, in their order; how many. :raises StoreDown: the ledger cannot be written now"""
        count = 0
        for path, side in sides:
            try:
                await self._store.run(self._restore, side)
            except (StoreDown, StoreDamaged):  # once the backup is back, the ledger takes it
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


async def _read(path: Path) -> Side | None:
    try:
        return await asyncio.to_thread(sidefile.read, path)
    except ValueError as exc:
        moved = await asyncio.to_thread(sidefile.put_aside, path, str(exc))
        log.error("side_file_unreadable", file=str(path), error=str(exc), moved_to=str(moved))
    except OSError as exc:
        log.error("side_file_unreadable", file=str(path), error=str(exc))
    return None
