"""Recording: a frozen row of the ledger. A recording outlives the AGI session that asked for it."""

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
    :param channel: name of the recorded channel
    :param started_at: unix seconds; 0 until Asterisk is confirmed to record
    :param monitor_id: Asterisk's MixMonitorID, empty when unknown
    :param ended_at: unix seconds of an end while the recording went on (a pause, a call that moved); 0 for a segment
        that ends with the recording
    :param reason: why a further segment was begun: ``pause``, ``move``, ``loss`` (its forerunner's files vanished) or
        ``still`` (no frames came any more, and Asterisk held the last ones back until that file was ended)
    :param sides_swapped: made on the other leg of the call: received and sent change places
    :param lost: the files vanished while the segment was recorded
    :param confirmed: False while the segment is only intended: the command is on its way
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
        """True for a segment without a file, which only marks where the recording goes on after a pause."""
        return bool(self.ended_at) and self.ended_at == self.started_at

    @property
    def told(self) -> bool:
        """True for a segment that users see, False for a mere further file."""
        return not self.empty and self.reason != "still"

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(p for p in (self.mixed, self.received, self.sent) if p)


@dataclass(frozen=True, slots=True)
class Span:
    """Span of a recording in seconds since its start; `end` is None while it is open."""

    start: float
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """Recording with all its facts. Times are unix seconds, UTC.

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
        """Return a copy with other values, as `dataclasses.replace` does, but faster: a call makes ten copies.

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
        """True until Asterisk is confirmed to record."""
        return self.phase is Phase.REQUESTED

    @property
    def running(self) -> bool:
        """True from the confirmed start to the end: active or paused."""
        return self.phase in RUNNING

    @property
    def active(self) -> bool:
        """True while Asterisk records audio."""
        return self.phase is Phase.ACTIVE

    @property
    def paused(self) -> bool:
        return self.phase is Phase.PAUSED

    @property
    def stopping(self) -> bool:
        """True while the end is decided and Asterisk is being told."""
        return self.phase is Phase.STOPPING

    @property
    def live(self) -> bool:
        """True while Asterisk may be writing."""
        return self.phase in LIVE

    @property
    def open(self) -> bool:
        """True while there is work left."""
        return self.phase in OPEN

    @property
    def finished(self) -> bool:
        """True once the finished file is synced and its deliveries are in the ledger."""
        return self.phase is Phase.FINISHED

    @property
    def failed(self) -> bool:
        """True when the recording could not be started or could not be finished."""
        return self.phase is Phase.FAILED

    @property
    def public_cause(self) -> Cause:
        """The seed's cause: NONE while the recording is open, even if the cause of its end is decided."""
        return Cause.NONE if self.state is State.RECORDING else self.cause

    @property
    def ids(self) -> dict[str, str]:
        """Ids for log lines about the recording; the channel is the first one, even if the call moved."""
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
        """Seconds of wall-clock time between start and stop."""
        if self.started_at is None or self.ended_at is None:
            return None
        return round(max(0.0, self.ended_at - self.started_at), 3)

    def metadata(self) -> RecordingMetadata:
        """Return the metadata for sinks: always the same, so that every attempt of a delivery sends the same body."""
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
