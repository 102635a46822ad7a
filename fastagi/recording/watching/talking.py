"""Limits of a recording whose files cannot be read here: who talks is asked of Asterisk instead (TALK_DETECT).

Second best, for a spool that went away: TALK_DETECT hears what comes *from* a channel, so it is set on the recorded
channel and on everybody in its bridge; a prompt is known of only while the AGI session plays it. Size is told by the
clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from fastagi.ami import actions
from fastagi.domain.states import Cause, Phase
from fastagi.errors import AsteriskError, BadArgument
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.ledger.job import Job
from fastagi.recording.spool.limits import LimitWatch

log = structlog.get_logger(__name__)

QUIET_MS = 500
"""Silence after which Asterisk says that somebody stopped talking."""

EVENTS = ("ChannelTalkingStart", "ChannelTalkingStop", "BridgeEnter", "Hangup")


class TalkWatch:
    """The limits of one recording by talk and clock.

    :param limits: the watch that lost its file
    :param now: unix seconds
    """

    def __init__(self, job: Job, limits: LimitWatch, now: float) -> None:
        spec = job.recording.spec
        self._initial_ms, self._max_ms = spec.silence_limits
        self._most_seconds = limits.most_seconds
        self._started = job.recording.started_at or now
        self._heard = limits.heard
        self._quiet_since = now if limits.heard else self._started
        self._talking: set[str] = set()
        self.listening: set[str] = set()
        """Uniqueids of the channels that Asterisk listens to."""

    def talks(self, uniqueid: str) -> None:
        self._talking.add(uniqueid)
        self._heard = True

    def is_quiet(self, uniqueid: str, at: float) -> None:
        """:param at: unix seconds at which it fell silent"""
        if uniqueid in self._talking:
            self._talking.discard(uniqueid)
            self._quiet_since = max(self._quiet_since, at)

    def look(self, job: Job, now: float, playing: bool) -> Cause:
        """The limit that is reached, or NONE.

        :param playing: something is being played to the caller
        """
        paused = sum((s.end or now) - s.start for s in job.recording.pauses)
        cut = paused if job.recording.spec.pause_mode == "cut" else 0.0
        if self._most_seconds is not None and now - self._started - cut >= self._most_seconds:
            return Cause.SIZE
        if self._talking or playing or job.phase is Phase.PAUSED:
            self._quiet_since = now
            return Cause.NONE
        limit = self._max_ms if self._heard or not self._initial_ms else self._initial_ms
        return Cause.SILENCE if limit and now - self._quiet_since >= limit / 1000 else Cause.NONE


class Listening:
    """Has Asterisk listen for recordings that cannot be heard here."""

    def __init__(
        self,
        pbxs: Mapping[str, Pbx],
        spawn: Callable[[Coroutine[Any, Any, Any], str], object],
        silence_dbfs: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pbxs = pbxs
        self._spawn = spawn
        self._clock = clock
        self._threshold = max(1, round(32768 * 10 ** (silence_dbfs / 20)))
        self._watches: dict[str, tuple[Job, TalkWatch]] = {}

    def look(self, job: Job, limits: LimitWatch) -> Cause:
        """The limit that is reached by talk and clock; the first look begins to listen."""
        known = self._watches.get(job.id)
        if known is None:
            log.warning("listening_by_asterisk", recording_id=job.id, channel=job.recording.channel)
            known = self._watches[job.id] = (job, TalkWatch(job, limits, self._clock()))
            self._spawn(self._listen(job, known[1]), f"listen {job.id}")
        playing = bool(getattr(job.agi, "playing", False))
        return known[1].look(job, self._clock(), playing)

    def enough(self, job: Job) -> None:
        """Its file can be read again, or it has ended. Idempotent."""
        known = self._watches.pop(job.id, None)
        if known is not None:
            self._spawn(self._stop(job, known[1]), f"listen no more {job.id}")

    def sweep(self) -> None:
        """Forget what has ended."""
        for job, _ in list(self._watches.values()):
            if job.phase not in (Phase.ACTIVE, Phase.PAUSED):
                self.enough(job)

    def event(self, pbx: Pbx, name: str, uniqueid: str) -> None:
        """A channel talks, falls silent, enters a bridge, hangs up."""
        for job, watch in self._watches.values():
            if job.recording.asterisk != pbx.name:
                continue
            if name == "BridgeEnter":
                here = job.recording.pieces[-1].uniqueid
                if uniqueid == here or any(peer.uniqueid == uniqueid for peer in pbx.book.peers(here)):
                    self._spawn(self._listen(job, watch), f"listen {job.id}")
            elif uniqueid not in watch.listening:
                continue
            elif name == "ChannelTalkingStart":
                watch.talks(uniqueid)
            else:
                watch.is_quiet(uniqueid, self._clock() - (QUIET_MS / 1000 if name == "ChannelTalkingStop" else 0.0))

    async def _listen(self, job: Job, watch: TalkWatch) -> None:
        pbx = self._pbxs[job.recording.asterisk]
        here = job.recording.pieces[-1].uniqueid
        for uniqueid in (here, *(peer.uniqueid for peer in pbx.book.peers(here))):
            if uniqueid in watch.listening:
                continue
            watch.listening.add(uniqueid)
            try:
                await self._set(pbx, uniqueid, "TALK_DETECT(set)", f"{QUIET_MS},{self._threshold}")
            except (AsteriskError, BadArgument) as exc:
                watch.listening.discard(uniqueid)
                log.error("not_listening", recording_id=job.id, uniqueid=uniqueid, error=str(exc))

    async def _stop(self, job: Job, watch: TalkWatch) -> None:
        pbx = self._pbxs[job.recording.asterisk]
        for uniqueid in watch.listening:
            try:
                await self._set(pbx, uniqueid, "TALK_DETECT(remove)", "")
            except (AsteriskError, BadArgument) as exc:
                log.debug("still_listening", recording_id=job.id, uniqueid=uniqueid, error=str(exc))

    async def _set(self, pbx: Pbx, uniqueid: str, function: str, value: str) -> None:
        live = pbx.book.get(uniqueid)
        if live is not None and pbx.manager is not None:
            await actions.setvar(pbx.manager, function, value, live.name)
