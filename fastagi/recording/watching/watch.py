"""One look a half second at every raw file that grows: limits, and files that stopped growing or were closed
unasked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from fastagi.audio import is_complete
from fastagi.domain.states import Cause, Phase
from fastagi.errors import AudioError
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.course.ending import Ender
from fastagi.recording.ledger.job import Job, Jobs
from fastagi.recording.runtime.threads import FileThreads
from fastagi.recording.spool import files, foreign
from fastagi.recording.spool.limits import LimitWatch
from fastagi.recording.watching.salvaging import Salvager
from fastagi.recording.watching.talking import Listening
from fastagi.settings import RecordingSettings

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.5
"""Asterisk writes every two seconds; four looks in between keep a stop within 3 s of its limit."""


class Watch:
    """Watches the recordings that run."""

    def __init__(
        self,
        jobs: Jobs,
        ender: Ender,
        threads: FileThreads,
        pbxs: Mapping[str, Pbx],
        settings: RecordingSettings,
        spawn: Callable[[Coroutine[Any, Any, Any], str], object],
        salvager: Salvager,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._jobs = jobs
        self._salvager = salvager
        self.listening = Listening(pbxs, spawn, settings.silence_dbfs, clock)
        self._ender = ender
        self._threads = threads
        self._pbxs = pbxs
        self._settings = settings
        self._spawn = spawn
        self._clock = clock
        self.stalled = 0

    def follow(self, job: Job) -> None:
        """Watch this one too. Idempotent."""
        if job.limits is None and LimitWatch.wanted(job.recording):
            job.limits = LimitWatch(job.recording, job.cipher, self._settings.silence_dbfs)
        job.grew_at = time.monotonic()

    async def run(self) -> None:
        """For ever. Owned by the recorder."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            running = [j for j in self._jobs if j.phase in (Phase.ACTIVE, Phase.PAUSED)]
            if not running:
                self.stalled = 0
                continue
            self.listening.sweep()
            for job, cause, closed, deaf in await self._threads.run(self._look, running):
                if deaf and job.limits is not None:
                    cause = self.listening.look(job, job.limits)
                elif not deaf:
                    self.listening.enough(job)
                if job.size < 0 <= job.largest and self._salvager.due(job):
                    self._spawn(self._salvager.salvage(job), f"salvage {job.id}")
                if cause is not Cause.NONE:
                    self._spawn(self._ender.stop(job, cause), f"limit {job.id}")
                elif closed and job.closed != job.watched:
                    job.closed = job.watched  # a hangup closes it too: its event comes before the next look
                elif closed:
                    pbx = self._pbxs.get(job.recording.asterisk)
                    up = pbx is not None and pbx.up and pbx.book.get(job.recording.pieces[-1].uniqueid) is not None
                    ending = self._ender.stopped_elsewhere(job) if up else self._ender.ended_unseen(job)
                    self._spawn(ending, f"closed {job.id}")
            self.stalled = sum("stalled" in j.alarms for j in running)

    def _look(self, running: list[Job]) -> list[tuple[Job, Cause, bool, bool]]:
        """(job, limit reached, file closed, file cannot be judged) of each."""
        found = []
        for job in running:
            limits, cause, closed, deaf = job.limits, Cause.NONE, False, False
            piece = job.recording.pieces[-1]
            first = piece.paths[0]
            size = files.size(first)
            if first != job.watched:
                job.watched, job.size, job.largest = first, -1, -1
                job.grew_at = time.monotonic()
            if piece.ended_at:  # paused: nothing is being written
                job.grew_at = time.monotonic()
            elif size != job.size:
                job.largest = max(job.largest, size)
                job.size, job.grew_at = size, time.monotonic()
                job.alarms.discard("stalled")
            elif size > 0 and not job.recording.adopted:
                closed = is_complete(first)
            self._alarm(job)
            if limits is not None:
                try:
                    cause = limits.look(job.recording, self._clock(), job.phase is Phase.PAUSED)
                except (OSError, AudioError) as exc:
                    deaf = True
                    if "unreadable" not in job.alarms:
                        job.alarms.add("unreadable")
                        log.warning("raw_file_unreadable", recording_id=job.id, error=str(exc))
            found.append((job, cause, closed, deaf))
        return found

    def _alarm(self, job: Job) -> None:
        still = time.monotonic() - (job.grew_at or time.monotonic())
        patience = self._settings.stalled_seconds
        if job.recording.adopted:  # other formats grow more slowly
            patience += foreign.growth_seconds(job.recording.pieces[-1].paths[0])
        if still >= patience and "stalled" not in job.alarms:
            job.alarms.add("stalled")
            log.error("recording_stalled", recording_id=job.id, channel=job.recording.channel, seconds=round(still, 1))
