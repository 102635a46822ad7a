"""Commands to MixMonitor (or Monitor) on one channel: through AMI, or through the channel's own AGI session.

AMI is the first way: it reaches every channel at any time. The AGI session serves while AMI is down. Option strings are
built here and nowhere else; no part of them comes from a caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from fastagi.ami import actions
from fastagi.ami.manager import Manager
from fastagi.domain.recording import Segment
from fastagi.domain.spec import RecordingSpec
from fastagi.errors import ActionRefused, ActionTimeout, AsteriskDown, Error, Hangup
from fastagi.recording.asterisk.call_state import says_no_channel

SESSION_SECONDS = 3.0
"""What an AGI session has to stop a recording, which takes it a millisecond, unless another command has it: a Dial
holds it for hours."""


def id_variable(piece: Segment) -> str:
    """The channel variable that Asterisk fills with this MixMonitor's id: one each, so that a restart can ask for it.

    AMI returns the id only when a variable is named.
    """
    stem = piece.mixed.rpartition("/")[2].rpartition(".")[0]
    return "FASTAGI_" + "".join(c if c.isalnum() else "_" for c in stem).upper()


class AgiPath(Protocol):
    """The part of an AGI session that the recorder needs."""

    @property
    def closed(self) -> bool: ...

    @property
    def current_command(self) -> str | None: ...

    async def exec(self, application: str, *args: Any) -> Any: ...

    async def get_variable(self, name: str) -> str | None: ...


class Control(Protocol):
    """Commands about one channel. All raise AsteriskError, or Hangup where the channel is gone."""

    async def start(self, piece: Segment, spec: RecordingSpec) -> str: ...

    async def stop(self, piece: Segment, spec: RecordingSpec) -> None: ...

    async def find_id(self, piece: Segment) -> str: ...

    async def mute(self, piece: Segment, spec: RecordingSpec, direction: str, on: bool) -> None: ...


def mixmonitor_options(piece: Segment, spec: RecordingSpec) -> str:
    """The option string of MixMonitor (Asterisk application MixMonitor, versions 16 to 22).

    ``S`` keeps the legs in step where one is silent (needed up to 21, 22 takes it silently); ``r``/``t`` record one
    direction each; ``B`` beeps every so many seconds; ``p``/``P`` beep at start and stop.
    """
    options = f"i({id_variable(piece)})"
    if piece.received and piece.sent:
        options += f"r({piece.received})t({piece.sent})S"
    if spec.beep_seconds:
        options += f"B({spec.beep_seconds})"
    if spec.beep_start:
        options += "p"
    if spec.beep_stop:
        options += "P"
    return options


def gone(exc: Exception) -> bool:
    """Return whether this refusal means that the channel, or the recording on it, is gone."""
    if isinstance(exc, Hangup):
        return True
    return isinstance(exc, ActionRefused) and (says_no_channel(exc) or "could not stop" in str(exc).lower())


class AmiControl:
    """MixMonitor through the manager interface (actions MixMonitor, StopMixMonitor, MixMonitorMute)."""

    def __init__(self, manager: Manager, channel: str) -> None:
        self._manager = manager
        self._channel = channel

    async def start(self, piece: Segment, spec: RecordingSpec) -> str:
        if spec.engine == "monitor":
            await actions.monitor(self._manager, self._channel, monitor_stem(piece), mix=False)
            return ""
        return await actions.mixmonitor(self._manager, self._channel, piece.mixed, mixmonitor_options(piece, spec))

    async def stop(self, piece: Segment, spec: RecordingSpec) -> None:
        if spec.engine == "monitor":
            await actions.stop_monitor(self._manager, self._channel)
            return
        await actions.stop_mixmonitor(
            self._manager, self._channel, _sure(piece.monitor_id or await self.find_id(piece))
        )

    async def find_id(self, piece: Segment) -> str:
        """The MixMonitor's id, asked for again after a restart; empty where there is none."""
        return await actions.getvar(self._manager, id_variable(piece), self._channel)

    async def mute(self, piece: Segment, spec: RecordingSpec, direction: str, on: bool) -> None:
        if spec.engine == "monitor":
            await (actions.pause_monitor if on else actions.unpause_monitor)(self._manager, self._channel)
        else:
            await actions.mixmonitor_mute(self._manager, self._channel, direction, on, piece.monitor_id)


class AgiControl:
    """MixMonitor through EXEC on the channel's own AGI session, while it lasts."""

    def __init__(self, agi: AgiPath) -> None:
        self._agi = agi

    async def start(self, piece: Segment, spec: RecordingSpec) -> str:
        if spec.engine == "monitor":
            await self._agi.exec("Monitor", "wav", monitor_stem(piece))
            return ""
        await self._agi.exec("MixMonitor", piece.mixed, mixmonitor_options(piece, spec))
        return await self._agi.get_variable(id_variable(piece)) or ""

    async def stop(self, piece: Segment, spec: RecordingSpec) -> None:
        async with _session():
            if spec.engine == "monitor":
                await self._agi.exec("StopMonitor")
                return
            await self._agi.exec("StopMixMonitor", _sure(piece.monitor_id or await self.find_id(piece)))

    async def find_id(self, piece: Segment) -> str:
        return await self._agi.get_variable(id_variable(piece)) or ""

    async def mute(self, piece: Segment, spec: RecordingSpec, direction: str, on: bool) -> None:
        if spec.engine == "monitor":
            await self._agi.exec("PauseMonitor" if on else "UnpauseMonitor")
            return
        raise Error("to mute needs the manager interface, and it is not connected: pause instead")


@asynccontextmanager
async def _session() -> AsyncIterator[None]:
    """The end of a session is no end of its channel, which may be recorded on; and no wait for a session is endless.

    :raises AsteriskDown: the session is over; :raises ActionTimeout: it is taken by another command
    """
    try:
        async with asyncio.timeout(SESSION_SECONDS):
            yield
    except TimeoutError:
        raise ActionTimeout("another command has the AGI session, and there is no manager connection") from None
    except Hangup as exc:
        raise AsteriskDown(f"the AGI session is over, and there is no manager connection: {exc}") from exc


def _sure(monitor_id: str) -> str:
    """StopMixMonitor without an id stops any one of the channel's: somebody else's recording.

    :raises ActionRefused: there is none, so this MixMonitor never was on the channel
    """
    if not monitor_id:
        raise ActionRefused("Could not stop MixMonitor: it is not on this channel")
    return monitor_id


def monitor_stem(piece: Segment) -> str:
    """Monitor adds ``-in.wav`` and ``-out.wav`` to a stem of its own."""
    return piece.received.removesuffix("-in.wav")
