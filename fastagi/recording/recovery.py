"""After a restart of this server, or of the connection to Asterisk: what is open in the ledger, against what is up.

Nothing is assumed: a call that is up goes on being recorded, tracked and limited; one that is gone has ended, however
long
ago; an intent whose command never went out is carried out if the call is still there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from fastagi.domain.recording import Recording
from fastagi.domain.states import Event, Phase
from fastagi.errors import AsteriskError, Hangup
from fastagi.recording import files
from fastagi.recording.channels import LiveChannel
from fastagi.recording.ending import Ender
from fastagi.recording.job import Job, Jobs
from fastagi.recording.journal import Journal
from fastagi.recording.pbx import Pbx
from fastagi.recording.starting import Starter
from fastagi.recording.threads import FileThreads

log = structlog.get_logger(__name__)


class Recovery:
    """Brings open recordings back to life."""

    def __init__(
        self,
        journal: Journal,
        jobs: Jobs,
        starter: Starter,
        ender: Ender,
        threads: FileThreads,
        pbxs: Mapping[str, Pbx],
        clock: Callable[[], float] = time.time,
        track: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self._journal = journal
        self._jobs = jobs
        self._starter = starter
        self._ender = ender
        self._threads = threads
        self._pbxs = pbxs
        self._clock = clock
        self._track = track

    def load(self, recordings: list[Recording]) -> None:
        """At start: open rows become jobs. Those that Asterisk has no more part in are finished right away; the others
        wait for `compare`, which the (re)connect of their Asterisk calls."""
        for recording in recordings:
            job = Job(recording)
            self._jobs.add(job)
            if recording.phase in (Phase.CLOSING, Phase.FINISHING):
                self._ender.resume(job)
        if recordings:
            log.info("recordings_reopened", count=len(recordings))

    async def compare(self, pbx: Pbx) -> None:
        """Asterisk's channel list has come: hold every live recording on it against it. Idempotent."""
        for job in self._jobs.on_asterisk(pbx.name):
            if job.phase not in (Phase.REQUESTED, Phase.ACTIVE, Phase.PAUSED, Phase.STOPPING) or job.lock.locked():
                continue
            channel = self._channel_of(pbx, job)
            if channel is None:
                await self._gone(job)
            elif job.phase is Phase.STOPPING:
                self._ender.resume(job)
            elif job.phase is Phase.REQUESTED:
                await self._carry_out(job, pbx)
            else:
                await self._still_there(job, channel)

    def _channel_of(self, pbx: Pbx, job: Job) -> LiveChannel | None:
        """The recording's channel, if it is the same one: a restarted Asterisk uses uniqueids again."""
        channel = pbx.book.get(job.recording.pieces[-1].uniqueid)
        if channel is None:
            return None
        if channel.since > (job.recording.started_at or job.recording.requested_at) + CLOCK_SLACK_SECONDS:
            log.warning("uniqueid_used_again", recording_id=job.id, uniqueid=channel.uniqueid)
            return None
        return channel

    async def _gone(self, job: Job) -> None:
        if job.phase is Phase.REQUESTED:
            size = await self._threads.run(files.size, job.recording.pieces[-1].paths[0])
            if size < 0:
                async with job.lock:
                    if job.phase is Phase.REQUESTED:
                        await self._starter.fail(job, "the call ended before Asterisk was told to record it")
                return
        await self._ender.hung_up(job)

    async def _carry_out(self, job: Job, pbx: Pbx) -> None:
        """The intent was journalled, the server died; the call is still up."""
        async with job.lock:
            if job.phase is not Phase.REQUESTED:
                return
            piece = job.recording.pieces[-1]
            if await self._threads.run(files.size, piece.paths[0]) >= 0:
                try:
                    monitor_id = await pbx.control(piece.channel).find_id(piece)
                except AsteriskError:
                    monitor_id = ""
                at = job.recording.requested_at
                found = replace(piece, started_at=at, monitor_id=monitor_id)
                await self._journal.move(job, Event.STARTED, started_at=at, pieces=(*job.recording.pieces[:-1], found))
                log.info("recording_found_running", recording_id=job.id)
            else:
                try:
                    await self._starter.command(job, pbx)
                except Hangup:
                    return
        if job.recording.phase in (Phase.ACTIVE,):
            self._track(job)

    async def _still_there(self, job: Job, channel: LiveChannel) -> None:
        if channel.name != job.recording.channel:
            async with job.lock:
                await self._journal.note(job, "renamed", channel=channel.name)
        self._track(job)


CLOCK_SLACK_SECONDS = 3.0
"""CoreShowChannels gives whole seconds of duration, and the two clocks are one machine's or NTP's."""
