"""From a request to a recording that Asterisk is seen to make.

The order is the promise: arguments are checked, the name is taken, the intent is on disk, the command goes out, the raw
file is seen, the start is on disk. Whatever fails leaves a row that says why, and no half-taken name.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from fastagi.cipher import Cipher
from fastagi.domain import naming
from fastagi.domain.facts import RENAMED, Facts
from fastagi.domain.ids import new_id
from fastagi.domain.lifecycle import decide
from fastagi.domain.lifecycle.events import NotStarted, Started, StartMoved
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.spec import RecordingSpec
from fastagi.errors import ActionTimeout, AsteriskDown, AsteriskError, Error, FastAGIError, Hangup
from fastagi.recording.asterisk import raw_files
from fastagi.recording.asterisk.channel_table import called_number
from fastagi.recording.asterisk.control import AgiControl, AgiPath, Control, gone
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording, Key
from fastagi.recording.lifecycle.engine import Engine
from fastagi.recording.lifecycle.start_faults import StartFaults

log = structlog.get_logger(__name__)


ANSWER_SECONDS = 3.0
"""What Asterisk has to answer the order to record (it takes a millisecond): somebody hears nothing meanwhile."""

SECOND_WAY = 9000
"""Number of the piece whose order went out a second time; no recording has so many."""


class Unanswered(AsteriskError):
    """Asterisk took the order to record, and neither answered nor was it seen to record."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request to record: which channel, into what, and how.

    :param filename: as asked for, fields not filled in; empty for one of our own making
    :param fields: values for `{field}`s in it
    :param sinks: names of the sinks that are to get it
    :param agi: the session that asks, if one does
    """

    pbx: Pbx
    channel: str
    uniqueid: str
    filename: str
    spec: RecordingSpec
    linkedid: str = ""
    recorder: str = ""
    caller: str = ""
    called: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    cipher: Cipher | None = None
    sinks: tuple[str, ...] = ()
    agi: AgiPath | None = None

    @property
    def key(self) -> Key:
        return (self.pbx.name, self.uniqueid, self.recorder)

    def asks_for(self, recording: Recording, options: Iterable[str]) -> bool:
        """Does a start with this request, made when `recording` was, give that recording?

        :param options: names of the parameters that were asked for; defaults may have changed since
        :raises BadArgument: no file can have the name that is asked for
        """
        if any(getattr(self.spec, name) != getattr(recording.spec, name) for name in options):
            return False
        wanted = naming.wanted_name(self.filename) or recording.id
        return naming.expand(wanted, _parties(self)[2], recording.requested_at) == recording.name


def _parties(request: Request) -> tuple[str, str, Mapping[str, str]]:
    """Return caller, called, and the values of `{field}`s."""
    caller, called, fields = request.caller, request.called, request.fields
    origin = request.pbx.channels.origin(request.uniqueid)
    if origin is not None:  # a dialled channel's own "caller" is the number that it was dialled for
        caller, called = origin.caller, called_number(origin.first_exten, origin.exten, called)
        fields = {**fields, "caller": caller, "caller_name": origin.caller_name, "extension": called}
    return caller, called, fields


class Starter:
    """Starts recordings."""

    def __init__(self, context: RecordingContext, engine: Engine) -> None:
        self._engine = engine
        self._journal = context.journal
        self._jobs = context.jobs
        self._threads = context.threads
        self._keys = context.keys
        self._node = context.node
        self._directory = context.settings.directory
        self._start_seconds = context.settings.start_seconds
        self._clock = context.clock
        self._starting: set[Key] = set()
        self.faults = StartFaults(context.settings.directory)

    async def start(self, request: Request) -> ActiveRecording:
        """Start it. The job returned is ACTIVE, or FAILED with the reason in its `error`.

        :raises Error: this recorder of this call records already, or an argument is wrong; nothing was sent
        :raises Hangup: the channel was gone when the command came
        """
        key = request.key
        if key in self._starting or self._jobs.current(key) is not None:
            raise Error(f"channel {request.channel} is being recorded already: stop that recording first")
        if request.spec.engine == "monitor" and request.pbx.major > 20:
            raise Error(
                f"engine='monitor': Asterisk {request.pbx.major} has no Monitor any more (20 was the last): "
                "use engine='mixmonitor'"
            )
        if request.spec.engine == "monitor" and self._has_monitor(request):
            raise Error(
                f"channel {request.channel} has a Monitor already, and can have one only: use engine='mixmonitor'"
            )
        recording = self._intended(request)
        if self._journal.full:
            return self._unwritten(request, recording, self._journal.full)
        self._starting.add(key)
        try:
            return await self._start(request, recording)
        finally:
            self._starting.discard(key)

    def _unwritten(self, request: Request, recording: Recording, error: str) -> ActiveRecording:
        """A recording that is not begun, and is in no ledger: its caller is told, metrics and announcements."""
        error = f"not recorded: {error}"
        log.error("recording_failed", **recording.ids, error=error)
        decision = decide(recording, NotStarted(error), self._clock())
        failed = decision.after.changed(file_path="")
        self._journal.tell(failed, decision.entry, dict(decision.changes))
        job = ActiveRecording(failed, request.cipher, request.agi)
        self._jobs.close(job)
        job.set_ended()
        return job

    def _has_monitor(self, request: Request) -> bool:
        """A second Monitor on a channel takes the first one's files away (Asterisk 16)."""
        others = self._jobs.on_channel(request.pbx.name, request.uniqueid)
        return any(job.recording.spec.engine == "monitor" for job in others)

    def _intended(self, request: Request) -> Recording:
        now = self._clock()
        recording_id = new_id("rec", now, os.urandom(10))
        caller, called, fields = _parties(request)
        name = naming.expand(naming.wanted_name(request.filename) or recording_id, fields, now)
        relative = naming.relative_path(name, request.spec.form)
        return Recording(
            id=recording_id,
            node=self._node,
            asterisk=request.pbx.name,
            system=request.pbx.system,
            channel=naming.well_formed(request.channel),
            uniqueid=naming.well_formed(request.uniqueid),
            linkedid=naming.well_formed(request.linkedid),
            recorder=naming.well_formed(request.recorder),
            name=name,
            file_path=relative,
            spec=request.spec,
            caller=naming.well_formed(caller),
            called=naming.well_formed(called),
            pieces=(
                raw_files.raw_segment(
                    request.pbx.spool, recording_id, 0, request.spec, request.channel, request.uniqueid
                ),
            ),
            sinks=request.sinks,
            requested_at=now,
        )

    async def _start(self, request: Request, recording: Recording) -> ActiveRecording:
        fault = ""
        try:
            path, renamed, fault = await self._threads.run(
                _take_places, self._directory, recording.file_path, recording.id, request.pbx.spool
            )
            recording = replace(recording, file_path=path, facts=Facts({RENAMED: True} if renamed else {}))
        except OSError as exc:
            where = exc.filename or self._directory
            fault = f"{where}: {exc.strerror}: make [recordings] directory writable for this server"
            self.faults.unwritten(recording.file_path, exc)
            recording = replace(recording, file_path=str(self._directory / recording.file_path))
        job = ActiveRecording(recording, request.cipher, request.agi)
        try:
            key = None if request.cipher is None else self._keys.wrap(job.id, request.cipher)
            await self._journal.enter(recording, key=key)
            self._jobs.add(job)
            async with job.lock:
                await self._carry_out(job, request, fault)
        except Exception as exc:
            if job.recording.requested:  # what nobody expected must keep neither the name nor the call
                job.recording = decide(job.recording, NotStarted(str(exc)), self._clock()).after
                self._jobs.close(job)
                job.set_ended()
                await self._threads.run(raw_files.release, recording.file_path)
            raise
        return job

    async def _carry_out(self, job: ActiveRecording, request: Request, fault: str) -> None:
        if fault:
            await self.fail(job, fault)
        else:
            await self.command(job, request.pbx)

    async def command(self, job: ActiveRecording, pbx: Pbx, *, perhaps_running: bool = False) -> None:
        """Tell Asterisk to record the job's first segment and see that it does. The job's lock must be held.

        :param perhaps_running: an earlier process may have told it already: look first
        :raises Hangup: the channel is gone (the job is FAILED)
        """
        recording = job.recording
        try:
            found = await self._running(job, pbx) if perhaps_running else None
            piece = found or await self._begin_with_fallback(job, pbx)
        except Hangup:
            await self.fail(job, f"the channel {recording.pieces[-1].channel} was gone when the recording should start")
            raise
        except (AsteriskError, Error) as exc:
            await self.fail(job, str(exc))
            return
        job.started = time.monotonic()
        self.faults.succeeded(recording.file_path, pbx.spool)
        await self._engine.apply(job, Started(piece))
        log.info(
            "recording_found_running" if found else "recording_started",
            **recording.ids,
            file=piece.paths[0],
        )

    async def _running(self, job: ActiveRecording, pbx: Pbx) -> Segment | None:
        """The segment, if Asterisk records it already: the last process died before it could say so."""
        piece = job.recording.pieces[-1]
        monitor_id = ""
        try:
            monitor_id = await pbx.control(piece.channel).find_id(piece)
        except AsteriskError as exc:
            log.debug("monitor_id_not_found", **job.recording.ids, error=str(exc))
        if await self._threads.run(raw_files.size, piece.paths[0]) < 0:
            return None
        return replace(piece, started_at=job.recording.requested_at, monitor_id=monitor_id)

    async def _begin_with_fallback(self, job: ActiveRecording, pbx: Pbx) -> Segment:
        """Through the manager interface; where that takes orders and answers nothing, through the AGI session.

        The unanswered order may be carried out yet, and would empty the file: the second one names another, and is
        journalled before it goes out.
        """
        recording = job.recording
        try:
            return await self.begin(recording.pieces[-1], recording.spec, pbx, job.agi)
        except Unanswered:
            if job.agi is None or job.agi.closed:
                raise
        first = recording.pieces[-1]
        piece = raw_files.raw_segment(
            pbx.spool, recording.id, SECOND_WAY, recording.spec, first.channel, first.uniqueid, reason=first.reason
        )
        await self._engine.apply(job, StartMoved(piece))
        log.warning("manager_unanswering", **recording.ids, hint="the AGI session is used")
        return await self._begin(piece, recording.spec, AgiControl(job.agi))

    async def begin(
        self, piece: Segment, spec: RecordingSpec, pbx: Pbx, agi: AgiPath | None, muted: Iterable[str] = ()
    ) -> Segment:
        """Tell Asterisk to record this piece and see that it does.

        :param muted: Asterisk's directions that are muted from its first frame on
        :returns: the piece with its id and the time it began
        :raises Hangup: the channel is gone; :raises AsteriskError: it could not (the text says why and what to do)
        """
        live = pbx.channels.get(piece.uniqueid)
        try:
            control = pbx.control(live.name if live is not None else piece.channel, agi)
        except AsteriskError as exc:
            raise AsteriskError(f"Asterisk did not start the recording: {exc}") from exc
        return await self._begin(piece, spec, control, muted)

    async def _begin(self, piece: Segment, spec: RecordingSpec, control: Control, muted: Iterable[str] = ()) -> Segment:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                monitor_id = await control.start(piece, spec)
        except (ActionTimeout, AsteriskDown, TimeoutError) as exc:
            # the order may have been carried out all the same
            if not await self._seen(piece):
                raise Unanswered(f"Asterisk did not answer the order to record: {exc or 'time-out'}") from exc
            monitor_id = ""
        except (AsteriskError, Error, Hangup) as exc:
            if gone(exc):
                raise Hangup(f"the channel {piece.channel} has hung up") from exc
            raise AsteriskError(f"Asterisk did not start the recording: {exc}") from exc
        piece = replace(piece, monitor_id=monitor_id, started_at=self._clock())
        for direction in muted:
            try:
                await control.mute(piece, spec, direction, True)
            except (AsteriskError, Error, Hangup) as exc:
                log.error("mute_lost", **_ids(piece), file=piece.paths[0], direction=direction, error=str(exc))
        if await self._seen(piece):
            return piece
        await self._undo(control, piece, spec)
        where = Path(piece.paths[0])
        self.faults.unopened(where.parent)
        raise AsteriskError(
            await self._threads.run(raw_files.spool_fault, where.parent)
            or f"Asterisk could not open {where}: make {where.parent} writable for Asterisk's user, "
            "and the same directory on both sides"
        )

    async def _seen(self, piece: Segment) -> bool:
        """Asterisk answers success before it opened the file: only the file proves it. Bounded by `start_seconds`."""
        first = piece.paths[0]
        deadline = time.monotonic() + self._start_seconds
        pause = 0.002
        while True:
            if await self._threads.run(raw_files.size, first) >= 0:
                return True
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)

    async def _undo(self, control: Control, piece: Segment, spec: RecordingSpec) -> None:
        """A recording that never opened its file may still sit on the channel: take it off."""
        try:
            await control.stop(piece, spec)
        except FastAGIError:
            log.debug("nothing_to_undo", **_ids(piece), file=piece.paths[0])

    async def fail(self, job: ActiveRecording, error: str) -> None:
        """Record in the ledger that it could not start, and give the name back. The job's lock must be held."""
        await self._engine.apply(job, NotStarted(error))
        log.error("recording_failed", **job.recording.ids, error=error)
        await self._threads.run(raw_files.release, job.recording.file_path)
        self._jobs.close(job)
        job.set_ended()


def _ids(piece: Segment) -> dict[str, str]:
    recording_id = raw_files.recording_id_of(Path(piece.paths[0])) or ""
    return {"recording_id": recording_id, "channel": piece.channel, "uniqueid": piece.uniqueid}


def _take_places(directory: Path, relative: str, recording_id: str, spool: Path) -> tuple[str, bool, str]:
    """Reserve the finished file's name (path, whether it had to be changed) and see what is wrong with the spool."""
    return (*raw_files.reserve(directory, relative, recording_id), raw_files.spool_fault(spool))
