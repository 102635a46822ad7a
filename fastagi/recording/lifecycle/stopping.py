"""Ends recordings: from whatever ends one to raw files that Asterisk has closed. `finishing` goes on from there.

One road for all causes: the cause is journalled, Asterisk is told where it must be, and its files are waited for. A
restart enters this road with what the row owes (`fastagi.domain.lifecycle.owed`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog

from fastagi.domain.lifecycle import Effect, owed
from fastagi.domain.lifecycle.effects import AwaitClosed, Finish, StopSegment
from fastagi.domain.lifecycle.events import CallOver, FilesClosed, StopConfirmed, StoppedByOthers, StopRequested
from fastagi.domain.states import Cause
from fastagi.errors import AsteriskError, Error, Hangup
from fastagi.recording.asterisk import external, raw_files
from fastagi.recording.asterisk.control import gone
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.engine import Engine
from fastagi.recording.lifecycle.finishing import Finalizer
from fastagi.recording.lifecycle.segments import control_of, end_given_up

log = structlog.get_logger(__name__)

CLOSE_POLL_SECONDS = 0.01
"""Asterisk closes the file some 5 ms after the Hangup event."""

UNSEEN_SECONDS = 2.0
"""What a file is waited for that may well be closed already: one that stood still long before its call was found over,
one that Asterisk said it has closed, one in which nothing was heard. It closes within 5 ms."""


class Stopper:
    """Ends recordings.

    :param spawn: starts a task that the app owns: an ending goes on when whoever asked for it is cancelled
    :param close_seconds: what a file that is still written, or has no sizes yet, may take to be closed
    """

    def __init__(self, context: RecordingContext, engine: Engine, finalizer: Finalizer) -> None:
        self._engine = engine
        self._finalizer = finalizer
        self._threads = context.threads
        self._pbxs = context.pbxs
        self._spawn = context.tasks.spawn
        self._close_seconds = context.settings.close_seconds
        self._clock = context.clock

    async def stop(self, job: ActiveRecording, cause: Cause) -> bool:
        """Stop a recording for that cause; the first cause wins. Returns once the decision is on disk.

        :returns: False when it was ending already
        """
        return await self._end(job, StopRequested(cause))

    async def on_hangup(self, job: ActiveRecording, event: CallOver) -> bool:
        """End a recording whose channel is gone. Idempotent.

        :returns: False when it had ended already, or is made on another channel by now
        """
        return await self._end(job, event)

    async def on_hangup_pending(self, job: ActiveRecording, *, uniqueid: str = "", at: float | None = None) -> bool:
        """The call is over but the channel waits (an AGI session on it lasts): Asterisk is told to stop, which is the
        exact end. Idempotent.

        :param uniqueid: which channel it was; empty for any; :param at: when, unix seconds; now when None
        """
        return await self._end(job, StopRequested(Cause.HANGUP, at, uniqueid))

    async def on_external_stop(
        self, job: ActiveRecording, cause: Cause = Cause.ABORTED, *, ended_at: float | None = None
    ) -> bool:
        """Somebody else stopped it (dialplan, another AMI client) and its file is closed, perhaps for a while.

        :param ended_at: when, unix seconds; None where only the file tells
        """
        ended = await self._last_written(job) if ended_at is None else ended_at
        return await self._end(job, StoppedByOthers(cause, ended))

    async def on_missed_end(self, job: ActiveRecording, facts: Mapping[str, Any] | None = None) -> bool:
        """End a recording whose call ended unseen, some time ago: its files and limits tell when and why."""
        job.unseen = True
        started, timeout = job.recording.started_at, job.recording.spec.seconds_timeout
        ended = await self._last_written(job)
        if started is not None and timeout is not None and ended >= started + timeout:
            # nobody was there to stop it: it ends where it should have, and that is why
            return await self._end(job, CallOver(Cause.TIMEOUT, started + timeout, facts=facts or {}))
        return await self._end(job, CallOver(at=ended, facts=facts or {}))

    def resume(self, job: ActiveRecording) -> None:
        """Take an ending up where the last process left it: perform what the row owes."""
        self._perform(job, owed(job.recording))

    async def _end(self, job: ActiveRecording, event: StopRequested | StoppedByOthers | CallOver) -> bool:
        decision = await self._engine.offer(job, event)
        if decision is None:
            return False
        self._perform(job, decision.effects)
        return True

    def _perform(self, job: ActiveRecording, effects: tuple[Effect, ...]) -> None:
        """Carry these out in a task of their own."""
        self._spawn(self._carry_out(job, effects), f"end {job.id}")

    async def _carry_out(self, job: ActiveRecording, effects: tuple[Effect, ...], *, told: bool = False) -> None:
        for effect in effects:
            match effect:
                case StopSegment():
                    await self._stop_segment(job)
                case AwaitClosed():
                    await self._await_closed(job, told)
                case Finish():
                    await self._finalizer.finish(job)

    async def _stop_segment(self, job: ActiveRecording) -> None:
        """Tell Asterisk, until it has stopped or the channel is gone."""
        pause = 0.2
        told = False
        while job.recording.stopping:
            job.new_way.clear()
            if await self._closed(job):
                break
            try:
                await self._tell_stop(job)
                told = True
                break
            except (AsteriskError, Error, Hangup) as exc:
                if gone(exc):
                    break
                log.warning("stop_not_taken", **job.recording.ids, error=str(exc))
            await job.wait_for_a_way(pause)
            pause = min(pause * 2, 5.0)
        decision = await self._engine.offer(job, StopConfirmed())
        if decision is not None:  # else a hangup came first, and its own task goes on
            await self._carry_out(job, decision.effects, told=told)

    async def _tell_stop(self, job: ActiveRecording) -> None:
        pbx = self._pbxs.get(job.recording.asterisk)
        if pbx is None:
            return
        await end_given_up(job, pbx)
        piece = job.recording.pieces[-1]
        await control_of(job, piece, pbx).stop(piece, job.recording.spec)

    async def _closed(self, job: ActiveRecording) -> bool:
        """Return whether Asterisk has closed every file, as far as the files tell."""
        recording = job.recording
        if recording.adopted:
            over = recording.ended_at is not None and not recording.stopping
            ended = self._clock() - (recording.ended_at or 0.0) if over else 0.0
            return await self._threads.run(external.closed, recording.pieces[-1].paths, ended)
        return await self._threads.run(raw_files.closed, recording.pieces[-1].paths)

    async def _await_closed(self, job: ActiveRecording, told: bool) -> None:
        """Until Asterisk has closed the raw files, or nobody will any more.

        :param told: Asterisk has said that it stopped; its files are closed then
        """
        if not await self._closed(job):
            await self._closed_or_given_up(job, told)
        decision = await self._engine.offer(job, FilesClosed())
        if decision is not None:
            await self._carry_out(job, decision.effects)

    async def _closed_or_given_up(self, job: ActiveRecording, told: bool) -> None:
        paths = job.recording.pieces[-1].paths
        sizes = await self._threads.run(raw_files.sizes, paths)
        deadline = time.monotonic() + await self._patience(job, paths, sizes, told)
        pause = CLOSE_POLL_SECONDS
        while time.monotonic() < deadline and max(sizes, default=-1) >= 0:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.25)
            if await self._closed(job):
                return
            now = await self._threads.run(raw_files.sizes, paths)
            if now != sizes:
                sizes = now  # still being written: it is not over
                deadline = max(deadline, time.monotonic() + self._close_seconds / 2)

    async def _patience(
        self, job: ActiveRecording, paths: tuple[str, ...], sizes: tuple[int, ...], told: bool
    ) -> float:
        """Seconds that files may take whose headers have no sizes, while nobody writes to them."""
        patience = self._close_seconds
        if job.unseen:  # it was over long ago: what has stood still since has had its time
            patience -= max(0.0, time.time() - await self._threads.run(raw_files.last_write, paths))
        if max(sizes, default=0) <= raw_files.HEADER_BYTES:  # nothing was ever heard: such a header stays as it is
            return min(0.0 if told else UNSEEN_SECONDS, self._close_seconds)
        return max(min(UNSEEN_SECONDS, self._close_seconds), patience)

    async def _last_written(self, job: ActiveRecording) -> float:
        """Return when Asterisk closed the files, unix seconds; now where they do not tell. Their clock is the
        machine's, which may be set while ours goes on: only how long ago it was is theirs to say.
        """
        recording = job.recording
        paths = tuple(path for piece in recording.pieces for path in piece.paths)
        last_write = await self._threads.run(raw_files.last_write, paths)
        begun = recording.requested_at if recording.started_at is None else recording.started_at
        now = self._clock()
        ended = now - (time.time() - last_write)
        return ended if begun <= ended <= now else now
