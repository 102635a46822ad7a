"""What follows from each event in each phase, without an Asterisk: every legal and every illegal pair."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fastagi.domain.lifecycle import RESUME_AT, UNREACHED, can_replace_lost_files, decide, events, owed
from fastagi.domain.lifecycle.effects import (
    AwaitClosed,
    Deliver,
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
from fastagi.domain.lifecycle.rules import RULES
from fastagi.domain.recording import Recording, Segment, Span
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import TABLE, Cause, Phase
from fastagi.domain.states import Event as Transition
from fastagi.errors import IllegalTransition

NOW = 1_800_000_060.0
BEGAN = 1_800_000_000.0
FIRST = Segment("/spool/rec-1.wav", channel="PJSIP/a-1", uniqueid="1.1", started_at=BEGAN, monitor_id="0x1")
NEXT = Segment("/spool/rec-1-1.wav", channel="PJSIP/a-1", uniqueid="1.1", started_at=BEGAN + 20)


def recording(phase: Phase, **changes: Any) -> Recording:
    """A recording as it is in that phase, one minute old."""
    begun = phase is not Phase.REQUESTED
    ended = phase in (Phase.STOPPING, Phase.CLOSING, Phase.FINISHING, Phase.FINISHED)
    made = Recording(
        id="rec-1",
        node="one",
        asterisk="pbx",
        channel="PJSIP/a-1",
        uniqueid="1.1",
        name="x",
        file_path="/r/x.wav",
        phase=phase,
        cause=Cause.ABORTED if ended else Cause.NONE,
        pieces=(FIRST if begun else replace(FIRST, started_at=0.0, monitor_id=""),),
        sinks=("crm",),
        requested_at=BEGAN,
        started_at=BEGAN if begun else None,
        ended_at=NOW - 5 if ended else None,
    )
    if phase is Phase.PAUSED:
        made = made.changed(pieces=(replace(FIRST, ended_at=BEGAN + 10),), pauses=(Span(10.0),))
    return made.changed(**changes)


EVENTS: dict[str, Any] = {
    "started": events.Started(FIRST),
    "not_started": events.NotStarted("no such channel"),
    "start_moved": events.StartMoved(NEXT),
    "stop": events.StopRequested(Cause.ABORTED),
    "stop_confirmed": events.StopConfirmed(),
    "stopped_by_others": events.StoppedByOthers(Cause.ABORTED, NOW - 1),
    "call_over": events.CallOver(),
    "files_closed": events.FilesClosed(),
    "rendered": events.Rendered(59.0004, 1000, "a" * 64),
    "not_rendered": events.NotRendered("no room", True),
    "refinish": events.RefinishRequested("/r/x.wav"),
    "pause": events.PauseRequested(),
    "pause_failed": events.PauseFailed(),
    "resume": events.ResumeRequested(),
    "resume_failed": events.ResumeFailed(),
    "unmuted": events.Unmuted(),
    "segment_for_pause": events.SegmentIntended(replace(NEXT, reason="pause")),
    "segment_for_move": events.SegmentIntended(replace(NEXT, reason="move")),
    "leg_moved": events.LegMoved(replace(NEXT, reason="move", uniqueid="1.2")),
    "channel_renamed": events.ChannelRenamed("PJSIP/b-2"),
    "name_taken": events.NameTaken("/r/x-2.wav"),
    "members": events.MembersNoted({"members": ["100"]}),
    "mute": events.MuteRequested("received", True),
}

ANYWHERE = ("members",)
"""Events that every recording with work left takes, and that change no phase."""

LEGAL: dict[Phase, dict[str, Phase]] = {
    Phase.REQUESTED: {
        "started": Phase.ACTIVE,
        "not_started": Phase.FAILED,
        "start_moved": Phase.REQUESTED,
        "stop": Phase.STOPPING,
        "call_over": Phase.CLOSING,
        "name_taken": Phase.REQUESTED,
        "members": Phase.REQUESTED,
    },
    Phase.ACTIVE: {
        "stop": Phase.STOPPING,
        "stopped_by_others": Phase.CLOSING,
        "call_over": Phase.CLOSING,
        "pause": Phase.PAUSED,
        "segment_for_move": Phase.ACTIVE,
        "leg_moved": Phase.ACTIVE,
        "channel_renamed": Phase.ACTIVE,
        "name_taken": Phase.ACTIVE,
        "members": Phase.ACTIVE,
        "mute": Phase.ACTIVE,
    },
    Phase.PAUSED: {
        "stop": Phase.STOPPING,
        "stopped_by_others": Phase.CLOSING,
        "call_over": Phase.CLOSING,
        "pause": Phase.PAUSED,
        "pause_failed": Phase.ACTIVE,
        "resume": Phase.PAUSED,
        "resume_failed": Phase.PAUSED,
        "unmuted": Phase.ACTIVE,
        "segment_for_pause": Phase.PAUSED,
        "leg_moved": Phase.PAUSED,
        "channel_renamed": Phase.PAUSED,
        "name_taken": Phase.PAUSED,
        "members": Phase.PAUSED,
        "mute": Phase.PAUSED,
    },
    Phase.STOPPING: {
        "stop_confirmed": Phase.CLOSING,
        "call_over": Phase.CLOSING,
        "name_taken": Phase.STOPPING,
        "members": Phase.STOPPING,
    },
    Phase.CLOSING: {"files_closed": Phase.FINISHING, "name_taken": Phase.CLOSING},
    Phase.FINISHING: {
        "rendered": Phase.FINISHED,
        "not_rendered": Phase.FAILED,
        "name_taken": Phase.FINISHING,
        "members": Phase.FINISHING,
    },
    Phase.FINISHED: {},
    Phase.FAILED: {"refinish": Phase.FINISHING},
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("name", [name for name in EVENTS if name not in ANYWHERE])
def test_each_phase_and_event(phase: Phase, name: str) -> None:
    """A legal pair leads where the table says; an illegal one raises, and nothing follows from it."""
    if name in LEGAL[phase]:
        decision = decide(recording(phase), EVENTS[name], NOW)
        assert decision.after.phase is LEGAL[phase][name]
        assert decision.entry
    else:
        with pytest.raises(IllegalTransition):
            decide(recording(phase), EVENTS[name], NOW)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", [events.SegmentStarted(NEXT), events.SegmentFailed()])
def test_segment_answers_need_an_intent(phase: Phase, event: Any) -> None:
    with pytest.raises(IllegalTransition):
        decide(recording(phase), event, NOW)


def test_every_event_has_a_rule() -> None:
    """The union of events, the rules and this file's table name the same events."""
    assert set(RULES) == set(events.Event.__args__)
    tested = {type(event) for event in EVENTS.values()}
    assert set(RULES) - tested == {events.SegmentStarted, events.SegmentFailed, events.MuteFailed}


