"""Follows a recording that runs: its time limit, its raw files, whom its channel talks with."""

from __future__ import annotations

import asyncio

import structlog

from fastagi.domain.states import Cause
from fastagi.errors import FastAGIError
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.participants import ParticipantTracker
from fastagi.recording.lifecycle.pausing import Pauser
from fastagi.recording.lifecycle.stopping import Stopper
from fastagi.recording.monitoring.watch import Watch

log = structlog.get_logger(__name__)


class Tracker:
    """Carries out the effect `Watch` of a recording that runs, after its start and after a restart alike."""

    def __init__(
        self,
        context: RecordingContext,
        stopper: Stopper,
        pauser: Pauser,
        participants: ParticipantTracker,
        watch: Watch,
    ) -> None:
        self._pbxs = context.pbxs
        self._clock = context.clock
        self._spawn = context.tasks.spawn
        self._stopper = stopper
        self._pauser = pauser
        self._participants = participants
        self._watch = watch

    def track(self, job: ActiveRecording) -> None:
        """Arm the time limit and the watch. Idempotent."""
        recording = job.recording
        pbx = self._pbxs.get(recording.asterisk)
        if pbx is not None:
            self._participants.began(pbx, job)
        timeout = recording.spec.seconds_timeout
        if timeout is not None and job.timer is None:
            elapsed = self._clock() - (recording.started_at or self._clock())
            job.timer = asyncio.get_running_loop().call_later(
                max(0.0, timeout - max(0.0, elapsed)),
                lambda: self._spawn(self._stopper.stop(job, Cause.TIMEOUT), f"time-out {job.id}"),
            )
        self._watch.follow(job)
        if recording.paused or not recording.pieces[-1].confirmed:
            self._spawn(self._settle(job), f"settle {job.id}")

    async def _settle(self, job: ActiveRecording) -> None:
        """Carry out what the last process had journalled of a pause or a move, but perhaps not done."""
        try:
            await self._pauser.settle(job)
        except FastAGIError as exc:
            log.error("not_settled", **job.recording.ids, error=str(exc))
