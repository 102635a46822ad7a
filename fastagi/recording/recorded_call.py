"""A call as its recorder needs it, and what the recorder asks of it before it acts (the seed's first rule)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol

from fastagi.domain.recording import Recording
from fastagi.domain.states import Phase
from fastagi.errors import Error, FastAGIError, Hangup
from fastagi.recording.asterisk import occupation
from fastagi.recording.asterisk.call_state import CallState
from fastagi.recording.asterisk.channel_table import LiveChannel
from fastagi.recording.asterisk.control import AgiPath, id_variable
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.ledger.active import ActiveRecording

UP = 6
"""CHANNEL STATUS of an answered channel."""

LEAST_LIVE = 2
"""First CHANNEL STATUS of a channel with a call: 0 is down, 1 is down but reserved."""

STATUS_SECONDS = 2.0
"""Time for a question to the session, of which Asterisk answers thousands in a second, but another command may hold the
session (a Dial takes hours)."""

_PLACE: Final = "${CHANNEL(state)}|${CONTEXT}|${EXTEN}|${PRIORITY}|${TIMEOUT(absolute)}"
"""An absolute time-out that struck looks like a hangup too, and goes on at extension T where there is one."""


class RecordedCall(AgiPath, Protocol):
    """The part of a call that the recorder needs: its AGI session and who it is."""

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
    def env(self) -> Mapping[str, str]: ...
    @property
    def hung_up(self) -> bool: ...
    @property
    def playing(self) -> bool: ...
    @property
    def pbx(self) -> Pbx: ...
    @property
    def over(self) -> asyncio.Event: ...

    def name_fields(self) -> Mapping[str, str]: ...

    def sink_names(self, sink: Any | None) -> tuple[str, ...]: ...

    def release_sinks(self, names: tuple[str, ...]) -> None: ...

    async def channel_status(self, channel: str = "") -> int: ...

    async def get_full_variable(self, expression: str) -> str | None: ...

    async def has_ended(self) -> bool: ...

    async def fetch_linkedid(self) -> str: ...


async def must_be_free(call: RecordedCall, live: LiveChannel | None) -> None:
    """The seed's hardware could record only what was connected to nothing yet.

    :param live: the channel as AMI shows it; None where it shows none
    :raises Error: it is bridged, in a conference, on hold music, or playing
    """
    busy = (live.busy_with() if live is not None else "") or await _occupied(call, live)
    if busy:
        raise Error(f"the channel is {busy}: start the recorder before that, or pass mid_call=True")


async def _occupied(call: RecordedCall, live: LiveChannel | None) -> str:
    """Return the channel's occupation by its AGI session's command, else by Asterisk's word; empty for none."""
    channel = live.name if live is not None else call.channel
    if call.playing:
        return occupation.PLAYING
    if call.current_command is not None:
        return await occupation.in_session(call.current_command, call.pbx, channel)
    if call.closed:
        return await occupation.in_dialplan(call.pbx, channel)
    return await occupation.between_commands(call.get_variable, call.get_full_variable, channel)


async def ask_session(call: RecordedCall, *, recorded: bool = False, told: bool = False) -> CallState:
    """Return the state of a call that has an AGI session. The channel table is asked first, then the channel itself,
    where its session is idle: no event tells of a hangup that a session on the channel keeps back.

    :param recorded: the call has a recording: it was answered, and only a hangup can have changed that
    :param told: its session was told of a hangup, or its commands are refused as on a dead channel. Of the call that
        says nothing yet: a redirected channel's session is told HANGUP, too
    """
    state = call.pbx.call_state(call.uniqueid)
    told = told or call.hung_up
    if state is CallState.GONE and not (recorded or told or call.closed):
        state = CallState.UNKNOWN  # a session may be quicker than the events of its channel
    if state.over or call.closed:
        return state
    if told:
        return CallState.HANGUP_REQUESTED if await _stays_in_place(call) else state
    if call.current_command is not None and (recorded or state is CallState.UP):
        return state  # a Dial holds the session for hours
    return await _by_status(call, state, recorded)


async def _by_status(call: RecordedCall, known: CallState, recorded: bool) -> CallState:
    try:
        async with asyncio.timeout(STATUS_SECONDS):
            status = await call.channel_status()
    except Hangup:
        return CallState.HANGUP_REQUESTED
    except (TimeoutError, Error):
        now = call.pbx.call_state(call.uniqueid)  # the event of its answer may have come meanwhile
        return now if now is not CallState.GONE else known
    if status == UP:
        return CallState.UP
    return CallState.GONE if recorded and status < LEAST_LIVE else CallState.NOT_ANSWERED


async def _stays_in_place(call: RecordedCall) -> bool:
    """Return whether a call whose session was told of a hangup is still where it was.

    A redirect has changed its place in the dialplan (pbx.c, `ast_async_goto`), a hangup has not; a masquerade leaves
    the session on a channel that is not up.
    """
    try:
        place = await asyncio.wait_for(call.get_full_variable(_PLACE), STATUS_SECONDS)
    except (TimeoutError, FastAGIError):
        return False
    here = [call.env.get("agi_context"), call.env.get("agi_extension"), call.env.get("agi_priority")]
    state, *now, absolute = [*(place or "").split("|"), ""][:5]
    return state == "Up" and now == here and not absolute.strip("0.")


def must_not_be_over(call: RecordedCall) -> None:
    """The seed's first rule, before any argument is looked at.

    :raises Hangup: the call is known to be over
    """
    if call.hung_up or call.pbx.call_state(call.uniqueid) is CallState.HANGUP_REQUESTED:
        raise Hangup("the call has hung up")


async def must_be_answered(call: RecordedCall, job: ActiveRecording | None = None) -> None:
    """The seed's first rule: IDLE raises Hangup, anything but answered raises Error.

    :param job: its recording, if there is one
    """
    must_not_be_over(call)
    state = await ask_session(call, recorded=job is not None)
    if state.over:
        raise Hangup("the call has hung up")
    if state is CallState.UP or (job is not None and state is CallState.UNKNOWN):
        return
    if state is CallState.NOT_ANSWERED:
        raise Error("the call is not answered: answer it before recording")
    if call.closed:
        raise Error("the AGI session of this call is over, and its state cannot be asked")
    busy = call.current_command or "a command"
    raise Error(f"the call's state cannot be asked: {busy} is running, and there is no AMI connection")


async def is_of_another_call(recording: Recording, call: RecordedCall) -> bool:
    """Return whether a running recording is of an earlier call that is over, though no event told of its end.

    A restarted Asterisk uses uniqueids again. A channel that is being recorded has the MixMonitor's id in a
    variable of its own; one that has none is another channel.
    """
    last = recording.pieces[-1]
    known = recording.phase is not Phase.REQUESTED and recording.spec.engine == "mixmonitor"
    if not known or recording.adopted or last.uniqueid != call.uniqueid or call.closed:
        return False
    if call.current_command is not None:  # a Dial may hold the session for hours
        return False
    return not await call.get_variable(id_variable(last))
