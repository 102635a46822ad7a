"""`WholeCallRecorder`: the seed's recorder of one call, on top of the app's `Recorder`.

Source: the seed (class UASWholeCallFileRecorder): names, parameters, defaults, return values and exceptions are its.
In a blocking handler the same methods block (`fastagi.agi.blocking`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import structlog

from fastagi.audio import least_bytes
from fastagi.cipher import Cipher
from fastagi.domain import states
from fastagi.domain.numbers import check_seconds
from fastagi.domain.recording import Recording
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import LIVE, Cause, Phase, State
from fastagi.errors import BadArgument, Error, FastAGIError, Hangup
from fastagi.recording.asterisk.control import AgiPath, id_variable
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.course.starting import Request
from fastagi.recording.ledger.job import Job, Key
from fastagi.recording.recorder import Recorder

UP = 6
"""CHANNEL STATUS of an answered channel."""

STATUS_SECONDS = 2.0
"""Time for CHANNEL STATUS where AMI is down and another command may hold the session (a Dial takes hours)."""

LOOK_SECONDS = 2.0
"""A blocking wait asks so often whether the call is over, where Asterisk has been told not to say so."""

EVIDENCE_SECONDS = 0.5
"""After HANGUP: until a wait is given up for a redirect, which waits for this session's end."""

LONGEST_WAIT_SECONDS = 7 * 86_400
"""A call of a week; more is a unit mistaken."""

_RUNNING = LIVE - {Phase.STOPPING}

_NO = ("no", "false", "off", "n", "f", "0")
"""What Asterisk takes for false (utils.c, ast_false)."""

_BUSY = "the channel is {}: start the recorder before that, or pass mid_call=True"


class RecordedCall(AgiPath, Protocol):
    """What the recorder needs of a call: its AGI session and who it is."""

    @property
    def uniqueid(self) -> str: ...
    @property
    def linkedid(self) -> str: ...
    @property
    def channel(self) -> str: ...
    @property
    def caller(self) -> str: ...
    @property
    def called(self) -> str: ...
    @property
    def hung_up(self) -> bool: ...
    @property
    def playing(self) -> bool: ...
    @property
    def pbx(self) -> Pbx: ...
    @property
    def current_command(self) -> str | None: ...
    @property
    def over(self) -> asyncio.Event: ...

    def name_fields(self) -> Mapping[str, str]: ...

    def sink_names(self, sink: Any | None) -> tuple[str, ...]: ...

    def release_sinks(self, names: tuple[str, ...]) -> None: ...

    async def channel_status(self, channel: str = "") -> int: ...

    async def has_ended(self) -> bool: ...

    async def fetch_linkedid(self) -> str: ...


