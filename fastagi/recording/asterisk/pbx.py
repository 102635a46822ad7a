"""One Asterisk as the recorder sees it: its manager connection, its live channels, its spool.

Feeds AMI events to the channel book in the order they came and then to whoever listens here. Holds no recording.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from fastagi.ami.events import AmiEvent, ChannelRow
from fastagi.ami.manager import Manager
from fastagi.ami.wire import field
from fastagi.errors import AsteriskDown
from fastagi.recording.asterisk.call_state import CallState, call_state
from fastagi.recording.asterisk.channel_table import EVENTS as BOOK_EVENTS
from fastagi.recording.asterisk.channel_table import ChannelTable, LiveChannel
from fastagi.recording.asterisk.control import AgiControl, AgiPath, AmiControl, Control
from fastagi.settings import AsteriskSettings

log = structlog.get_logger(__name__)

ANNOUNCEMENT = "FastAGIRecording"
"""Name of the UserEvents that tell of recordings."""

Tell = Callable[["Pbx", str, Mapping[str, str], LiveChannel | None], None]
"""``tell(pbx, event name, headers, channel)``: the channel is the one that the event is about; with a Hangup, as it
was. Must not block."""


@dataclass(frozen=True, slots=True)
class EventHandler:
    """A declaration: who wants which AMI events. What nobody declares is filtered out by Asterisk itself.

    :param names: names of AMI events
    """

    names: tuple[str, ...]
    tell: Tell


class Pbx:
    """An Asterisk.

    :param manager: its AMI connection; None where only AGI is used
    :param clock: unix seconds
    """

    def __init__(
        self, settings: AsteriskSettings, manager: Manager | None, clock: Callable[[], float] = time.time
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.spool: Path = settings.spool
        self.manager = manager
        self.channels = ChannelTable()
        self.synced = False
        self._clock = clock
        self._handlers: dict[str, list[Tell]] = {}
        self._on_synced: list[Callable[[Pbx, list[LiveChannel]], None]] = []
        self._deafen: list[Callable[[], None]] = []
        if manager is not None:
            self._deafen = [manager.on_up(self._up), manager.on_down(self._down)]

    def close(self) -> None:
        """Hear no more: the connection is its owner's, and may be another server's next. Idempotent."""
        while self._deafen:
            self._deafen.pop()()
        self.synced = False

    @property
    def up(self) -> bool:
        """AMI is logged in and the book is in step."""
        return self.synced and self.manager is not None and self.manager.connected

    def call_state(self, uniqueid: str, since: float | None = None) -> CallState:
        """Return the state of the call with that uniqueid by the channel table; see `call_state`."""
        return call_state(self.channels.get(uniqueid), self.up, since)

    def live_channel(self, uniqueid: str) -> LiveChannel | None:
        """Return that channel while the table is in step; None else, for what it has may be long over."""
        return self.channels.get(uniqueid) if self.up else None

    @property
    def addresses(self) -> frozenset[str]:
        """Addresses that its FastAGI calls can come from: those of the settings, and that of its manager interface."""
        peer = self.manager.peer_address if self.manager is not None else ""
        return frozenset({self.settings.host, *self.settings.agi_hosts, peer} - {""})

    @property
    def gone_from_here(self) -> bool:
        """True if Asterisk died on this machine: no process listens at its manager port, which is on a loopback
        address.
        """
        return self.manager is not None and self.manager.gone_from_here

    @property
    def system(self) -> str:
        """Asterisk's systemname, empty where it has none."""
        return self.manager.system_name if self.manager is not None else ""

    @property
    def major(self) -> int:
        """Asterisk's major version; 0 when not known yet."""
        digits = (self.manager.version if self.manager is not None else "").removeprefix("Asterisk ").split(".")[0]
        return int(digits) if digits.isdigit() else 0

    def follow(self, handlers: Iterable[EventHandler]) -> None:
        """Subscribe to the events that these handlers declare, and to those of the channel table. Once, before the
        manager connects: Asterisk is told to send nothing else.

        An event reaches the channel table first, then the handlers, in their order.
        """
        if self._handlers:
            raise ValueError(f"the events of {self.name} are followed already")
        self._handlers = {name: [] for name in BOOK_EVENTS}
        for handler in handlers:
            for name in handler.names:
                self._handlers.setdefault(name, []).append(handler.tell)
        if self.manager is not None:
            self._deafen.append(self.manager.subscribe(self._event, *self._handlers).cancel)

    def on_synced(self, callback: Callable[[Pbx, list[LiveChannel]], None]) -> None:
        """Call `callback(pbx, channels that went while we were away)` after each (re)connect."""
        self._on_synced.append(callback)

    def control(self, channel: str, agi: AgiPath | None = None) -> Control:
        """A way to command that channel now: AMI, else its AGI session.

        :raises AsteriskDown: neither is there
        """
        if self.manager is not None and self.manager.connected:
            return AmiControl(self.manager, channel)
        if agi is not None and not agi.closed:
            return AgiControl(agi)
        raise AsteriskDown(f"no manager connection to {self.name} now")

    def _event(self, event: AmiEvent) -> None:
        if event.name == "UserEvent" and field(event.raw, "UserEvent") == ANNOUNCEMENT:
            return  # what a recorder announced comes back; there are more of them than of all else
        headers = event.headers
        channel = self.channels.feed(event.name, headers, self._clock())
        if channel is None:
            channel = self.channels.get(headers.get("Uniqueid", "")) or self.channels.named(headers.get("Channel", ""))
        for tell in self._handlers.get(event.name, ()):
            try:
                tell(self, event.name, headers, channel)
            except Exception:
                log.exception("ami_event_failed", asterisk=self.name, ami_event=event.name)

    def _up(self, rows: Iterable[ChannelRow]) -> None:
        now = self._clock()
        gone = self.channels.replace(_live(row, now) for row in rows)
        self.synced = True
        log.info("asterisk_in_step", asterisk=self.name, channels=len(self.channels), gone=len(gone))
        for callback in self._on_synced:
            callback(self, gone)

    def _down(self) -> None:
        self.synced = False


def _live(row: ChannelRow, now: float) -> LiveChannel:
    return LiveChannel(
        uniqueid=row.uniqueid,
        name=row.channel,
        linkedid=row.linkedid,
        state=str(row.state_num),
        caller=row.caller,
        exten=row.exten,
        context=row.context,
        bridge=row.bridge_id,
        since=now - row.duration,
        answered_at=now - row.duration if row.state_num == 6 else None,
        first_context=row.context,
        first_exten=row.exten,
    )
