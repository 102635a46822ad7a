"""A recording whose raw files vanished while they were made: what is still to come is saved.

Asterisk does not notice when its spool directory is removed or unmounted: it goes on writing into deleted files. So
the rest of the call is recorded into new ones, and the loss is told (`lost` in the recording's facts, and the log).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import structlog

from fastagi.domain.states import Phase
from fastagi.errors import AsteriskError, Error, FastAGIError, Hangup
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.course.pieces import Pieces
from fastagi.recording.ledger.job import Job
from fastagi.recording.ledger.journal import Journal
from fastagi.recording.runtime.threads import FileThreads
from fastagi.recording.spool import files

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 5.0
"""Between two attempts while the spool stays away."""

MOST_LOSSES = 20


class Salvager:
    """Begins a further piece where the last one's files are gone."""

    def __init__(
        self,
        journal: Journal,
        pieces: Pieces,
        threads: FileThreads,
        pbxs: Mapping[str, Pbx],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._pieces = pieces
        self._threads = threads
        self._pbxs = pbxs
        self._clock = clock
        self._tried: dict[str, float] = {}

    def due(self, job: Job) -> bool:
        """Is it time for an attempt (again)?"""
        now = time.monotonic()
        self._tried = {key: at for key, at in self._tried.items() if now - at < 60.0}
        if now - self._tried.get(job.id, -AGAIN_SECONDS) < AGAIN_SECONDS:
            return False
        self._tried[job.id] = now
        return True

    async def salvage(self, job: Job) -> bool:
        """Record the rest of the call. False when the files are there after all, or it cannot be done now."""
        async with job.lock:
            recording = job.recording
            before = recording.pieces[-1]
            pbx = self._pbxs.get(recording.asterisk)
            if job.phase is not Phase.ACTIVE or recording.adopted or not before.seen or pbx is None:
                return False
            if len(recording.pieces) > MOST_LOSSES or await self._threads.run(files.size, before.paths[0]) >= 0:
                return False
            fault = await self._threads.run(_make, pbx.spool) or await self._threads.run(files.spool_fault, pbx.spool)
            if fault:
                log.error("raw_files_vanished", **job.recording.ids, file=before.paths[0], error=fault)
                return False
            try:
                piece = await self._pieces.begin(
                    job, before.channel, before.uniqueid, after="loss", turned=before.turned
                )
            except (AsteriskError, Error, Hangup) as exc:
                log.error("raw_files_vanished", **job.recording.ids, file=before.paths[0], error=str(exc))
                return False
            started = recording.started_at or before.started_at
            span = [round(before.started_at - started, 3), round(piece.started_at - started, 3)]
            lost = replace(before, ended_at=piece.started_at, lost=True)
            facts = {**recording.facts, "lost": [*recording.facts.get("lost", []), span]}
            await self._journal.note(job, "files_lost", pieces=(*recording.pieces[:-1], lost, piece), facts=facts)
            log.error(
                "raw_files_vanished", **job.recording.ids, file=before.paths[0], lost=span, goes_on=piece.paths[0]
            )
        try:
            await self._pieces.end(job, before)
        except FastAGIError as exc:
            log.debug("lost_piece_not_stopped", **job.recording.ids, error=str(exc))
        return True


def _make(spool: Path) -> str:
    """Put the spool directory back. Its fault, or an empty string."""
    try:
        spool.mkdir(mode=0o2775, parents=True, exist_ok=True)
    except OSError as exc:
        return f"the spool directory {spool} is gone and cannot be made: {exc.strerror}"
    return ""
