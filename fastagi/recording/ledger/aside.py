"""Rows that the ledger does not have yet, on disk beside the raw files: written, and removed, one after the other.

What a side file looks like is `spool.sidefile`'s; when there is one is `journal`'s to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from fastagi.domain.recording import Recording
from fastagi.recording.spool import sidefile
from fastagi.recording.spool.sidefile import Side, WrappedKey

log = structlog.get_logger(__name__)

LOCKS = 64


class Aside:
    """This process' side files.

    :param spool_of: the folder for them, by Asterisk name
    :ivar keys: wrapped keys of recordings that are not over, by id
    """

    def __init__(self, spool_of: Callable[[str], Path], clock: Callable[[], float]) -> None:
        self._spool_of = spool_of
        self._clock = clock
        self._files: dict[str, Path] = {}
        self._locks = [asyncio.Lock() for _ in range(LOCKS)]
        self.keys: dict[str, WrappedKey] = {}

    def has(self, path: Path) -> bool:
        """Is that one of them?"""
        return path in self._files.values()

    async def write(self, recording: Recording) -> None:
        """Have this row on disk, in place of one that was there. Where that fails, too, the row is in memory only."""
        side = Side(recording, self._clock(), self.keys.get(recording.id))
        async with self._lock(recording.id):
            try:
                folder = self._spool_of(recording.asterisk)
                self._files[recording.id] = await asyncio.to_thread(sidefile.write, folder, side)
            except OSError as exc:
                log.error("side_journal_failed", **recording.ids, error=str(exc))

    async def drop(self, recording_id: str, wanted: Callable[[str], bool]) -> None:
        """Remove it.

        :param wanted: is it needed again? Asked in its turn: a newer row may have been written meanwhile
        """
        if recording_id in self._files:
            async with self._lock(recording_id):
                path = None if wanted(recording_id) else self._files.pop(recording_id, None)
                if path is not None:
                    await asyncio.to_thread(path.unlink, True)

    def _lock(self, recording_id: str) -> asyncio.Lock:
        return self._locks[hash(recording_id) % LOCKS]
