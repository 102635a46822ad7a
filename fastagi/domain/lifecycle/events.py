"""What can happen to a recording: the events that `decide` takes. Frozen data; nothing here decides anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastagi.domain.recording import Segment
from fastagi.domain.states import Cause


@dataclass(frozen=True, slots=True)
class Started:
    """Asterisk is seen to record the first segment.

    :param segment: with its MixMonitor id and the time it began
    """

    segment: Segment


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The recording could not be started: `error` says why and what to do."""

    error: str


@dataclass(frozen=True, slots=True)
class StartMoved:
    """The order to record goes out a second time, into another file: the first one was not answered."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody, a limit or a timer wants it stopped for `cause`.

    :param at: when the recording ended, unix seconds; None for now
    :param uniqueid: only if it is recorded on that channel; empty for any
    """

    cause: Cause
    at: float | None = None
    uniqueid: str = ""


@dataclass(frozen=True, slots=True)
class StopConfirmed:
    """Asterisk has stopped, or has nothing left to stop."""


@dataclass(frozen=True, slots=True)
class StoppedByOthers:
    """Somebody else stopped it (dialplan, another manager client), and its file is closed.

    :param at: when, unix seconds
    """

    cause: Cause
    at: float


@dataclass(frozen=True, slots=True)
class CallOver:
    """The channel it is recorded on is gone.

    :param at: when, unix seconds; None for now
    :param uniqueid: which channel: nothing ends when the recording has moved on to another one; empty for any
    :param facts: what else is known, for the row
    """

    cause: Cause = Cause.HANGUP
    at: float | None = None
    uniqueid: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FilesClosed:
    """Asterisk has closed the raw files, or will never close them."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The finished file is in its place and synced to disk.

    :param limit: the limit that the audio itself shows, NONE where it shows none: it came before whatever stopped the
        recording afterwards
    :param facts: what finishing found, for `extra`
    """

    audio_seconds: float
    bytes: int
    sha256: str
    limit: Cause = Cause.NONE
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotRendered:
    """The finished file could not be made; the raw files are kept.

    :param disk_full: it is tried again when there is room
    """

    error: str
    disk_full: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RefinishRequested:
    """A failed finishing is to be tried again.

    :param file_path: the name that was reserved for the finished file; :param renamed: it is not the one asked for
    """

    file_path: str
    renamed: bool = False


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """Nothing is to be recorded from now on.

    :param resume_at: unix seconds at which it goes on by itself; None: when told
    """

    resume_at: float | None = None


@dataclass(frozen=True, slots=True)
class PauseFailed:
    """Asterisk did not stop for the pause: it goes on recording."""


@dataclass(frozen=True, slots=True)
class ResumeRequested:
    """It is to be recorded again now, also by the process that comes after this one."""


@dataclass(frozen=True, slots=True)
class ResumeFailed:
    """Asterisk did not record again: it is still paused.

    :param resume_at: unix seconds at which it was to go on by itself before; None: when told
    """

    resume_at: float | None = None


@dataclass(frozen=True, slots=True)
class Unmuted:
    """A recording that others started, and that was paused by muting it, is heard again."""


@dataclass(frozen=True, slots=True)
class SegmentIntended:
    """A further segment is to be made; `segment.after` is the reason. It is not `seen` yet."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class SegmentStarted:
    """Asterisk is seen to record the segment that was intended last.

    :param segment: with its MixMonitor id and the time it began
    :param forerunner_ended: Asterisk has ended the segment before it already
    :param forerunner_empty: nothing came into that one: it is left out
    """

    segment: Segment
    forerunner_ended: bool = False
    forerunner_empty: bool = False


@dataclass(frozen=True, slots=True)
class SegmentFailed:
    """Asterisk did not begin the segment that was intended last, or it was given up: the recording is as before it."""


@dataclass(frozen=True, slots=True)
class LegMoved:
    """The call goes on and the recorded leg is not in it any more. A paused recording moves without a file.

    :param segment: on the leg that stays
    """

    segment: Segment


@dataclass(frozen=True, slots=True)
class ChannelRenamed:
    """The recorded channel has another name now."""

    channel: str


@dataclass(frozen=True, slots=True)
class NameTaken:
    """The finished file's name had to be reserved again, and is another one."""

    file_path: str


@dataclass(frozen=True, slots=True)
class MembersNoted:
    """Members of the conference that it is made in have come or gone.

    :param facts: who, and when, for `extra`
    """

    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MuteRequested:
    """One side is to be silenced in the file, or heard again.

    :param direction: ``received``, ``sent`` or ``both``, as on the leg where the recording began
    """

    direction: str
    on: bool


@dataclass(frozen=True, slots=True)
class MuteFailed:
    """Asterisk did not carry out the last `MuteRequested` of that direction."""

    direction: str
    on: bool


Event = (
    Started
    | NotStarted
    | StartMoved
    | StopRequested
    | StopConfirmed
    | StoppedByOthers
    | CallOver
    | FilesClosed
    | Rendered
    | NotRendered
    | RefinishRequested
    | PauseRequested
    | PauseFailed
    | ResumeRequested
    | ResumeFailed
    | Unmuted
    | SegmentIntended
    | SegmentStarted
    | SegmentFailed
    | LegMoved
    | ChannelRenamed
    | NameTaken
    | MembersNoted
    | MuteRequested
    | MuteFailed
)
