"""Rules: the changes and effects of each event, one rule per event.

`fastagi.domain.states.TABLE` has the transitions of phases, `owed` the effects that a phase asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastagi.domain.facts import DISK_FULL, ENDED_BY, RENAMED, RESUME_AT
from fastagi.domain.lifecycle.effects import Effect, EndSegment, Mute, ResumeAt, StartSegment
from fastagi.domain.lifecycle.events import (
    CallOver,
    ChannelRenamed,
    Event,
    FilesClosed,
    LegMoved,
    MembersNoted,
    MuteFailed,
    MuteRequested,
    NameTaken,
    NotRendered,
    NotStarted,
    PauseFailed,
    PauseRequested,
    RefinishRequested,
    Rendered,
    ResumeFailed,
    ResumeRequested,
    SegmentFailed,
    SegmentIntended,
    SegmentStarted,
    Started,
    StartMoved,
    StopConfirmed,
    StoppedByOthers,
    StopRequested,
    Unmuted,
)
from fastagi.domain.lifecycle.owed import can_follow, is_muted, mute_spans, owed, position
from fastagi.domain.recording import Recording, Segment, Span
from fastagi.domain.states import OPEN, RUNNING, TABLE, Cause, Phase, advance
from fastagi.domain.states import Event as Transition
from fastagi.errors import IllegalTransition


@dataclass(frozen=True, slots=True)
class Decision:
    """Decision about an event.

    :param after: the changed recording
    :param entry: name of the journal entry
    :param transition: the move along the state table; None where the phase stays
    :param changes: fields of the recording that differ, without `phase`
    :param effects: effects to perform, in this order, once the decision is journalled
    """

    after: Recording
    entry: str
    transition: Transition | None
    changes: Mapping[str, Any]
    effects: tuple[Effect, ...]


def decide(recording: Recording, event: Event, now: float) -> Decision:
    """Decide what follows from `event`.

    :param now: unix seconds
    :raises IllegalTransition: the event came too late, is about another channel, or does not fit the phase
    """
    return RULES[type(event)](recording, event, now)


def _moved(recording: Recording, transition: Transition, /, **changes: Any) -> Decision:
    after = recording.changed(phase=advance(recording.phase, transition), **changes)
    return Decision(after, transition.value, transition, changes, owed(after))


def _noted(recording: Recording, entry: str, /, *effects: Effect, **changes: Any) -> Decision:
    return Decision(recording.changed(**changes), entry, None, changes, effects)


def _only(recording: Recording, good: bool, what: str) -> None:
    if not good:
        raise IllegalTransition(f"a recording that is {recording.phase.value} cannot take the event {what}")


def _of_channel(recording: Recording, uniqueid: str) -> None:
    if uniqueid and uniqueid != recording.pieces[-1].uniqueid:
        raise IllegalTransition(f"the recording is not made on the channel {uniqueid} any more")


def _closed_pauses(recording: Recording, ended: float) -> tuple[Span, ...]:
    pauses = recording.pauses
    if not pauses or pauses[-1].end is not None:
        return pauses
    start = recording.started_at or ended
    return (*pauses[:-1], Span(pauses[-1].start, round(max(pauses[-1].start, ended - start), 3)))


def _started(recording: Recording, event: Started, now: float) -> Decision:
    began = event.segment.started_at
    pieces = (*recording.pieces[:-1], event.segment)
    return _moved(recording, Transition.STARTED, started_at=began, pieces=pieces, error="")


def _not_started(recording: Recording, event: NotStarted, now: float) -> Decision:
    _only(recording, recording.phase is Phase.REQUESTED, "not_started")
    return _moved(recording, Transition.FAILED, cause=Cause.ERROR, error=event.error, ended_at=now)


def _start_moved(recording: Recording, event: StartMoved, now: float) -> Decision:
    _only(recording, recording.phase is Phase.REQUESTED, "second_way")
    pieces = (*recording.pieces[:-1], event.segment)
    return _noted(recording, "second_way", StartSegment(event.segment), pieces=pieces)


def _stop_requested(recording: Recording, event: StopRequested, now: float) -> Decision:
    _of_channel(recording, event.uniqueid)
    ended = recording.ended_at or (now if event.at is None else event.at)
    pauses = _closed_pauses(recording, ended)
    return _moved(recording, Transition.STOP, cause=event.cause, ended_at=ended, pauses=pauses)


def _stop_confirmed(recording: Recording, event: StopConfirmed, now: float) -> Decision:
    _only(recording, recording.phase is Phase.STOPPING, "stopped")
    return _moved(recording, Transition.STOPPED)


def _stopped_by_others(recording: Recording, event: StoppedByOthers, now: float) -> Decision:
    _only(recording, recording.phase in RUNNING, "stopped by others")
    pauses = _closed_pauses(recording, event.at)
    return _moved(recording, Transition.STOPPED, cause=event.cause, ended_at=event.at, pauses=pauses)


def _call_over(recording: Recording, event: CallOver, now: float) -> Decision:
    _only(recording, Transition.HUNG_UP in TABLE[recording.phase], "hung_up")
    _of_channel(recording, event.uniqueid)
    cause = recording.cause if recording.phase is Phase.STOPPING else event.cause
    ended = recording.ended_at or (now if event.at is None else event.at)
    more: dict[str, Any] = {"facts": recording.facts.merged(event.facts)} if event.facts else {}
    if recording.started_at is None:  # the start was never confirmed, but there is a file
        more["started_at"] = recording.requested_at
    pauses = _closed_pauses(recording, ended)
    return _moved(recording, Transition.HUNG_UP, cause=cause, ended_at=ended, pauses=pauses, **more)


def _files_closed(recording: Recording, event: FilesClosed, now: float) -> Decision:
    return _moved(recording, Transition.CLOSED)


def _rendered(recording: Recording, event: Rendered, now: float) -> Decision:
    began = {} if recording.started_at is not None else {"started_at": recording.requested_at}  # there is a file
    return _moved(
        recording,
        Transition.FINISHED,
        **began,
        cause=recording.cause if event.limit is Cause.NONE else event.limit,
        finished_at=now,
        audio_seconds=round(event.audio_seconds, 3),
        bytes=event.bytes,
        sha256=event.sha256,
        error="",
        facts=recording.facts.without(RESUME_AT).merged(event.facts),
    )


def _not_rendered(recording: Recording, event: NotRendered, now: float) -> Decision:
    _only(recording, recording.phase is Phase.FINISHING, "not_rendered")
    steering = {ENDED_BY: recording.cause.value, DISK_FULL: event.disk_full}
    facts = recording.facts.merged(event.facts).merged(steering)
    return _moved(recording, Transition.FAILED, cause=Cause.ERROR, error=event.error, facts=facts)


def _refinish(recording: Recording, event: RefinishRequested, now: float) -> Decision:
    cause = recording.facts.steering.ended_by or Cause.HANGUP
    facts = recording.facts.without(ENDED_BY, DISK_FULL)
    if event.renamed:
        facts = facts.merged({RENAMED: True})
    return _moved(recording, Transition.REFINISH, cause=cause, error="", facts=facts, file_path=event.file_path)


def _pause_requested(recording: Recording, event: PauseRequested, now: float) -> Decision:
    _only(recording, recording.phase in RUNNING, "paused")
    facts = recording.facts.without(RESUME_AT)
    if event.resume_at is not None:
        facts = facts.merged({RESUME_AT: round(event.resume_at, 3)})
    if recording.phase is Phase.PAUSED:
        clock = () if facts.resume_at is None else (ResumeAt(facts.resume_at),)
        return _noted(recording, "pause_changed", *clock, facts=facts)
    pauses = (*recording.pauses, Span(position(recording, now)))
    if recording.adopted:  # an adopted recording cannot be ended and begun here: it is muted
        return _moved(recording, Transition.PAUSED, pauses=pauses, facts=facts)
    last = recording.pieces[-1]
    ended = max(now, last.started_at + 0.001)  # a segment of no length would count as never made
    pieces = (*recording.pieces[:-1], replace(last, ended_at=ended))
    return _moved(recording, Transition.PAUSED, pauses=pauses, facts=facts, pieces=pieces)


def _pause_failed(recording: Recording, event: PauseFailed, now: float) -> Decision:
    last = recording.pieces[-1]
    _only(recording, recording.phase is Phase.PAUSED and last.confirmed and not last.empty, "pause_failed")
    pieces = (*recording.pieces[:-1], replace(last, ended_at=0.0))
    facts = recording.facts.without(RESUME_AT)
    return _moved(recording, Transition.RESUMED, pauses=recording.pauses[:-1], facts=facts, pieces=pieces)


def _resume_requested(recording: Recording, event: ResumeRequested, now: float) -> Decision:
    _only(recording, recording.phase is Phase.PAUSED, "resume_asked")
    effects = () if recording.pieces[-1].ended_at else (Mute("both", False),)  # else a segment is begun
    return _noted(recording, "resume_asked", *effects, facts=recording.facts.merged({RESUME_AT: round(now, 3)}))


def _resume_failed(recording: Recording, event: ResumeFailed, now: float) -> Decision:
    _only(recording, recording.phase is Phase.PAUSED, "resume_failed")
    facts = recording.facts.without(RESUME_AT)
    if event.resume_at is not None:
        facts = facts.merged({RESUME_AT: event.resume_at})
    return _noted(recording, "resume_failed", facts=facts)


def _unmuted(recording: Recording, event: Unmuted, now: float) -> Decision:
    return _resumed(recording, recording.pieces, now)


def _resumed(recording: Recording, pieces: tuple[Segment, ...], now: float) -> Decision:
    pauses = recording.pauses
    if pauses and pauses[-1].end is None:
        pauses = (*pauses[:-1], Span(pauses[-1].start, position(recording, now)))
    facts = recording.facts.without(RESUME_AT)
    return _moved(recording, Transition.RESUMED, pauses=pauses, facts=facts, pieces=pieces)


def _segment_intended(recording: Recording, event: SegmentIntended, now: float) -> Decision:
    after_pause = event.segment.reason == "pause"
    _only(recording, recording.phase is (Phase.PAUSED if after_pause else Phase.ACTIVE), "piece")
    _only(recording, recording.pieces[-1].confirmed and not recording.adopted, "piece")
    segment = replace(event.segment, started_at=now, confirmed=False)
    return _noted(recording, "piece", StartSegment(segment), pieces=(*recording.pieces, segment))


def _segment_started(recording: Recording, event: SegmentStarted, now: float) -> Decision:
    _only(recording, recording.phase in RUNNING and not recording.pieces[-1].confirmed, "piece_found")
    segment = replace(event.segment, confirmed=True)
    *earlier, before = recording.pieces[:-1]
    if segment.reason == "pause" and recording.phase is Phase.PAUSED:
        return _resumed(recording, (*earlier, before, segment), now)
    ended = before.ended_at or segment.started_at
    if segment.reason == "loss":
        lost = replace(before, ended_at=ended, lost=True)
        began = recording.started_at or before.started_at
        facts = recording.facts.with_lost(round(before.started_at - began, 3), round(segment.started_at - began, 3))
        pieces = (*earlier, lost, segment)
        return _noted(recording, "files_lost", EndSegment(before), pieces=pieces, facts=facts)
    kept = () if event.forerunner_empty else (replace(before, ended_at=ended),)
    effects = () if event.forerunner_ended else (EndSegment(before),)
    entry = _ENTRIES.get(segment.reason, "piece_found")
    return _noted(recording, entry, *effects, pieces=(*earlier, *kept, segment))


_ENTRIES = {"move": "moved", "still": "flushed"}


def _segment_failed(recording: Recording, event: SegmentFailed, now: float) -> Decision:
    _only(recording, recording.phase in RUNNING and not recording.pieces[-1].confirmed, "piece_failed")
    return _noted(recording, "piece_failed", pieces=recording.pieces[:-1])


def _leg_moved(recording: Recording, event: LegMoved, now: float) -> Decision:
    _only(recording, can_follow(recording), "moved")
    if recording.phase is Phase.ACTIVE:
        return _segment_intended(recording, SegmentIntended(event.segment), now)
    before = recording.pieces[-1]
    _only(recording, before.confirmed, "moved")
    segment = event.segment
    empty = replace(
        before,
        channel=segment.channel,
        uniqueid=segment.uniqueid,
        started_at=now,
        ended_at=now,
        reason="move",
        sides_swapped=segment.sides_swapped,
    )
    return _noted(recording, "moved", pieces=(*recording.pieces, empty))


def _channel_renamed(recording: Recording, event: ChannelRenamed, now: float) -> Decision:
    _only(recording, recording.phase in RUNNING, "renamed")
    pieces = (*recording.pieces[:-1], replace(recording.pieces[-1], channel=event.channel))
    more = {"channel": event.channel} if len(pieces) == 1 else {}
    return _noted(recording, "renamed", pieces=pieces, **more)


def _name_taken(recording: Recording, event: NameTaken, now: float) -> Decision:
    _only(recording, recording.phase in OPEN, "renamed")
    facts = recording.facts.merged({RENAMED: True})
    return _noted(recording, "renamed", file_path=event.file_path, facts=facts)


def _members_noted(recording: Recording, event: MembersNoted, now: float) -> Decision:
    _only(recording, recording.phase in OPEN, "members")
    return _noted(recording, "members", facts=recording.facts.merged(event.facts))


def _mute_requested(recording: Recording, event: MuteRequested, now: float) -> Decision:
    _only(recording, recording.phase in RUNNING, "muted")
    if is_muted(recording, event.direction) == event.on:
        return _noted(recording, "")
    spans = mute_spans(recording, event.direction)
    at = position(recording, now)
    spans = [*spans, [at, None]] if event.on else [*spans[:-1], [spans[-1][0], at]]
    # a segment that has ended hears nothing; the next one begins with it
    effects = () if recording.pieces[-1].ended_at else (Mute(event.direction, event.on),)
    entry = "muted" if event.on else "unmuted"
    return _noted(recording, entry, *effects, facts=recording.facts.with_muted(event.direction, spans))


def _mute_failed(recording: Recording, event: MuteFailed, now: float) -> Decision:
    spans = mute_spans(recording, event.direction)
    _only(recording, bool(spans) and is_muted(recording, event.direction) is event.on, "mute_failed")
    spans = spans[:-1] if event.on else [*spans[:-1], [spans[-1][0], None]]
    return _noted(recording, "mute_failed", facts=recording.facts.with_muted(event.direction, spans))


RULES: dict[type, Callable[[Recording, Any, float], Decision]] = {
    Started: _started,
    NotStarted: _not_started,
    StartMoved: _start_moved,
    StopRequested: _stop_requested,
    StopConfirmed: _stop_confirmed,
    StoppedByOthers: _stopped_by_others,
    CallOver: _call_over,
    FilesClosed: _files_closed,
    Rendered: _rendered,
    NotRendered: _not_rendered,
    RefinishRequested: _refinish,
    PauseRequested: _pause_requested,
    PauseFailed: _pause_failed,
    ResumeRequested: _resume_requested,
    ResumeFailed: _resume_failed,
    Unmuted: _unmuted,
    SegmentIntended: _segment_intended,
    SegmentStarted: _segment_started,
    SegmentFailed: _segment_failed,
    LegMoved: _leg_moved,
    ChannelRenamed: _channel_renamed,
    NameTaken: _name_taken,
    MembersNoted: _members_noted,
    MuteRequested: _mute_requested,
    MuteFailed: _mute_failed,
}
