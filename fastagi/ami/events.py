"""Events of Asterisk and rows of its channel list. Frozen or lazy data; no I/O, no clock.

An `AmiEvent` costs two attributes until a header is read: most receivers read one or two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from fastagi.ami.wire import field, fields

RECORDER_EVENTS: Final = (
    "Newchannel",
    "Newstate",
    "Hangup",
    "Rename",
    "BridgeEnter",
    "BridgeLeave",
    "MusicOnHoldStart",
    "MusicOnHoldStop",
    "MixMonitorStart",
    "MixMonitorStop",
    "MixMonitorMute",
    "MonitorStart",
    "MonitorStop",
    "ChannelTalkingStart",
    "ChannelTalkingStop",
    "UserEvent",
    "AttendedTransfer",
    "BlindTransfer",
    "LocalOptimizationBegin",
    "LocalOptimizationEnd",
    "ParkedCall",
    "UnParkedCall",
    "FullyBooted",
    "Shutdown",
)
"""Names of the events that a call recorder needs to follow calls, for `Manager(events=...)`."""

UNKNOWN = "<unknown>"
"""Asterisk's text for an unknown caller number or name."""


class Headers(Mapping[str, str]):
    """Headers by name, in any case.

    The first of repeated headers counts: Asterisk's own come before those that a value with a line end could add.
    `getall` returns all.
    """

    __slots__ = ("_all", "_first")

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._all = pairs
        first: dict[str, tuple[str, str]] = {}
        for pair in pairs:
            first.setdefault(pair[0].lower(), pair)
        self._first = first

    def __getitem__(self, key: str) -> str:
        return self._first[key.lower()][1]

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self._first.values())

    def __len__(self) -> int:
        return len(self._first)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.lower() in self._first

    def getall(self, key: str) -> list[str]:
        """Return every value of a header, in order; [] without the header."""
        low = key.lower()
        return [value for name, value in self._all if name.lower() == low]

    def items_all(self) -> list[tuple[str, str]]:
        """Return all headers in order, repeated ones too."""
        return list(self._all)

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"


@dataclass(frozen=True, slots=True)
class Party:
    """Channel that an event names.

    :param role: prefix of its headers: "" (most events), ``Parkee``, ``OrigTransferer``, ``LocalOne``, ...
    """

    role: str
    channel: str
    uniqueid: str
    linkedid: str


class AmiEvent:
    """AMI event. Headers are parsed when they are read; the object never changes.

    :param name: as Asterisk writes it: ``MixMonitorStart``
    :param raw: the message's bytes
    """

    __slots__ = ("_headers", "name", "raw")

    def __init__(self, name: str, raw: bytes) -> None:
        self.name = name
        self.raw = raw
        self._headers: Headers | None = None

    @property
    def headers(self) -> Headers:
        if self._headers is None:
            self._headers = Headers(fields(self.raw))
        return self._headers

    def get(self, key: str, default: str = "") -> str:
        """Return a header's value, the key in any case; `default` without the header."""
        return self.headers.get(key, default)

    def __getitem__(self, key: str) -> str:
        return self.headers[key]

    @property
    def channel(self) -> str:
        """`Channel`; "" in events that name channels by their role (see `parties`)."""
        return field(self.raw, "Channel")

    @property
    def uniqueid(self) -> str:
        return field(self.raw, "Uniqueid")

    @property
    def linkedid(self) -> str:
        return field(self.raw, "Linkedid")

    @property
    def bridge_id(self) -> str:
        """`BridgeUniqueid` of BridgeEnter and BridgeLeave."""
        return field(self.raw, "BridgeUniqueid")

    @property
    def state(self) -> str:
        """The channel's state in words: ``Up``, ``Ringing``, ``Down``, ..."""
        return field(self.raw, "ChannelStateDesc")

    @property
    def timestamp(self) -> float | None:
        """Unix seconds by Asterisk's clock; None unless manager.conf has `timestampevents = yes`."""
        try:
            return float(field(self.raw, "Timestamp"))
        except ValueError:
            return None

    @property
    def system(self) -> str:
        """`SystemName`: asterisk.conf's systemname, where one is set."""
        return field(self.raw, "SystemName")

    def parties(self) -> list[Party]:
        """Return every channel that the event names: mostly one; several in transfers, parking, Local optimization."""
        headers = self.headers
        out = []
        for key in headers:
            if key.lower().endswith("uniqueid") and not key.lower().endswith("bridgeuniqueid"):
                role = key[: -len("uniqueid")]
                out.append(
                    Party(role, headers.get(role + "Channel", ""), headers[key], headers.get(role + "Linkedid", ""))
                )
        return out

    def __repr__(self) -> str:
        return f"<AmiEvent {self.name} {self.channel}>"


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """Channel as `CoreShowChannels` (or `Status`) lists it.

    :param state: ``Up``, ``Ring``, ``Ringing``, ``Down``, ...; :param state_num: the same as Asterisk's number, 6 is Up
    :param bridge_id: "" when the channel is in no bridge
    :param caller: caller id number; :param connected: connected line's number; both "" when unknown
    :param duration: whole seconds since the channel was made, rounded up by the time that the list took: a channel
        that seems younger than its recording would count as another call's
    """

    channel: str
    uniqueid: str
    linkedid: str = ""
    state: str = ""
    state_num: int = 0
    bridge_id: str = ""
    caller: str = ""
    connected: str = ""
    context: str = ""
    exten: str = ""
    application: str = ""
    duration: int = 0

    @property
    def up(self) -> bool:
        return self.state_num == 6

    @classmethod
    def parse(cls, headers: Mapping[str, str]) -> ChannelRow:
        """Make a row from the headers of a `CoreShowChannel` or `Status` event (any mapping that ignores case)."""
        number = headers.get("ChannelState", "")
        return cls(
            channel=headers.get("Channel", ""),
            uniqueid=headers.get("Uniqueid", ""),
            linkedid=headers.get("Linkedid", ""),
            state=headers.get("ChannelStateDesc", ""),
            state_num=int(number[:9]) if number.isascii() and number.isdigit() else 0,
            bridge_id=headers.get("BridgeID", ""),
            caller=_known(headers.get("CallerIDNum", "")),
            connected=_known(headers.get("ConnectedLineNum", "")),
            context=headers.get("Context", ""),
            exten=headers.get("Exten", ""),
            application=headers.get("Application", ""),
            duration=_seconds(headers.get("Duration", "") or headers.get("Seconds", "")),
        )


def _known(value: str) -> str:
    return "" if value == UNKNOWN else value


def _seconds(text: str) -> int:
    """Return ``00:01:07`` (CoreShowChannels) or ``67`` (Status) in seconds; 0 for anything else."""
    total = 0
    for part in text.split(":", 3):
        if not (part.isascii() and part.isdigit()):
            return 0
        total = total * 60 + int(part[:9])
    return total
