"""Names in the recordings directory that were taken for recordings which did not come about.

A crash between taking a name and journalling it, or between FAILED and giving it back, leaves an empty file. Only what
has our mark, is empty and is no open recording's is removed, and only after a day.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from fastagi.recording.asterisk import raw_files, spool_inventory
from fastagi.recording.context import RecordingContext
from fastagi.store.queries import recordings as units

log = structlog.get_logger(__name__)

FORGOTTEN_SECONDS = 86_400.0
"""By then no start is under way, and no call lasts whose row is in the ledger of another server with this directory."""

LOOK_SECONDS = 6 * 3600.0
"""Every file has to be looked at, and only a crash leaves such a name."""

AT_ONCE = 20_000
"""Files looked at in one round; the next round goes on from there."""


class ForgottenNames:
    """Gives them back. :param directory: where finished files are"""

    def __init__(self, context: RecordingContext) -> None:
        self._journal = context.journal
        self._jobs = context.jobs
        self._threads = context.threads
        self._store = context.store
        self._directory = context.settings.directory
        self._walk: Iterator[Path | None] | None = None
        self._due = 0.0

    async def give_back(self) -> None:
        """One round, if one is due. :raises StoreError: the ledger is down"""
        if self._journal.behind or (self._walk is None and time.monotonic() < self._due):
            return
        for path in await self._threads.run(self._look):
            held = {job.recording.file_path for job in self._jobs}
            if str(path) in held or await self._store.read(units.path_held, str(path)):
                continue
            if await self._threads.run(raw_files.forget, path):
                log.info("name_given_back", file=str(path))

    def _look(self) -> list[Path]:
        if self._walk is None:
            self._due = time.monotonic() + LOOK_SECONDS
            self._walk = spool_inventory.reservations(self._directory.resolve(), FORGOTTEN_SECONDS)
        looked = list(itertools.islice(self._walk, AT_ONCE))
        if len(looked) < AT_ONCE:
            self._walk = None
        return [path for path in looked if path is not None]
