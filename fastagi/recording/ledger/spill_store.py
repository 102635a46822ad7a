"""Rows that the ledger does not have yet, on disk in side files: written, and removed, one after the other.

What a side file looks like is `spool.sidefile`'s; when there is one is `journal`'s to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from fastagi.domain.recording import Recording
from fastagi.recording.ledger.spill_file import SpillFile, SpillFolder, WrappedKey

log = structlog.get_logger(__name__)

LOCKS = 64


class SpillStore:
    """The side files of this process.

    :param folder: where they are
    :ivar keys: wrapped keys of recordings that are not over, by id
    """

    def __init__(self, folder: SpillFolder, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._written: set[str] = set()
        self._locks = [asyncio.Lock() for _ in range(LOCKS)]
        self.keys: dict[str, WrappedKey] = {}

    def has(self, recording_id: str) -> bool:
        """Return whether this process wrote the side file of that recording."""
        return recording_id in self._written

    def read(self, recording_id: str) -> SpillFile:
        """Return the content of the recording's side file. Blocking.

        :raises OSError: it cannot be read; :raises ValueError: nor understood
        """
        return self._folder.read(recording_id)

    async def write(self, recording: Recording) -> bool:
        """Write this row to disk, in place of an earlier one. Returns False where that fails, too: then it is in
        memory only.
        """
        side = SpillFile(recording, self._clock(), self.keys.get(recording.id))
        async with self._lock(recording.id):
            try:
                await asyncio.to_thread(self._folder.write, side)
            except OSError as exc:
                log.error("side_journal_failed", **recording.ids, error=str(exc))
                return False
            self._written.add(recording.id)
            return True

    async def drop(self, recording_id: str, wanted: Callable[[str], bool]) -> None:
        """Remove it.

        :param wanted: is it needed again? Asked in its turn: a newer row may have been written meanwhile
        """
        if recording_id in self._written:
            async with self._lock(recording_id):
                if wanted(recording_id) or recording_id not in self._written:
                    return
                self._written.discard(recording_id)
                try:
                    await asyncio.to_thread(self._folder.remove, recording_id)
                except OSError as exc:  # the next start reads it once more, and finds nothing new in it
                    log.error("side_file_left", recording_id=recording_id, error=str(exc))

    def _lock(self, recording_id: str) -> asyncio.Lock:
        return self._locks[hash(recording_id) % LOCKS]
