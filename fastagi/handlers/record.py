"""The AGI routes `record`, `record/start`, `/stop`, `/wait`, `/pause`, `/resume`, `/status`, for the dialplan.

Each leaves RECORDING_ID, RECORDING_FILE, RECORDING_STATE, RECORDING_CAUSE and RECORDING_ERROR in the channel. A wrong
argument is one line in RECORDING_ERROR and in the log; the call goes on. What could not start has RECORDING_STATE and
RECORDING_CAUSE ERROR; a refused pause or stop leaves them as the recording's.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
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
    """Nothing but these and which recording is meant.

    :raises BadArgument: something else
    """
    only(call.params, (*names, "recorder", "asterisk"))
    _no_positional(call)


async def _begin(call: CallChannel) -> ActiveRecording:
    params = call.params
    _no_positional(call)
    arguments: dict[str, Any] = with_defaults(call.defaults, options(params))
    arguments["mid_call"] = flag("mid_call", params.get("mid_call", "no"))
    if params.get("sink"):
        arguments["sink"] = params["sink"]
    return await _recorder(call).begin(params.get("filename", ""), arguments)


async def start(call: CallChannel) -> None:
    """Start to record and return to the dialplan."""
    await _begin(call)


async def record(call: CallChannel) -> None:
    """Record and return once it has ended, or once the channel is redirected: then it is recorded on."""
    job = await _begin(call)
    # known to the dialplan, too, if this server goes away meanwhile
    await _report(call, job.recording, "", at_once=False)
    with contextlib.suppress(Hangup):
        await _recorder(call).wait_for(job)


async def stop(call: CallChannel) -> None:
    """Stop; on a channel that has hung up (a hangup handler) the cause is HANGUP."""
    _only(call)
    await _recorder(call).end()


async def wait(call: CallChannel) -> None:
    """Wait until it has ended, at most `seconds_timeout` (120)."""
    _only(call, "seconds_timeout")
    text = call.params.get("seconds_timeout")
    await _recorder(call).wait_until_finished(120 if text is None else seconds("seconds_timeout", text))


async def pause(call: CallChannel) -> None:
    """Silence from here on; `seconds=30` resumes by itself."""
    _only(call, "seconds")
    await _recorder(call).pause(seconds("seconds", call.params.get("seconds")))


async def resume(call: CallChannel) -> None:
    """Record again."""
    _only(call)
    await _recorder(call).resume()


async def status(call: CallChannel) -> None:
    """Only look."""
    _only(call)


async def _report(call: CallChannel, recording: Recording | None, error: str, *, at_once: bool = True) -> None:
    """:param at_once: the dialplan goes on next: then all may be set by one application, which a CDR would name"""
    running = recording is not None and recording.state is State.RECORDING
    if error and call.route.strip("/") in STARTING:
        recording = None  # another one of this call, running or ended, is not what was asked for
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
        with contextlib.suppress(Error):  # an Asterisk without it: one by one
            await call.exec("MSet", *(f"{name}={value}" for name, value in values.items()))
            return
    for name, value in values.items():
        await call.set_variable(name, value)


async def deny(call: CallChannel, reason: str) -> None:
    """End a session that is not let near any recording: RECORDING_ERROR and AGISTATUS=FAILURE, whatever its route.

    A start leaves RECORDING_STATE and RECORDING_CAUSE ERROR; other routes leave those as they are.
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
        except Hangup:
            log.debug("result_not_told", route=call.route, uniqueid=call.uniqueid)

    handler.__doc__ = action.__doc__
    return handler


def refusal(reason: str) -> bytes:
    """The AGI command that tells a call which cannot be served the reason, in RECORDING_ERROR.

    Its route is not known yet, so nothing is said of a recording that the call may have.
    """
    return encode("SET VARIABLE", "RECORDING_ERROR", f"fastagi refused this call: {_CONTROL.sub(' ', reason)}")


STARTING = ("record", "record/start")

WHILE_STOPPING = frozenset(f"record/{what}" for what in ("start", "stop", "wait", "pause", "resume", "status"))
"""Routes that are served while the server drains: they take moments, or end with the drain, and what they begin goes on
in Asterisk without this server."""

DENY_SECONDS = 2.0
"""For the variables of a denied session; an Asterisk takes a millisecond, and whoever is none gets no more."""

LONGEST_VALUE = 1000
"""Characters of a variable's value; Asterisk reads lines of 8 kB, and one character can be four bytes."""

_PLAIN = re.compile(r"[\w ./:;@+=-]*")
"""Values that an application's arguments bear as they are: neither commas, quotes, backslashes nor brackets."""

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
