"""What a recording's row still asks for, and what may be done with it: read from the row alone."""

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
"""A call that is sent round and round must not fill the spool with files."""

MOST_FLUSHES = 50
"""In one recording: who stops sending between any two words must not fill the spool with files."""

MOST_LOSSES = 20
"""A spool that vanishes again and again is not put back for ever."""


def owed(recording: Recording) -> tuple[Effect, ...]:
    """What a row still asks for, in order: the same for a running server and for one that was just restarted."""
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
    if not last.confirmed:  # it was being resumed
        return (StartSegment(last), *clock)
    if recording.adopted:
        return (Mute("both", True), *clock)
    return clock if last.empty else (EndSegment(last), *clock)


def can_flush(recording: Recording) -> bool:
    """May its last segment be ended and a further one begun, so that what Asterisk holds back can be read?"""
    last = recording.pieces[-1]
    return (
        recording.phase is Phase.ACTIVE
        and not recording.adopted
        and last.confirmed
        and not last.ended_at
        and not flushed_too_often(recording)
    )


def flushed_too_often(recording: Recording) -> bool:
    """Has it so many segments of a standstill that it gets no more?"""
    return sum(segment.reason == "still" for segment in recording.pieces) >= MOST_FLUSHES


def can_replace_lost_files(recording: Recording) -> bool:
    """May a further segment be begun where the raw files of the last one are gone?"""
    last = recording.pieces[-1]
    return (
        recording.phase is Phase.ACTIVE
        and not recording.adopted
        and last.confirmed
        and len(recording.pieces) <= MOST_LOSSES
    )


def can_follow(recording: Recording) -> bool:
    """May it go on on another leg of its call?"""
    return (
        recording.phase in RUNNING
        and recording.spec.follow
        and not recording.adopted
        and len(recording.pieces) < MOST_SEGMENTS
    )


def position(recording: Recording, now: float) -> float:
    """Seconds since it began, to the millisecond; 0 where it has not."""
    return round(max(0.0, now - recording.started_at), 3) if recording.started_at else 0.0


def is_muted(recording: Recording, direction: str) -> bool:
    """Is that side silenced now? Of ``both`` only what was silenced as both is told."""
    spans = mute_spans(recording, direction)
    return bool(spans) and spans[-1][1] is None


def mute_spans(recording: Recording, direction: str) -> list[list[float | None]]:
    """Stretches in which that side is silenced, ``[start, end]`` in seconds; the last end is None while it lasts."""
    return recording.facts.muted.get(direction, [])


def muted_directions(recording: Recording) -> list[str]:
    """Sides that are silenced now, as on the leg where the recording began."""
    return [direction for direction in recording.facts.muted if is_muted(recording, direction)]
