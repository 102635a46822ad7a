"""Flushes raw files: one that Asterisk holds back sound of is ended, and the recording goes on in another.

Asterisk writes in steps of two seconds. When a phone ceases to send, up to two seconds of sound may lie in its buffer,
and nothing but the end of the file brings them out. A silence limit cannot be told without them, so a piece is ended
where it stands still. The next one begins before: no frame is lost, and as none flows there, none is in both.
Where that cannot be, Asterisk says whether it was silence (`talking`).
"""

from __future__ import annotations

import time

import structlog

from fastagi.domain.lifecycle import can_flush, flushed_too_often
from fastagi.domain.lifecycle.events import SegmentFailed, SegmentStarted
from fastagi.errors import AsteriskError, Error, FastAGIError, Hangup
from fastagi.recording.asterisk import raw_files
from fastagi.recording.asterisk.control import AgiPath
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.engine import Engine
from fastagi.recording.lifecycle.segments import SegmentController, end_given_up, muted

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 5.0
"""After one that failed."""


class Flusher:
    """Ends pieces of which something is held back."""

    def __init__(self, context: RecordingContext, engine: Engine, segments: SegmentController) -> None:
        self._engine = engine
        self._segments = segments
        self._threads = context.threads
        self._pbxs = context.pbxs
        self._failed: dict[str, float] = {}

    def able(self, job: ActiveRecording) -> bool:
        """Return whether the recording can be flushed now."""
        recording = job.recording
        pbx = self._pbxs.get(recording.asterisk)
        if pbx is None or not can_flush(recording) or self.barred(job):
            return False
        if not (pbx.up or _reached(job.agi_of(recording.pieces[-1]))):
            return False
        return time.monotonic() - self._failed.get(job.id, -AGAIN_SECONDS) >= AGAIN_SECONDS

    def barred(self, job: ActiveRecording) -> bool:
        """Return whether this recording cannot be flushed as it is. That is so where somebody would hear it (the
        beep at a stop, the one every so often), where what was muted would be recorded (Asterisk up to 20 mutes the
        older of two), and with Monitor, of which a channel has one only.
        """
        recording = job.recording
        spec = recording.spec
        return (
            spec.engine != "mixmonitor"
            or spec.beep_stop
            or bool(spec.beep_seconds)
            or bool(muted(recording, recording.pieces[-1]))
            or flushed_too_often(recording)
        )

    async def flush(self, job: ActiveRecording) -> bool:
        """End its last piece and go on in another. False where it cannot be done now: the recording is as it was."""
        async with job.lock:
            recording = job.recording
            before = recording.pieces[-1]
            if not self.able(job):
                return False
            try:
                await end_given_up(job, self._pbxs[recording.asterisk])
                segment = self._segments.next(
                    job, before.channel, before.uniqueid, reason="still", sides_swapped=before.sides_swapped
                )
                began = await self._segments.begin(job, segment)
            except (AsteriskError, Error, Hangup) as exc:
                self._fault(job, exc)
                return False
            try:
                await self._segments.end(job, before)
            except FastAGIError as exc:  # both are made: the new one is given up
                self._fault(job, exc)
                job.failed_pieces += 1
                await self._engine.apply(job, SegmentFailed())
                await self._segments.give_up(job, began)
                return False
            empty = before.reason == "still" and await self._threads.run(_empty, before.paths)
            await self._engine.apply(job, SegmentStarted(began, forerunner_ended=True, forerunner_empty=empty))
            if empty:
                await self._threads.run(raw_files.remove, before.paths)
        log.debug("recording_flushed", **job.recording.ids, file=before.paths[0], goes_on=began.paths[0])
        return True

    def _fault(self, job: ActiveRecording, exc: FastAGIError) -> None:
        now = time.monotonic()
        self._failed = {key: at for key, at in self._failed.items() if now - at < AGAIN_SECONDS}
        self._failed[job.id] = now
        log.warning("not_flushed", **job.recording.ids, error=str(exc))


def _reached(agi: AgiPath | None) -> bool:
    """Return whether that session would carry a command out at once, without a manager connection."""
    return agi is not None and not agi.closed and agi.current_command is None


def _empty(paths: tuple[str, ...]) -> bool:
    return max(raw_files.sizes(paths)) <= raw_files.HEADER_BYTES
