"""The live channels of one Asterisk: which are up, bridged, on hold, playing. Fed by AMI events, in order.

Pure bookkeeping: no I/O. The recorder asks it for the call-state rules and for who talks to whom; it reports nothing by
itself. A channel is known by its uniqueid; its name can change under it (masquerade, Rename).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

MOST_PARTED = 32
"""Partners remembered: a channel that is in a conference for a day must not remember all guests."""

SAME_SECONDS = 3.0
"""CoreShowChannels gives whole seconds."""

UP = "6"
"""ChannelState of an answered channel (Asterisk's AST_STATE_UP)."""


@dataclass(slots=True)
class LiveChannel:
    """One channel that is up in Asterisk.

    :param since: unix seconds at which we learned of it
    :param answered_at: unix seconds at which it was seen Up; None before
    :param recent_peers: those it was in a bridge with last, by uniqueid: (the bridge, unix seconds when they parted)
    :param hangup_requested: its hangup was asked for; the channel is there until dialplan and hangup handlers are done
    """

    uniqueid: str
    name: str
    linkedid: str = ""
    state: str = "0"
    caller: str = ""
    caller_name: str = ""
    exten: str = ""
    context: str = ""
    bridge: str = ""
    bridge_type: str = ""
    on_hold_music: bool = False
    hangup_requested: bool = False
    since: float = 0.0
    answered_at: float | None = None
    first_context: str = ""
    first_exten: str = ""
    recent_peers: dict[str, tuple[str, float]] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def up(self) -> bool:
        return self.state == UP

    @property
    def called(self) -> str:
        """The number that was dialled, also while the channel is in a subroutine's ``s``."""
        return called_number(self.exten, self.first_exten)

    @property
    def in_room(self) -> bool:
        """True in a bridge that a conference application made. A call's own bridge is ``basic``."""
        return bool(self.bridge) and self.bridge_type in ("base", "multi")

    def busy_with(self) -> str:
        """Return the state in which the seed forbids a recorder to start; empty when there is none."""
        if self.bridge:
            return (
                "in a conference"
                if self.bridge_type in ("base", "holding", "multi")
                else "connected to another channel"
            )
        return "on music on hold" if self.on_hold_music else ""


def called_number(*extensions: str) -> str:
    """The first of them that somebody can have dialled: not one of the dialplan's own (``s``, ``h``, ``i``, ``t``)."""
    return next((e for e in extensions if e not in _OWN_EXTENSIONS), extensions[0])


_OWN_EXTENSIONS = frozenset({"", "s", "h", "i", "t", "T", "e", "o", "a", "failed", "unknown", "<unknown>"})


class ChannelTable:
    """The live channels of one Asterisk, by uniqueid and by name."""

    def __init__(self) -> None:
        self._by_id: dict[str, LiveChannel] = {}
        self._by_name: dict[str, LiveChannel] = {}
        self._bridges: dict[str, dict[str, LiveChannel]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[LiveChannel]:
        return iter(list(self._by_id.values()))

    def get(self, uniqueid: str) -> LiveChannel | None:
        return self._by_id.get(uniqueid)

    def named(self, name: str) -> LiveChannel | None:
        return self._by_name.get(name)

    def find(self, channel: str) -> LiveChannel | None:
        """By name or by uniqueid, as people give either."""
        return self._by_name.get(channel) or self._by_id.get(channel)

    def peers(self, uniqueid: str) -> list[LiveChannel]:
        """The other channels of its bridge."""
        here = self._by_id.get(uniqueid)
        if here is None or not here.bridge:
            return []
        return [c for c in self._bridges.get(here.bridge, {}).values() if c.uniqueid != uniqueid]

    def origin(self, uniqueid: str) -> LiveChannel | None:
        """The channel that the call began with, of one that Asterisk dialled in it (an agent's, a callee's); None
        where it is that channel itself, or is gone, or has no number."""
        here = self._by_id.get(uniqueid)
        first = self._by_id.get(here.linkedid) if here is not None else None
        return first if first is not None and first is not here and first.caller else None

    def replace(self, channels: Iterable[LiveChannel]) -> list[LiveChannel]:
        """A fresh snapshot takes the place of all; returns those that are gone."""
        new = {c.uniqueid: c for c in channels}
        gone = [c for uid, c in self._by_id.items() if uid not in new]
        for uid, channel in new.items():
            old = self._by_id.get(uid)
            if old is not None and channel.since <= old.since + SAME_SECONDS:  # a restarted Asterisk uses ids again
                channel.since, channel.first_context = old.since, old.first_context
                channel.first_exten = old.first_exten
                channel.answered_at = old.answered_at or channel.answered_at
                channel.on_hold_music = old.on_hold_music
                channel.hangup_requested, channel.recent_peers = old.hangup_requested, old.recent_peers
        self._by_id = new
        self._by_name = {c.name: c for c in new.values()}
        self._bridges = {}
        for channel in new.values():
            if channel.bridge:
                self._bridges.setdefault(channel.bridge, {})[channel.uniqueid] = channel
        return gone

    def clear(self) -> None:
        self.replace(())

    def feed(self, name: str, headers: Mapping[str, str], now: float) -> LiveChannel | None:
        """One event. Returns the channel it was about as it was at that moment (a hung up one too)."""
        action = _ACTIONS.get(name)
        uniqueid = headers.get("Uniqueid", "")
        if action is None or not uniqueid:
            return None
        if name == "Hangup":
            return self._remove(uniqueid, now)
        channel = self._by_id.get(uniqueid)
        if channel is None:
            if name in _NEAR_THE_END:  # it may be gone already, and would never leave again
                return None
            channel = LiveChannel(uniqueid, headers.get("Channel", ""), since=now)
            self._by_id[uniqueid] = channel
            channel.first_context = headers.get("Context", "")
            channel.first_exten = headers.get("Exten", "")
        self._common(channel, headers, now)
        action(self, channel, headers, now)
        return channel

    def _common(self, channel: LiveChannel, headers: Mapping[str, str], now: float) -> None:
        name = headers.get("Channel", "")
        if name and name != channel.name:
            self._rename(channel, name)
        elif name and name not in self._by_name:
            self._by_name[name] = channel
        state = headers.get("ChannelState", "")
        if state:
            channel.state = state
            if state == UP and channel.answered_at is None:
                channel.answered_at = now
        channel.linkedid = headers.get("Linkedid", "") or channel.linkedid
        number = headers.get("CallerIDNum", "")
        if number and number != "<unknown>":
            channel.caller = number
        caller_name = headers.get("CallerIDName", "")
        if caller_name and caller_name != "<unknown>":
            channel.caller_name = caller_name
        channel.exten = headers.get("Exten", "") or channel.exten
        channel.context = headers.get("Context", "") or channel.context

    def _rename(self, channel: LiveChannel, name: str) -> None:
        if self._by_name.get(channel.name) is channel:
            del self._by_name[channel.name]
        channel.name = name
        self._by_name[name] = channel

    def _remove(self, uniqueid: str, now: float) -> LiveChannel | None:
        channel = self._by_id.pop(uniqueid, None)
        if channel is None:
            return None
        if self._by_name.get(channel.name) is channel:
            del self._by_name[channel.name]
        self._leave(channel, now)
        return channel

    def _leave(self, channel: LiveChannel, now: float) -> None:
        members = self._bridges.get(channel.bridge)
        if members is not None:
            members.pop(channel.uniqueid, None)
            for other in members.values():
                _note_parted(other, channel.uniqueid, channel.bridge, now)
                _note_parted(channel, other.uniqueid, channel.bridge, now)
            if not members:
                del self._bridges[channel.bridge]

    def _on_bridge_enter(self, channel: LiveChannel, headers: Mapping[str, str], now: float) -> None:
        self._leave(channel, now)
        channel.bridge = headers.get("BridgeUniqueid", "")
        channel.bridge_type = headers.get("BridgeType", "")
        if channel.bridge:
            self._bridges.setdefault(channel.bridge, {})[channel.uniqueid] = channel

    def _on_bridge_leave(self, channel: LiveChannel, headers: Mapping[str, str], now: float) -> None:
        if channel.bridge == headers.get("BridgeUniqueid", channel.bridge):
            self._leave(channel, now)
            channel.bridge = channel.bridge_type = ""

    def _on_moh_start(self, channel: LiveChannel, _: Mapping[str, str], now: float) -> None:
        channel.on_hold_music = True

    def _on_moh_stop(self, channel: LiveChannel, _: Mapping[str, str], now: float) -> None:
        channel.on_hold_music = False

    def _on_rename(self, channel: LiveChannel, headers: Mapping[str, str], now: float) -> None:
        new = headers.get("Newname", "")
        if new:
            self._rename(channel, new)

    def _on_hangup_request(self, channel: LiveChannel, _: Mapping[str, str], now: float) -> None:
        channel.hangup_requested = True

    def _on_soft_hangup_request(self, channel: LiveChannel, headers: Mapping[str, str], now: float) -> None:
        if headers.get("Cause") not in _NO_END:
            channel.hangup_requested = True

    def _on_any(self, channel: LiveChannel, _: Mapping[str, str], now: float) -> None:
        return None


def _note_parted(channel: LiveChannel, uniqueid: str, bridge: str, now: float) -> None:
    channel.recent_peers.pop(uniqueid, None)  # the latest is last
    channel.recent_peers[uniqueid] = (bridge, now)
    if len(channel.recent_peers) > MOST_PARTED:
        del channel.recent_peers[next(iter(channel.recent_peers))]


_NO_END = frozenset({"2", "64"})
"""`Cause` of a SoftHangupRequest is Asterisk's AST_SOFTHANGUP flag: ASYNCGOTO (a redirect) and UNBRIDGE let it live."""

_ACTIONS: dict[str, Callable[[ChannelTable, LiveChannel, Mapping[str, str], float], None]] = {
    "Newchannel": ChannelTable._on_any,
    "Newstate": ChannelTable._on_any,
    "NewCallerid": ChannelTable._on_any,
    "Hangup": ChannelTable._on_any,
    "HangupRequest": ChannelTable._on_hangup_request,
    "SoftHangupRequest": ChannelTable._on_soft_hangup_request,
    "Rename": ChannelTable._on_rename,
    "BridgeEnter": ChannelTable._on_bridge_enter,
    "BridgeLeave": ChannelTable._on_bridge_leave,
    "MusicOnHoldStart": ChannelTable._on_moh_start,
    "MusicOnHoldStop": ChannelTable._on_moh_stop,
}

_NEAR_THE_END = frozenset({"HangupRequest", "SoftHangupRequest", "BridgeLeave", "MusicOnHoldStop"})

EVENTS = tuple(_ACTIONS)
"""AMI events the book wants."""