def test_members_are_noted_while_open() -> None:
    """Who is in the conference belongs to the recording's facts, also while it ends."""
    for phase in Phase:
        before, event = recording(phase, facts={"x": 1}), EVENTS["members"]
        if before.open:
            assert decide(before, event, NOW).after == before.changed(facts={"x": 1, "members": ["100"]})
        else:
            with pytest.raises(IllegalTransition):
                decide(before, event, NOW)


def test_transitions_follow_the_state_table() -> None:
    """A decision that changes the phase does so by a transition of the table, and owes what its row owes."""
    for phase in Phase:
        for name in LEGAL[phase]:
            decision = decide(recording(phase), EVENTS[name], NOW)
            if decision.transition is None:
                assert decision.after.phase is phase
            else:
                assert TABLE[phase][decision.transition] is decision.after.phase
                assert decision.effects == owed(decision.after)
                assert decision.entry == decision.transition.value


def test_changes_are_what_differs() -> None:
    """The journal writes `changes`: the row made of them is the row that the decision returns."""
    for phase in Phase:
        for name in LEGAL[phase]:
            before = recording(phase)
            decision = decide(before, EVENTS[name], NOW)
            assert before.changed(phase=decision.after.phase, **decision.changes) == decision.after
            assert "phase" not in decision.changes