class UASWholeCallFileRecorder:
    """Records a whole call to a file (seed).

    :ivar State: the seed's states; :ivar Cause: the seed's causes
    """

    State: ClassVar[type[states.State]] = states.State
    Cause: ClassVar[type[states.Cause]] = states.Cause

    def __init__(self, recorder: Recorder, call: RecordedCall, name: str = "") -> None:
        self._recorder = recorder
        self._call = call
        self._name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._call.channel} {self._name or 'default'}: {self.state()}>"

    @property
    def _key(self) -> Key:
        return (self._call.pbx.name, self._call.uniqueid, self._name)

    @property
    def recording(self) -> Recording | None:
        """The running recording, else the last one; None when there was none."""
        return self._recorder.last(self._key)

    @property
    def error(self) -> str:
        """What went wrong with the last recording and what to do; empty when nothing did."""
        recording = self.recording
        return recording.error if recording is not None else ""

    def state(self) -> states.State:
        """The current state. Never raises, never waits."""
        recording = self.recording
        return recording.state if recording is not None else State.IDLE

    def cause(self) -> states.Cause:
        """Why the last recording ended; NONE while one runs or when there was none. Never raises, never waits."""
        recording = self.recording
        return recording.public_cause if recording is not None else Cause.NONE

    async def record(
        self,
        filename: str,
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
        job = await self._start(
            _given(filename),
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
        filename: str,
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
        :param file_format: alaw, ulaw, oki, ima, s16bit, u8bit (WAV), flac, opus, mp3
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
        job = await self._start(
            _given(filename),
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
        await self._answered(job)
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
        check_seconds("seconds_timeout", seconds_timeout, LONGEST_WAIT_SECONDS, none="to wait for ever", zero=True)
        job = self._recorder.current(self._key)
        await self._answered(job)
        if job is None:
            return self.cause()
        return job.recording.cause if await self.wait_for(job, seconds_timeout) else Cause.TIMEOUT

    async def pause(self, seconds: float | None = None) -> bool:
        """Silence from now on (cut out with ``pause_mode="cut"``); True also when it was paused.

        :param seconds: resume by itself after so many, at most a day; None: until told
        :raises Error: nothing is recording, or `seconds` is no such number
        """
        return await self._recorder.pauser.pause(self._running(), seconds)

    async def resume(self) -> bool:
        """Record again; True also when it was not paused.

        :raises Error: nothing is recording
        """
        return await self._recorder.pauser.resume(self._running())

    async def mute(self, direction: str = "received") -> bool:
        """Silence one side: ``received`` (from the channel), ``sent`` (to it), or ``both``.

        :raises Error: nothing is recording, or the engine is monitor
        """
        return await self._recorder.pauser.mute(self._running(), direction, True)

    async def unmute(self, direction: str = "received") -> bool:
        """Undo `mute`."""
        return await self._recorder.pauser.mute(self._running(), direction, False)

    async def begin(self, filename: str, arguments: Mapping[str, Any]) -> Job:
        """`start` for routes: parameters by name, an empty filename for one of our own making."""
        options = dict(arguments)
        cipher, sink = options.pop("cipher", None), options.pop("sink", None)
        mid_call = options.pop("mid_call", False)
        return await self._start(filename, options, cipher, mid_call, sink)

    async def end(self, *, hung_up: bool) -> bool:
        """`stop` that may come from a channel which has hung up: then the cause is HANGUP."""
        job = self._recorder.current(self._key)
        if job is None:
            return True
        if hung_up:
            await self._recorder.hung_up(job)
        else:
            await self._recorder.stop(job)
        return job.recording.state is State.IDLE

    async def wait_for(self, job: Job, seconds: float | None = None) -> bool:
        """Wait until that recording has ended and its file is there, though this session may hold up the very hangup
        that ends it. For routes.

        :returns: False when `seconds` ran out first
        :raises Hangup: the session was told HANGUP, or lost, and the recording goes on without it
        """
        ended = asyncio.ensure_future(job.wait(seconds))
        leaving = asyncio.ensure_future(self._left(job))
        try:
            await asyncio.wait((ended, leaving), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return ended.result()
            leaving.result()  # what nobody expected is not hidden
            raise Hangup("the AGI session is over, the recording goes on")
        finally:
            ended.cancel()
            leaving.cancel()

    async def _left(self, job: Job) -> None:
        """Returns when this session must end for the call, and the recording with it, to go on. With AGISIGHUP=no no
        HANGUP line comes: Asterisk is asked now and then, when nothing else is."""
        call = self._call
        told: bool | None = None  # will a HANGUP line come? Not known yet
        while not call.over.is_set():
            try:
                async with asyncio.timeout(None if told else LOOK_SECONDS):
                    await call.over.wait()
            except TimeoutError:
                if call.current_command is not None or call.closed:
                    continue
                try:
                    if told is None:
                        told = (await call.get_variable("AGISIGHUP") or "").lower() not in _NO
                    if not told:
                        await call.channel_status()
                except Hangup:
                    break
                except Error:
                    continue
        await asyncio.sleep(EVIDENCE_SECONDS)
        while job.phase not in _RUNNING or await call.has_ended():
            self._recorder.hangups.perhaps_over(call.pbx.name, call.uniqueid)
            await asyncio.sleep(LOOK_SECONDS)  # it is being ended: `job.wait` is next

    async def _is_of_another_call(self, job: Job) -> bool:
        """Is that recording of a call that is over, though nobody has told us yet?

        A restarted Asterisk uses uniqueids again. A channel that is being recorded has the MixMonitor's id in a
        variable of its own; one that has none is another channel.
        """
        last = job.recording.pieces[-1]
        known = job.phase is not Phase.REQUESTED and job.recording.spec.engine == "mixmonitor"
        if not known or job.recording.adopted or last.uniqueid != self._call.uniqueid or self._call.closed:
            return False
        if self._call.current_command is not None:  # a Dial may hold the session for hours
            return False
        if await self._call.get_variable(id_variable(last)):
            return False
        await self._recorder.over_unseen(job)
        return True

    def _running(self) -> Job:
        job = self._recorder.current(self._key)
        if job is None:
            raise Error("there is no recording on this call")
        return job

    async def _start(
        self, filename: str, options: dict[str, Any], cipher: Cipher | None, mid_call: bool, sink: Any | None
    ) -> Job:
        if not isinstance(filename, str):
            raise BadArgument(f"name={filename!r} must be text")
        if not isinstance(mid_call, bool):  # "no" would be as good as True
            raise BadArgument(f"mid_call={mid_call!r} must be True or False")
        spec = spec_from(options, cipher)
        call = self._call
        if not mid_call and call.playing and not call.pbx.up:  # the session itself would be asked, and it is taken
            raise Error(_BUSY.format("playing"))
        await self._answered()
        live = call.pbx.book.get(call.uniqueid) if call.pbx.up else None
        running = self._recorder.current(self._key)
        if running is not None and not await self._is_of_another_call(running):
            raise Error(
                "this call is being recorded already: stop that recording, or use call.recorder(name) for another"
            )
        if not mid_call:
            busy = live.busy_with() if live is not None else ""
            if not busy and call.playing:
                busy = "playing"
            if busy:
                raise Error(_BUSY.format(busy))
        linkedid = live.linkedid if live is not None else await call.fetch_linkedid()
        sinks = call.sink_names(sink)
        request = Request(
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
            sinks=sinks,
            agi=call,
        )
        try:
            job = await self._recorder.start(request)
        except FastAGIError:
            call.release_sinks(sinks)
            raise
        # from here on what this session logs is about this recording, too
        structlog.contextvars.bind_contextvars(recording_id=job.id)
        if job.phase is Phase.FAILED:
            call.release_sinks(sinks)
        return job

    async def _answered(self, job: Job | None = None) -> None:
        """The seed's first rule: IDLE raises Hangup, anything but answered raises Error.

        :param job: its recording, if there is one: then it was answered, and only a hangup can have changed that
        """
        call = self._call
        live = call.pbx.book.get(call.uniqueid) if call.pbx.up else None
        if call.hung_up or (live is not None and live.leaving):
            raise Hangup("the call has hung up")
        idle = call.current_command is None and not call.closed
        if live is not None and live.up and not idle:
            return  # else the channel itself is asked: no event tells of a hangup that a session on it keeps back
        if live is None and call.pbx.up and (job is not None or call.closed):
            raise Hangup("the call has hung up")
        if job is not None and not idle:
            return
        if call.closed:
            raise Error("the AGI session of this call is over, and its state cannot be asked")
        try:
            async with asyncio.timeout(STATUS_SECONDS):
                status = await call.channel_status()
        except TimeoutError:
            if job is not None or (live is not None and live.up):
                return
            busy = call.current_command or "a command"
            raise Error(
                f"the call's state cannot be asked: {busy} is running, and there is no AMI connection"
            ) from None
        if status != UP:
            raise Error(f"the call is not answered (channel state {status}): answer it before recording")


def _given(filename: str) -> str:
    """A file name that was given: the seed requires one (routes and `record_start` make one up).

    :raises BadArgument: none was
    """
    if not isinstance(filename, str) or not filename.strip():
        raise BadArgument(f"filename={filename!r} must be a name, such as calls/{{uniqueid}}")
    return filename


WholeCallRecorder = UASWholeCallFileRecorder


def spec_from(options: Mapping[str, Any], cipher: Cipher | None = None) -> RecordingSpec:
    """The checked spec of these parameters.

    :raises BadArgument: an unknown name or a wrong value
    """
    known = RecordingSpec.__dataclass_fields__
    for name in options:
        if name not in known or name == "encryption":
            allowed = ", ".join(n for n in known if n != "encryption")
            raise BadArgument(f"{name} is no parameter of a recording: there are {allowed}")
    if cipher is not None and not (hasattr(cipher, "scheme") and hasattr(cipher, "encrypt_file")):
        raise BadArgument(f"cipher={type(cipher).__name__} is no cipher: use AesCbcCipher, AesGcmCipher or AgeCipher")
    spec = RecordingSpec(**options, encryption=cipher.scheme if cipher is not None else "")
    if spec.byte_limit:
        _must_fit(spec, cipher)
    return spec


def _must_fit(spec: RecordingSpec, cipher: Cipher | None) -> None:
    """:raises BadArgument: max_bytes cannot hold any file; found out at the end, it would be a recording lost"""
    limit = spec.byte_limit
    budget = limit if cipher is None else cipher.plaintext_budget(limit)
    least = least_bytes(spec.file_format, spec.rate, spec.channels)
    if budget < least:
        enough = limit - budget + least
        raise BadArgument(
            f"max_bytes={limit} cannot hold a header and a sample, encryption included: use {enough} or more"
        )


__all__ = ["UASWholeCallFileRecorder", "WholeCallRecorder", "spec_from"]
