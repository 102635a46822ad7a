"""The verdict on a call that had to be recorded: one pure rule over the call and the recordings that overlap it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fastagi.domain.members import spans_of
from fastagi.domain.recording import Recording
from fastagi.domain.states import Phase
from fastagi.store.queries.calls import RECORDED, AnsweredCall

MISSING = "missing"  # no recording at all
FAILED = "failed"  # there was one, and it failed
SHORT = "short"  # recorded, but not all of the call
SILENT = "silent"  # recorded, and nothing can be heard
ONE_SIDED = "one_sided"  # recorded, and one side cannot be heard

VERDICTS = (RECORDED, MISSING, FAILED, SHORT, SILENT, ONE_SIDED)

SLACK_SECONDS = 3.0
"""What a dialplan needs between Answer and the recorder, and Asterisk to notice an end, is no fault."""

SLACK_SHARE = 0.05

JOINING_SECONDS = 10.0
"""What a conference says to who joins it, before he is in it."""

PAUSED_SHARE = 0.5
"""A recording that was paused for longer is silent because somebody wanted it so."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict, its reason, and the recording it rests on (empty where there is none)."""

    verdict: str
    reason: str = ""
    recording_id: str = ""


def judge(call: AnsweredCall, recordings: Iterable[Recording]) -> Verdict:
    """The verdict on an ended call.

    :param recordings: those of the call's channels, of any time and in any order; what does not overlap is not counted
    """
    ended = call.ended_at if call.ended_at is not None else call.answered_at
    length = max(0.0, ended - call.answered_at)
    covers = {r.id: spans for r in recordings if (spans := _spans(call, ended, r))}
    all_of_it = [r for r in recordings if r.id in covers]
    good = [r for r in all_of_it if r.phase is Phase.FINISHED]
    if not good:
        failed = next((r for r in all_of_it if r.phase is Phase.FAILED), None)
        if failed is not None:
            return Verdict(FAILED, failed.error, failed.id)
        still = next(iter(all_of_it), None)
        if still is not None:
            return Verdict(FAILED, f"recording {still.id} has not been finished ({still.phase.value})", still.id)
        return Verdict(MISSING, f"nothing was recorded of {length:.1f} s" + _refused(call))
    best = max(good, key=lambda r: _covered(covers[r.id]))
    slack = max(SLACK_SECONDS, SLACK_SHARE * length)
    covered = _covered(span for r in good for span in covers[r.id])
    if covered < length - slack:
        causes = ", ".join(sorted({r.cause.value for r in good}))
        return Verdict(
            SHORT, f"{covered:.1f} s of {length:.1f} s were recorded (ended by {causes})" + _refused(call), best.id
        )
    heard = [r for r in good if not r.facts.silent or _meant_silent(r)]
    if not heard:
        return Verdict(SILENT, "nothing can be heard", best.id)
    short = _missing_sound(best)
    if short:
        return Verdict(SHORT, short, best.id)
    if all(r.facts.one_sided for r in heard):
        return Verdict(ONE_SIDED, "one side of the call cannot be heard", best.id)
    return Verdict(RECORDED, "", best.id)


def _refused(call: AnsweredCall) -> str:
    return f"; a start was refused: {call.reason}" if call.reason else ""


def _overlap(start: float, end: float, r: Recording) -> tuple[float, float] | None:
    """The stretch of the call that `r` lies over; None when there is none. One that never started counts as a point."""
    begun = r.started_at if r.started_at is not None else r.requested_at
    over = r.ended_at if r.ended_at is not None else max(begun, end)
    low, high = max(start, begun), min(end, over)
    # a call of no length, or a recording that failed at once, still meets the other; clocks differ by a little
    return (low, max(low, high)) if high >= low - 1.0 else None


def _spans(call: AnsweredCall, ended: float, r: Recording) -> list[tuple[float, float]]:
    """The stretches of the call that `r` lies over: of a conference's, those in which the call was in it."""
    whole = _overlap(call.answered_at, ended, r)
    if whole is None:
        return []
    if call.uniqueid == r.uniqueid or (r.linkedid and call.linkedid == r.linkedid):
        return [whole]
    inside = spans_of(r.facts, call.uniqueid)
    if not inside:  # of the same call, though its linkedid has changed since, or one of too many members
        return [whole]
    low, high = whole
    cut = [(max(low, joined - JOINING_SECONDS), min(high, high if left is None else left)) for joined, left in inside]
    return [(a, b) for a, b in cut if b >= a]


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    total, reached = 0.0, float("-inf")
    for low, high in sorted(spans):
        total += max(0.0, high - max(low, reached))
        reached = max(reached, high)
    return total


def _paused(r: Recording) -> float:
    return sum((s.end or s.start) - s.start for s in r.pauses)


def _meant_silent(r: Recording) -> bool:
    """Return whether it was paused for most of its time, or never bridged while it records bridges only."""
    bridged = r.facts.bridged_seconds if r.adopted else None
    return _paused(r) >= PAUSED_SHARE * (r.duration_seconds or 0) or (bridged is not None and bridged < 1.0)


def _missing_sound(r: Recording) -> str:
    """Return whether the file is much shorter than the time it was recorded in. Cut pauses and cut silence are no
    fault.
    """
    if r.audio_seconds is None or r.duration_seconds is None or any(r.spec.silence_limits) or r.spec.byte_limit:
        return ""
    due = r.duration_seconds - (_paused(r) if r.spec.pause_mode == "cut" else 0.0)
    if r.adopted and r.facts.bridge_noted:  # it may be one that records while it is bridged only
        bridged = r.facts.bridged_seconds
        due = 0.0 if bridged is None else min(due, bridged)
    if r.audio_seconds >= due - max(SLACK_SECONDS, SLACK_SHARE * due):
        return ""
    return f"the file has {r.audio_seconds:.1f} s of {due:.1f} s: no audio came from Asterisk in the rest"
