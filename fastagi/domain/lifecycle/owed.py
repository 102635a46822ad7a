"""Effects that a recording's row still asks for, and the actions it allows: read from the row alone."""

from __future__ import annotations

from fastagi.domain.lifecycle.effects import (
    AwaitClosed,
    Deliver,
    Effect,
    EndSegment,
    Finish,
    Mute,
    ReleaseName,
    RemoveRaw,
    ResumeAt,
    StartSegment,
    StopSegment,
    Watch,
)
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.states import RUNNING, Phase

MOST_SEGMENTS = 100
"""Most segments: a call that is transferred round and round must not fill the spool."""

MOST_FLUSHES = 50
"""Most flushes of a recording: a sender that stops between any two words must not fill the spool."""

MOST_LOSSES = 20
"""Most losses of raw files that are replaced: a spool that vanishes again and again ends the attempts."""


def owed(recording: Recording) -> tuple[Effect, ...]:
    """Return the effects that a row still asks for, in order: the same before and after a restart."""
    last = recording.pieces[-1] if recording.pieces else Segment("")
    match recording.phase:
        case Phase.REQUESTED:
            return (StartSegment(last),)
        case Phase.ACTIVE:
            return (Watch(),) if last.confirmed else (StartSegment(last), Watch())
        case Phase.PAUSED:
            return (*_owed_in_a_pause(recording, last), Watch())
        case Phase.STOPPING:
            return (StopSegment(last),)
        case Phase.CLOSING:
            return (AwaitClosed(last),)
        case Phase.FINISHING:
            return (Finish(),)
        case Phase.FINISHED:
            delivered = (Deliver(recording.sinks),) if recording.sinks else ()
            return delivered if recording.facts.steering.unreached else (*delivered, RemoveRaw())
        case Phase.FAILED:
            return (ReleaseName(),)


def _owed_in_a_pause(recording: Recording, last: Segment) -> tuple[Effect, ...]:
    at = recording.facts.resume_at
    clock = () if at is None else (ResumeAt(at),)
    if not last.confirmed:  # a resume was under way
        return (StartSegment(last), *clock)
    if recording.adopted:
        return (Mute("both", True), *clock)
    return clock if last.empty else (EndSegment(last), *clock)


def can_flush(recording: Recording) -> bool:
    """Tell whether the last segment may be ended and a further one begun, to read audio that Asterisk holds back."""
    last = recording.pieces[-1]
    return (
        recording.phase is Phase.ACTIVE
        and not recording.adopted
        and last.confirmed
        and not last.ended_at
        and not flushed_too_often(recording)
    )


def flushed_too_often(recording: Recording) -> bool:
    """Tell whether the recording has its most segments of a standstill."""
    return sum(segment.reason == "still" for segment in recording.pieces) >= MOST_FLUSHES


def can_replace_lost_files(recording: Recording) -> bool:
    """Tell whether a further segment may be begun after the raw files of the last one vanished."""
    last = recording.pieces[-1]
    return (
        recording.phase is Phase.ACTIVE
        and not recording.adopted
        and last.confirmed
        and len(recording.pieces) <= MOST_LOSSES
    )


def can_follow(recording: Recording) -> bool:
    """Tell whether the recording may go on on another leg of its call."""
    return (
        recording.phase in RUNNING
        and recording.spec.follow
        and not recording.adopted
        and len(recording.pieces) < MOST_SEGMENTS
    )


def position(recording: Recording, now: float) -> float:
    """Return the seconds since the recording began, to the millisecond; 0 before that."""
    return round(max(0.0, now - recording.started_at), 3) if recording.started_at else 0.0


def is_muted(recording: Recording, direction: str) -> bool:
    """Tell whether a side is muted now; ``both`` counts only mutes of both at once."""
    spans = mute_spans(recording, direction)
    return bool(spans) and spans[-1][1] is None


def mute_spans(recording: Recording, direction: str) -> list[list[float | None]]:
    """Return the spans in which a side is muted, ``[start, end]`` in seconds; the last end is None while it lasts."""
    return recording.facts.muted.get(direction, [])


def muted_directions(recording: Recording) -> list[str]:
    """Return the sides muted now, as on the leg where the recording began."""
    return [direction for direction in recording.facts.muted if is_muted(recording, direction)]
