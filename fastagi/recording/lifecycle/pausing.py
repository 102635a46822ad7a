"""Pause, resume and mute, with the spans kept in the recording's row.

A pause ends Asterisk's files and a resume begins new ones: what is said meanwhile (a card number) is on no disk at any
time, two recordings of one call do not disturb each other, and it works on every Asterisk and without the manager
interface. The finished file has silence there, or, with ``pause_mode="cut"``, nothing. A recording that somebody else
started cannot be ended and begun here: it is muted (MixMonitorMute).
"""

from __future__ import annotations

import asyncio

import structlog

from fastagi.domain.lifecycle import Effect, owed
from fastagi.domain.lifecycle.effects import EndSegment, Mute
from fastagi.domain.lifecycle.events import (
    MuteFailed,
    MuteRequested,
    PauseFailed,
    PauseRequested,
    ResumeFailed,
    ResumeRequested,
    SegmentStarted,
    Unmuted,
)
from fastagi.domain.numbers import check_seconds
from fastagi.errors import AsteriskError, BadArgument, Error, FastAGIError, Hangup, IllegalTransition
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.engine import Engine
from fastagi.recording.lifecycle.segments import SegmentController, asterisk_direction

log = structlog.get_logger(__name__)

DIRECTIONS = {"both": "both", "received": "received", "sent": "sent", "read": "received", "write": "sent"}
"""Our words for the sides (as in `separate`: received from the channel, sent to it); Asterisk's are taken too."""

MUTES_BY_ID = 21
"""From this version on MixMonitorMute is believed to heed MixMonitorID (22.10 does, 16.28 does not)."""

LONGEST_PAUSE_SECONDS = 86_400
"""A day; more is a unit mistaken."""

RESUME_AGAIN_SECONDS = 1.0
"""Between two attempts to resume by itself: a call that is not recorded is what the timer is there to end."""


