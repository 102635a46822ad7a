"""Waiting for a recording in the very session that may hold up the hangup which ends it."""

from __future__ import annotations

import asyncio

from fastagi.domain.states import LIVE, Phase
from fastagi.errors import Error, Hangup
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.recorded_call import RecordedCall, ask_session
from fastagi.recording.service import RecordingService

LOOK_SECONDS = 2.0
"""A blocking wait asks so often whether the call is over, where Asterisk has been told not to say so."""

EVIDENCE_SECONDS = 0.5
"""After HANGUP: until a wait is given up for a redirect, which waits for this session's end."""

_RUNNING = LIVE - {Phase.STOPPING}

_NO = ("no", "false", "off", "n", "f", "0")
"""What Asterisk takes for false (utils.c, ast_false)."""


async def wait_in_session(
    recorder: RecordingService, call: RecordedCall, job: ActiveRecording, seconds: float | None = None
) -> bool:
    """Wait until that recording has ended and its file is there.

    :param seconds: the longest wait; None for ever
    :returns: False when `seconds` ran out first
    :raises Hangup: the session was told HANGUP, or lost, and the recording goes on without it
    """
    ended = asyncio.ensure_future(job.wait(seconds))
    leaving = asyncio.ensure_future(_left(recorder, call, job))
    try:
        await asyncio.wait((ended, leaving), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            return ended.result()
        leaving.result()  # what nobody expected is not hidden
        raise Hangup("the AGI session is over, the recording goes on")
    finally:
        ended.cancel()
        leaving.cancel()


async def _left(recorder: RecordingService, call: RecordedCall, job: ActiveRecording) -> None:
    """Returns when this session must end for the call, and the recording with it, to go on. With AGISIGHUP=no no
    HANGUP line comes: Asterisk is asked now and then, when nothing else is."""
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
                if not told and (await ask_session(call, recorded=True)).over:
                    break
            except Hangup:
                break
            except Error:
                continue
    await asyncio.sleep(EVIDENCE_SECONDS)
    while job.phase not in _RUNNING or await call.has_ended():
        recorder.perhaps_over(call.pbx.name, call.uniqueid)
        await asyncio.sleep(LOOK_SECONDS)  # it is being ended: `job.wait` is next
