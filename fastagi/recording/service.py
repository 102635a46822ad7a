"""The recording service: the one door to every recording of every call, on every Asterisk. One per app; it outlives
each AGI session.

Who calls it: the calls' `WholeCallRecorder`s, the AGI routes, UserEvent commands, the HTTP API. What it is made of is
built by `wiring`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from fastagi.cipher import Cipher
from fastagi.delivery import DeliveryWorker
from fastagi.domain.naming import well_formed
from fastagi.domain.recording import Recording
from fastagi.domain.states import Cause
from fastagi.errors import Error, StoreDown
from fastagi.recording.asterisk.channel_table import LiveChannel
from fastagi.recording.asterisk.control import AgiPath
from fastagi.recording.asterisk.pbx import EventHandler, Pbx
from fastagi.recording.ledger.active import ActiveRecording, Key
from fastagi.recording.ledger.journal import Listener
from fastagi.recording.lifecycle.start_faults import StartFault
from fastagi.recording.lifecycle.starting import Request
from fastagi.recording.wiring import RecordingParts
from fastagi.runtime.steady_clock import SteadyClock
from fastagi.runtime.threads import CLOSE_SECONDS
from fastagi.store.queries import recordings as units
from fastagi.store.queries.servers import SILENT_SECONDS

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RecordingFigures:
    """The recorder's counts, read at once.

    :param phases: open recordings by (Asterisk, phase); :param alarms: running ones by what is wrong with them
    :param judged: calls that had to be recorded, by verdict; :param calls_open: those that are up
    :param calls_unfollowed: calls that were too many to be followed
    :param unreached: recordings that were ended because their Asterisk stayed away
    :param unproved: finished files that are not what was finished
    :param ledger_behind: journal entries that wait for the ledger
    :param tasks_died: background tasks that ended by an error
    """

    phases: Mapping[tuple[str, str], int]
    alarms: Mapping[str, int]
    judged: Mapping[str, int]
    calls_open: int
    calls_unfollowed: int
    adopted: int
    taken_over: int
    servers_dead: int
    unreached: int
    orphans_adopted: int
    refinished: int
    set_aside: int
    unproved: int
    deleted: int
    side_files_refused: int
    ledger_behind: int
    tasks_died: int


class RecordingService:
    """All recordings.

    :param parts: what it is made of; nobody else reaches for them
    """

    def __init__(self, parts: RecordingParts, courier: DeliveryWorker) -> None:
        self.parts = parts
        self._courier = courier
        context = parts.context
        self._settings = context.settings
        self._store = context.store
        self._journal = context.journal
        self._jobs = context.jobs
        self._tasks = context.tasks
        self._threads = context.threads
        self._clock = context.clock
        self.pbxs: Mapping[str, Pbx] = context.pbxs
        self.node = context.node

    @property
    def event_handlers(self) -> tuple[EventHandler, ...]:
        """The declarations of the AMI events that the recorder wants, in the order in which its parts are told."""
        return self.parts.event_handlers

    @property
    def defaults(self) -> Mapping[str, Any]:
        """`[recordings.defaults]`: parameters of recordings that are started by routes, events and HTTP."""
        return self._settings.defaults

    async def open(self) -> None:
        """Pick up what the last process left. The app follows every Asterisk's events from then on."""
        parts = self.parts
        recordings = await parts.side_files.before_serving()
        for stray in {r.asterisk for r in recordings} - set(self.pbxs):
            log.error(
                "asterisk_not_configured", asterisk=stray, hint="its open recordings are finished from their files"
            )
        await parts.completeness.load()
        for pbx in self.pbxs.values():
            pbx.on_synced(self._synced)
        keep = self._tasks.keep
        keep(self._journal.catch_up(), "journal catch-up")
        keep(parts.watch.run(), "watch")
        keep(parts.hearing.run(), "hearing")
        keep(parts.announcer.run(), "alarms")
        keep(parts.evidence.run(), "retention")
        keep(parts.recovery.watch_dead(), "dead Asterisks")
        keep(parts.sweep.run(), "sweep")
        keep(parts.side_files.run(), "side files")
        if isinstance(self._clock, SteadyClock):
            keep(self._clock.follow(lambda: len(self._jobs) == 0, self._clock_set), "clock")
        if not self._store.alone:
            keep(parts.takeover.run(), "takeover")

    def _clock_set(self, by: float) -> None:
        self.parts.evidence.doubt_clock(by)
        self._courier.clock_set(by)

    async def drain(self, seconds: float) -> None:
        """Wait for endings that have begun, at most so many seconds. What is asked meanwhile is done."""
        await self._tasks.drain(seconds)

    async def close(self, seconds: float) -> None:
        """Drain: endings that have begun are finished, at most so many seconds; recordings go on in Asterisk."""
        deadline = time.monotonic() + seconds
        if not await self._tasks.drain(seconds):
            log.warning("drain_ran_out", left=len(self._tasks), hint="the next start goes on with them")
        for job in self._jobs:  # in a program that goes on they would strike all the same
            job.stop_clocks()
        with contextlib.suppress(TimeoutError):  # what is left is in side files, which the next start reads
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._journal.flush()
        await self.parts.completeness.close()
        await self._tasks.stop()
        self._threads.close(min(CLOSE_SECONDS, max(1.0, deadline - time.monotonic())))

    async def start(self, request: Request) -> ActiveRecording:
        """Start a recording; see `Starter.start`. Its limits are watched from here on.

        Cancelling the caller does not stop a start that has begun.
        """
        return await asyncio.shield(self._tasks.spawn(self._start(request), "start"))

    async def held_elsewhere(self, asterisk: str, uniqueid: str, recording_id: str = "") -> bool:
        """Return whether another living server on this ledger records that channel, or has that recording.

        :raises StoreError: the ledger cannot be asked
        """
        if not (uniqueid or recording_id):
            return False
        node = self._store.node
        unit = partial(units.held_elsewhere, recording_id=recording_id)
        return bool(await self._store.read(unit, node, SILENT_SECONDS, asterisk, uniqueid))

    async def _start(self, request: Request) -> ActiveRecording:
        job = await self.parts.starter.start(request)
        if job.recording.active:
            self.parts.tracker.track(job)
        return job

    async def stop(self, job: ActiveRecording, cause: Cause = Cause.ABORTED) -> None:
        """Stop it and wait until the finished file is there, or it failed. Two stops at once are one.

        :raises Error: Asterisk cannot be told now: it is stopped as soon as it can, and ends for that cause
        """
        await asyncio.shield(self._tasks.spawn(self.parts.stopper.stop(job, cause), f"stop {job.id}"))
        await self._told(job)

    async def _told(self, job: ActiveRecording) -> None:
        """Wait for the file, but not without limit for Asterisk to be told: the call may be held by who waits, and its
        hangup is what ends the recording then.

        :raises Error: it was not told within `TOLD_SECONDS`
        """
        deadline = time.monotonic() + TOLD_SECONDS
        while job.recording.stopping and time.monotonic() < deadline:
            await job.wait(0.1)
        if job.recording.stopping:
            raise Error(
                f"Asterisk {job.recording.asterisk} cannot be told to stop now: that it stops is on disk, and it does "
                "when Asterisk can be reached, or when the call ends"
            )
        await job.wait(None)

    async def hung_up(self, job: ActiveRecording) -> None:
        """The call that asked for it is over though its channel still waits (a hangup handler): end it with HANGUP and
        wait for the file; a recording that goes on elsewhere is left alone.

        :raises Error: Asterisk cannot be told now: it ends with the channel
        """
        uniqueid = job.recording.uniqueid
        pbx = self.pbxs.get(job.recording.asterisk)
        if pbx is not None and await self.parts.hangups.goes_on(job, pbx, uniqueid, pbx.channels.get(uniqueid)):
            return
        await asyncio.shield(
            self._tasks.spawn(self.parts.stopper.on_hangup_pending(job, uniqueid=uniqueid), f"hangup {job.id}")
        )
        await self._told(job)

    def reached_by(self, asterisk: str, uniqueid: str, agi: AgiPath) -> None:
        """An AGI session has begun on that channel: a way to tell Asterisk of its recordings."""
        for job in self._jobs.on_channel(asterisk, uniqueid):
            job.reached_by(agi, uniqueid)

    async def before_leaving(self, pbx: Pbx, uniqueid: str) -> None:
        """The AGI session on that channel is about to end: a stop that only it can carry out is given its moment."""
        deadline = time.monotonic() + LEAVING_SECONDS
        while not pbx.up and time.monotonic() < deadline:
            if not any(job.recording.stopping for job in self._jobs.on_channel(pbx.name, uniqueid)):
                return
            await asyncio.sleep(0.01)

    def current(self, key: Key) -> ActiveRecording | None:
        """The open recording of that call and recorder."""
        return self._jobs.current(key)

    def get(self, recording_id: str) -> ActiveRecording | None:
        """The open recording of that id, where it is made here."""
        return self._jobs.get(recording_id)

    def on_channel(self, asterisk: str, uniqueid: str) -> list[ActiveRecording]:
        """The open recordings that are made on that channel."""
        return self._jobs.on_channel(asterisk, uniqueid)

    async def request_stop(self, job: ActiveRecording, cause: Cause = Cause.ABORTED) -> bool:
        """Decide that it stops; returns once that is on disk. False when it was ending already."""
        return await self.parts.stopper.stop(job, cause)

    async def pause(self, job: ActiveRecording, seconds: float | None = None) -> bool:
        """See `Pauser.pause`."""
        return await self.parts.pauser.pause(job, seconds)

    async def resume(self, job: ActiveRecording) -> bool:
        """See `Pauser.resume`."""
        return await self.parts.pauser.resume(job)

    async def mute(self, job: ActiveRecording, direction: str, on: bool = True) -> bool:
        """See `Pauser.mute`."""
        return await self.parts.pauser.mute(job, direction, on)

    def perhaps_over(self, asterisk: str, uniqueid: str, ask: Callable[[], Awaitable[bool]] | None = None) -> None:
        """See `HangupHandler.perhaps_over`."""
        self.parts.hangups.perhaps_over(asterisk, uniqueid, ask)

    async def hold(self, recording_id: str, who: str, reason: str) -> Recording:
        """See `Evidence.hold`."""
        return await self.parts.evidence.hold(recording_id, who, reason)

    async def release(self, recording_id: str, who: str, reason: str) -> Recording:
        """See `Evidence.release`."""
        return await self.parts.evidence.release(recording_id, who, reason)

    async def delete(self, recording_id: str, who: str, reason: str, *, force: bool = False) -> Recording:
        """See `Evidence.delete_recording`."""
        return await self.parts.evidence.delete_recording(recording_id, who, reason, force=force)

    def announce_refused(self, asterisk: str, command: str, channel: str, error: str, recording_id: str = "") -> None:
        """See `Announcer.refused`."""
        self.parts.announcer.refused(asterisk, command, channel, error, recording_id)

    async def cipher_of(self, recording_id: str) -> Cipher | None:
        """See `KeyStore.load`."""
        return await self.parts.context.keys.load(recording_id)

    def require(self, required: Sequence[str]) -> None:
        """See `Completeness.require`."""
        self.parts.completeness.require(required)

    def note_refused(self, asterisk: str, uniqueid: str, error: str) -> None:
        """See `Completeness.refused`."""
        self.parts.completeness.refused(asterisk, uniqueid, error)

    def start_faults(self) -> list[StartFault]:
        """Return why recordings do not start, or could not be kept while the ledger is away. Blocking."""
        found = self.parts.starter.faults.current()
        sides = self._journal.sides
        fault, _, do = sides.fault().partition(": ")
        return [*found, StartFault(str(sides.path), fault, do)] if fault else found

    def follows_call(self, asterisk: str, uniqueid: str) -> bool:
        """Return whether that channel is a call that is up and must be recorded."""
        return self.parts.completeness.follows(asterisk, uniqueid)

    def listen(self, listener: Listener) -> None:
        """Call `listener(recording, event, detail)` after each journal entry. Must not block or raise."""
        self._journal.listen(listener)

    async def run_in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run something that touches files, off the event loop."""
        return await self._threads.run(function, *args)

    async def death(self) -> str:
        """Wait until a lasting background task has died; returns its reason."""
        return await self._tasks.death()

    @property
    def tasks_dead(self) -> list[str]:
        """Lasting background tasks that are no more, each with its reason."""
        return self._tasks.dead

    @property
    def ledger_full(self) -> str:
        """The reason why no recording may be begun now; empty when one may."""
        return self._journal.full

    def figures(self) -> RecordingFigures:
        """Read what is counted. Waits for nothing."""
        parts, phases, alarms = self.parts, Counter[tuple[str, str]](), Counter[str]()
        for job in self._jobs:
            phases[job.recording.asterisk, job.phase.value] += 1
            alarms.update(job.alarms)
        return RecordingFigures(
            phases=phases,
            alarms=alarms,
            judged=parts.completeness.counts,
            calls_open=parts.completeness.open,
            calls_unfollowed=parts.completeness.unfollowed,
            adopted=parts.adoption.adopted,
            taken_over=parts.takeover.taken,
            servers_dead=len(parts.takeover.dead),
            unreached=parts.recovery.unreached,
            orphans_adopted=parts.sweep.adopted,
            refinished=parts.sweep.refinished,
            set_aside=parts.sweep.set_aside,
            unproved=parts.sweep.unproved,
            deleted=parts.evidence.deleted,
            side_files_refused=self._journal.left.refused,
            ledger_behind=self._journal.behind,
            tasks_died=self._tasks.died,
        )

    async def over_unseen(self, job: ActiveRecording) -> None:
        """End a recording whose call is over and whose uniqueid is another call's now; that one may be recorded."""
        log.warning("uniqueid_used_again", **job.recording.ids)
        self._jobs.supersede(job)
        await self.parts.stopper.on_missed_end(job)

    def last(self, key: Key) -> Recording | None:
        return self._jobs.last(key)

    async def remembered(self, key: Key) -> Recording | None:
        """The open recording of that call and recorder, else its last one, from memory or the ledger.

        :raises StoreDown: the ledger has to be asked, and does not answer in the time that a call can wait
        """
        found = self._jobs.last(key)
        if found is None:
            asterisk, uniqueid, name = map(well_formed, key)
            try:
                async with asyncio.timeout(ASKED_SECONDS):
                    rows: list[Recording] = await self._store.read(_of_call, uniqueid, name, asterisk)
            except TimeoutError:
                raise StoreDown(f"the ledger does not answer within {ASKED_SECONDS:g} s") from None
            found = rows[0] if rows else None
        return found

    def _synced(self, pbx: Pbx, gone: list[LiveChannel]) -> None:
        self._tasks.spawn(self.parts.recovery.compare(pbx), f"compare {pbx.name}")
        self.parts.participants.synced(pbx)
        self.parts.adoption.synced(pbx)
        self.parts.completeness.synced(pbx)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start a task that the service owns and drains."""
        return self._tasks.spawn(work, name)


def _of_call(conn: Any, uniqueid: str, recorder: str, asterisk: str) -> list[Recording]:
    return units.find(conn, uniqueid, recorder, asterisk=asterisk)


ASKED_SECONDS = 3.0
"""A question that only the ledger can answer: there is no side file to do without it."""

FLUSH_SECONDS = 10.0
"""A ledger that is well takes ten thousand entries in that."""

TOLD_SECONDS = 10.0
"""A stop takes Asterisk a millisecond; an action that it does not answer is given up, and sent again, within that, and
a connection that was lost is mostly back."""

LEAVING_SECONDS = 1.0
"""A StopMixMonitor through the session takes some milliseconds; the call waits no longer for what does not come."""