class Pauser:
    """Pauses, resumes and mutes recordings."""

    def __init__(self, context: RecordingContext, engine: Engine, segments: SegmentController) -> None:
        self._engine = engine
        self._jobs = context.jobs
        self._segments = segments
        self._pbxs = context.pbxs
        self._spawn = context.tasks.spawn
        self._clock = context.clock

    async def pause(self, job: ActiveRecording, seconds: float | None = None) -> bool:
        """Nothing is recorded from now on; True also when it was paused already.

        :param seconds: resume by itself after so many, also if this server was restarted meanwhile (a card number
            forgotten paused is a call lost); None: until told
        :raises Error: it is not recording; :raises AsteriskError: Asterisk did not stop: it goes on recording
        """
        check_seconds("seconds", seconds, LONGEST_PAUSE_SECONDS, none="to pause until told")
        async with job.lock:
            resume_at = None if seconds is None else self._clock() + seconds
            try:
                decision = await self._engine.apply(job, PauseRequested(resume_at))
            except IllegalTransition:
                raise Error("there is no recording to pause") from None
            if decision.transition is not None:
                try:
                    await self._perform(job, decision.effects)
                except (AsteriskError, Error, Hangup):
                    await self._engine.apply(job, PauseFailed())
                    raise
                log.info("recording_paused", seconds=seconds, **job.recording.ids)
            self.arm(job)
        return True

    async def resume(self, job: ActiveRecording) -> bool:
        """Record again; True also when it was not paused.

        :raises Error: it is not recording; :raises AsteriskError: Asterisk did not record: it is still paused
        :raises Hangup: the channel is gone
        """
        async with job.lock:
            if not job.recording.running:
                raise Error("there is no recording to resume")
            if job.recording.paused:
                await self._resume(job)
            self.arm(job)
        return True

    async def mute(self, job: ActiveRecording, direction: str, on: bool = True) -> bool:
        """Silence one side in the file, or both; the other side goes on.

        :param direction: ``received`` (from the channel), ``sent`` (to it) or ``both``
        :raises Error: it is not recording, or the engine or this Asterisk cannot
        """
        if direction not in DIRECTIONS:
            raise BadArgument(f"direction={direction!r} is not known: use received, sent or both")
        direction = DIRECTIONS[direction]
        async with job.lock:
            if not job.recording.running:
                raise Error("there is no recording to mute")
            if job.recording.spec.engine == "monitor":
                raise Error("engine='monitor' cannot mute one side: use mixmonitor")
            self._only_one(job)
            decision = await self._engine.apply(job, MuteRequested(direction, on))
            try:
                await self._perform(job, decision.effects)
            except (AsteriskError, Error, Hangup):
                await self._engine.apply(job, MuteFailed(direction, on))
                raise
        return True

    def arm(self, job: ActiveRecording) -> None:
        """Set the clock of a pause that is to end by itself, as the ledger says. Idempotent."""
        if job.resume_timer is not None:
            job.resume_timer.cancel()
            job.resume_timer = None
        at = job.recording.facts.resume_at
        if job.recording.paused and at is not None:
            self._wake(job, max(0.0, at - self._clock()))

    async def settle(self, job: ActiveRecording) -> None:
        """After a restart: what was journalled of a pause or a resume is carried out. Idempotent."""
        async with job.lock:
            last = job.recording.pieces[-1]
            resuming = job.recording.paused and last.reason == "pause" and not last.confirmed
            await self._segments.settle(job)
            if resuming and job.recording.paused:  # Asterisk did not take it now: tried again until it does
                await self._engine.apply(job, ResumeRequested())
            await self._perform(job, owed(job.recording))
            self.arm(job)

    async def _perform(self, job: ActiveRecording, effects: tuple[Effect, ...]) -> None:
        """Tell Asterisk what a pause, a resume or a mute asks for."""
        for effect in effects:
            match effect:
                case EndSegment(segment):
                    await self._segments.end(job, segment)
                case Mute(direction, on):
                    await self._mute(job, direction, on)

    async def _resume(self, job: ActiveRecording) -> None:
        last = job.recording.pieces[-1]
        if last.ended_at:
            segment = self._segments.next(
                job, last.channel, last.uniqueid, reason="pause", sides_swapped=last.sides_swapped
            )
            began = await self._segments.begin(job, segment)
            await self._engine.apply(job, SegmentStarted(began))
        else:
            resume_at = job.recording.facts.resume_at
            decision = await self._engine.apply(job, ResumeRequested())  # no segment tells the next process of it
            try:
                await self._perform(job, decision.effects)
            except (AsteriskError, Error, Hangup):
                await self._engine.apply(job, ResumeFailed(resume_at))
                raise
            await self._engine.apply(job, Unmuted())
        log.info("recording_resumed", **job.recording.ids)

    def _wake(self, job: ActiveRecording, seconds: float) -> None:
        job.resume_timer = asyncio.get_running_loop().call_later(
            seconds, lambda: self._spawn(self._resume_by_itself(job), f"resume {job.id}")
        )

    async def _resume_by_itself(self, job: ActiveRecording) -> None:
        job.resume_timer = None
        at = job.recording.facts.resume_at
        if not job.recording.paused or at is None:
            return
        if at > self._clock():  # told otherwise meanwhile
            self.arm(job)
            return
        try:
            await self.resume(job)
        except FastAGIError as exc:
            log.error("not_resumed", **job.recording.ids, error=str(exc))
            if job.recording.paused and job.resume_timer is None:
                self._wake(job, RESUME_AGAIN_SECONDS)

    def _only_one(self, job: ActiveRecording) -> None:
        """Asterisk up to 20 mutes the MixMonitor that was started first, whichever was meant.

        :raises Error: that may be another one
        """
        piece = job.recording.pieces[-1]
        major = self._pbxs[job.recording.asterisk].major
        if major >= MUTES_BY_ID or len(self._jobs.on_channel(job.recording.asterisk, piece.uniqueid)) <= 1:
            return
        raise Error(
            f"Asterisk {major or 'of this version'} cannot mute one of several recordings of a channel: "
            "stop the others, or pause this one"
        )

    async def _mute(self, job: ActiveRecording, direction: str, on: bool) -> None:
        piece = job.recording.pieces[-1]
        pbx = self._pbxs[job.recording.asterisk]
        live = pbx.channels.get(piece.uniqueid)
        control = pbx.control(live.name if live else piece.channel, job.agi)
        await control.mute(piece, job.recording.spec, asterisk_direction(direction, piece), on)
