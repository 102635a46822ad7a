"""`WholeCallRecorder`: the seed's recorder of one call, on top of the app's `Recorder`.

Source: the seed (class UASWholeCallFileRecorder): names, parameters, defaults, return values and exceptions are its.
In a blocking handler the same methods block (`fastagi.agi.blocking`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import structlog

from fastagi.cipher import Cipher
from fastagi.domain import states
from fastagi.domain.numbers import check_seconds
from fastagi.domain.recording import Recording
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Cause, Phase, State
from fastagi.errors import BadArgument, Error, FastAGIError, Hangup
from fastagi.recording.ledger.active import ActiveRecording, Key
from fastagi.recording.lifecycle.starting import Request
from fastagi.recording.parameters import LONGEST_WAIT_SECONDS, given, spec_from
from fastagi.recording.recorded_call import (
    RecordedCall,
    ask_session,
    is_of_another_call,
    must_be_answered,
    must_be_free,
    must_not_be_over,
)
from fastagi.recording.service import RecordingService
from fastagi.recording.session_wait import wait_in_session

START_SECONDS = 3.0
"""For a start that an earlier session began: what a call waits for a start of its own."""


class UASWholeCallFileRecorder:
    """Records a whole call to a file (seed).

    :ivar State: the seed's states; :ivar Cause: the seed's causes
    """

    State: ClassVar[type[states.State]] = states.State
    Cause: ClassVar[type[states.Cause]] = states.Cause

    def __init__(self, recorder: RecordingService, call: RecordedCall, name: str = "") -> None:
        self._recorder = recorder
        self._call = call
        self._name = name
        self._began: ActiveRecording | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._call.channel} {self._name or 'default'}: {self.state()}>"

    @property
    def _key(self) -> Key:
        return (self._call.pbx.name, self._call.uniqueid, self._name)

    @property
    def recording(self) -> Recording | None:
        """The running recording, else the last one; None when there was none."""
        known = self._recorder.last(self._key)
        if known is None and self._began is not None:  # so many have ended since that the recorder has forgotten it
            return self._began.recording
        return known

    @property
    def error(self) -> str:
        """The fault of the last recording and what to do; empty for none."""
        recording = self.recording
        return recording.error if recording is not None else ""

    def state(self) -> states.State:
        """The current state. Never raises, never waits."""
        recording = self.recording
        return recording.state if recording is not None else State.IDLE

    def cause(self) -> states.Cause:
        """Return why the last recording ended; NONE while one runs or when there was none. Never raises, never
        waits.
        """
        recording = self.recording
        return recording.public_cause if recording is not None else Cause.NONE

    async def record(
        self,
        filename: str | os.PathLike[str],
        file_format: str = "alaw",
        rate: int = 8000,
        seconds_timeout: float | None = None,
        max_bytes: int = 0,
        milliseconds_max_silence: int = 0,
        milliseconds_initial_silence: int = 0,
        dtmf_elim: bool = True,
        recording_mode: str = "mixed",
        cipher: Cipher | None = None,
        *,
        mid_call: bool = False,
        sink: Any | None = None,
        **beyond: Any,
    ) -> states.Cause:
        """Record until a limit, a hangup, a stop or `seconds_timeout`; gives the cause once the file is there.

        :param seconds_timeout: stop after so many seconds, cause TIMEOUT; None for no timeout
        :param beyond: engine, pause_mode, beep_seconds, beep_start, beep_stop (`fastagi.domain.spec.RecordingSpec`)
        :raises Hangup: the call was over before it began, or this AGI session must end though the recording goes on:
            the channel was redirected, and waits for it
        :raises Error: it is not answered, is recorded already, or an argument is wrong

        The other parameters are those of `start`. Cancelling the wait does not stop the recording.
        """
        must_not_be_over(self._call)
        job = await self._start(
            given(filename),
            dict(
                file_format=file_format,
                rate=rate,
                seconds_timeout=seconds_timeout,
                max_bytes=max_bytes,
                milliseconds_max_silence=milliseconds_max_silence,
                milliseconds_initial_silence=milliseconds_initial_silence,
                dtmf_elim=dtmf_elim,
                recording_mode=recording_mode,
                **beyond,
            ),
            cipher,
            mid_call,
            sink,
        )
        await self.wait_for(job)
        return job.recording.cause

    async def start(
        self,
        filename: str | os.PathLike[str],
        file_format: str = "alaw",
        rate: int = 8000,
        max_bytes: int = 0,
        milliseconds_max_silence: int = 0,
        milliseconds_initial_silence: int = 0,
        dtmf_elim: bool = True,
        recording_mode: str = "mixed",
        cipher: Cipher | None = None,
        *,
        mid_call: bool = False,
        sink: Any | None = None,
        **beyond: Any,
    ) -> bool:
        """Start recording; it goes on after this AGI session.

        :param filename: relative to the recordings directory; folders and ``{date:%Y/%m/%d}``, ``{uniqueid}``,
            ``{caller}``, ``{extension}`` are filled in; no suffix means ``.wav``. A name that exists is kept: the new
            file gets ``-<id>``
        :param file_format: codec of the file, a name of `fastagi.domain.formats.FORMATS`
        :param rate: Hz: 6000, 8000, 11000, 11025, or 16000 for wideband calls
        :param max_bytes: of the finished file, header and encryption included; 0 for no limit
        :param milliseconds_max_silence: stop after so much silence; 0 for no limit
        :param milliseconds_initial_silence: give up when no sound came within it; 0 for no limit
        :param dtmf_elim: take in-band digits out
        :param recording_mode: ``mixed`` (one channel) or ``separate`` (left received, right sent; limits are ignored)
        :param cipher: encrypts the finished file
        :param mid_call: allow it while the channel is bridged, in a conference, on hold music or playing
        :param sink: who gets this one instead of the app's sinks
        :returns: True once Asterisk is seen to record; False (state ERROR, `error` says why) when it could not
        :raises Hangup: the call is over
        :raises Error: it is not answered, is busy (see `mid_call`), is recorded already, or an argument is wrong
        """
        must_not_be_over(self._call)
        job = await self._start(
            given(filename),
            dict(
                file_format=file_format,
                rate=rate,
                max_bytes=max_bytes,
                milliseconds_max_silence=milliseconds_max_silence,
                milliseconds_initial_silence=milliseconds_initial_silence,
                dtmf_elim=dtmf_elim,
                recording_mode=recording_mode,
                **beyond,
            ),
            cipher,
            mid_call,
            sink,
        )
        return job.recording.state is not State.ERROR

    async def stop(self) -> bool:
        """Stop; returns when the finished file is there. True also when nothing was recording.

        :returns: False when the file could not be finished (state ERROR)
        :raises Hangup: the call is over; :raises Error: it is not answered; or Asterisk could not be told within 10 s:
            then it stops as soon as it can be, at the latest when the call ends
        """
        job = self._recorder.current(self._key)
        await must_be_answered(self._call, job)
        if job is None:
            return True
        await self._recorder.stop(job)
        return job.recording.state is State.IDLE

    async def wait_until_finished(self, seconds_timeout: float | None = 120) -> states.Cause:
        """Wait until the recording has ended and its file is there.

        :param seconds_timeout: longest wait in seconds; None waits for ever
        :returns: the cause; TIMEOUT when the wait ran out, which leaves the recording running
        :raises Hangup: the call is over, or was redirected while the recording goes on
        :raises Error: it is not answered
        """
        must_not_be_over(self._call)
        check_seconds("seconds_timeout", seconds_timeout, LONGEST_WAIT_SECONDS, none="to wait for ever", zero=True)
        job = self._recorder.current(self._key)
        await must_be_answered(self._call, job)
        if job is None:
            return self.cause()
        return job.recording.cause if await self.wait_for(job, seconds_timeout) else Cause.TIMEOUT

    async def pause(self, seconds: float | None = None) -> bool:
        """Silence from now on (cut out with ``pause_mode="cut"``); True also when it was paused.

        :param seconds: resume by itself after so many, at most a day; None: until told
        :raises Error: nothing is recording, or `seconds` is no such number
        """
        return await self._recorder.pause(self._running(), seconds)

    async def resume(self) -> bool:
        """Record again; True also when it was not paused.

        :raises Error: nothing is recording
        """
        return await self._recorder.resume(self._running())

    async def mute(self, direction: str = "received") -> bool:
        """Silence one side: ``received`` (from the channel), ``sent`` (to it), or ``both``.

        :raises Error: nothing is recording, or the engine is monitor
        """
        return await self._recorder.mute(self._running(), direction, True)

    async def unmute(self, direction: str = "received") -> bool:
        """Undo `mute`."""
        return await self._recorder.mute(self._running(), direction, False)

    async def begin(self, filename: str, arguments: Mapping[str, Any]) -> ActiveRecording:
        """`start` for routes: parameters by name, an empty filename for one of our own making."""
        options = dict(arguments)
        cipher, sink = options.pop("cipher", None), options.pop("sink", None)
        mid_call = options.pop("mid_call", False)
        return await self._start(filename, options, cipher, mid_call, sink)

    async def running_as(
        self, filename: str, arguments: Mapping[str, Any], asked: Collection[str]
    ) -> ActiveRecording | None:
        """Return the running recording if `begin` would have made it of these; else None. For routes.

        One that is being started is waited for, `START_SECONDS` at most.

        :param asked: names of the arguments that count: not those that defaults filled in, which may be others by now
        :raises BadArgument: an argument is wrong
        """
        job = self._recorder.current(self._key)
        if job is None or await is_of_another_call(job.recording, self._call):
            return None
        request = await self._request(filename, spec_from(arguments), None)
        if not request.asks_for(job.recording, asked):
            return None
        deadline = time.monotonic() + START_SECONDS
        while job.recording.requested and time.monotonic() < deadline:
            await job.wait(0.05)
        return job if job.recording.running else None

    async def end(self) -> bool:
        """`stop` that may come from a channel which has hung up: then the cause is HANGUP. For routes."""
        job = self._recorder.current(self._key)
        if job is None:
            return True
        if (await ask_session(self._call, recorded=True)).over:
            await self._recorder.hung_up(job)
        else:
            await self._recorder.stop(job)
        return job.recording.state is State.IDLE

    async def wait_for(self, job: ActiveRecording, seconds: float | None = None) -> bool:
        """Wait until that recording has ended and its file is there, though this session may hold up the very hangup
        that ends it. For routes.

        :returns: False when `seconds` ran out first
        :raises Hangup: the session was told HANGUP, or lost, and the recording goes on without it
        """
        return await wait_in_session(self._recorder, self._call, job, seconds)

    def _running(self) -> ActiveRecording:
        job = self._recorder.current(self._key)
        if job is None:
            raise Error("there is no recording on this call")
        return job

    async def _start(
        self, filename: str, options: dict[str, Any], cipher: Cipher | None, mid_call: bool, sink: Any | None
    ) -> ActiveRecording:
        pbx, uniqueid = self._call.pbx.name, self._call.uniqueid
        try:
            job = await self._start_checked(filename, options, cipher, mid_call, sink)
        except Hangup:
            raise
        except FastAGIError as exc:
            self._recorder.note_refused(pbx, uniqueid, str(exc))
            raise
        if job.phase is Phase.FAILED:
            self._recorder.note_refused(pbx, uniqueid, job.recording.error)
        return job

    async def _start_checked(
        self, filename: str, options: dict[str, Any], cipher: Cipher | None, mid_call: bool, sink: Any | None
    ) -> ActiveRecording:
        if not isinstance(filename, str):
            raise BadArgument(f"name={filename!r} must be text")
        if not isinstance(mid_call, bool):  # "no" would be as good as True
            raise BadArgument(f"mid_call={mid_call!r} must be True or False")
        spec = spec_from(options, cipher)
        call = self._call
        if not mid_call and not call.pbx.up:  # the session itself would be asked, and what plays has taken it
            await must_be_free(call, None)
        await must_be_answered(call)
        live = call.pbx.live_channel(call.uniqueid)
        running = self._recorder.current(self._key)
        if running is not None:
            if not await is_of_another_call(running.recording, call):
                raise Error(
                    "this call is being recorded already: stop that recording, or use call.recorder(name) for another"
                )
            await self._recorder.over_unseen(running)
        if not mid_call:
            await must_be_free(call, live)
        request = await self._request(filename, spec, cipher)
        sinks = call.sink_names(sink)
        try:
            job = await self._recorder.start(replace(request, sinks=sinks))
        except FastAGIError:
            call.release_sinks(sinks)
            raise
        self._began = job
        # from here on what this session logs is about this recording, too
        structlog.contextvars.bind_contextvars(recording_id=job.id)
        if job.phase is Phase.FAILED:
            call.release_sinks(sinks)
        return job

    async def _request(self, filename: str, spec: RecordingSpec, cipher: Cipher | None) -> Request:
        call = self._call
        live = call.pbx.live_channel(call.uniqueid)
        linkedid = live.linkedid if live is not None else await call.fetch_linkedid()
        return Request(
            pbx=call.pbx,
            channel=live.name if live is not None else call.channel,
            uniqueid=call.uniqueid,
            linkedid=linkedid,
            recorder=self._name,
            filename=filename,
            spec=spec,
            caller=call.caller,
            called=call.called,
            fields={**call.name_fields(), "linkedid": linkedid},
            cipher=cipher,
            agi=call,
        )
