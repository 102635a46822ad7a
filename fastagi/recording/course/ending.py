"""From the moment a recording is to end, for whatever cause, to its finished file and its deliveries.

One road for all causes: the cause is journalled, Asterisk is told where it must be, its file is closed, the finished
file is made, synced and journalled with its deliveries, and only then are Asterisk's own files removed. A restart
enters this road at the phase the ledger says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import structlog

from fastagi.audio import Permit, Rendered
from fastagi.domain.recording import Recording, Span
from fastagi.domain.states import TABLE, Cause, Event, Phase
from fastagi.errors import (
    AsteriskError,
    AudioError,
    CipherError,
    DiskFull,
    Error,
    FastAGIError,
    Hangup,
    StoreDown,
    StoreError,
)
from fastagi.recording.asterisk.control import gone
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.course.pieces import control_of, end_given_up
from fastagi.recording.ledger.job import Job, Jobs
from fastagi.recording.ledger.journal import Journal
from fastagi.recording.ledger.keys import KeyStore
from fastagi.recording.runtime.threads import FileThreads
from fastagi.recording.spool import files, foreign
from fastagi.recording.spool.plan import limit_cause, render_plan, told

log = structlog.get_logger(__name__)

CLOSE_POLL_SECONDS = 0.01
"""Asterisk closes the file some 5 ms after the Hangup event."""

UNSEEN_SECONDS = 2.0
"""What a file is waited for that may well be closed already: one that stood still long before its call was found over,
one that Asterisk said it has closed, one in which nothing was heard. It closes within 5 ms."""

PERMIT_SECONDS = 3.0
"""What the ledger has to say whether a recording is still this server's: it takes some milliseconds."""

UNREACHED = "asterisk_unreached"
"""Fact of a recording that was ended because its Asterisk seemed dead: nobody has seen that the call was over."""


