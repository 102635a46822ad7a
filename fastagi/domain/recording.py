"""A recording: one row of the ledger, frozen. It outlives the AGI session that asked for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from fastagi.domain.facts import Facts
from fastagi.domain.metadata import RecordingMetadata
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import LIVE, OPEN, RUNNING, Cause, Phase, State, public_state
from fastagi.domain.timestamps import rfc3339


@dataclass(frozen=True, slots=True)
class Segment:
    """Asterisk's own files of one stretch of a recording (a call that moved has several).

    :param mixed: both sides, mono; :param received: audio from the channel; :param sent: audio to it (absolute paths,
        empty where not recorded)
    :param channel: on which channel
    :param started_at: unix seconds; 0 until Asterisk is seen to record it
    :param monitor_id: Asterisk's MixMonitorID, empty when unknown
    :param ended_at: unix seconds at which it was ended though the recording went on (a pause, a call that moved); 0
        for one that ends with the recording
    :param reason: why it is not the first: ``pause``, ``move``, ``loss`` (its forerunner's files vanished) or ``still``
        (no frames came any more, and Asterisk held the last ones back until that file was ended)
    :param sides_swapped: it was made on the other leg of the call: received and sent change places
    :param lost: its files vanished while it was made
    :param confirmed: False for one that is only intended: the command is on its way
    """

    mixed: str
    received: str = ""
    sent: str = ""
    channel: str = ""
    uniqueid: str = ""
    started_at: float = 0.0
    monitor_id: str = ""
    ended_at: float = 0.0
    reason: str = ""
    sides_swapped: bool = False
    lost: bool = False
    confirmed: bool = True

    @property
    def empty(self) -> bool:
        """It only says where the recording goes on after a pause: no file was ever made."""
        return bool(self.ended_at) and self.ended_at == self.started_at

    @property
    def told(self) -> bool:
        """Is it a segment of the call for who asks, and not only a further file?"""
        return not self.empty and self.reason != "still"

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(p for p in (self.mixed, self.received, self.sent) if p)


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a recording in seconds since its start; `end` is None while it is open."""

    start: float
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """Everything known of one recording. Times are unix seconds, UTC.

    :param id: unique for ever, sorts by time, safe in a file name
    :param node: the server that can read its raw files
    :param asterisk: `[[asterisk]] name` of the PBX
    :param system: Asterisk's systemname, where one is set
    :param recorder: which recorder of the call: "" for the first, else the name given to `call.recorder(name)`
    :param name: as asked for; :param file_path: the finished file, reserved when it starts
    :param sinks: names of the sinks that get it
    :param facts: what steers it, and what finishing found, for `extra`; any mapping is taken
    """

    id: str
    node: str
    asterisk: str
    channel: str
    uniqueid: str
    name: str
    file_path: str
    spec: RecordingSpec = field(default_factory=RecordingSpec)
    phase: Phase = Phase.REQUESTED
    cause: Cause = Cause.NONE
    error: str = ""
    system: str = ""
    linkedid: str = ""
    recorder: str = ""
    caller: str = ""
    called: str = ""
    pieces: tuple[Segment, ...] = ()
    pauses: tuple[Span, ...] = ()
    sinks: tuple[str, ...] = ()
    adopted: bool = False
    requested_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    finished_at: float | None = None
    audio_seconds: float | None = None
    bytes: int | None = None
    sha256: str = ""
    legal_hold: bool = False
    deleted_at: float | None = None
    facts: Facts = field(default_factory=Facts)

    def __post_init__(self) -> None:
        if type(self.facts) is not Facts:
            object.__setattr__(self, "facts", Facts(self.facts))

    def changed(self, **changes: Any) -> Recording:
        """A copy with other values, as `dataclasses.replace` makes it: a call has ten of them, so this is quick.

        :raises TypeError: there is no such field
        """
        if not changes.keys() <= self.__dataclass_fields__.keys():
            raise TypeError(f"a recording has no {', '.join(changes.keys() - self.__dataclass_fields__.keys())}")
        values: list[Any] = list(map(changes.get, _NAMES, _values(self)))
        return Recording(*values)

    @property
    def state(self) -> State:
        return public_state(self.phase)

    @property
    def requested(self) -> bool:
        """Asterisk has not been seen to record it yet."""
        return self.phase is Phase.REQUESTED

    @property
    def running(self) -> bool:
        """Asterisk was seen to record it, and nothing has ended it: active or paused."""
        return self.phase in RUNNING

    @property
    def active(self) -> bool:
        """Asterisk records what is said."""
        return self.phase is Phase.ACTIVE

    @property
    def paused(self) -> bool:
        return self.phase is Phase.PAUSED

    @property
    def stopping(self) -> bool:
        """Its end is decided, and Asterisk is being told."""
        return self.phase is Phase.STOPPING

    @property
    def live(self) -> bool:
        """Asterisk may be writing."""
        return self.phase in LIVE

    @property
    def open(self) -> bool:
        """There is work left."""
        return self.phase in OPEN

    @property
    def finished(self) -> bool:
        """The finished file is synced, and its deliveries are rows."""
        return self.phase is Phase.FINISHED

    @property
    def failed(self) -> bool:
        """It could not be started, or could not be finished."""
        return self.phase is Phase.FAILED

    @property
    def public_cause(self) -> Cause:
        """The seed's cause: NONE while the job still runs, though what ends it may be decided."""
        return Cause.NONE if self.state is State.RECORDING else self.cause

    @property
    def ids(self) -> dict[str, str]:
        """What each log line about it is found by: of the channel that it was asked for on, wherever the call moved."""
        return {
            "recording_id": self.id,
            "channel": self.channel,
            "uniqueid": self.uniqueid,
            "asterisk": self.asterisk,
            "linkedid": self.linkedid,
        }

    @property
    def session_id(self) -> str:
        """The seed's session id: uniqueids repeat between two Asterisks, so the system name goes in front."""
        if self.system and not self.uniqueid.startswith(self.system + "-"):
            return f"{self.system}-{self.uniqueid}"
        return self.uniqueid

    @property
    def duration_seconds(self) -> float | None:
        """Wall-clock seconds between start and stop."""
        if self.started_at is None or self.ended_at is None:
            return None
        return round(max(0.0, self.ended_at - self.started_at), 3)

    def metadata(self) -> RecordingMetadata:
        """What sinks are told. The same each time, so that every attempt of a delivery sends the same body."""
        extra: dict[str, Any] = {
            "recording_id": self.id,
            "state": self.state.value,
            "cause": self.cause.value,
            "channel": self.channel,
            "uniqueid": self.uniqueid,
            "linkedid": self.linkedid,
            "asterisk": self.asterisk,
            "node": self.node,
            "caller": self.caller,
            "called": self.called,
            "started_at": rfc3339(self.started_at),
            "ended_at": rfc3339(self.ended_at),
            "audio_seconds": self.audio_seconds,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "file_format": self.spec.file_format,
            "rate": self.spec.rate,
            "mode": self.spec.recording_mode,
            "encryption": self.spec.encryption or None,
            "paused": [[s.start, s.end] for s in self.pauses],
            "segments": [[p.channel, p.started_at] for p in self.pieces if p.told],
        }
        if self.recorder:
            extra["recorder"] = self.recorder
        if self.adopted:
            extra["adopted"] = True
        if self.error:
            extra["error"] = self.error
        extra.update(self.facts)
        return RecordingMetadata(
            session_id=self.session_id,
            name=self.name,
            file_path=self.file_path,
            duration_seconds=self.duration_seconds,
            format=self.facts.file_format or self.spec.form.container,
            extra=extra,
        )


_NAMES = tuple(Recording.__dataclass_fields__)
_values = attrgetter(*_NAMES)