@pytest.mark.parametrize(
    ("phase", "changes", "expected"),
    [
        (Phase.REQUESTED, {}, (StartSegment(replace(FIRST, started_at=0.0, monitor_id="")),)),
        (Phase.ACTIVE, {}, (Watch(),)),
        (
            Phase.ACTIVE,
            {"pieces": (FIRST, replace(NEXT, confirmed=False))},
            (StartSegment(replace(NEXT, confirmed=False)), Watch()),
        ),
        (Phase.PAUSED, {}, (EndSegment(replace(FIRST, ended_at=BEGAN + 10)), Watch())),
        (
            Phase.PAUSED,
            {"facts": {RESUME_AT: NOW + 9}},
            (EndSegment(replace(FIRST, ended_at=BEGAN + 10)), ResumeAt(NOW + 9), Watch()),
        ),
        (Phase.PAUSED, {"adopted": True}, (Mute("both", True), Watch())),
        (
            Phase.PAUSED,
            {"pieces": (FIRST, replace(NEXT, reason="pause", confirmed=False)), "facts": {RESUME_AT: NOW}},
            (StartSegment(replace(NEXT, reason="pause", confirmed=False)), ResumeAt(NOW), Watch()),
        ),
        (Phase.PAUSED, {"pieces": (FIRST, replace(NEXT, started_at=NOW, ended_at=NOW))}, (Watch(),)),
        (Phase.STOPPING, {}, (StopSegment(FIRST),)),
        (Phase.CLOSING, {}, (AwaitClosed(FIRST),)),
        (Phase.FINISHING, {}, (Finish(),)),
        (Phase.FINISHED, {}, (Deliver(("crm",)), RemoveRaw())),
        (Phase.FINISHED, {"sinks": ()}, (RemoveRaw(),)),
        (Phase.FINISHED, {"facts": {UNREACHED: True}}, (Deliver(("crm",)),)),
        (Phase.FAILED, {}, (ReleaseName(),)),
    ],
)
def test_what_a_row_owes(phase: Phase, changes: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert owed(recording(phase, **changes)) == expected


def test_start_is_journalled_with_its_segment() -> None:
    after = decide(recording(Phase.REQUESTED, error="late"), events.Started(FIRST), NOW).after
    assert (after.started_at, after.pieces, after.error) == (BEGAN, (FIRST,), "")


def test_refused_start_says_why() -> None:
    after = decide(recording(Phase.REQUESTED), events.NotStarted("no such channel"), NOW).after
    assert (after.cause, after.error, after.ended_at) == (Cause.ERROR, "no such channel", NOW)


def test_start_in_another_file() -> None:
    """An order that was not answered may be carried out yet, and would empty the file: the second one names another."""
    decision = decide(recording(Phase.REQUESTED), events.StartMoved(NEXT), NOW)
    assert decision.after.pieces == (NEXT,)
    assert decision.effects == (StartSegment(NEXT),)


def test_stop_ends_now_unless_told() -> None:
    for at, ended in ((None, NOW), (NOW - 3, NOW - 3)):
        after = decide(recording(Phase.ACTIVE), events.StopRequested(Cause.SIZE, at), NOW).after
        assert (after.cause, after.ended_at) == (Cause.SIZE, ended)


def test_stop_of_another_channel_changes_nothing() -> None:
    with pytest.raises(IllegalTransition, match=r"1\.9"):
        decide(recording(Phase.ACTIVE), events.StopRequested(Cause.HANGUP, uniqueid="1.9"), NOW)
    assert decide(recording(Phase.ACTIVE), events.StopRequested(Cause.HANGUP, uniqueid="1.1"), NOW)


def test_hangup_of_another_channel_changes_nothing() -> None:
    moved = recording(Phase.ACTIVE, pieces=(FIRST, replace(NEXT, uniqueid="1.2")))
    with pytest.raises(IllegalTransition, match=r"1\.1"):
        decide(moved, events.CallOver(uniqueid="1.1"), NOW)
    assert decide(moved, events.CallOver(uniqueid="1.2"), NOW).after.cause is Cause.HANGUP


def test_first_cause_wins() -> None:
    """A hangup while Asterisk is being told to stop does not change why the recording ended, or when."""
    after = decide(recording(Phase.STOPPING), events.CallOver(), NOW).after
    assert (after.cause, after.ended_at) == (Cause.ABORTED, NOW - 5)


def test_hangup_before_the_start_was_seen() -> None:
    """A file that is there was begun when it was asked for, as far as anybody knows."""
    after = decide(recording(Phase.REQUESTED), events.CallOver(at=NOW - 2, facts={"x": 1}), NOW).after
    assert (after.started_at, after.ended_at, after.facts) == (BEGAN, NOW - 2, {"x": 1})


def test_end_closes_the_open_pause() -> None:
    for event in (
        events.StopRequested(Cause.ABORTED, NOW),
        events.CallOver(at=NOW),
        events.StoppedByOthers(Cause.ABORTED, NOW),
    ):
        assert decide(recording(Phase.PAUSED), event, NOW).after.pauses == (Span(10.0, 60.0),)
    early = decide(recording(Phase.PAUSED), events.CallOver(at=BEGAN + 5), NOW).after
    assert early.pauses == (Span(10.0, 10.0),), "a pause never ends before it began"


def test_audio_limit_is_the_cause() -> None:
    """Asterisk writes in steps of two seconds: a hangup may be noticed before the limit that preceded it."""
    event = events.Rendered(59.0004, 1000, "a" * 64, Cause.SILENCE, {"digits": 2})
    after = decide(recording(Phase.FINISHING, facts={RESUME_AT: 1.0, "muted": {}}), event, NOW).after
    assert (after.cause, after.audio_seconds, after.bytes, after.finished_at) == (Cause.SILENCE, 59.0, 1000, NOW)
    assert after.facts == {"muted": {}, "digits": 2}, "what only steered the recording is not kept"


def test_failed_finishing_keeps_its_cause() -> None:
    failed = decide(recording(Phase.FINISHING), events.NotRendered("no room", True, {"lost": 1}), NOW).after
    assert (failed.cause, failed.error) == (Cause.ERROR, "no room")
    assert failed.facts == {"lost": 1, "ended_by": "ABORTED", "disk_full": True}
    again = decide(failed, events.RefinishRequested("/r/y.wav", renamed=True), NOW).after
    assert (again.cause, again.error, again.file_path) == (Cause.ABORTED, "", "/r/y.wav")
    assert again.facts == {"lost": 1, "renamed": True}


def test_pause_ends_the_segment() -> None:
    decision = decide(recording(Phase.ACTIVE), events.PauseRequested(NOW + 30.00049), NOW)
    ended = replace(FIRST, ended_at=NOW)
    assert decision.after.pieces == (ended,)
    assert decision.after.pauses == (Span(60.0),)
    assert decision.effects == (EndSegment(ended), ResumeAt(NOW + 30.0), Watch())


def test_instant_pause_is_no_empty_segment() -> None:
    """A segment that ends when it began would count as one that was never made."""
    decision = decide(recording(Phase.ACTIVE), events.PauseRequested(), BEGAN)
    assert not decision.after.pieces[-1].empty
    assert isinstance(decision.effects[0], EndSegment)


def test_failed_pause_leaves_no_trace() -> None:
    before = recording(Phase.ACTIVE)
    paused = decide(before, events.PauseRequested(NOW + 30), NOW).after
    assert decide(paused, events.PauseFailed(), NOW + 1).after == before


def test_second_pause_moves_the_clock() -> None:
    once = decide(recording(Phase.PAUSED), events.PauseRequested(NOW + 5), NOW)
    assert (once.entry, once.transition, once.effects) == ("pause_changed", None, (ResumeAt(NOW + 5),))
    twice = decide(once.after, events.PauseRequested(), NOW)
    assert (twice.after.facts, twice.effects) == ({}, ())


def test_adopted_recording_is_paused_by_mute() -> None:
    decision = decide(recording(Phase.ACTIVE, adopted=True), events.PauseRequested(), NOW)
    assert decision.after.pieces == (FIRST,)
    assert decision.effects == (Mute("both", True), Watch())
    resumed = decide(decision.after, events.Unmuted(), NOW + 5).after
    assert (resumed.phase, resumed.pauses) == (Phase.ACTIVE, (Span(60.0, 65.0),))


def test_adopted_recordings_resume_survives_crash() -> None:
    """No segment tells the next process of it: the clock of the pause does, and it is due at once."""
    paused = recording(Phase.PAUSED, adopted=True, pieces=(FIRST,), facts={RESUME_AT: NOW + 60})
    asked = decide(paused, events.ResumeRequested(), NOW)
    assert (asked.after.facts, asked.effects) == ({RESUME_AT: NOW}, (Mute("both", False),))
    assert decide(asked.after, events.ResumeFailed(NOW + 60), NOW + 1).after == paused
    assert decide(asked.after, events.ResumeFailed(), NOW + 1).after.facts == {}
    assert decide(recording(Phase.PAUSED), events.ResumeRequested(), NOW).effects == ()


def test_resume_begins_a_segment() -> None:
    intended = decide(recording(Phase.PAUSED), events.SegmentIntended(replace(NEXT, reason="pause")), NOW)
    assert intended.effects == (StartSegment(replace(NEXT, reason="pause", started_at=NOW, confirmed=False)),)
    began = replace(NEXT, reason="pause", started_at=NOW + 1)
    resumed = decide(intended.after, events.SegmentStarted(began), NOW + 1)
    assert resumed.transition is Transition.RESUMED
    assert resumed.after.pauses == (Span(10.0, 61.0),)
    assert resumed.after.pieces == (replace(FIRST, ended_at=BEGAN + 10), began)


def test_failed_segment_leaves_no_trace() -> None:
    before = recording(Phase.PAUSED)
    intended = decide(before, events.SegmentIntended(replace(NEXT, reason="pause")), NOW).after
    assert decide(intended, events.SegmentFailed(), NOW + 1).after == before


def further(after: str, **changes: Any) -> Recording:
    """An active recording with a further segment that is intended."""
    return recording(Phase.ACTIVE, pieces=(FIRST, replace(NEXT, reason=after, confirmed=False)), **changes)


def test_move_ends_the_left_leg() -> None:
    began = replace(NEXT, reason="move", uniqueid="1.2", sides_swapped=True)
    decision = decide(further("move"), events.SegmentStarted(began), NOW)
    assert decision.entry == "moved"
    assert decision.after.pieces == (replace(FIRST, ended_at=began.started_at), began)
    assert decision.effects == (EndSegment(FIRST),)


def test_move_in_pause_makes_no_file() -> None:
    decision = decide(recording(Phase.PAUSED), events.LegMoved(replace(NEXT, uniqueid="1.2", sides_swapped=True)), NOW)
    last = decision.after.pieces[-1]
    assert (last.empty, last.uniqueid, last.sides_swapped, last.reason) == (True, "1.2", True, "move")
    assert decision.effects == ()


@pytest.mark.parametrize(
    "changes",
    [{"adopted": True}, {"spec": RecordingSpec(follow=False)}, {"pieces": (FIRST,) * 100}],
    ids=["adopted", "told-not-to", "too-many"],
)
def test_some_recordings_end_with_their_leg(changes: dict[str, Any]) -> None:
    for phase in (Phase.ACTIVE, Phase.PAUSED):
        with pytest.raises(IllegalTransition):
            decide(recording(phase, **changes), events.LegMoved(replace(NEXT, reason="move")), NOW)


def test_flush_ends_the_still_segment() -> None:
    began = replace(NEXT, reason="still")
    decision = decide(further("still"), events.SegmentStarted(began, forerunner_ended=True), NOW)
    assert decision.entry == "flushed"
    assert decision.after.pieces == (replace(FIRST, ended_at=began.started_at), began)
    assert decision.effects == ()


def test_empty_forerunner_is_left_out() -> None:
    began = replace(NEXT, reason="still")
    event = events.SegmentStarted(began, forerunner_ended=True, forerunner_empty=True)
    assert decide(further("still"), event, NOW).after.pieces == (began,)


def test_lost_files_are_told() -> None:
    began = replace(NEXT, reason="loss")
    decision = decide(further("loss", facts={"lost": [[1.0, 2.0]]}), events.SegmentStarted(began), NOW)
    assert decision.entry == "files_lost"
    assert decision.after.facts == {"lost": [[1.0, 2.0], [0.0, 20.0]]}
    assert decision.after.pieces == (replace(FIRST, ended_at=BEGAN + 20, lost=True), began)


def test_renamed_channel_of_the_only_segment() -> None:
    after = decide(recording(Phase.ACTIVE), events.ChannelRenamed("PJSIP/b-2"), NOW).after
    assert (after.channel, after.pieces[0].channel) == ("PJSIP/b-2", "PJSIP/b-2")
    moved = recording(Phase.ACTIVE, pieces=(FIRST, NEXT))
    after = decide(moved, events.ChannelRenamed("PJSIP/b-2"), NOW).after
    assert (after.channel, after.pieces[1].channel) == ("PJSIP/a-1", "PJSIP/b-2"), "it is asked for where it began"


def test_mute_and_unmute() -> None:
    muted = decide(recording(Phase.ACTIVE), events.MuteRequested("received", True), NOW)
    assert (muted.entry, muted.effects) == ("muted", (Mute("received", True),))
    again = decide(muted.after, events.MuteRequested("received", True), NOW + 1)
    assert (again.entry, again.effects, again.after) == ("", (), muted.after)
    unmuted = decide(muted.after, events.MuteRequested("received", False), NOW + 4)
    assert unmuted.after.facts == {"muted": {"received": [[60.0, 64.0]]}}
    assert unmuted.effects == (Mute("received", False),)


def test_mute_in_pause_waits() -> None:
    assert decide(recording(Phase.PAUSED), events.MuteRequested("sent", True), NOW).effects == ()


def test_failed_mute_needs_its_request() -> None:
    """An answer that comes twice, or after the side was unmuted, undoes nothing."""
    for direction, on in (("received", True), ("received", False), ("sent", False)):
        before = recording(Phase.ACTIVE, facts={"muted": {"sent": [[1.0, None]]}})
        with pytest.raises(IllegalTransition):
            decide(before, events.MuteFailed(direction, on), NOW)


def test_failed_mute_leaves_no_trace() -> None:
    before = recording(Phase.ACTIVE, facts={"muted": {"sent": [[1.0, None]]}})
    for direction, on in (("received", True), ("sent", False)):
        tried = decide(before, events.MuteRequested(direction, on), NOW).after
        assert decide(tried, events.MuteFailed(direction, on), NOW).after == before


def test_loss_counts_from_the_beginning() -> None:
    """What is lost of a later segment is told in seconds since the recording began."""
    pieces = (replace(FIRST, ended_at=BEGAN + 20), NEXT, replace(NEXT, reason="loss", confirmed=False))
    began = replace(NEXT, reason="loss", started_at=BEGAN + 45)
    after = decide(recording(Phase.ACTIVE, pieces=pieces), events.SegmentStarted(began), NOW).after
    assert after.facts == {"lost": [[20.0, 45.0]]}


@pytest.mark.parametrize(
    "last",
    [replace(FIRST, ended_at=BEGAN + 10, confirmed=False), replace(FIRST, ended_at=BEGAN)],
    ids=["intended", "empty"],
)
def test_failed_pause_needs_its_segment(last: Segment) -> None:
    with pytest.raises(IllegalTransition):
        decide(recording(Phase.PAUSED, pieces=(last,)), events.PauseFailed(), NOW)


def test_pause_in_its_first_moment() -> None:
    """A segment that ends when it began would count as never made."""
    after = decide(recording(Phase.ACTIVE), events.PauseRequested(), BEGAN).after
    assert after.pieces[0].ended_at == pytest.approx(BEGAN + 0.001, abs=1e-4)
    assert not after.pieces[0].empty


def test_last_segment_may_be_replaced() -> None:
    """Whether the first one was confirmed does not matter."""
    intended = replace(NEXT, confirmed=False)
    assert can_replace_lost_files(recording(Phase.ACTIVE, pieces=(intended, FIRST)))
    assert not can_replace_lost_files(recording(Phase.ACTIVE, pieces=(FIRST, intended)))
    with pytest.raises(IllegalTransition):
        decide(recording(Phase.PAUSED, pieces=(FIRST, intended)), events.LegMoved(NEXT), NOW)
