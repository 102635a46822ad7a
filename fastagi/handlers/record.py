"""The AGI routes `record`, `record/start`, `/stop`, `/wait`, `/pause`, `/resume`, `/status` (DESIGN: from the
dialplan).

Each leaves RECORDING_ID, RECORDING_FILE, RECORDING_STATE, RECORDING_CAUSE and RECORDING_ERROR in the channel. A wrong
argument is one line in RECORDING_ERROR and in the log; the call goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from fastagi.domain.recording import Recording
from fastagi.domain.states import Cause, State
from fastagi.errors import AsteriskError, BadArgument, Error, Hangup, StoreError
from fastagi.handlers.arguments import flag, options, seconds
from fastagi.recording.call import CallChannel
from fastagi.recording.whole_call import UASWholeCallFileRecorder

log = structlog.get_logger(__name__)

Handler = Callable[[CallChannel], Awaitable[None]]


def _recorder(call: CallChannel) -> UASWholeCallFileRecorder:
    return call.recorder(call.params.get("recorder", ""))


def _arguments(call: CallChannel, also: tuple[str, ...] = ()) -> tuple[str, dict[str, Any]]:
    params = dict(call.params)
    chosen = options(params, also)
    if call.args:
        raise BadArgument(f"{call.args[0]!r} is no argument: write name=value, as in filename=calls/1")
    merged: dict[str, Any] = {**call.defaults, **chosen}
    merged["mid_call"] = flag("mid_call", params.get("mid_call", "no"))
    if params.get("sink"):
        merged["sink"] = params["sink"]
    return params.get("filename", ""), merged


async def start(call: CallChannel) -> None:
    """Start to record and return to the dialplan."""
    filename, arguments = _arguments(call)
    await _recorder(call).begin(filename, arguments)


async def record(call: CallChannel) -> None:
    """Record and return once it has ended."""
    filename, arguments = _arguments(call)
    job = await _recorder(call).begin(filename, arguments)
    await job.wait(None)


async def stop(call: CallChannel) -> None:
    """Stop; on a channel that has hung up (a hangup handler) the cause is HANGUP."""
    options(call.params)
    await _recorder(call).end(hung_up=not await call.is_alive())


async def wait(call: CallChannel) -> None:
    """Wait until it has ended, at most `seconds_timeout` (120)."""
    options(call.params)
    text = call.params.get("seconds_timeout")
    await _recorder(call).wait_until_finished(120 if text is None else seconds("seconds_timeout", text))


async def pause(call: CallChannel) -> None:
    """Silence from here on; `seconds=30` resumes by itself."""
    options(call.params, ("seconds",))
    await _recorder(call).pause(seconds("seconds", call.params.get("seconds")))


async def resume(call: CallChannel) -> None:
    """Record again."""
    options(call.params)
    await _recorder(call).resume()


async def status(call: CallChannel) -> None:
    """Only look."""
    options(call.params)


async def _report(call: CallChannel, recording: Recording | None, error: str) -> None:
    state = recording.state if recording is not None else State.IDLE
    running = state is State.RECORDING
    values = {
        "RECORDING_ID": recording.id if recording is not None else "",
        "RECORDING_FILE": recording.file_path if recording is not None else "",
        "RECORDING_STATE": State.ERROR.value if error and not running else state.value,
        "RECORDING_CAUSE": Cause.NONE.value if recording is None or running else recording.cause.value,
        "RECORDING_ERROR": error or (recording.error if recording is not None else ""),
    }
    for name, value in values.items():
        await call.set_variable(name, value.replace("\r", " ").replace("\n", " ").replace("\0", " ")[:1000])


def _route(action: Handler) -> Handler:
    async def handler(call: CallChannel) -> None:
        error = ""
        try:
            await action(call)
        except Hangup:
            error = "the call has hung up"
        except (Error, AsteriskError, StoreError) as exc:
            error = str(exc)
            log.warning("record_refused", route=call.route, channel=call.channel, uniqueid=call.uniqueid, error=error)
        try:
            name = call.params.get("recorder", "")
            await _report(call, await call.remembered(name), error)
        except (Hangup, StoreError):
            log.debug("result_not_told", route=call.route, uniqueid=call.uniqueid)

    handler.__doc__ = action.__doc__
    return handler


ROUTES: dict[str, Handler] = {
    "record": _route(record),
    "record/start": _route(start),
    "record/stop": _route(stop),
    "record/wait": _route(wait),
    "record/pause": _route(pause),
    "record/resume": _route(resume),
    "record/status": _route(status),
}
