"""The spool against the ledger, at start and from time to time: nothing of ours lies there without a reason.

What a finished recording left is removed once its finished file is proved; a raw file that the ledger does not know
becomes a recording; one that cannot be saved is set aside with its reason. A recording that could not be finished (the
disk was full) is tried again. Files that are young, or grow, or are not ours, are left alone; nothing else is deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from fastagi.audio import temporary_name
from fastagi.domain import naming
from fastagi.domain.recording import Recording
from fastagi.domain.spec import RecordingSpec
from fastagi.errors import FastAGIError
from fastagi.recording.asterisk import raw_files, spool_inventory
from fastagi.recording.asterisk.call_state import CallState
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.asterisk.spool_inventory import RawFileSet
from fastagi.recording.compliance.evidence import Proof, check_file
from fastagi.recording.context import RecordingContext
from fastagi.recording.lifecycle.finishing import Finalizer
from fastagi.recording.lifecycle.stopping import Stopper
from fastagi.recording.recovery.orphans import Orphans
from fastagi.recording.recovery.strays import Strays
from fastagi.store.queries import catalogue
from fastagi.store.queries import recordings as units

log = structlog.get_logger(__name__)

YOUNG_SECONDS = 60.0
"""Younger files are somebody's: a start that is being journalled, an ending under way."""

OPEN_SECONDS = 600.0
"""A file without a finished header that Asterisk may still have open (a call on hold) is left alone so long."""

WALK_FILES = 20_000
"""Finished files looked past in one round in search of leftovers; the next round goes on from there."""

AT_ONE_ROUND = 200
"""Recordings dealt with in one round: a sweep must not take the disk from those that run."""

ADOPTED_SECONDS = 7 * 86_400.0
"""An adopted recording that could not be finished is tried again for so long."""

ROOM_FACTOR = 2
"""Free space that is asked for before a finishing is tried again: so many times the raw files."""


