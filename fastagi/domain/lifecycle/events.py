"""Events that can happen to a recording, for `decide`. Frozen data without decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastagi.domain.recording import Segment
from fastagi.domain.states import Cause


@dataclass(frozen=True, slots=True)
class Started:
    """Asterisk is confirmed to record the first segment.

    :param segment: with its MixMonitor id and the time it began
    """

    segment: Segment


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The recording could not be started: `error` tells the reason and the remedy."""

    error: str


@dataclass(frozen=True, slots=True)
class StartMoved:
    """The command to record is sent a second time, with another file: the first one was not answered."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A caller, a limit or a timer stops the recording for `cause`.

    :param at: when the recording ended, unix seconds; None for now
    :param uniqueid: stop only if the recording is made on that channel; empty for any
    """

    cause: Cause
    at: float | None = None
    uniqueid: str = ""


@dataclass(frozen=True, slots=True)
class StopConfirmed:
    """Asterisk has stopped, or has nothing left to stop."""


@dataclass(frozen=True, slots=True)
class StoppedByOthers:
    """An external stop (dialplan, another manager client) ended the recording, and its file is closed.

    :param at: time of the stop, unix seconds
    """

    cause: Cause
    at: float


@dataclass(frozen=True, slots=True)
class CallOver:
    """The recorded channel is gone.

    :param at: time of the end, unix seconds; None for now
    :param uniqueid: the channel; a recording that has moved to another channel goes on; empty for any
    :param facts: further facts for the row
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

    :param limit: the limit that the audio itself shows, else NONE; it came before the stop of the recording
    :param facts: facts found by rendering, for `extra`
    """

    audio_seconds: float
    bytes: int
    sha256: str
    limit: Cause = Cause.NONE
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotRendered:
    """The finished file could not be made; the raw files are kept.

    :param disk_full: the rendering is retried when there is room
    """

    error: str
    disk_full: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RefinishRequested:
    """A failed finishing is to be tried again.

    :param file_path: reserved name of the finished file; :param renamed: it is not the wanted name
    """

    file_path: str
    renamed: bool = False


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """Pause the recording from now on.

    :param resume_at: unix seconds of the automatic resume; None for no automatic resume
    """

    resume_at: float | None = None


@dataclass(frozen=True, slots=True)
class PauseFailed:
    """Asterisk did not stop for the pause: the recording goes on."""


@dataclass(frozen=True, slots=True)
class ResumeRequested:
    """Resume the recording now; holds for the process after this one, too."""


@dataclass(frozen=True, slots=True)
class ResumeFailed:
    """Asterisk did not resume: the recording is still paused.

    :param resume_at: unix seconds of the automatic resume set before; None for none
    """

    resume_at: float | None = None


@dataclass(frozen=True, slots=True)
class Unmuted:
    """An adopted recording that was paused by muting is unmuted again."""


@dataclass(frozen=True, slots=True)
class SegmentIntended:
    """A further segment is to be made; `segment.reason` tells why. It is not `confirmed` yet."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class SegmentStarted:
    """Asterisk is confirmed to record the segment that was intended last.

    :param segment: with its MixMonitor id and the time it began
    :param forerunner_ended: Asterisk has ended the segment before it already
    :param forerunner_empty: the segment before has no audio and is left out
    """

    segment: Segment
    forerunner_ended: bool = False
    forerunner_empty: bool = False


@dataclass(frozen=True, slots=True)
class SegmentFailed:
    """Asterisk did not begin the segment intended last, or it was given up: the recording is as before."""


@dataclass(frozen=True, slots=True)
class LegMoved:
    """The recorded leg has left a call that goes on. A paused recording moves without a file.

    :param segment: on the leg that stays
    """

    segment: Segment


@dataclass(frozen=True, slots=True)
class ChannelRenamed:
    """The recorded channel has another name now."""

    channel: str


@dataclass(frozen=True, slots=True)
class NameTaken:
    """The name of the finished file was reserved again, and is another one."""

    file_path: str


@dataclass(frozen=True, slots=True)
class MembersNoted:
    """Members of the recorded conference have come or gone.

    :param facts: members and times, for `extra`
    """

    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MuteRequested:
    """Mute a side in the file, or unmute it.

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
