"""Hangups: which of Asterisk's events about ended calls and stopped files end a recording.

A HANGUP over AGI is no proof (`docs/decisions/0011`); what is proof is looked for here, and a recording whose call goes
on on another leg is not ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from fastagi.domain.lifecycle.events import CallOver
from fastagi.domain.recording import Segment
from fastagi.recording.asterisk import raw_files
from fastagi.recording.asterisk.call_state import CallState, call_state
from fastagi.recording.asterisk.channel_table import LiveChannel
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.following import TransferFollower
from fastagi.recording.lifecycle.stopping import Stopper

EVENTS = ("Hangup", "HangupRequest", "SoftHangupRequest", "MixMonitorStop", "MonitorStop")

HANGUP_FOLLOWS_SECONDS = 0.25
"""The Hangup event comes some milliseconds after a hangup was asked for, unless an AGI session or a hangup handler
keeps the channel. Nobody is heard any more: a quarter of a second costs no audio, and spares most calls a command."""

STOP_LOOKS = 10
"""A second: Asterisk publishes MixMonitorStop before the last bytes are written."""


class HangupHandler:
    """Ends recordings whose call is over.

    :param spawn: starts a task that the recorder owns
    """

    def __init__(self, context: RecordingContext, stopper: Stopper, follower: TransferFollower) -> None:
        self._jobs = context.jobs
        self._stopper = stopper
        self._follower = follower
        self._threads = context.threads
        self._pbxs = context.pbxs
        self._spawn = context.tasks.spawn
        self._clock = context.clock

    def event(self, pbx: Pbx, name: str, headers: Mapping[str, str], channel: LiveChannel | None) -> None:
        """A channel hangs up, is asked to, or a recording on it was stopped.

        :param channel: the channel it is about; with a Hangup, as it was
        """
        if name == "Hangup":
            uniqueid = headers.get("Uniqueid", "")
            for job in self._jobs.on_channel(pbx.name, uniqueid):
                self._spawn(self._left(job, pbx, uniqueid, channel), f"hangup {job.id}")
        elif name in ("HangupRequest", "SoftHangupRequest"):
            if channel is not None and call_state(channel, True) is CallState.HANGUP_REQUESTED:
                self.perhaps_over(pbx.name, channel.uniqueid)
        elif name in ("MixMonitorStop", "MonitorStop"):
            for job in self._jobs.on_channel(pbx.name, headers.get("Uniqueid", "")):
                if not job.recording.running or job.recording.adopted:
                    continue  # of an adopted one `mixmonitor list` tells
                piece = job.recording.pieces[-1]
                if not piece.ended_at:
                    self._spawn(self._perhaps_stopped(job, piece), f"stopped? {job.id}")

    def perhaps_over(self, asterisk: str, uniqueid: str, ask: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Something says that a call with recordings is over while its channel may wait on, for an AGI session or a
        hangup handler: its recordings are ended now if it is so. Mostly the Hangup event follows at once and ends them.

        :param ask: is the call over? None where that is known
        """
        if self._jobs.on_channel(asterisk, uniqueid):
            self._spawn(self._perhaps_over(asterisk, uniqueid, self._clock(), ask), f"over? {uniqueid}")

    async def _perhaps_over(
        self, asterisk: str, uniqueid: str, at: float, ask: Callable[[], Awaitable[bool]] | None
    ) -> None:
        await asyncio.sleep(HANGUP_FOLLOWS_SECONDS)
        jobs = [
            job
            for job in self._jobs.on_channel(asterisk, uniqueid)
            if job.recording.live and not job.recording.stopping
        ]
        if jobs and (ask is None or await ask()):
            pbx = self._pbxs[asterisk]
            for job in jobs:
                if not await self.goes_on(job, pbx, uniqueid, pbx.channels.get(uniqueid)):
                    await self._stopper.on_hangup_pending(job, uniqueid=uniqueid, at=at)

    async def _left(self, job: ActiveRecording, pbx: Pbx, uniqueid: str, gone: LiveChannel | None) -> None:
        """The recorded leg has hung up: the recording ends, unless the call goes on elsewhere."""
        at = self._clock()
        if not await self.goes_on(job, pbx, uniqueid, gone):
            await self._stopper.on_hangup(job, CallOver(at=at, uniqueid=uniqueid))

    async def goes_on(self, job: ActiveRecording, pbx: Pbx, uniqueid: str, leg: LiveChannel | None) -> bool:
        """The leg with that uniqueid is over. Is the recording made on another one by now, or can it be?"""
        if job.recording.spec.follow and job.recording.running:
            move = await self._follower.seen_at_hangup(pbx, leg)
            if move is not None:
                await self._follower.follow(job, move, "peers")
        return job.recording.pieces[-1].uniqueid != uniqueid

    async def _perhaps_stopped(self, job: ActiveRecording, piece: Segment) -> None:
        """Some MixMonitor on its channel was stopped; the event does not say which. A closed header does.

        :param piece: the segment that was made when the event came
        """
        at = self._clock()
        if job.recording.spec.engine == "monitor":  # its MonitorStop comes before the Hangup, too
            await asyncio.sleep(HANGUP_FOLLOWS_SECONDS)
        for _ in range(STOP_LOOKS):
            if job.recording.pieces[-1] is not piece:
                return  # we ended it ourselves: a pause, or the call moved
            if await self._threads.run(raw_files.closed, piece.paths):
                await self._stopper.on_external_stop(job, ended_at=at)
                return
            await asyncio.sleep(0.1)
