"""What Asterisk holds back of a raw file is made readable: the file is ended, and the recording goes on in another.

Asterisk writes in steps of two seconds. When a phone ceases to send, up to two seconds of sound may lie in its buffer,
and nothing but the end of the file brings them out. A silence limit cannot be told without them, so a piece is ended
where it stands still. The next one begins before: no frame is lost, and as none flows there, none is in both.
Where that cannot be, Asterisk says whether it was silence (`talking`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from fastagi.domain.states import Phase
from fastagi.errors import AsteriskError, Error, FastAGIError, Hangup
from fastagi.recording.asterisk.control import AgiPath
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.course.pieces import Pieces, end_given_up, muted
from fastagi.recording.ledger.job import Job
from fastagi.recording.ledger.journal import Journal
from fastagi.recording.runtime.threads import FileThreads
from fastagi.recording.spool import files

log = structlog.get_logger(__name__)

MOST_FLUSHES = 50
"""In one recording: who stops sending between any two words must not fill the spool with files."""

AGAIN_SECONDS = 5.0
"""After one that failed."""


class Flusher:
    """Ends pieces of which something is held back."""

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
        self._failed: dict[str, float] = {}

    def able(self, job: Job) -> bool:
        """Can it be done now?"""
        recording = job.recording
        pbx = self._pbxs.get(recording.asterisk)
        if job.phase is not Phase.ACTIVE or recording.adopted or pbx is None:
            return False
        last = recording.pieces[-1]
        if not last.seen or last.ended_at or self.barred(job) or not (pbx.up or _reached(job.agi_of(last))):
            return False
        return time.monotonic() - self._failed.get(job.id, -AGAIN_SECONDS) >= AGAIN_SECONDS

    def barred(self, job: Job) -> bool:
        """Can it not be done with this recording as it is? Where somebody would hear it (the beep at a stop, the one
        every so often), where what was muted would be recorded (Asterisk up to 20 mutes the older of two), and with
        Monitor, of which a channel has one only."""
        recording = job.recording
        spec = recording.spec
        return (
            spec.engine != "mixmonitor"
            or spec.beep_stop
            or bool(spec.beep_seconds)
            or bool(muted(recording, recording.pieces[-1]))
            or sum(piece.after == "still" for piece in recording.pieces) >= MOST_FLUSHES
        )

    async def flush(self, job: Job) -> bool:
        """End its last piece and go on in another. False where it cannot be done now: the recording is as it was."""
        async with job.lock:
            recording = job.recording
            before = recording.pieces[-1]
            if not self.able(job):
                return False
            try:
                await end_given_up(job, self._pbxs[recording.asterisk])
                piece = await self._pieces.begin(
                    job, before.channel, before.uniqueid, after="still", turned=before.turned
                )
            except (AsteriskError, Error, Hangup) as exc:
                self._fault(job, exc)
                return False
            try:
                await self._pieces.end(job, before)
            except FastAGIError as exc:  # both are made: the new one is given up
                self._fault(job, exc)
                job.failed_pieces += 1
                await self._journal.note(job, "piece_failed", pieces=recording.pieces)
                await self._pieces.give_up(job, piece)
                return False
            kept = (*recording.pieces[:-1], replace(before, ended_at=self._clock()))
            empty = before.after == "still" and await self._threads.run(_empty, before.paths)
            if empty:  # nothing has come since the last one
                kept = recording.pieces[:-1]
            await self._journal.note(job, "flushed", pieces=(*kept, piece))
            if empty:
                await self._threads.run(files.remove, before.paths)
        log.debug("recording_flushed", **job.recording.ids, file=before.paths[0], goes_on=piece.paths[0])
        return True

    def _fault(self, job: Job, exc: FastAGIError) -> None:
        now = time.monotonic()
        self._failed = {key: at for key, at in self._failed.items() if now - at < AGAIN_SECONDS}
        self._failed[job.id] = now
        log.warning("not_flushed", **job.recording.ids, error=str(exc))


def _reached(agi: AgiPath | None) -> bool:
    """Would that session carry a command out at once, without a manager connection?"""
    return agi is not None and not agi.closed and agi.current_command is None


def _empty(paths: tuple[str, ...]) -> bool:
    return max(files.sizes(paths)) <= files.HEADER_BYTES
