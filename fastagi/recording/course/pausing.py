"""Pause, resume and mute, with the spans kept in the recording's row.

A pause ends Asterisk's files and a resume begins new ones: what is said meanwhile (a card number) is on no disk at any
time, two recordings of one call do not disturb each other, and it works on every Asterisk and without the manager
interface. The finished file has silence there, or, with ``pause_mode="cut"``, nothing. A recording that somebody else
started cannot be ended and begun here: it is muted (MixMonitorMute).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from fastagi.domain.numbers import check_seconds
from fastagi.domain.recording import Piece, Span
from fastagi.domain.states import Event, Phase
from fastagi.errors import AsteriskError, BadArgument, Error, FastAGIError, Hangup
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.course.pieces import Pieces, asterisk_direction
from fastagi.recording.ledger.job import Job, Jobs
from fastagi.recording.ledger.journal import Journal
from fastagi.recording.spool.plan import RESUME_AT

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

    def __init__(
        self,
        journal: Journal,
        jobs: Jobs,
        pieces: Pieces,
        pbxs: Mapping[str, Pbx],
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._jobs = jobs
        self._pieces = pieces
        self._pbxs = pbxs
        self._spawn = spawn
        self._clock = clock

    async def pause(self, job: Job, seconds: float | None = None) -> bool:
        """Nothing is recorded from now on; True also when it was paused already.

        :param seconds: resume by itself after so many, also if this server was restarted meanwhile (a card number
            forgotten paused is a call lost); None: until told
        :raises Error: it is not recording; :raises AsteriskError: Asterisk did not stop: it goes on recording
        """
        check_seconds("seconds", seconds, LONGEST_PAUSE_SECONDS, none="to pause until told")
        async with job.lock:
            facts = {k: v for k, v in job.recording.facts.items() if k != RESUME_AT}
            if seconds is not None:
                facts[RESUME_AT] = round(self._clock() + seconds, 3)
            if job.phase is Phase.ACTIVE:
                await self._pause(job, facts)
                log.info("recording_paused", seconds=seconds, **job.recording.ids)
            elif job.phase is Phase.PAUSED:
                await self._journal.note(job, "pause_changed", facts=facts)
            else:
                raise Error("there is no recording to pause")
            self.arm(job)
        return True

    async def resume(self, job: Job) -> bool:
        """Record again; True also when it was not paused.

        :raises Error: it is not recording; :raises AsteriskError: Asterisk did not record: it is still paused
        :raises Hangup: the channel is gone
        """
        async with job.lock:
            if job.phase is Phase.PAUSED:
                await self._resume(job)
            elif job.phase is not Phase.ACTIVE:
                raise Error("there is no recording to resume")
            self.arm(job)
        return True

    async def mute(self, job: Job, direction: str, on: bool = True) -> bool:
        """Silence one side in the file, or both; the other side goes on.

        :param direction: ``received`` (from the channel), ``sent`` (to it) or ``both``
        :raises Error: it is not recording, or the engine or this Asterisk cannot
        """
        if direction not in DIRECTIONS:
            raise BadArgument(f"direction={direction!r} is not known: use received, sent or both")
        direction = DIRECTIONS[direction]
        async with job.lock:
            if job.phase not in (Phase.ACTIVE, Phase.PAUSED):
                raise Error("there is no recording to mute")
            if job.recording.spec.engine == "monitor":
                raise Error("engine='monitor' cannot mute one side: use mixmonitor")
            self._only_one(job)
            before = job.recording.facts
            muted = dict(before.get("muted", {}))
            spans = [list(s) for s in muted.get(direction, [])]
            is_on = bool(spans) and spans[-1][1] is None
            if is_on == on:
                return True
            if on:
                spans.append([self._position(job), None])
            else:
                spans[-1][1] = self._position(job)
            muted[direction] = spans
            await self._journal.note(job, "muted" if on else "unmuted", facts={**before, "muted": muted})
            piece = job.recording.pieces[-1]
            if not piece.ended_at:  # else the next piece begins with it
                try:
                    await self._mute(job, direction, on)
                except (AsteriskError, Error, Hangup):
                    await self._journal.note(job, "mute_failed", facts=before)
                    raise
        return True

    def arm(self, job: Job) -> None:
        """Set the clock of a pause that is to end by itself, as the ledger says. Idempotent."""
        if job.resume_timer is not None:
            job.resume_timer.cancel()
            job.resume_timer = None
        at = job.recording.facts.get(RESUME_AT)
        if job.phase is Phase.PAUSED and at is not None:
            self._wake(job, max(0.0, at - self._clock()))

    async def settle(self, job: Job) -> None:
        """After a restart: what was journalled of a pause or a resume is carried out. Idempotent."""
        async with job.lock:
            last = job.recording.pieces[-1]
            resuming = job.phase is Phase.PAUSED and last.after == "pause" and not last.seen
            found = await self._pieces.settle(job)
            if job.phase is Phase.PAUSED:
                if resuming and not found:  # Asterisk did not take it now: tried again until it does
                    await self._note_resume(job)
                last = job.recording.pieces[-1]
                if found:  # the server died while it resumed, and Asterisk records again
                    await self._resumed(job, job.recording.pieces)
                elif last.void:
                    log.debug("paused_on_another_leg", **job.recording.ids)
                elif last.ended_at:
                    await self._pieces.end(job, last)
                else:
                    await self._mute(job, "both", True)
            self.arm(job)

    async def _pause(self, job: Job, facts: dict[str, Any]) -> None:
        before = job.recording
        pauses = (*before.pauses, Span(self._position(job)))
        last = before.pieces[-1]
        if before.adopted:
            await self._journal.move(job, Event.PAUSED, pauses=pauses, facts=facts)
            await self._mute(job, "both", True)
            return
        pieces = (*before.pieces[:-1], self._pieces.ended(last))
        await self._journal.move(job, Event.PAUSED, pauses=pauses, facts=facts, pieces=pieces)
        try:
            await self._pieces.end(job, last)
        except (AsteriskError, Error, Hangup):
            await self._journal.move(job, Event.RESUMED, pauses=before.pauses, facts=before.facts, pieces=before.pieces)
            raise

    async def _resume(self, job: Job) -> None:
        pieces = job.recording.pieces
        last = pieces[-1]
        if last.ended_at:
            piece = await self._pieces.begin(job, last.channel, last.uniqueid, after="pause", turned=last.turned)
            pieces = (*pieces, piece)
        else:
            before = job.recording.facts
            await self._note_resume(job)  # no piece tells the next process of it
            try:
                await self._mute(job, "both", False)
            except (AsteriskError, Error, Hangup):
                await self._journal.note(job, "resume_failed", facts=before)
                raise
        await self._resumed(job, pieces)

    async def _note_resume(self, job: Job) -> None:
        """Journal that it is to be resumed now, also by the process that comes after this one."""
        await self._journal.note(job, "resume_asked", facts={**job.recording.facts, RESUME_AT: round(self._clock(), 3)})

    async def _resumed(self, job: Job, pieces: tuple[Piece, ...]) -> None:
        pauses = job.recording.pauses
        if pauses and pauses[-1].end is None:
            pauses = (*pauses[:-1], Span(pauses[-1].start, self._position(job)))
        facts = {k: v for k, v in job.recording.facts.items() if k != RESUME_AT}
        await self._journal.move(job, Event.RESUMED, pauses=pauses, facts=facts, pieces=pieces)
        log.info("recording_resumed", **job.recording.ids)

    def _wake(self, job: Job, seconds: float) -> None:
        job.resume_timer = asyncio.get_running_loop().call_later(
            seconds, lambda: self._spawn(self._resume_by_itself(job), f"resume {job.id}")
        )

    async def _resume_by_itself(self, job: Job) -> None:
        job.resume_timer = None
        at = job.recording.facts.get(RESUME_AT)
        if job.phase is not Phase.PAUSED or at is None:
            return
        if at > self._clock():  # told otherwise meanwhile
            self.arm(job)
            return
        try:
            await self.resume(job)
        except FastAGIError as exc:
            log.error("not_resumed", **job.recording.ids, error=str(exc))
            if job.phase is Phase.PAUSED and job.resume_timer is None:
                self._wake(job, RESUME_AGAIN_SECONDS)

    def _only_one(self, job: Job) -> None:
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

    async def _mute(self, job: Job, direction: str, on: bool) -> None:
        piece = job.recording.pieces[-1]
        pbx = self._pbxs[job.recording.asterisk]
        live = pbx.book.get(piece.uniqueid)
        control = pbx.control(live.name if live else piece.channel, job.agi)
        await control.mute(piece, job.recording.spec, asterisk_direction(direction, piece), on)

    def _position(self, job: Job) -> float:
        started = job.recording.started_at
        return round(max(0.0, self._clock() - started), 3) if started else 0.0
