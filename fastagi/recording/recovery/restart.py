"""After a restart of this server, or of the connection to Asterisk: what is open in the ledger, against what is up.

Nothing is assumed: a call that is up goes on being recorded, tracked and limited; one that is gone has ended, however
long ago; an intent whose command never went out is carried out if the call is still there. An Asterisk that stays away
is taken for dead after a while, so that its recordings end. What another server left is `takeover`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from fastagi.domain.facts import UNREACHED
from fastagi.domain.lifecycle.events import ChannelRenamed
from fastagi.domain.recording import Recording
from fastagi.errors import FastAGIError, Hangup
from fastagi.recording.asterisk import raw_files
from fastagi.recording.asterisk.call_state import CallState
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.engine import Engine
from fastagi.recording.lifecycle.starting import Starter
from fastagi.recording.lifecycle.stopping import Stopper

log = structlog.get_logger(__name__)

AT_ONCE = 32
"""Recordings compared at once: their journal lines share a commit."""

LOOK_SECONDS = 1.0

DEAD_HERE_SECONDS = 20.0
"""For an Asterisk of this machine at whose port no process listens: no network can be what is broken, and a supervisor
that restarts it has done so by then."""

PAUSED_PATIENCE = 30
"""With the default of two minutes an hour: who pauses for a card number, or on hold, is back by then."""


class Recovery:
    """Brings open recordings back to life.

    :param dead_seconds: an Asterisk that is out of reach so long, and whose raw file does not grow so long, is dead;
        one that has died on this machine is after `DEAD_HERE_SECONDS` at the latest
    :ivar unreached: recordings that were ended because their Asterisk seemed dead, since the start; a metric
    """

    def __init__(
        self,
        context: RecordingContext,
        engine: Engine,
        starter: Starter,
        stopper: Stopper,
        track: Callable[[ActiveRecording], None],
    ) -> None:
        self._engine = engine
        self._jobs = context.jobs
        self._starter = starter
        self._stopper = stopper
        self._threads = context.threads
        self._pbxs = context.pbxs
        self._clock = context.clock
        self._track = track
        self._dead_seconds = context.settings.dead_seconds
        self._away: dict[str, float] = {}
        self._still: dict[str, tuple[tuple[int, ...], float]] = {}
        self.unreached = 0

    def load(self, recordings: list[Recording]) -> None:
        """Open rows become jobs. Those that Asterisk has no more part in are finished right away; the others wait for
        `compare`, which the (re)connect of their Asterisk calls, or for `watch_dead`."""
        for recording in recordings:
            job = ActiveRecording(recording)
            self._jobs.add(job)
            if recording.open and not recording.live:
                self._stopper.resume(job)
        if recordings:
            log.info("recordings_reopened", count=len(recordings))

    async def compare(self, pbx: Pbx) -> None:
        """Asterisk's channel list has come: hold every live recording on it against it. Idempotent."""
        lanes = asyncio.Semaphore(AT_ONCE)

        async def one(job: ActiveRecording) -> None:
            async with lanes:
                try:
                    await self._compare(job, pbx)
                except FastAGIError as exc:
                    log.error("recording_not_compared", **job.recording.ids, error=str(exc))

        async with asyncio.TaskGroup() as group:
            for job in self._jobs.on_asterisk(pbx.name):
                if job.recording.live:
                    group.create_task(one(job))

    async def _compare(self, job: ActiveRecording, pbx: Pbx) -> None:
        if job.recording.requested and job.lock.locked():
            return  # it is being started just now, and sees for itself what becomes of that
        piece = job.recording.pieces[-1]
        state = pbx.call_state(piece.uniqueid, piece.started_at or job.recording.requested_at)
        if state is CallState.UNKNOWN:
            return  # the connection is away again: the next one brings a new list
        channel = pbx.channels.get(piece.uniqueid)
        if channel is not None and not state.there:
            log.warning("uniqueid_used_again", **job.recording.ids)
        if channel is None or not state.there:
            await self._gone(job)
        elif job.recording.stopping:
            self._stopper.resume(job)
        elif job.recording.requested:
            await self._carry_out(job, pbx)
        else:
            await self._still_there(job, channel.name)

    # -- its call is over

    async def _gone(self, job: ActiveRecording, **facts: object) -> None:
        if job.recording.requested:
            first = job.recording.pieces[-1].paths[0]
            if await self._threads.run(raw_files.size, first) < 0:
                await self._never_began(job, "the call ended before Asterisk was told to record it")
                return
        await self._stopper.on_missed_end(job, facts)

    async def _never_began(self, job: ActiveRecording, why: str) -> None:
        async with job.lock:
            if job.recording.requested:
                await self._starter.fail(job, why)

    # -- its call is up

    async def _carry_out(self, job: ActiveRecording, pbx: Pbx) -> None:
        """The intent was journalled, the server died; the call is still up."""
        async with job.lock:
            if not job.recording.requested:
                return
            try:
                await self._starter.command(job, pbx, perhaps_running=True)
            except Hangup:
                return
        if job.open:
            self._track(job)

    async def _still_there(self, job: ActiveRecording, channel: str) -> None:
        async with job.lock:
            if not job.recording.running:
                return
            if channel != job.recording.pieces[-1].channel:
                await self._engine.apply(job, ChannelRenamed(channel))
        self._track(job)

    # -- its Asterisk is away

    async def watch_dead(self) -> None:
        """For ever: end the recordings of an Asterisk that stays away. Owned by the recorder."""
        while True:
            await asyncio.sleep(min(LOOK_SECONDS, self._dead_seconds / 4))
            await self.look_for_dead()

    async def look_for_dead(self) -> None:
        """One look: recordings whose files are closed have ended, those whose files stand still are given up."""
        now = time.monotonic()
        for name in {job.recording.asterisk for job in self._jobs} | set(self._pbxs):
            pbx = self._pbxs.get(name)
            if pbx is not None and pbx.up:
                self._away.pop(name, None)
            else:
                self._away.setdefault(name, now)
        waiting = [j for j in self._jobs if j.recording.live and j.recording.asterisk in self._away]
        if not waiting:
            self._still.clear()
            return
        looks = await self._threads.run(_look, [(j.id, j.recording.pieces[-1].paths) for j in waiting])
        self._still = {key: still for key, still in self._still.items() if key in looks}
        for job in waiting:
            sizes, closed = looks[job.id]
            before = self._still.get(job.id)
            if before is None or before[0] != sizes:
                self._still[job.id] = (sizes, now)
            if job.lock.locked() or (job.agi is not None and not job.agi.closed):
                continue  # being started or told just now; or its AGI session says that the call is up
            if closed and (job.recording.requested or job.recording.active):
                # of a paused one the files may be closed, and for one that is stopping `Stopper` looks itself
                await self._safely(job)
            elif min(now - self._away[job.recording.asterisk], now - self._still[job.id][1]) >= self.patience(job):
                self.unreached += 1
                log.error(
                    "asterisk_given_up",
                    **job.recording.ids,
                    seconds=self.patience(job),
                )
                await self._safely(job, **{UNREACHED: True})

    def patience(self, job: ActiveRecording) -> float:
        """Seconds after which it is given up. Nothing grows in a pause, so only time can tell there."""
        seconds = self._dead_seconds
        pbx = self._pbxs.get(job.recording.asterisk)
        if pbx is not None and pbx.gone_from_here:
            seconds = min(seconds, DEAD_HERE_SECONDS)
        return seconds * (PAUSED_PATIENCE if job.recording.paused else 1)

    async def _safely(self, job: ActiveRecording, **facts: object) -> None:
        try:
            await self._gone(job, **facts)
        except FastAGIError as exc:
            log.error("recording_not_ended", **job.recording.ids, error=str(exc))


def _look(wanted: list[tuple[str, tuple[str, ...]]]) -> dict[str, tuple[tuple[int, ...], bool]]:
    """(sizes, all closed) of each recording's files."""
    return {key: (tuple(raw_files.size(path) for path in paths), raw_files.closed(paths)) for key, paths in wanted}
