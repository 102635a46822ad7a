"""Effects of a decision: values that the engine performs once the decision is journalled.

An effect may be performed again after a crash: the engine first checks whether it has been done.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastagi.domain.recording import Segment


@dataclass(frozen=True, slots=True)
class StartSegment:
    """Have Asterisk record this segment, unless it does already; feeds back the confirmation or the failure."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class EndSegment:
    """Have Asterisk end this segment while the recording goes on."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class StopSegment:
    """Tell Asterisk to stop recording, until it has, or the channel is gone; feeds back `StopConfirmed`."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class AwaitClosed:
    """Wait, for a bounded time, until Asterisk has closed this segment's files; feeds back `FilesClosed`."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class Finish:
    """Make the finished file and sync it; feeds back `Rendered` or `NotRendered`."""


@dataclass(frozen=True, slots=True)
class Deliver:
    """One delivery to each of these sinks: rows of the ledger, written in the transaction of the decision itself."""

    sinks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RemoveRaw:
    """Remove Asterisk's own files: the finished one is synced and journalled."""


@dataclass(frozen=True, slots=True)
class ReleaseName:
    """Release the reserved name of the finished file."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Arm the time limit and watch the raw files of a running recording."""


@dataclass(frozen=True, slots=True)
class Mute:
    """Tell Asterisk to mute a side, or to unmute it."""

    direction: str
    on: bool


@dataclass(frozen=True, slots=True)
class ResumeAt:
    """Resume the recording automatically at a time, unix seconds."""

    at: float


Effect = (
    StartSegment
    | EndSegment
    | StopSegment
    | AwaitClosed
    | Finish
    | Deliver
    | RemoveRaw
    | ReleaseName
    | Watch
    | Mute
    | ResumeAt
)
