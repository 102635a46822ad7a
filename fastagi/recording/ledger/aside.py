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
        self._folders: dict[str, Path] = {}
        self._locks = [asyncio.Lock() for _ in range(LOCKS)]
        self.keys: dict[str, WrappedKey] = {}

    def has(self, path: Path) -> bool:
        """Is that one of them?"""
        return self._folders.get(path.name.removesuffix(sidefile.SUFFIX)) == path.parent

    def read(self, recording_id: str) -> Side:
        """What it says. Blocking.

        :raises OSError: it cannot be read; :raises ValueError: nor understood
        """
        return sidefile.read(self._folders[recording_id] / (recording_id + sidefile.SUFFIX))

    async def write(self, recording: Recording) -> bool:
        """Have this row on disk, in place of one that was there. False where that fails, too: it is in memory only."""
        side = Side(recording, self._clock(), self.keys.get(recording.id))
        async with self._lock(recording.id):
            try:
                folder = self._spool_of(recording.asterisk)
                await asyncio.to_thread(sidefile.write, folder, side)
            except OSError as exc:
                log.error("side_journal_failed", **recording.ids, error=str(exc))
                return False
            self._folders[recording.id] = folder
            return True

    async def drop(self, recording_id: str, wanted: Callable[[str], bool]) -> None:
        """Remove it.

        :param wanted: is it needed again? Asked in its turn: a newer row may have been written meanwhile
        """
        if recording_id in self._folders:
            async with self._lock(recording_id):
                folder = None if wanted(recording_id) else self._folders.pop(recording_id, None)
                if folder is not None:
                    try:
                        await asyncio.to_thread((folder / (recording_id + sidefile.SUFFIX)).unlink, True)
                    except OSError as exc:  # the next start reads it once more, and finds nothing new in it
                        log.error("side_file_left", recording_id=recording_id, error=str(exc))

    def _lock(self, recording_id: str) -> asyncio.Lock:
        return self._locks[hash(recording_id) % LOCKS]
