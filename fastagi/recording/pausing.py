"""Pause, resume and mute: MixMonitorMute, with the spans kept in the recording's row.

The file keeps its time line (Asterisk writes silence); `pause_mode="cut"` takes the spans out when the file is
finished.
Monitor has pause commands of its own, which leave the time out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastagi.domain.recording import Span
from fastagi.domain.states import Event, Phase
from fastagi.errors import BadArgument, Error
from fastagi.recording.job import Job
from fastagi.recording.journal import Journal
from fastagi.recording.pbx import Pbx

DIRECTIONS = {"both": "both", "received": "read", "sent": "write", "read": "read", "write": "write"}
"""Our words for the legs (as in `separate`: received from the channel, sent to it), and Asterisk's own."""


class Pauser:
    """Pauses, resumes and mutes recordings."""

    def __init__(
        self,
        journal: Journal,
        pbxs: Mapping[str, Pbx],
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._pbxs = pbxs
        self._spawn = spawn
        self._clock = clock

    async def pause(self, job: Job, seconds: float | None = None) -> bool:
        """Silence in the file from now on; True also when it was paused already.

        :param seconds: resume by itself after so many (a card number forgotten paused is a call lost); None: until told
        :raises Error: it is not recording
        """
        if seconds is not None and not (isinstance(seconds, (int, float)) and 0 < seconds <= 86_400):
            raise BadArgument(f"seconds={seconds!r} must be more than 0 and at most 86400")
        async with job.lock:
            if job.phase is Phase.ACTIVE:
                span = Span(self._position(job))
                await self._journal.move(job, Event.PAUSED, pauses=(*job.recording.pauses, span))
                await self._command(job, "both", True)
            elif job.phase is not Phase.PAUSED:
                raise Error("there is no recording to pause")
            if job.resume_timer is not None:
                job.resume_timer.cancel()
                job.resume_timer = None
            if seconds is not None:
                job.resume_timer = asyncio.get_running_loop().call_later(
                    seconds, lambda: self._spawn(self._resume_by_itself(job), f"resume {job.id}")
                )
        return True

    async def resume(self, job: Job) -> bool:
        """Record again; True also when it was not paused.

        :raises Error: it is not recording
        """
        async with job.lock:
            if job.phase is Phase.PAUSED:
                await self._command(job, "both", False)
                open_span = job.recording.pauses[-1]
                closed = Span(open_span.start, self._position(job))
                await self._journal.move(job, Event.RESUMED, pauses=(*job.recording.pauses[:-1], closed))
            elif job.phase is not Phase.ACTIVE:
                raise Error("there is no recording to resume")
            if job.resume_timer is not None:
                job.resume_timer.cancel()
                job.resume_timer = None
        return True

    async def mute(self, job: Job, direction: str, on: bool = True) -> bool:
        """Silence one side in the file, or both; the other side goes on.

        :param direction: ``received`` (from the channel), ``sent`` (to it) or ``both``
        :raises Error: it is not recording, or the engine cannot
        """
        if direction not in DIRECTIONS:
            raise BadArgument(f"direction={direction!r} is not known: use received, sent or both")
        async with job.lock:
            if job.phase not in (Phase.ACTIVE, Phase.PAUSED):
                raise Error("there is no recording to mute")
            if job.recording.spec.engine == "monitor":
                raise Error("engine='monitor' cannot mute one side: use mixmonitor")
            muted = dict(job.recording.facts.get("muted", {}))
            muted.setdefault(direction, [])
            spans = [list(s) for s in muted[direction]]
            if on and not (spans and spans[-1][1] is None):
                spans.append([self._position(job), None])
            elif not on and spans and spans[-1][1] is None:
                spans[-1][1] = self._position(job)
            muted[direction] = spans
            await self._journal.note(job, "muted" if on else "unmuted", facts={**job.recording.facts, "muted": muted})
            await self._command(job, DIRECTIONS[direction], on)
        return True

    async def _resume_by_itself(self, job: Job) -> None:
        if job.phase is Phase.PAUSED:
            await self.resume(job)

    async def _command(self, job: Job, direction: str, on: bool) -> None:
        piece = job.recording.pieces[-1]
        pbx = self._pbxs[job.recording.asterisk]
        live = pbx.book.get(piece.uniqueid)
        await pbx.control(live.name if live else piece.channel, job.agi).mute(piece, job.recording.spec, direction, on)

    def _position(self, job: Job) -> float:
        started = job.recording.started_at
        return round(max(0.0, self._clock() - started), 3) if started else 0.0
