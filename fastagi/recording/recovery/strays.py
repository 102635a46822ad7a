"""Recordings that others made in a spool of this server while no server was there to adopt them (`[recordings] adopt`).

A MixMonitor of the dialplan that began and ended while this server, or its manager connection, was down left a file and
no other trace. Where it lies in our spool it becomes a recording; elsewhere it is not ours to look for.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from fastagi.audio import inspect
from fastagi.domain.ids import new_id
from fastagi.domain.recording import Segment
from fastagi.errors import AudioError, HeldElsewhere
from fastagi.recording.asterisk import external, raw_files
from fastagi.recording.asterisk.external import Found
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.context import RecordingContext
from fastagi.recording.recovery.orphans import Orphans
from fastagi.store.queries import catalogue
from fastagi.store.queries import recordings as units

log = structlog.get_logger(__name__)

DAY_SECONDS = 86_400.0
"""Older files were there before: an archive in the same folder is nothing that was missed."""

MOST_ENTRIES = 50_000

AT_ONE_ROUND = 200


@dataclass(frozen=True, slots=True)
class Stray:
    """A file that is none of ours by name. :param last_write: unix seconds"""

    path: Path
    bytes: int
    last_write: float

    @property
    def id(self) -> str:
        """The same whoever finds it, and whenever: it becomes a recording once."""
        noise = hashlib.sha256(f"{self.path}\n{self.bytes}\n{self.last_write}".encode("utf-8", "surrogateescape"))
        return new_id("rec", self.last_write, noise.digest())


class Strays:
    """Finds and adopts them.

    :param young_seconds: younger files are somebody's who is at work
    :param open_seconds: a file whose header says nothing of its end may be open so long after the last write
    """

    def __init__(
        self, context: RecordingContext, orphans: Orphans, *, young_seconds: float, open_seconds: float
    ) -> None:
        self._orphans = orphans
        self._jobs = context.jobs
        self._threads = context.threads
        self._store = context.store
        self._settings = context.settings
        self._young = young_seconds
        self._open = open_seconds
        self._judged: set[str] = set()

    async def round(self, pbx: Pbx) -> int:
        """Adopt what lies there; how many.

        :raises OSError: the spool cannot be read; :raises FastAGIError: the ledger cannot
        """
        found = [s for s in await self._threads.run(self._listing, pbx.spool) if s.id not in self._judged]
        if not found:
            return 0
        known = {path for job in self._jobs for piece in job.recording.pieces for path in piece.paths}
        since = min(stray.last_write for stray in found) - DAY_SECONDS
        known |= await self._store.read(catalogue.adopted_files, since)
        adopted = 0
        for stray in found[:AT_ONE_ROUND]:
            if str(stray.path) in known or await self._store.read(units.get, stray.id) is not None:
                continue  # it runs, could not be finished, or was taken by another server of a shared spool
            self._judged.add(stray.id)
            try:
                seconds = await self._threads.run(_seconds, stray)
            except AudioError as exc:
                log.warning("stray_not_adopted", file=str(stray.path), error=str(exc))
                continue
            try:
                await self._adopt(pbx, stray, seconds)
            except HeldElsewhere:
                continue  # another server of a shared spool was faster
            adopted += 1
        return adopted

    async def _adopt(self, pbx: Pbx, stray: Stray, seconds: float) -> None:
        began = stray.last_write - seconds
        piece = Segment(str(stray.path), uniqueid=stray.id, started_at=began)
        found = Found(piece, stray.path.suffix, stray.bytes)
        spec = external.spec_of(found, self._settings.defaults)
        name, relative = external.name_of(found, spec)
        detail: dict[str, object] = {"from": str(stray.path), "bytes": stray.bytes}
        await self._orphans.adopt(
            pbx, stray.id, (piece,), spec, name=name, relative=relative, requested_at=began, detail=detail
        )

    def _listing(self, spool: Path) -> list[Stray]:
        """Files of others that are whole and not old, the first written first. Blocking."""
        if os.path.realpath(spool) == os.path.realpath(self._settings.directory):
            return []  # finished files lie there
        now = time.time()
        found = []
        with raw_files.listed(spool) as entries:
            for count, entry in enumerate(entries):
                if count >= MOST_ENTRIES:
                    break
                path = spool / entry.name
                if entry.name.startswith(".") or external.bears_our_id(path.stem) or not external.readable(path.suffix):
                    continue
                try:
                    if not entry.is_file(follow_symlinks=False):
                        continue
                    stat = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # it went meanwhile
                age = now - stat.st_mtime
                if self._young <= age <= DAY_SECONDS and (age >= self._open or _closed(path)):
                    found.append(Stray(path, stat.st_size, stat.st_mtime))
        return sorted(found, key=lambda stray: stray.last_write)


def _closed(path: Path) -> bool:
    """Return whether the header says that its writer has closed the file."""
    return external.has_header(path) and raw_files.closed((str(path),))


def _seconds(stray: Stray) -> float:
    """:raises AudioError: it cannot be read"""
    if external.has_header(stray.path):
        return inspect(stray.path).seconds
    if not stray.bytes:
        raise AudioError(f"{stray.path}: the file is empty")
    return external.audio_seconds(str(stray.path), stray.bytes)
