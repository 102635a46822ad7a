"""The recorder: every recording of every call, on every Asterisk. One per app; outlives each AGI session.

Composes starting, ending, pausing, watching and recovery, and hands Asterisk's events to them. Who calls it: the calls'
`WholeCallRecorder`s, the AGI routes, UserEvent commands, the HTTP API.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import structlog

from fastagi.cipher import MasterKey
from fastagi.delivery import Courier
from fastagi.domain.naming import well_formed
from fastagi.domain.recording import Recording
from fastagi.domain.states import Cause, Phase
from fastagi.errors import Error, FastAGIError, StoreDown
from fastagi.recording.announcing import Announcer
from fastagi.recording.asterisk.channels import LiveChannel
from fastagi.recording.asterisk.control import AgiPath
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.course.company import Company
from fastagi.recording.course.ending import Ender
from fastagi.recording.course.following import EVENTS as MOVES
from fastagi.recording.course.following import Follower
from fastagi.recording.course.hangups import Hangups
from fastagi.recording.course.pausing import Pauser
from fastagi.recording.course.pieces import Pieces
from fastagi.recording.course.starting import Request, Starter
from fastagi.recording.ledger.job import Job, Jobs, Key
from fastagi.recording.ledger.journal import Journal
from fastagi.recording.ledger.keys import KeyStore
from fastagi.recording.proof.completeness import Completeness
from fastagi.recording.proof.evidence import Evidence
from fastagi.recording.recovery.adoption import Adoption
from fastagi.recording.recovery.restart import Recovery
from fastagi.recording.recovery.side_files import SideFileReplay
from fastagi.recording.recovery.sweep import Sweep
from fastagi.recording.recovery.takeover import Takeover
from fastagi.recording.runtime.steady import SteadyClock
from fastagi.recording.runtime.tasks import Tasks
from fastagi.recording.runtime.threads import CLOSE_SECONDS, FileThreads
from fastagi.recording.spool.bounds import Bounds
from fastagi.recording.spool.sidefile import PURPOSE, SideFolder
from fastagi.recording.watching.flushing import Flusher
from fastagi.recording.watching.hearing import Hearing
from fastagi.recording.watching.salvaging import Salvager
from fastagi.recording.watching.talking import EVENTS as TALK_EVENTS
from fastagi.recording.watching.watch import Watch
from fastagi.settings import RecordingSettings
from fastagi.store import Store
from fastagi.store.units import recordings as units
from fastagi.store.units.servers import SILENT_SECONDS

log = structlog.get_logger(__name__)


class Recorder:
    """All recordings.

    :param pbxs: by name; their events are followed from `open` on
    :param node: this server's name in the ledger
    :ivar default_sinks: names of the sinks of a recording that nobody asked for here; set by the app
    """

    def __init__(
        self,
        settings: RecordingSettings,
        store: Store,
        courier: Courier,
        pbxs: Mapping[str, Pbx],
        master: MasterKey,
        *,
        node: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.pbxs = pbxs
        self.node = node
        self.jobs = Jobs()
        self.tasks = Tasks()
        self.threads = FileThreads(settings.finishers)
        self.keys = KeyStore(store, master)
        self._store = store
        self._clock = clock
        self._courier = courier
        spools = {name: pbx.spool for name, pbx in pbxs.items()}
        self.journal = Journal(
            store,
            courier,
            SideFolder(settings.side_folder, master.derive(PURPOSE)),
            Bounds(settings.directory, spools),
            clock,
        )
        self.starter = Starter(
            self.journal,
            self.jobs,
            self.threads,
            self.keys,
            node=node,
            directory=settings.directory,
            start_seconds=settings.start_seconds,
            clock=clock,
        )
        self.ender = Ender(
            self.journal,
            self.jobs,
            self.threads,
            self.keys,
            pbxs,
            self.tasks.spawn,
            directory=settings.directory,
            close_seconds=settings.close_seconds,
            silence_dbfs=settings.silence_dbfs,
            clock=clock,
        )
        pieces = Pieces(self.journal, self.jobs, self.starter, self.threads, pbxs, clock)
        self.pauser = Pauser(self.journal, self.jobs, pieces, pbxs, self.tasks.spawn, clock)
        self.follower = Follower(self.journal, self.jobs, pieces, pbxs, self.tasks.spawn, clock)
        self.company = Company(self.journal, self.jobs, self.tasks.spawn, clock)
        self.hangups = Hangups(
            self.jobs, self.ender, self.follower, self.threads, pbxs, spawn=self.tasks.spawn, clock=clock
        )
        salvager = Salvager(self.journal, pieces, self.threads, pbxs, clock)
        flusher = Flusher(self.journal, pieces, self.threads, pbxs, clock)
        self.watch = Watch(
            self.jobs, self.ender, self.threads, pbxs, settings, self.tasks.spawn, salvager, flusher, clock
        )
        self.recovery = Recovery(
            self.journal,
            self.jobs,
            self.starter,
            self.ender,
            self.threads,
            pbxs,
            clock,
            self.track,
            dead_seconds=settings.dead_seconds,
        )
        self.side_files = SideFileReplay(
            store,
            self.journal,
            self.jobs,
            self.recovery,
            pbxs,
            node=node,
            folders=[*spools.values(), settings.directory],
        )
        self.evidence = Evidence(
            store,
            self.threads,
            node=node,
            retention_days=settings.retention_days,
            spools=spools,
            side_folder=settings.side_folder,
            clock=clock,
            tell=self.journal.tell,
        )
        self.journal.on_lost = self._lost
        self.takeover = Takeover(store, self.journal, self.recovery, self.threads, pbxs, node=node, clock=clock)
        self.default_sinks: Callable[[], tuple[str, ...]] = lambda: ()
        self.completeness = Completeness(store, self.jobs, pbxs, settings.required, clock=clock)
        self.company.on_member = self.completeness.joined
        self.hearing = Hearing(
            self.jobs, self.threads, silence_dbfs=settings.silence_dbfs, quiet_seconds=settings.quiet_seconds
        )
        self.announcer = Announcer(pbxs, self.jobs, self.tasks.spawn)
        self.journal.listen(self.announcer.changed)
        self.completeness.listen(self.announcer.judged)
        self.adoption = Adoption(
            self.journal,
            self.jobs,
            self.threads,
            settings,
            node=node,
            sinks=lambda: self.default_sinks(),
            spawn=self.tasks.spawn,
            track=self.track,
            stopped=self.ender.stopped_elsewhere,
            clock=clock,
        )
        self.sweep = Sweep(
            self.journal,
            self.jobs,
            self.ender,
            self.threads,
            store,
            pbxs,
            settings,
            node=node,
            default_sinks=lambda: self.default_sinks(),
            dead=lambda name: name in self.takeover.dead,
            clock=clock,
        )
        self.journal.on_caught_up = self.sweep.soon

    def _lost(self, job: Job) -> None:
        """Another server has taken it over: not this one's any more, whoever waits for it here is let go."""
        self.jobs.close(job)
        job.set_ended()

    async def open(self) -> None:
        """Pick up what the last process left, then follow every Asterisk."""
        recordings = await self.side_files.before_serving()
        for stray in {r.asterisk for r in recordings} - set(self.pbxs):
            log.error(
                "asterisk_not_configured", asterisk=stray, hint="its open recordings are finished from their files"
            )
        await self.completeness.load()
        for pbx in self.pbxs.values():
            pbx.listen(self._event)
            pbx.on_synced(self._synced)
        self.tasks.keep(self.journal.catch_up(), "journal catch-up")
        self.tasks.keep(self.watch.run(), "watch")
        self.tasks.keep(self.hearing.run(), "hearing")
        self.tasks.keep(self.announcer.run(), "alarms")
        self.tasks.keep(self.evidence.run(), "retention")
        self.tasks.keep(self.recovery.watch_dead(), "dead Asterisks")
        self.tasks.keep(self.sweep.run(), "sweep")
        self.tasks.keep(self.side_files.run(), "side files")
        if isinstance(self._clock, SteadyClock):
            self.tasks.keep(self._clock.follow(lambda: len(self.jobs) == 0, self._clock_set), "clock")
        if not self._store.alone:
            self.tasks.keep(self.takeover.run(), "takeover")

    async def _clock_set(self, by: float) -> None:
        self.evidence.doubt_clock(by)
        await self._courier.clock_set(by)

    async def drain(self, seconds: float) -> None:
        """Wait for endings that have begun, at most so many seconds. What is asked meanwhile is done."""
        await self.tasks.drain(seconds)

    async def close(self, seconds: float) -> None:
        """Drain: endings that have begun are finished, at most so many seconds; recordings go on in Asterisk."""
        deadline = time.monotonic() + seconds
        if not await self.tasks.drain(seconds):
            log.warning("drain_ran_out", left=len(self.tasks), hint="the next start goes on with them")
        for job in self.jobs:  # in a program that goes on they would strike all the same
            job.stop_clocks()
        with contextlib.suppress(TimeoutError):  # what is left is in side files, which the next start reads
            async with asyncio.timeout(FLUSH_SECONDS):
                await self.journal.flush()
        await self.completeness.close()
        await self.tasks.stop()
        self.threads.close(min(CLOSE_SECONDS, max(1.0, deadline - time.monotonic())))

    async def start(self, request: Request) -> Job:
        """Start a recording; see `Starter.start`. Its limits are watched from here on.

        Cancelling the caller does not stop a start that has begun.
        """
        return await asyncio.shield(self.tasks.spawn(self._start(request), "start"))

    async def held_elsewhere(self, asterisk: str, uniqueid: str, recording_id: str = "") -> bool:
        """Does another living server on this ledger record that channel, or have that recording?

        :raises StoreError: the ledger cannot be asked
        """
        if not (uniqueid or recording_id):
            return False
        node = self._store.node
        unit = partial(units.held_elsewhere, recording_id=recording_id)
        return bool(await self._store.read(unit, node, SILENT_SECONDS, asterisk, uniqueid))

    async def _start(self, request: Request) -> Job:
        job = await self.starter.start(request)
        if job.phase is Phase.ACTIVE:
            self.track(job)
        return job

    def track(self, job: Job) -> None:
        """Arm the time limit and the watch of a recording that runs. Idempotent."""
        pbx = self.pbxs.get(job.recording.asterisk)
        if pbx is not None:
            self.company.began(pbx, job)
        timeout = job.recording.spec.seconds_timeout
        if timeout is not None and job.timer is None:
            elapsed = self._clock() - (job.recording.started_at or self._clock())
            job.timer = asyncio.get_running_loop().call_later(
                max(0.0, timeout - max(0.0, elapsed)),
                lambda: self.tasks.spawn(self.ender.stop(job, Cause.TIMEOUT), f"time-out {job.id}"),
            )
        self.watch.follow(job)
        if job.phase is Phase.PAUSED or not job.recording.pieces[-1].seen:
            self.tasks.spawn(self._settle(job), f"settle {job.id}")

    async def _settle(self, job: Job) -> None:
        """What the last process had journalled of a pause or a move, but perhaps not done."""
        try:
            await self.pauser.settle(job)
        except FastAGIError as exc:
            log.error("not_settled", **job.recording.ids, error=str(exc))

    async def stop(self, job: Job, cause: Cause = Cause.ABORTED) -> None:
        """Stop it and wait until the finished file is there, or it failed. Two stops at once are one.

        :raises Error: Asterisk cannot be told now: it is stopped as soon as it can, and ends for that cause
        """
        await asyncio.shield(self.tasks.spawn(self.ender.stop(job, cause), f"stop {job.id}"))
        await self._told(job)

    async def _told(self, job: Job) -> None:
        """Wait for the file, but not without limit for Asterisk to be told: the call may be held by who waits, and its
        hangup is what ends the recording then.

        :raises Error: it was not told within `TOLD_SECONDS`
        """
        deadline = time.monotonic() + TOLD_SECONDS
        while job.phase is Phase.STOPPING and time.monotonic() < deadline:
            await job.wait(0.1)
        if job.phase is Phase.STOPPING:
            raise Error(
                f"Asterisk {job.recording.asterisk} cannot be told to stop now: that it stops is on disk, and it does "
                "when Asterisk can be reached, or when the call ends"
            )
        await job.wait(None)

    async def hung_up(self, job: Job) -> None:
        """The call that asked for it is over though its channel still waits (a hangup handler): end it with HANGUP and
        wait for the file; a recording that goes on elsewhere is left alone.

        :raises Error: Asterisk cannot be told now: it ends with the channel
        """
        uniqueid = job.recording.uniqueid
        pbx = self.pbxs.get(job.recording.asterisk)
        if pbx is not None and await self.hangups.goes_on(job, pbx, uniqueid, pbx.book.get(uniqueid)):
            return
        await asyncio.shield(
            self.tasks.spawn(self.ender.hung_up(job, uniqueid=uniqueid, still_there=True), f"hangup {job.id}")
        )
        await self._told(job)

    def reached_by(self, asterisk: str, uniqueid: str, agi: AgiPath) -> None:
        """An AGI session has begun on that channel: a way to tell Asterisk of its recordings."""
        for job in self.jobs.on_channel(asterisk, uniqueid):
            job.reached_by(agi, uniqueid)

    async def before_leaving(self, pbx: Pbx, uniqueid: str) -> None:
        """The AGI session on that channel is about to end: a stop that only it can carry out is given its moment."""
        deadline = time.monotonic() + LEAVING_SECONDS
        while not pbx.up and time.monotonic() < deadline:
            if not any(job.phase is Phase.STOPPING for job in self.jobs.on_channel(pbx.name, uniqueid)):
                return
            await asyncio.sleep(0.01)

    def current(self, key: Key) -> Job | None:
        return self.jobs.current(key)

    async def over_unseen(self, job: Job) -> None:
        """Its call is over, and its uniqueid is another call's now: end it, and let that one be recorded."""
        log.warning("uniqueid_used_again", **job.recording.ids)
        self.jobs.supersede(job)
        await self.ender.ended_unseen(job)

    def last(self, key: Key) -> Recording | None:
        return self.jobs.last(key)

    async def remembered(self, key: Key) -> Recording | None:
        """The open recording of that call and recorder, else its last one, from memory or the ledger.

        :raises StoreDown: the ledger has to be asked, and does not answer in the time that a call can wait
        """
        found = self.jobs.last(key)
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
        self.tasks.spawn(self.recovery.compare(pbx), f"compare {pbx.name}")
        self.company.synced(pbx)
        self.adoption.synced(pbx)
        self.completeness.synced(pbx)

    def _event(self, pbx: Pbx, name: str, headers: Mapping[str, str], channel: LiveChannel | None) -> None:
        self.completeness.event(pbx, name, headers.get("Context", ""), channel)
        self.company.event(pbx, name, channel)
        self.adoption.event(pbx, name, channel)
        if name in TALK_EVENTS:
            self.watch.listening.event(pbx, name, headers.get("Uniqueid", ""))
        if name in MOVES:
            self.follower.event(pbx, name, headers)
        self.hangups.event(pbx, name, headers, channel)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """A task that the recorder owns and drains."""
        self.tasks.spawn(work, name)


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
