"""Limits by who talks, asked of Asterisk (TALK_DETECT): of a recording whose files cannot be read here, and of one that
stands still while Asterisk holds something back that cannot be had (`Flusher.barred`).

Second best: TALK_DETECT hears what comes *from* a channel, so it is set on the recorded channel and on everybody in its
bridge. It counts frames: of a phone that stops sending in the middle of a word it never
says that it fell silent, so a talker of whom nothing was heard for a second is listened to anew (who still talks is
heard again within milliseconds). What Asterisk itself plays is known from the session that plays it, from the music on
hold, and else asked for (`playing`). Size is told by the clock.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from fastagi.ami import actions
from fastagi.domain.states import Cause
from fastagi.errors import ActionRefused, AsteriskError, BadArgument
from fastagi.recording.asterisk.channel_table import LiveChannel
from fastagi.recording.asterisk.limits import LimitWatch, Talk
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.segments import muted
from fastagi.recording.monitoring.playing import Playing

log = structlog.get_logger(__name__)

QUIET_MS = 500
"""Silence after which Asterisk says that somebody stopped talking."""

DOUBT_SECONDS = 1.0
"""After so long without a word from Asterisk nobody is taken for talking still."""

MEAN_OF_RMS = 0.8
"""TALK_DETECT takes the mean magnitude, `silence_dbfs` is an RMS: of noise one is so much of the other."""

KNOWN_SECONDS = 1.5
"""A recording that is not older has been listened to from its start."""

EVENTS = ("ChannelTalkingStart", "ChannelTalkingStop", "BridgeEnter", "Hangup")


class TalkDetectState:
    """The limits of one recording by talk and clock.

    :param limits: the watch that lost its file
    :param now: unix seconds
    :ivar beside: it has its file, and is asked only whether what is held back is silence: what may be sound counts as
        sound
    :ivar told: somebody was told that Asterisk must listen
    :ivar playing: what the dialplan plays to the channel
    :ivar asking: somebody is finding out about that, and about those who talk
    :ivar ended: nobody wants to know any more
    """

    def __init__(self, job: ActiveRecording, limits: LimitWatch, now: float) -> None:
        spec = job.recording.spec
        self._initial_ms, self._max_ms = spec.silence_limits
        self._most_seconds = limits.most_seconds
        self._started = job.recording.started_at or now
        self.beside = self.told = False
        self._limits = limits
        self._heard = limits.heard or self._outlived(job, now)
        self._kept_from = None if self._initial_ms and not self._heard else limits.kept_from
        # what was said since the file was read last, or before a restart, nobody knows
        from_the_start = now - self._started <= KNOWN_SECONDS
        self._quiet_since = self._started if from_the_start else now
        self._heard_until = 0.0
        self._talking: dict[str, float] = {}
        self._played = False
        self._mute = _mute(job)
        self.playing = Playing()
        self.asking = self.ended = False
        self.listening: set[str] = set()
        """Uniqueids of the channels that Asterisk listens to."""

    def _outlived(self, job: ActiveRecording, now: float) -> bool:
        """Return whether the recording has lasted longer than it may without a first sound."""
        paused = sum((s.end or now) - s.start for s in job.recording.pauses)
        return bool(self._initial_ms) and now - self._started - paused > self._initial_ms / 1000 + KNOWN_SECONDS

    def told_of(self, cause: Cause) -> Talk:
        """:param cause: as `look` found"""
        return Talk(cause is Cause.SILENCE, self._quiet_since, self._heard_until)

    def talks(self, uniqueid: str, at: float) -> None:
        """:param at: unix seconds"""
        self._talking[uniqueid] = at
        if self._counts(uniqueid):
            self._sounds(at)

    def _counts(self, uniqueid: str) -> bool:
        """Return whether the sound of that channel is recorded, not muted."""
        here, received, sent = self._mute
        return not (received if uniqueid == here else sent)

    def _sounds(self, at: float) -> None:
        self._heard = True
        self._heard_until = max(self._heard_until, at)
        self._quiet_since = max(self._quiet_since, at)
        if self._kept_from is None:
            self._kept_from = at

    def lost(self, now: float) -> None:
        """The connection to Asterisk is down: nobody knows who talks, and what was said meanwhile never will be."""
        self._talking.clear()
        self.listening.clear()
        self._quiet_since = now

    def doubtful(self, now: float) -> list[str]:
        """Return the talking channels of which no event came for too long to be sure."""
        return [uniqueid for uniqueid, at in self._talking.items() if now - at >= DOUBT_SECONDS]

    def is_quiet(self, uniqueid: str, at: float) -> None:
        """:param at: unix seconds at which it fell silent"""
        if self._talking.pop(uniqueid, None) is not None and self._counts(uniqueid):
            self._sounds(at)

    def look(self, job: ActiveRecording, now: float, playing: bool, played_until: float = 0.0) -> Cause:
        """The limit that is reached, or NONE.

        :param playing: something is being played to the caller
        :param played_until: unix seconds at which that ended last, where it is known
        """
        self._mute = _mute(job)
        to_it = not self._mute[2]
        talking = any(map(self._counts, self._talking))
        plays = to_it and (playing or self.playing.plays)
        if self._limits.heard:  # by whom could read the file meanwhile
            self._heard = True
            self._kept_from = self._kept_from or self._limits.kept_from
        if to_it and played_until > self._started:
            self._sounds(played_until)
        if plays or self._played or talking:  # what is only asked now and then has ended since
            self._sounds(now)
        self._played = plays
        paused = sum((s.end or now) - s.start for s in job.recording.pauses)
        cut = paused if job.recording.spec.pause_mode == "cut" else 0.0
        kept = 0.0 if self._kept_from is None else now - self._kept_from - cut
        if not self.beside and self._most_seconds is not None and kept >= self._most_seconds:
            return Cause.SIZE
        unknown = self.beside and to_it and self.playing.unknown
        if talking or plays or unknown or job.recording.paused:
            self._quiet_since = now
            return Cause.NONE
        limit = self._max_ms if self._heard or not self._initial_ms else self._initial_ms
        return Cause.SILENCE if limit and now - self._quiet_since >= limit / 1000 else Cause.NONE


def _mute(job: ActiveRecording) -> tuple[str, bool, bool]:
    """On which channel it is recorded now, and whether what comes from it is muted, and what goes to it."""
    here = job.recording.pieces[-1]
    directions = muted(job.recording, here)
    return here.uniqueid, "read" in directions or "both" in directions, "write" in directions or "both" in directions


class TalkDetectMonitor:
    """Asks Asterisk to listen (TALK_DETECT) where the raw files do not tell."""

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
        self._threshold = max(1, round(MEAN_OF_RMS * 32768 * 10 ** (silence_dbfs / 20)))
        self._watches: dict[str, tuple[ActiveRecording, TalkDetectState]] = {}

    def beside(self, job: ActiveRecording, limits: LimitWatch) -> Talk:
        """Return the talk beside a file that can be read, but for what Asterisk holds back of it. Begins to listen."""
        cause = self.look(job, limits, beside=True)
        return self._watches[job.id][1].told_of(cause)

    def look(self, job: ActiveRecording, limits: LimitWatch, beside: bool = False) -> Cause:
        """The limit that is reached by talk and clock; the first look begins to listen."""
        known = self._watches.get(job.id)
        if known is None:
            known = self._watches[job.id] = (job, TalkDetectState(job, limits, self._clock()))
        watch, pbx = known[1], self._pbxs[job.recording.asterisk]
        watch.beside = beside
        if not beside and not watch.told:
            watch.told = True
            log.warning("listening_by_asterisk", **job.recording.ids)
        if not pbx.up:
            watch.lost(self._clock())
        elif not watch.asking:
            watch.asking = True
            self._spawn(self._ask(job, watch), f"who talks {job.id}")
        live = pbx.channels.get(job.recording.pieces[-1].uniqueid)
        playing = bool(getattr(job.agi, "playing", False)) or (live is not None and live.on_hold_music)
        now, played = self._clock(), getattr(job.agi, "played_until", 0.0)
        return watch.look(job, now, playing, now - (time.monotonic() - played) if played else 0.0)

    def enough(self, job: ActiveRecording) -> None:
        """Stop listening: the file can be read again, or the recording has ended. Idempotent."""
        known = self._watches.pop(job.id, None)
        if known is not None:
            known[1].ended = True
            self._spawn(self._stop(job, known[1]), f"listen no more {job.id}")

    def sweep(self) -> None:
        """Forget what has ended."""
        for job, _ in list(self._watches.values()):
            if not job.recording.running:
                self.enough(job)

    def event(self, pbx: Pbx, name: str, headers: Mapping[str, str], channel: LiveChannel | None) -> None:
        """A channel talks, falls silent, enters a bridge, hangs up."""
        uniqueid = headers.get("Uniqueid", "")
        for job, watch in self._watches.values():
            if job.recording.asterisk != pbx.name:
                continue
            if name == "BridgeEnter":
                here = job.recording.pieces[-1].uniqueid
                if uniqueid == here or any(peer.uniqueid == uniqueid for peer in pbx.channels.peers(here)):
                    self._spawn(self._listen(job, watch), f"listen {job.id}")
            elif uniqueid not in watch.listening:
                continue
            elif name == "ChannelTalkingStart":
                watch.talks(uniqueid, self._clock())
            else:
                watch.is_quiet(uniqueid, self._clock() - (QUIET_MS / 1000 if name == "ChannelTalkingStop" else 0.0))

    async def _listen(self, job: ActiveRecording, watch: TalkDetectState) -> None:
        pbx = self._pbxs[job.recording.asterisk]
        here = job.recording.pieces[-1].uniqueid
        for uniqueid in (here, *(peer.uniqueid for peer in pbx.channels.peers(here))):
            if uniqueid in watch.listening:
                continue
            watch.listening.add(uniqueid)
            try:
                await self._hear_anew(pbx, uniqueid)
            except (AsteriskError, BadArgument) as exc:
                watch.listening.discard(uniqueid)
                log.error("not_listening", **job.recording.ids, listens_to=uniqueid, error=str(exc))
            if watch.ended:  # meanwhile: what that took back may have come before this
                await self._leave(job, watch, uniqueid)
                return
        for gone in watch.listening - {here, *(peer.uniqueid for peer in pbx.channels.peers(here))}:
            watch.is_quiet(gone, self._clock())
            await self._leave(job, watch, gone)

    async def _ask(self, job: ActiveRecording, watch: TalkDetectState) -> None:
        """Ask Asterisk who still talks, and whether something is played."""
        try:
            pbx = self._pbxs[job.recording.asterisk]
            await self._listen(job, watch)
            for uniqueid in watch.doubtful(self._clock()):
                if watch.ended:
                    return
                watch.is_quiet(uniqueid, self._clock())  # first: who talks on is heard before the answer comes
                await self._hear_anew(pbx, uniqueid)
                if watch.ended:
                    await self._leave(job, watch, uniqueid)
            live = pbx.channels.get(job.recording.pieces[-1].uniqueid)
            if live is None or live.bridge or pbx.manager is None:
                watch.playing.nothing()
            else:
                await watch.playing.ask(pbx.manager, live.name, job.agi is not None and not job.agi.closed)
        except (AsteriskError, BadArgument) as exc:
            log.debug("not_answered_who_talks", **job.recording.ids, error=str(exc))
        finally:
            watch.asking = False

    async def _hear_anew(self, pbx: Pbx, uniqueid: str) -> None:
        """Restart TALK_DETECT: Asterisk repeats the talking event after it."""
        with contextlib.suppress(ActionRefused):  # it was not listened to
            await self._set(pbx, uniqueid, "TALK_DETECT(remove)", "")
        await self._set(pbx, uniqueid, "TALK_DETECT(set)", f"{QUIET_MS},{self._threshold}")

    async def _stop(self, job: ActiveRecording, watch: TalkDetectState) -> None:
        for uniqueid in tuple(watch.listening):
            await self._leave(job, watch, uniqueid)

    async def _leave(self, job: ActiveRecording, watch: TalkDetectState, uniqueid: str) -> None:
        """Listen no more to that channel, unless it is for another recording, too."""
        watch.listening.discard(uniqueid)
        pbx = self._pbxs[job.recording.asterisk]
        others = (w for j, w in self._watches.values() if j.recording.asterisk == pbx.name)
        if any(uniqueid in other.listening for other in others):
            return
        try:
            await self._set(pbx, uniqueid, "TALK_DETECT(remove)", "")
        except (AsteriskError, BadArgument) as exc:
            log.debug("still_listening", **job.recording.ids, listens_to=uniqueid, error=str(exc))

    async def _set(self, pbx: Pbx, uniqueid: str, function: str, value: str) -> None:
        live = pbx.channels.get(uniqueid)
        if live is not None and pbx.manager is not None:
            await actions.setvar(pbx.manager, function, value, live.name)