class Sweep:
    """Sweeps the spools of this server.

    :param dead: is that other server dead, and its spool ours to sweep?
    :param wake: set where something was kept that need not be kept any more: it is swept at once
    :ivar removed: raw files of finished recordings that were removed; :ivar adopted: recordings made of raw files that
        the ledger did not know; :ivar refinished: finishings tried again; :ivar set_aside: files that cannot be saved,
        in the folders now; :ivar unproved: finished recordings whose file is not what was finished; metrics
    :ivar last_at: when the last round ended, unix seconds; 0 before the first
    """

    def __init__(
        self,
        context: RecordingContext,
        stopper: Stopper,
        finalizer: Finalizer,
        *,
        dead: Callable[[str], bool],
        wake: asyncio.Event,
    ) -> None:
        self._journal = context.journal
        self._jobs = context.jobs
        self._finalizer = finalizer
        self._threads = context.threads
        self._store = context.store
        self._pbxs = context.pbxs
        self._settings = context.settings
        self._node = context.node
        self._dead = dead
        self._clock = context.clock
        self._orphans = Orphans(context, stopper)
        self._strays = Strays(context, self._orphans, young_seconds=YOUNG_SECONDS, open_seconds=OPEN_SECONDS)
        self._tried: set[str] = set()
        self._wake = wake
        self._walk: Iterator[Path | None] | None = None
        self.removed = 0
        self.adopted = 0
        self.refinished = 0
        self.set_aside = 0
        self.unproved = 0
        self.last_at = 0.0

    async def run(self) -> None:
        """For ever. Owned by the recorder."""
        while True:
            try:
                await self.round()
            except (FastAGIError, OSError) as exc:
                log.warning("sweep_broken_off", error=str(exc))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.sweep_seconds):
                    await self._wake.wait()
            self._wake.clear()

    async def round(self) -> None:
        """Sweep once. A fault of one recording does not keep the others."""
        unproved = aside = 0
        for name, pbx in self._pbxs.items():
            try:
                found = await self._threads.run(spool_inventory.listing, pbx.spool)
                for draft in await self._threads.run(spool_inventory.remove_drafts, pbx.spool, OPEN_SECONDS):
                    log.info("leftover_removed", file=str(draft))
            except OSError as exc:
                log.warning("spool_not_swept", asterisk=name, error=str(exc), hint="fastagi doctor says what to do")
                continue
            done = 0
            for raw in found.values():
                if self._jobs.get(raw.id) is not None or self._journal.waits(raw.id):
                    continue  # being worked on, or the ledger does not know yet what became of it
                try:
                    row = await self._store.read(units.get, raw.id)
                    did, proved = await self._one(pbx, raw, row)
                except (FastAGIError, OSError) as exc:
                    log.warning("raw_file_not_swept", recording_id=raw.id, asterisk=name, error=str(exc))
                    continue
                unproved += not proved
                done += did
                if done >= AT_ONE_ROUND:
                    log.info("sweep_goes_on_later", asterisk=name, recordings=len(found))
                    break
            if self._settings.adopt:
                try:
                    self.adopted += await self._strays.round(pbx)
                except (FastAGIError, OSError) as exc:
                    log.warning("strays_not_swept", asterisk=name, error=str(exc))
            aside += await self._threads.run(spool_inventory.set_aside_count, pbx.spool, raw_files.SET_ASIDE)
        aside += await self._threads.run(self._side_folder)
        if self._settings.adopt:
            await self._adopted_failed()
        self.unproved, self.set_aside = unproved, aside
        await self._threads.run(self._remove_temporaries)
        self.last_at = self._clock()

    def _side_folder(self) -> int:
        """Remove side files that a crash left half written; how many files are set aside there."""
        folder = self._journal.sides.path
        with contextlib.suppress(OSError):
            spool_inventory.remove_drafts(folder, OPEN_SECONDS)
        return spool_inventory.set_aside_count(folder, raw_files.SET_ASIDE)

    async def _one(self, pbx: Pbx, raw: RawFileSet, row: Recording | None) -> tuple[bool, bool]:
        """(something was done, the finished file is what it should be)."""
        if row is None:
            return await self._unknown(pbx, raw), True
        if row.node != self._node and not self._dead(row.node):
            return False, True  # that server's own sweep sees to it
        if row.finished:
            return await self._finished(pbx, raw, row)
        if row.failed:
            return await self._failed(raw, row), True
        return False, True

    # -- finished, and its raw files are still there

    async def _finished(self, pbx: Pbx, raw: RawFileSet, row: Recording) -> tuple[bool, bool]:
        if row.facts.steering.unreached and pbx.call_state(row.pieces[-1].uniqueid) is not CallState.GONE:
            return False, True  # its call may be up yet, and Asterisk writing
        if row.deleted_at is None:
            finding = await self._threads.run(check_file, row)
            if finding.proof is not Proof.OK:
                log.error("finished_file_unproved", **row.ids, error=finding.detail, kept=raw.paths[0])
                return False, False
            if raw.last_write > (row.finished_at or 0.0) + 1.0 and row.facts.steering.unreached:
                await self._aside(raw, f"Asterisk wrote on after {row.id} was finished: its Asterisk seemed dead", row)
                return True, True
        await self._threads.run(raw_files.remove, raw.paths)
        self.removed += len(raw.files)
        log.info("raw_files_removed", **row.ids, count=len(raw.files))
        return True, True

    # -- could not be finished

    async def _failed(self, raw: RawFileSet, row: Recording) -> bool:
        """Try again: each time there is room where there was none, and once in a server's life for any other cause."""
        if row.deleted_at is not None:
            return False
        if row.facts.steering.disk_full:
            if not await self._room(raw.bytes):
                return False
        elif row.id in self._tried or self._age(raw) < YOUNG_SECONDS:
            return False
        fault = await self._threads.run(raw.fault)
        if fault:
            await self._aside(raw, f"{row.id}: {fault}", row)
            return True
        await self._again(row)
        return True

    async def _again(self, row: Recording) -> None:
        self._tried.add(row.id)
        self.refinished += 1
        log.info("finishing_tried_again", **row.ids, error=row.error)
        job = await self._finalizer.refinish(row)
        await job.wait(None)

    async def _room(self, raw_bytes: int) -> bool:
        """Return whether the disk has room for a finished file of raw files so large."""
        free = await self._threads.run(raw_files.free_bytes, self._settings.directory)
        return free >= ROOM_FACTOR * raw_bytes + self._settings.min_free_mb * 1_000_000

    async def _adopted_failed(self) -> None:
        """The same for adopted recordings: their files lie anywhere and have others' names, so their rows are asked."""
        since = self._clock() - ADOPTED_SECONDS
        for row in await self._store.read(catalogue.failed_adopted, self._node, since, AT_ONE_ROUND):
            if self._jobs.get(row.id) is not None or self._journal.waits(row.id):
                continue
            there = await self._threads.run(_bytes_of, row)
            if not there or (not row.facts.steering.disk_full and row.id in self._tried):
                continue
            if await self._room(there):
                await self._again(row)

    # -- nobody knows it

    async def _unknown(self, pbx: Pbx, raw: RawFileSet) -> bool:
        age = self._age(raw)
        if age < YOUNG_SECONDS or await self._threads.run(self._journal.sides.has, raw.id):
            return False  # a side file is the row itself: whoever has it will read it
        if age < OPEN_SECONDS and not await self._threads.run(raw.complete):
            return False
        fault = await self._threads.run(raw.fault)
        if fault:
            await self._aside(raw, f"the ledger does not know {raw.id}, and it cannot be read: {fault}")
            return True
        await self._adopt(pbx, raw)
        return True

    async def _adopt(self, pbx: Pbx, raw: RawFileSet) -> None:
        """Make a recording of raw files that are ours by name: the ledger was lost, or an old copy of it put back.

        What was to be encrypted becomes one that fails, for want of its key: it is kept, and nobody gets it in clear.
        """
        pieces = await self._threads.run(raw.pieces, raw.id)
        spec = _spec(self._settings.defaults, pieces[0].mixed == "", raw.secret)
        await self._orphans.adopt(
            pbx,
            raw.id,
            pieces,
            spec,
            name=raw.id,
            relative=naming.relative_path(raw.id, spec.form),
            requested_at=raw.requested_at,
            detail={"from": raw.paths[0], "files": len(raw.files), "bytes": raw.bytes},
        )
        self.adopted += 1

    async def _aside(self, raw: RawFileSet, reason: str, row: Recording | None = None) -> None:
        moved = await self._threads.run(raw_files.set_aside, raw.paths, reason)
        ids = {"recording_id": raw.id} if row is None else row.ids
        log.error("raw_files_set_aside", **ids, reason=reason, moved_to=str(moved[0]) if moved else "")

    def _age(self, raw: RawFileSet) -> float:
        return time.time() - raw.last_write  # both are the machine's clock, whatever the app's is

    # -- leftovers of finishings

    def _remove_temporaries(self) -> None:
        busy = {temporary_name(Path(job.recording.file_path)).name for job in self._jobs}
        if self._walk is None:
            self._walk = spool_inventory.temporaries(self._settings.directory, OPEN_SECONDS)
        looked = 0
        for path in itertools.islice(self._walk, WALK_FILES):
            looked += 1
            if path is not None and path.name not in busy:
                path.unlink(missing_ok=True)
                log.info("leftover_removed", file=str(path))
        if looked < WALK_FILES:
            self._walk = None


def _bytes_of(row: Recording) -> int:
    """Return the bytes of the recording's raw files that exist on disk. Blocking."""
    return sum(max(0, raw_files.size(path)) for piece in row.pieces for path in piece.paths)


UNKNOWN_CIPHER = "unknown"
"""The scheme of a recording that was to be encrypted, which is all that is known of that."""


def _spec(defaults: Mapping[str, Any], legs_only: bool, secret: bool) -> RecordingSpec:
    """Return the parameters of an orphan: the settings' defaults, without the limits that were or were not asked
    for.
    """
    spec = RecordingSpec(**defaults)
    return replace(
        spec,
        seconds_timeout=None,
        max_bytes=0,
        milliseconds_max_silence=0,
        milliseconds_initial_silence=0,
        engine="monitor" if legs_only else spec.engine,
        encryption=UNKNOWN_CIPHER if secret else "",
    )
