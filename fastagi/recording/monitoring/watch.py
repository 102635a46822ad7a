"""One look a half second at every raw file that grows: limits, and files that stopped growing or were closed
unasked; and one more at the moment at which a limit is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from fastagi.audio import is_complete
from fastagi.domain.states import Cause
from fastagi.errors import AudioError
from fastagi.recording.asterisk import external, raw_files
from fastagi.recording.asterisk.limits import LimitWatch, Talk
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.stopping import Stopper
from fastagi.recording.monitoring.flushing import Flusher
from fastagi.recording.monitoring.lost_files import LostFileRecovery
from fastagi.recording.monitoring.talk_detect import TalkDetectMonitor
from fastagi.recording.monitoring.unexpected_close import UnexpectedClose

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.5
"""Asterisk writes every two seconds; four looks in between keep a stop within 3 s of its limit."""

STILL_FLUSHED = 2
"""Looks after a bridge in which a file may grow by what was recorded in it."""

SHORTEST_SECONDS = 0.05
"""Between two looks, however many limits are due."""


class Watch:
    """Watches the recordings that run."""

    def __init__(
        self, context: RecordingContext, stopper: Stopper, salvager: LostFileRecovery, flusher: Flusher
    ) -> None:
        settings = context.settings
        self._jobs = context.jobs
        self._salvager = salvager
        self._flusher = flusher
        self.listening = TalkDetectMonitor(context.pbxs, context.tasks.spawn, settings.silence_dbfs, context.clock)
        self._stopper = stopper
        self._pbxs = context.pbxs
        self._threads = context.threads
        self._closings = UnexpectedClose(context, stopper)
        self._settings = settings
        self._spawn = context.tasks.spawn
        self._clock = context.clock
        self._flushing: set[str] = set()
        self._unreadable: set[str] = set()
        self._flushed = asyncio.Event()
        self.stalled = 0

    def follow(self, job: ActiveRecording) -> None:
        """Watch this one too. Idempotent."""
        if job.limits is None and LimitWatch.wanted(job.recording):
            job.limits = LimitWatch(job.recording, job.cipher, self._settings.silence_dbfs)
        job.grew_at = time.monotonic()

    async def run(self) -> None:
        """For ever. Owned by the recorder."""
        regular = time.monotonic()
        while True:
            regular = max(regular + LOOK_SECONDS, time.monotonic())
            while (left := regular - time.monotonic()) > SHORTEST_SECONDS:
                await self._sleep(min(left, max(SHORTEST_SECONDS, self._soonest() - self._clock())))
                due = [job for job in self._running() if self._due(job)]
                if due:
                    await self._round(due, only_limits=True)
            await asyncio.sleep(max(0.0, regular - time.monotonic()))
            running = self._running()
            self._unreadable &= {job.id for job in running}
            self.listening.sweep()
            if running:
                await self._round(running)
            self.stalled = sum("stalled" in j.alarms for j in running)

    def _running(self) -> list[ActiveRecording]:
        return [j for j in self._jobs if j.recording.running]

    async def _sleep(self, seconds: float) -> None:
        """So long, or until something was flushed."""
        self._flushed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._flushed.wait()

    def _soonest(self) -> float:
        """Return the time of the next limit, unix seconds."""
        return min((j.limits.look_again for j in self._running() if j.limits is not None), default=math.inf)

    def _due(self, job: ActiveRecording) -> bool:
        return job.limits is not None and job.limits.look_again <= self._clock()

    async def _round(self, running: list[ActiveRecording], *, only_limits: bool = False) -> None:
        """Look at these, and do what follows.

        :param only_limits: between two rounds: who closed a file is judged by looks that are half a second apart
        """
        for job in running:
            if job.recording.adopted and not only_limits:
                job.unbridged_looks = job.unbridged_looks + 1 if self._unbridged(job) else 0
        flushable = {job.id for job in running if job.limits is not None and self._flusher.able(job)}
        talks = {job.id: self._talk(job, job.limits) for job in running if job.limits is not None}
        for job, cause, closed, unreadable in await self._threads.run(self._look, running, flushable, talks):
            if unreadable and job.limits is not None:
                self._unreadable.add(job.id)
                cause = self.listening.look(job, job.limits)
            else:
                self._unreadable.discard(job.id)
                if job.limits is None or not self._wants_talk(job, job.limits):
                    self.listening.enough(job)
            if job.size < 0 <= job.largest and self._salvager.due(job):
                self._spawn(self._salvager.salvage(job), f"salvage {job.id}")
            if cause is not Cause.NONE:
                self._spawn(self._stopper.stop(job, cause), f"limit {job.id}")
            elif closed and only_limits:
                continue
            elif closed and job.closed != job.watched:
                job.closed = job.watched  # a hangup closes it too: its event comes before the next look
            elif closed:
                self._spawn(self._closings.end(job), f"closed {job.id}")
            elif not unreadable and job.limits is not None and job.limits.wants_flush and job.id not in self._flushing:
                self._flushing.add(job.id)
                self._spawn(self._flush(job, job.limits), f"flush {job.id}")

    def _unbridged(self, job: ActiveRecording) -> bool:
        """Return whether the channel is up and in no bridge, where MixMonitor's option ``b`` writes nothing."""
        pbx, last = self._pbxs.get(job.recording.asterisk), job.recording.pieces[-1]
        live = pbx.live_channel(last.uniqueid) if pbx is not None else None
        return live is not None and not live.bridge

    def _talk(self, job: ActiveRecording, limits: LimitWatch) -> Talk | None:
        """Return the talk that Asterisk reports beside a readable file; None where it is not asked."""
        if job.id in self._unreadable or not self._wants_talk(job, limits):
            return None
        return self.listening.beside(job, limits)

    def _wants_talk(self, job: ActiveRecording, limits: LimitWatch) -> bool:
        if not job.recording.active or not limits.silence_limit:
            return False
        return self._flusher.barred(job) or limits.wants_talk

    async def _flush(self, job: ActiveRecording, limits: LimitWatch) -> None:
        try:
            if await self._flusher.flush(job):
                limits.look_again = 0.0  # what it held back can be read now
                self._flushed.set()
        finally:
            self._flushing.discard(job.id)

    def _look(
        self, running: list[ActiveRecording], flushable: set[str], talks: Mapping[str, Talk | None]
    ) -> list[tuple[ActiveRecording, Cause, bool, bool]]:
        """(job, limit reached, file closed, file cannot be judged) of each; blocking."""
        found = []
        rooms: dict[str, bool] = {}
        for job in running:
            limits, cause, closed, unreadable = job.limits, Cause.NONE, False, False
            if limits is not None:
                limits.look_again = math.inf
            piece = job.recording.pieces[-1]
            first = piece.paths[0]
            size = raw_files.size(first)
            if first != job.watched and piece.reason == "still":  # it stands still as the one before did
                job.watched, job.size, job.largest = first, size, size
            elif first != job.watched:
                job.watched, job.size, job.largest = first, -1, -1
                job.grew_at = time.monotonic()
            if piece.ended_at:  # paused: nothing is being written
                job.grew_at = time.monotonic()
            elif size != job.size:
                job.grew_unbridged |= size > job.size > 0 and job.unbridged_looks > STILL_FLUSHED
                job.largest = max(job.largest, size)
                job.size, job.grew_at = size, time.monotonic()
                job.alarms.discard("stalled")
            elif size > 0 and not job.recording.adopted:
                closed = is_complete(first)
            if job.unbridged_looks and not job.grew_unbridged:
                job.grew_at = time.monotonic()
            self._alarm(job)
            folder = os.path.dirname(first)
            if folder not in rooms:
                rooms[folder] = raw_files.full(Path(folder))
            if self._without_room(job, rooms[folder] and not piece.ended_at):
                unreadable = limits is not None
            elif limits is not None:
                try:
                    paused = job.recording.paused
                    talk = talks.get(job.id)
                    cause = limits.look(job.recording, self._clock(), paused, job.id in flushable, talk)
                except (OSError, AudioError) as exc:
                    unreadable = True
                    if "unreadable" not in job.alarms:
                        job.alarms.add("unreadable")
                        log.warning("raw_file_unreadable", **job.recording.ids, error=str(exc))
            found.append((job, cause, closed, unreadable))
        return found

    def _without_room(self, job: ActiveRecording, full: bool) -> bool:
        """Return whether a full disk swallows what Asterisk writes. A file that stands still is no silence then."""
        if not full:
            job.alarms.discard("spool_full")
        elif "spool_full" not in job.alarms:
            job.alarms.add("spool_full")
            job.spool_full = True
            log.error("spool_full", **job.recording.ids, file=job.watched)
        return full

    def _alarm(self, job: ActiveRecording) -> None:
        still = time.monotonic() - (job.grew_at or time.monotonic())
        patience = self._settings.stalled_seconds
        if job.recording.adopted:  # other formats grow more slowly
            patience += external.slower_seconds(job.recording.pieces[-1].paths[0])
        if still >= patience and "stalled" not in job.alarms:
            job.alarms.add("stalled")
            log.error("recording_stalled", **job.recording.ids, seconds=round(still, 1))
