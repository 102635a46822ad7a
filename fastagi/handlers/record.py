"""The AGI routes `record`, `record/start`, `/stop`, `/wait`, `/pause`, `/resume`, `/status`, for the dialplan.

Each sets RECORDING_ID, RECORDING_FILE, RECORDING_STATE, RECORDING_CAUSE and RECORDING_ERROR on the channel. A wrong
argument is one line in RECORDING_ERROR and in the log, and the call goes on. A recording that could not start has
RECORDING_STATE and RECORDING_CAUSE ERROR. A refused pause or stop leaves both as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import structlog

from fastagi.agi.encoder import encode
from fastagi.domain.recording import Recording
from fastagi.domain.spec import with_defaults
from fastagi.domain.states import Cause, State
from fastagi.errors import AsteriskError, BadArgument, Error, FastAGIError, Hangup, StoreError
from fastagi.handlers.arguments import flag, only, options, seconds
from fastagi.recording.call import CallChannel
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.whole_call_recorder import UASWholeCallFileRecorder

log = structlog.get_logger(__name__)

Handler = Callable[[CallChannel], Awaitable[None]]


def _recorder(call: CallChannel) -> UASWholeCallFileRecorder:
    return call.recorder(call.params.get("recorder", ""))


def _no_positional(call: CallChannel) -> None:
    if call.args:
        raise BadArgument(f"{call.args[0]!r} is no argument: write name=value, as in filename=calls/1")


def _only(call: CallChannel, *names: str) -> None:
    """Check the arguments: only `names` and those that choose the recording are allowed.

    :raises BadArgument: there is another one
    """
    only(call.params, (*names, "recorder", "asterisk"))
    _no_positional(call)


async def _begin(call: CallChannel) -> ActiveRecording:
    params = call.params
    _no_positional(call)
    filename, asked = params.get("filename", ""), options(params)
    arguments: dict[str, Any] = with_defaults(call.defaults, asked)
    unheard = await _unheard(call, filename, arguments, asked)
    if unheard is not None:
        return unheard
    arguments["mid_call"] = flag("mid_call", params.get("mid_call", "no"))
    if params.get("sink"):
        arguments["sink"] = params["sink"]
    return await _recorder(call).begin(filename, arguments)


async def _unheard(
    call: CallChannel, filename: str, arguments: Mapping[str, Any], asked: Collection[str]
) -> ActiveRecording | None:
    """Return the running recording that this start asks for, if its call was never told of it.

    The server, or the connection, was lost before a start was answered, and the dialplan asks again. A refusal
    would say that nothing records the call.
    """
    job = await _recorder(call).running_as(filename, arguments, asked)
    if job is None or job.told:
        return None
    sink = call.params.get("sink")
    if sink and call.sink_names(sink) != job.recording.sinks:
        return None
    # an earlier process may have told it
    values = await call.get_variable("RECORDING_ID"), await call.get_variable("RECORDING_STATE")
    job.told = values == (job.id, State.RECORDING.value)
    if job.told:
        return None
    log.info("start_asked_again", **job.recording.ids)
    return job


async def start(call: CallChannel) -> None:
    """Start to record and return to the dialplan."""
    await _begin(call)


async def record(call: CallChannel) -> None:
    """Record and return once the recording has ended. When the channel is redirected, return and go on recording."""
    job = await _begin(call)
    # set before waiting, so that the dialplan knows the recording even if this server goes away meanwhile
    await _report(call, job.recording, "", at_once=False)
    with contextlib.suppress(Hangup):
        await _recorder(call).wait_for(job)


async def stop(call: CallChannel) -> None:
    """Stop the recording. On a channel that has hung up (a hangup handler) the cause is HANGUP."""
    _only(call)
    await _recorder(call).end()


async def wait(call: CallChannel) -> None:
    """Wait until the recording has ended, at most `seconds_timeout` (120)."""
    _only(call, "seconds_timeout")
    text = call.params.get("seconds_timeout")
    await _recorder(call).wait_until_finished(120 if text is None else seconds("seconds_timeout", text))


async def pause(call: CallChannel) -> None:
    """Record silence from here on; `seconds=30` resumes by itself."""
    _only(call, "seconds")
    await _recorder(call).pause(seconds("seconds", call.params.get("seconds")))


async def resume(call: CallChannel) -> None:
    """Resume recording."""
    _only(call)
    await _recorder(call).resume()


async def status(call: CallChannel) -> None:
    """Report the state and change nothing."""
    _only(call)


async def _report(call: CallChannel, recording: Recording | None, error: str, *, at_once: bool = True) -> None:
    """Set the RECORDING_ variables of the channel.

    :param at_once: the dialplan goes on next, so all variables may be set by one application. A CDR would name that
        application as the last one
    """
    running = recording is not None and recording.state is State.RECORDING
    if error and call.route.strip("/") in STARTING:
        recording = None  # another recording of this call, running or ended, is not the one that was asked for
        state, cause = State.ERROR, Cause.ERROR
    elif recording is None:
        state, cause = State.IDLE, Cause.NONE
    else:
        state, cause = recording.state, Cause.NONE if running else recording.cause
    values = {
        "RECORDING_ID": recording.id if recording is not None else "",
        "RECORDING_FILE": recording.file_path if recording is not None else "",
        "RECORDING_STATE": state.value,
        "RECORDING_CAUSE": cause.value,
        "RECORDING_ERROR": error or (recording.error if recording is not None else ""),
    }
    values = {name: _CONTROL.sub(" ", value)[:LONGEST_VALUE] for name, value in values.items()}
    if at_once and not call.hung_up and all(map(_PLAIN.fullmatch, values.values())):
        with contextlib.suppress(Error):  # this Asterisk lacks the application: set the variables one by one
            await call.exec("MSet", *(f"{name}={value}" for name, value in values.items()))
            return
    for name, value in values.items():
        await call.set_variable(name, value)


async def deny(call: CallChannel, reason: str) -> None:
    """Refuse a session before it can reach a recording: RECORDING_ERROR and AGISTATUS=FAILURE, whatever its route.

    A start sets RECORDING_STATE and RECORDING_CAUSE to ERROR. Other routes leave both as they are.
    """
    text = _CONTROL.sub(" ", reason)[:LONGEST_VALUE]
    values = {"RECORDING_ERROR": text}
    if call.route.strip("/") in STARTING:
        values |= {"RECORDING_STATE": State.ERROR.value, "RECORDING_CAUSE": Cause.ERROR.value}
        values |= {"RECORDING_ID": "", "RECORDING_FILE": ""}
    with contextlib.suppress(TimeoutError, FastAGIError):
        async with asyncio.timeout(DENY_SECONDS):
            for name, value in values.items():
                await call.set_variable(name, value)
    await call.fail(text)


def _route(action: Handler) -> Handler:
    async def handler(call: CallChannel) -> None:
        error = ""
        recording = None
        try:
            await action(call)
        except Hangup:
            error = "the call has hung up"
        except (Error, AsteriskError, StoreError) as exc:
            error = str(exc)
            if call.route.strip("/") in STARTING:
                call.start_refused(error)
            log.warning("record_refused", route=call.route, channel=call.channel, uniqueid=call.uniqueid, error=error)
        try:
            recording = await call.remembered(call.params.get("recorder", ""))
        except StoreError as exc:
            error = error or str(exc)
        try:
            await _report(call, recording, error)
            if recording is not None and not error:
                call.knows_of(recording)
        except Hangup:
            log.debug("result_not_told", route=call.route, uniqueid=call.uniqueid)

    handler.__doc__ = action.__doc__
    return handler


def refusal(reason: str) -> bytes:
    """Return the AGI command that sets RECORDING_ERROR on a call that cannot be served.

    Its route is not known yet, so the state of a recording that the call may have is left alone.
    """
    return encode("SET VARIABLE", "RECORDING_ERROR", f"fastagi refused this call: {_CONTROL.sub(' ', reason)}")


STARTING = ("record", "record/start")

WHILE_STOPPING = frozenset(f"record/{what}" for what in ("start", "stop", "wait", "pause", "resume", "status"))
"""Routes that are served while the server drains. Each takes moments, or ends with the drain; a recording that one of
them starts goes on in Asterisk without this server.
"""

DENY_SECONDS = 2.0
"""Seconds for setting the variables of a denied session. Asterisk takes a millisecond; a peer that is no Asterisk gets
no more time than this.
"""

LONGEST_VALUE = 1000
"""Most characters of a variable's value; Asterisk reads lines of 8 kB, and one character can be four bytes."""

_PLAIN = re.compile(r"[\w ./:;@+=-]*")
"""Values that can stand in an application's arguments unquoted: no commas, quotes, backslashes or brackets."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")

ROUTES: dict[str, Handler] = {
    "record": _route(record),
    "record/start": _route(start),
    "record/stop": _route(stop),
    "record/wait": _route(wait),
    "record/pause": _route(pause),
    "record/resume": _route(resume),
    "record/status": _route(status),
}
