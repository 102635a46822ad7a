"""A recording whose raw files vanished while they were made: what is still to come is saved.

Asterisk does not notice when its spool directory is removed or unmounted: it goes on writing into deleted files. So
the rest of the call is recorded into new ones, and the loss is told (`lost` in the recording's facts, and the log).
"""

from __future__ import annotations

import time
from pathlib import Path

import structlog

from fastagi.domain.facts import LOST
from fastagi.domain.lifecycle import can_replace_lost_files
from fastagi.domain.lifecycle.events import SegmentStarted
from fastagi.errors import AsteriskError, Error, FastAGIError, Hangup
from fastagi.recording.asterisk import raw_files
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.engine import Engine
from fastagi.recording.lifecycle.segments import SegmentController

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 5.0
"""Between two attempts while the spool stays away."""


class LostFileRecovery:
    """Begins a further piece where the last one's files are gone."""

    def __init__(self, context: RecordingContext, engine: Engine, segments: SegmentController) -> None:
        self._engine = engine
        self._segments = segments
        self._threads = context.threads
        self._pbxs = context.pbxs
        self._tried: dict[str, float] = {}

    def due(self, job: ActiveRecording) -> bool:
        """Return whether it is time for an attempt (again)."""
        now = time.monotonic()
        self._tried = {key: at for key, at in self._tried.items() if now - at < 60.0}
        if now - self._tried.get(job.id, -AGAIN_SECONDS) < AGAIN_SECONDS:
            return False
        self._tried[job.id] = now
        return True

    async def salvage(self, job: ActiveRecording) -> bool:
        """Record the rest of the call. False when the files are there after all, or it cannot be done now."""
        async with job.lock:
            recording = job.recording
            before = recording.pieces[-1]
            pbx = self._pbxs.get(recording.asterisk)
            if pbx is None or not can_replace_lost_files(recording):
                return False
            if await self._threads.run(raw_files.size, before.paths[0]) >= 0:
                return False
            fault = await self._threads.run(_make, pbx.spool) or await self._threads.run(
                raw_files.spool_fault, pbx.spool
            )
            if fault:
                log.error("raw_files_vanished", **job.recording.ids, file=before.paths[0], error=fault)
                return False
            try:
                segment = self._segments.next(
                    job, before.channel, before.uniqueid, reason="loss", sides_swapped=before.sides_swapped
                )
                began = await self._segments.begin(job, segment)
            except (AsteriskError, Error, Hangup) as exc:
                log.error("raw_files_vanished", **job.recording.ids, file=before.paths[0], error=str(exc))
                return False
            after = (await self._engine.apply(job, SegmentStarted(began))).after
            lost = after.facts[LOST][-1]
            log.error("raw_files_vanished", **after.ids, file=before.paths[0], lost=lost, goes_on=began.paths[0])
        try:
            await self._segments.end(job, before)
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