class Ender:
    """Ends recordings.

    :param spawn: starts a task that the app owns: an ending goes on when whoever asked for it is cancelled
    """

    def __init__(
        self,
        journal: Journal,
        jobs: Jobs,
        threads: FileThreads,
        keys: KeyStore,
        pbxs: Mapping[str, Pbx],
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        *,
        directory: Path,
        close_seconds: float,
        silence_dbfs: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._jobs = jobs
        self._threads = threads
        self._keys = keys
        self._pbxs = pbxs
        self._spawn = spawn
        self._directory = directory
        self._close_seconds = close_seconds
        self._silence_dbfs = silence_dbfs
        self._clock = clock

    async def stop(self, job: Job, cause: Cause) -> bool:
        """Stop it for that cause; the first cause wins. Returns at once after the decision is on disk.

        :returns: False when it was ending already
        """
        async with job.lock:
            if Event.STOP not in TABLE[job.phase]:
                return False
            await self._journal.move(
                job, Event.STOP, cause=cause, ended_at=self._clock(), pauses=self._closed_pauses(job)
            )
        self._spawn(self._halt(job), f"stop {job.id}")
        return True

    async def hung_up(
        self,
        job: Job,
        *,
        uniqueid: str = "",
        still_there: bool = False,
        cause: Cause = Cause.HANGUP,
        ended_at: float | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> bool:
        """Its channel is gone. Idempotent.

        :param uniqueid: which channel it was: nothing ends when the recording has moved to another one meanwhile
        :param still_there: the call is over but the channel waits (an AGI session on it lasts): tell Asterisk to
            stop, which is the exact end
        :param cause: what ended it, where nothing had before; :param ended_at: when, unix seconds; now when None
        :param facts: what else is known, for the row
        """
        async with job.lock:
            if Event.HUNG_UP not in TABLE[job.phase]:
                return False
            if uniqueid and uniqueid != job.recording.pieces[-1].uniqueid:
                return False
            if still_there and job.phase is Phase.STOPPING:
                return False  # Asterisk is being told
            if job.phase is Phase.STOPPING:
                cause = job.recording.cause
            ended = job.recording.ended_at or ended_at or self._clock()
            if still_there:
                paused = self._closed_pauses(job, ended)
                await self._journal.move(job, Event.STOP, cause=cause, ended_at=ended, pauses=paused)
            else:
                more: dict[str, Any] = {"facts": {**job.recording.facts, **facts}} if facts else {}
                if job.recording.started_at is None:  # it was never seen to start, and there is a file all the same
                    more["started_at"] = job.recording.requested_at
                await self._journal.move(
                    job, Event.HUNG_UP, cause=cause, ended_at=ended, pauses=self._closed_pauses(job, ended), **more
                )
        if still_there:
            self._spawn(self._halt(job), f"stop {job.id}")
        else:
            self._spawn(self._close(job), f"close {job.id}")
        return True

    async def stopped_elsewhere(self, job: Job, cause: Cause = Cause.ABORTED, *, ended_at: float | None = None) -> bool:
        """Somebody else stopped it (dialplan, another AMI client) and its file is closed, perhaps for a while.

        :param ended_at: when, unix seconds; None where only the file tells
        """
        async with job.lock:
            if job.phase not in (Phase.ACTIVE, Phase.PAUSED):
                return False
            ended = ended_at or await self._last_written(job)
            pauses = self._closed_pauses(job, ended)
            await self._journal.move(job, Event.STOPPED, cause=cause, ended_at=ended, pauses=pauses)
        self._spawn(self._close(job), f"close {job.id}")
        return True

    async def ended_unseen(self, job: Job, facts: Mapping[str, Any] | None = None) -> bool:
        """Its call ended while nobody looked, some time ago: when and why is told by its files and its limits."""
        job.unseen = True
        started, timeout = job.recording.started_at, job.recording.spec.seconds_timeout
        ended = await self._last_written(job)
        if started is not None and timeout is not None and ended >= started + timeout:
            # nobody was there to stop it: it ends where it should have, and that is why
            return await self.hung_up(job, cause=Cause.TIMEOUT, ended_at=started + timeout, facts=facts)
        return await self.hung_up(job, ended_at=ended, facts=facts)

    async def _last_written(self, job: Job) -> float:
        """When Asterisk closed its files, unix seconds; now where they do not tell. Their clock is the machine's, which
        may be set while ours goes on: only how long ago it was is theirs to say."""
        recording = job.recording
        paths = tuple(path for piece in recording.pieces for path in piece.paths)
        last_write = await self._threads.run(files.last_write, paths)
        begun = recording.requested_at if recording.started_at is None else recording.started_at
        now = self._clock()
        ended = now - (time.time() - last_write)
        return ended if begun <= ended <= now else now

    def resume(self, job: Job) -> None:
        """Take an ending up where the last process left it. For phases from STOPPING on."""
        road = {Phase.STOPPING: self._halt, Phase.CLOSING: self._close, Phase.FINISHING: self._finish}
        self._spawn(road[job.phase](job), f"resume {job.id}")

    def _closed_pauses(self, job: Job, ended: float | None = None) -> tuple[Span, ...]:
        pauses = job.recording.pauses
        if not pauses or pauses[-1].end is not None:
            return pauses
        end = self._clock() if ended is None else ended
        start = job.recording.started_at or end
        return (*pauses[:-1], Span(pauses[-1].start, round(max(pauses[-1].start, end - start), 3)))

    async def _halt(self, job: Job) -> None:
        """STOPPING: tell Asterisk, until it has stopped or the channel is gone."""
        pause = 0.2
        told = False
        while job.phase is Phase.STOPPING:
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
        async with job.lock:
            if job.phase is Phase.STOPPING:
                await self._journal.move(job, Event.STOPPED)
            elif job.phase is not Phase.CLOSING:
                return
        await self._close(job, told=told)

    async def _tell_stop(self, job: Job) -> None:
        pbx = self._pbxs.get(job.recording.asterisk)
        if pbx is None:
            return
        await end_given_up(job, pbx)
        piece = job.recording.pieces[-1]
        await control_of(job, piece, pbx).stop(piece, job.recording.spec)

    async def _closed(self, job: Job) -> bool:
        """Has Asterisk closed every file, as far as they tell?"""
        recording = job.recording
        if recording.adopted:
            ended = self._clock() - (recording.ended_at or self._clock()) if job.phase is Phase.CLOSING else 0.0
            return await self._threads.run(foreign.closed, recording.pieces[-1].paths, ended)
        return await self._threads.run(files.closed, recording.pieces[-1].paths)

    async def _close(self, job: Job, *, told: bool = False) -> None:
        """CLOSING: until Asterisk has closed the raw files, or nobody will any more.

        :param told: Asterisk has said that it stopped; its files are closed then
        """
        if not await self._closed(job):
            await self._closed_or_given_up(job, told)
        async with job.lock:
            if job.phase is not Phase.CLOSING:
                return
            await self._journal.move(job, Event.CLOSED)
        await self._finish(job)

    async def _closed_or_given_up(self, job: Job, told: bool) -> None:
        paths = job.recording.pieces[-1].paths
        sizes = await self._threads.run(files.sizes, paths)
        deadline = time.monotonic() + await self._patience(job, paths, sizes, told)
        pause = CLOSE_POLL_SECONDS
        while time.monotonic() < deadline and max(sizes, default=-1) >= 0:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.25)
            if await self._closed(job):
                return
            now = await self._threads.run(files.sizes, paths)
            if now != sizes:
                sizes = now  # still being written: it is not over
                deadline = max(deadline, time.monotonic() + self._close_seconds / 2)

    async def _patience(self, job: Job, paths: tuple[str, ...], sizes: tuple[int, ...], told: bool) -> float:
        """Seconds that files may take whose headers have no sizes, while nobody writes to them."""
        patience = self._close_seconds
        if job.unseen:  # it was over long ago: what has stood still since has had its time
            patience -= max(0.0, time.time() - await self._threads.run(files.last_write, paths))
        if max(sizes, default=0) <= files.HEADER_BYTES:  # nothing was ever heard: such a header stays as it is
            return min(0.0 if told else UNSEEN_SECONDS, self._close_seconds)
        return max(min(UNSEEN_SECONDS, self._close_seconds), patience)

    async def _finish(self, job: Job) -> None:
        """FINISHING: make the file, sync it, journal it with its deliveries, remove Asterisk's."""
        try:
            recording = await self._named(job)
            await self._unlock(job)
            rendered = await self._rendered(job, recording)
        except (FastAGIError, OSError) as exc:
            await self._failed(job, exc)
            return
        except Exception as exc:
            log.exception("finishing_broke", **job.recording.ids)
            await self._failed(job, exc)
            return
        async with job.lock:
            if job.phase is not Phase.FINISHING:
                return
            await self._finished(job, rendered)

    async def _rendered(self, job: Job, recording: Recording) -> Rendered:
        """Make the file, however long the ledger is away that must say whose it is."""
        permit, pause = self._permit(recording), 0.5

        def make() -> Rendered:
            return foreign.finish(recording, render_plan(recording, job.cipher, self._silence_dbfs, permit))

        while True:
            try:
                return await self._threads.finish(make)
            except StoreDown as exc:
                log.warning("ledger_out_of_reach", **recording.ids, error=str(exc))
                await asyncio.sleep(pause)
                pause = min(2 * pause, 30.0)

    def _permit(self, recording: Recording) -> Permit | None:
        """May its finished file be put in its place? Asked on a thread.

        A server that slept may have been taken for dead: its heir has finished the recording, and the ledger has the
        heir's checksum. Where the ledger does not answer, a name that is still only reserved may be filled; of a file
        that is there nobody knows whose it is, and that raises StoreDown.
        """
        if self._journal.alone:
            return None
        loop = asyncio.get_running_loop()

        def permit() -> bool:
            if not self._journal.stuck:  # else nobody asks it first: other files wait for this thread
                asking = asyncio.run_coroutine_threadsafe(self._journal.held_here(recording.id), loop)
                try:
                    return asking.result(PERMIT_SECONDS)
                except (StoreError, TimeoutError):
                    asking.cancel()
            if files.size(recording.file_path) > 0:
                raise StoreDown(f"{recording.file_path} is there, and the ledger does not say whose it is")
            return True

        return permit

    async def _named(self, job: Job) -> Recording:
        """It, with its name taken: whose folder vanished meanwhile, with the empty file that held the name, takes it
        once more.

        :raises AudioError: it cannot
        """
        recording = job.recording
        if await self._threads.run(files.size, recording.file_path) >= 0:
            return recording
        relative = files.relative_to(recording.file_path, self._directory)
        try:
            path, _ = await self._threads.run(files.reserve, self._directory, relative, recording.id)
        except OSError as exc:
            raise AudioError(f"{recording.file_path}: cannot be written: {exc.strerror}") from None
        log.warning("name_taken_again", **job.recording.ids, file=path, hint="its folder vanished in mid-call")
        if path == recording.file_path:
            return recording
        return await self._journal.note(job, "renamed", file_path=path, facts={**recording.facts, "renamed": True})

    async def _unlock(self, job: Job) -> None:
        """Fetch the key of an encrypted recording, however long the ledger is away: without it nothing is made.

        :raises CipherError: there is no such key, or it is wrapped by another master key
        """
        pause = 0.2
        while job.cipher is None and job.recording.spec.encryption:
            try:
                job.cipher = await self._keys.load(job.id)
                if job.cipher is None:
                    raise CipherError(
                        "it was to be encrypted, and its key is not in the ledger: put back a copy of the ledger that "
                        "has it, and it is finished; else delete the recording, or take care of Asterisk's clear file"
                    )
            except StoreDown as exc:
                log.warning("key_out_of_reach", **job.recording.ids, error=str(exc))
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)

    async def _finished(self, job: Job, rendered: Rendered) -> None:
        recording = job.recording
        after = await self._journal.finish(
            job,
            cause=limit_cause(recording, rendered),
            finished_at=self._clock(),
            audio_seconds=round(rendered.audio_seconds, 3),
            bytes=rendered.bytes,
            sha256=rendered.sha256,
            error="",
            facts={**told(recording.facts), **foreign.heard(recording, rendered), **_noticed(job)},
        )
        if (
            not self._journal.waits(after.id) and UNREACHED not in after.facts
        ):  # else the sweep removes them, once it is sure
            pbx = self._pbxs.get(after.asterisk)
            try:
                await self._threads.run(files.remove, foreign.removable(after, pbx.spool if pbx is not None else None))
            except OSError as exc:  # the finished file is safe; the sweep tries again
                log.warning("raw_files_not_removed", **after.ids, error=str(exc))
        log.info(
            "recording_finished",
            **after.ids,
            cause=after.cause.value,
            file=after.file_path,
            audio_seconds=after.audio_seconds,
        )
        self._jobs.close(job)
        job.set_ended()

    async def _failed(self, job: Job, exc: Exception) -> None:
        """The finished file could not be made: the raw files stay, the operator is told."""
        paths = [path for piece in job.recording.pieces for path in piece.paths[:1]]
        kept = [path for path in paths if await self._threads.run(files.size, path) > 0]
        what = str(exc) or type(exc).__name__
        if job.spool_full:
            what += "; the disk of the spool was full while it was recorded"
        async with job.lock:
            if job.phase is not Phase.FINISHING:
                return
            extra = {
                **job.recording.facts,
                **_noticed(job),
                "ended_by": job.recording.cause.value,
                "disk_full": isinstance(exc, DiskFull),
            }
            error = f"the finished file could not be made: {what}"
            if kept:
                error += f" (Asterisk's file is kept: {', '.join(kept)})"
            await self._journal.move(job, Event.FAILED, cause=Cause.ERROR, error=error, facts=extra)
        log.error("recording_failed", **job.recording.ids, error=error)
        await self._threads.run(files.release, job.recording.file_path)
        self._jobs.close(job)
        job.set_ended()

    async def refinish(self, recording: Recording) -> Job:
        """Try once more to finish a FAILED recording whose raw files are kept.

        :raises IllegalTransition: it is not FAILED
        """
        job = Job(recording)
        relative = files.relative_to(recording.file_path, self._directory)
        path, renamed = await self._threads.run(files.reserve, self._directory, relative, recording.id)
        async with job.lock:
            cause = Cause(recording.facts.get("ended_by", Cause.HANGUP.value))
            rest = {k: v for k, v in recording.facts.items() if k not in ("ended_by", "disk_full")}
            if renamed:
                rest["renamed"] = True
            await self._journal.move(job, Event.REFINISH, cause=cause, error="", facts=rest, file_path=path)
        self._jobs.add(job)
        self._spawn(self._finish(job), f"refinish {job.id}")
        return job


def _noticed(job: Job) -> dict[str, Any]:
    """What was seen while it ran, as facts: whom its channel talked with, a spool without room."""
    facts: dict[str, Any] = {"spool_full": True} if job.spool_full else {}
    if job.members:  # who only listens in a conference is no fault
        facts |= {**job.members.facts(), "one_sided": False}
    if job.recording.adopted and not job.grew_unbridged:
        facts["bridged_seconds"] = bridged_seconds(job)
    before = job.recording.facts.get("talked_with", [])
    met = list(dict.fromkeys([*before, *job.met]))
    return {**facts, "talked_with": met} if met else facts


def bridged_seconds(job: Job) -> float | None:
    """How long the channel of an adopted recording was in a bridge while it ran; None where that is not known."""
    total, since = job.bridged_seconds, job.bridged_since
    if total is None:
        return None
    if since is not None:
        total += max(0.0, (job.recording.ended_at or since) - since)
    return round(total, 1)
