"""A call as its recorder needs it, and what the recorder asks of it before it acts (the seed's first rule)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from fastagi.domain.recording import Recording
from fastagi.domain.states import Phase
from fastagi.errors import Error, Hangup
from fastagi.recording.asterisk import occupation
from fastagi.recording.asterisk.channel_table import LiveChannel
from fastagi.recording.asterisk.control import AgiPath, id_variable
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.ledger.active import ActiveRecording

UP = 6
"""CHANNEL STATUS of an answered channel."""

STATUS_SECONDS = 2.0
"""Time for CHANNEL STATUS where AMI is down and another command may hold the session (a Dial takes hours)."""


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


def must_not_be_over(call: RecordedCall) -> None:
    """The seed's first rule, before any argument is looked at.

    :raises Hangup: the call is known to be over
    """
    live = call.pbx.channels.get(call.uniqueid) if call.pbx.up else None
    if call.hung_up or (live is not None and live.hangup_requested):
        raise Hangup("the call has hung up")


async def must_be_answered(call: RecordedCall, job: ActiveRecording | None = None) -> None:
    """The seed's first rule: IDLE raises Hangup, anything but answered raises Error.

    :param job: its recording, if there is one: then it was answered, and only a hangup can have changed that
    """
    must_not_be_over(call)
    live = call.pbx.channels.get(call.uniqueid) if call.pbx.up else None
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
        raise Error(f"the call's state cannot be asked: {busy} is running, and there is no AMI connection") from None
    if status != UP:
        raise Error(f"the call is not answered (channel state {status}): answer it before recording")


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
