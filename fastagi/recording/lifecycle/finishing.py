"""Makes the finished file of a recording whose raw files are closed: rendered, synced, journalled with its deliveries,
and only then are Asterisk's own files removed.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from fastagi.audio import Permit, Rendered
from fastagi.domain.facts import BRIDGED_SECONDS, SPOOL_FULL, TALKED_WITH
from fastagi.domain.lifecycle import Effect, events
from fastagi.domain.lifecycle.effects import ReleaseName, RemoveRaw
from fastagi.domain.recording import Recording
from fastagi.domain.states import Cause
from fastagi.errors import (
    AudioError,
    CipherError,
    DiskFull,
    FastAGIError,
    StoreDown,
    StoreError,
)
from fastagi.recording.asterisk import external, raw_files
from fastagi.recording.asterisk.render_plan import render_plan
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.engine import Engine

log = structlog.get_logger(__name__)

PERMIT_SECONDS = 3.0
"""What the ledger has to say whether a recording is still this server's: it takes some milliseconds."""


class Finalizer:
    """Makes finished files.

    :param spawn: starts a task that the app owns
    :param directory: the recordings directory
    :param silence_dbfs: what is below it is silence
    """

    def __init__(self, context: RecordingContext, engine: Engine) -> None:
        self._engine = engine
        self._journal = context.journal
        self._jobs = context.jobs
        self._threads = context.threads
        self._keys = context.keys
        self._pbxs = context.pbxs
        self._spawn = context.tasks.spawn
        self._directory = context.settings.directory
        self._silence_dbfs = context.settings.silence_dbfs

    async def finish(self, job: ActiveRecording) -> None:
        """Make the file, sync it, journal it with its deliveries, remove Asterisk's."""
        try:
            recording = await self._named(job)
            await self._unlock(job)
            rendered = await self._rendered(job, recording)
        except (FastAGIError, OSError) as exc:
            await self._failed(job, exc)
        except Exception as exc:
            log.exception("finishing_broke", **job.recording.ids)
            await self._failed(job, exc)
        else:
            await self._finished(job, rendered)

    async def _rendered(self, job: ActiveRecording, recording: Recording) -> Rendered:
        """Make the file, however long the ledger is away that must say whose it is."""
        permit, pause = self._permit(recording), 0.5

        def make() -> Rendered:
            return external.finish(recording, render_plan(recording, job.cipher, self._silence_dbfs, permit))

        while True:
            try:
                return await self._threads.finish(make)
            except StoreDown as exc:
                log.warning("ledger_out_of_reach", **recording.ids, error=str(exc))
                await asyncio.sleep(pause)
                pause = min(2 * pause, 30.0)

    def _permit(self, recording: Recording) -> Permit | None:
        """Return a function that says whether the finished file may be put in its place; it is called on a thread.

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
            if raw_files.size(recording.file_path) > 0:
                raise StoreDown(f"{recording.file_path} is there, and the ledger does not say whose it is")
            return True

        return permit

    async def _named(self, job: ActiveRecording) -> Recording:
        """Reserve the final file name again if its folder was removed during the call.

        :returns: the recording, under the name that is reserved
        :raises AudioError: it cannot be reserved
        """
        recording = job.recording
        if await self._threads.run(raw_files.size, recording.file_path) >= 0:
            return recording
        relative = raw_files.relative_to(recording.file_path, self._directory)
        try:
            path, _ = await self._threads.run(raw_files.reserve, self._directory, relative, recording.id)
        except OSError as exc:
            raise AudioError(f"{recording.file_path}: cannot be written: {exc.strerror}") from None
        log.warning("name_taken_again", **job.recording.ids, file=path, hint="its folder vanished in mid-call")
        if path == recording.file_path:
            return recording
        async with job.lock:
            return (await self._engine.apply(job, events.NameTaken(path))).after

    async def _unlock(self, job: ActiveRecording) -> None:
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

    async def _finished(self, job: ActiveRecording, rendered: Rendered) -> None:
        event = events.Rendered(
            rendered.audio_seconds,
            rendered.bytes,
            rendered.sha256,
            Cause(rendered.limit or Cause.NONE),
            {**external.heard(job.recording, rendered), **_noticed(job)},
        )
        decision = await self._engine.offer(job, event)
        if decision is None:
            return
        after = decision.after
        await self._carry_out(job, decision.effects)
        log.info(
            "recording_finished",
            **after.ids,
            cause=after.cause.value,
            file=after.file_path,
            audio_seconds=after.audio_seconds,
        )
        self._jobs.close(job)
        job.set_ended()

    async def _failed(self, job: ActiveRecording, exc: Exception) -> None:
        """The finished file could not be made: the raw files stay, the operator is told."""
        paths = [path for piece in job.recording.pieces for path in piece.paths[:1]]
        kept = [path for path in paths if await self._threads.run(raw_files.size, path) > 0]
        what = str(exc) or type(exc).__name__
        if job.spool_full:
            what += "; the disk of the spool was full while it was recorded"
        error = f"the finished file could not be made: {what}"
        if kept:
            error += f" (Asterisk's file is kept: {', '.join(kept)})"
        event = events.NotRendered(error, isinstance(exc, DiskFull), _noticed(job))
        decision = await self._engine.offer(job, event)
        if decision is None:
            return
        log.error("recording_failed", **job.recording.ids, error=error)
        await self._carry_out(job, decision.effects)
        self._jobs.close(job)
        job.set_ended()

    async def _carry_out(self, job: ActiveRecording, effects: tuple[Effect, ...]) -> None:
        """Do what is left of an ended recording; its deliveries are rows since the decision was written."""
        for effect in effects:
            match effect:
                case RemoveRaw():
                    await self._remove_raw(job.recording)
                case ReleaseName():
                    await self._threads.run(raw_files.release, job.recording.file_path)

    async def _remove_raw(self, recording: Recording) -> None:
        if self._journal.waits(recording.id):
            return  # the ledger does not know yet: the sweep removes them, once it does
        pbx = self._pbxs.get(recording.asterisk)
        raw = external.removable(recording, pbx.spool if pbx is not None else None)
        try:
            await self._threads.run(raw_files.remove, raw)
        except OSError as exc:  # the finished file is safe; the sweep tries again
            log.warning("raw_files_not_removed", **recording.ids, error=str(exc))

    async def refinish(self, recording: Recording) -> ActiveRecording:
        """Try once more to finish a FAILED recording whose raw files are kept.

        :raises IllegalTransition: it is not FAILED
        """
        job = ActiveRecording(recording)
        relative = raw_files.relative_to(recording.file_path, self._directory)
        path, renamed = await self._threads.run(raw_files.reserve, self._directory, relative, recording.id)
        async with job.lock:
            await self._engine.apply(job, events.RefinishRequested(path, renamed))
        self._jobs.add(job)
        self._spawn(self.finish(job), f"refinish {job.id}")
        return job


def _noticed(job: ActiveRecording) -> dict[str, Any]:
    """Return as facts what was seen while the recording ran: the channel's peers, a spool without room."""
    facts: dict[str, Any] = {SPOOL_FULL: True} if job.spool_full else {}
    if job.members:  # who only listens in a conference is no fault
        facts |= {**job.members.facts(), "one_sided": False}
    if job.recording.adopted and not job.grew_unbridged:
        facts[BRIDGED_SECONDS] = bridged_seconds(job)
    met = list(dict.fromkeys([*job.recording.facts.talked_with, *job.participants]))
    return {**facts, TALKED_WITH: met} if met else facts


def bridged_seconds(job: ActiveRecording) -> float | None:
    """Return the seconds in which the channel of an adopted recording was in a bridge; None where that is not known."""
    total, since = job.bridged_seconds, job.bridged_since
    if total is None:
        return None
    if since is not None:
        total += max(0.0, (job.recording.ended_at or since) - since)
    return round(total, 1)
