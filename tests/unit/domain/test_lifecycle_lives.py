"""Whole lives of recordings: random events, and crashes between the journal and its effects.

A crash forgets what was to be done; what the row owes takes its place. Whatever happened, each life ends once, for one
cause, with one delivery per sink, and Asterisk's files are removed last.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fastagi.domain.lifecycle import Decision, Effect, Event, decide, events, owed
from fastagi.domain.lifecycle.effects import (
    AwaitClosed,
    Deliver,
    EndSegment,
    Finish,
    Mute,
    RemoveRaw,
    StartSegment,
    StopSegment,
)
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.states import LIVE, Cause, Phase
from fastagi.errors import IllegalTransition

SINKS = ("archive", "crm")
BEGAN = 1_800_000_000.0
FROM_OUTSIDE = ("stop", "hangup", "pending", "external", "pause", "resume", "move", "flush", "loss", "mute", "unmute")
STEPS = st.one_of(
    st.sampled_from(FROM_OUTSIDE),
    st.sampled_from(("perform", "perform", "perform", "fails", "crash", "lost", "refinish")),
)


class Life:
    """One recording, its journal and what is still to be done; the world answers as `step` is told."""

    def __init__(self) -> None:
        first = Segment("/spool/0.wav", channel="PJSIP/a", uniqueid="1.0")
        self.row = Recording(
            id="rec-1",
            node="one",
            asterisk="pbx",
            channel="PJSIP/a",
            uniqueid="1.0",
            name="x",
            file_path="/r/x.wav",
            pieces=(first,),
            sinks=SINKS,
            requested_at=BEGAN,
        )
        self.now = BEGAN
        self.segments = 1
        self.todo: list[Effect] = list(owed(self.row))
        self.deliveries: list[str] = []
        self.removed = False
        self.ends: list[Cause] = []

    def apply(self, event: Event, *, crash: bool = False) -> None:
        """Decide and journal; `crash`: the process dies before the effects."""
        self.now += 0.25
        before = self.row
        try:
            decision = decide(before, event, self.now)
        except IllegalTransition:
            return
        self.check(before, decision)
        self.row = decision.after
        for effect in decision.effects:
            if isinstance(effect, Deliver):  # rows of the decision's own transaction: a sink has one, ever
                self.deliveries += [sink for sink in effect.sinks if sink not in self.deliveries]
        self.todo = list(owed(self.row)) if crash else [*self.todo, *decision.effects]

    def check(self, before: Recording, decision: Decision) -> None:
        after = decision.after
        if before.phase in LIVE and after.phase not in LIVE:
            self.ends.append(after.cause)
        if before.phase is Phase.STOPPING and after.phase is Phase.CLOSING:
            assert (after.cause, after.ended_at) == (before.cause, before.ended_at), "the first cause wins"
        assert all(segment.confirmed for segment in after.pieces[:-1]), "only the last segment may be an intent"
        made = [segment.mixed for segment in after.pieces if not segment.empty]
        assert len(set(made)) == len(made), "a file's name is used once"
        ends = [span.end for span in after.pauses]
        assert None not in ends[:-1], "only the last pause may be open"
        assert all(span.end is None or span.end >= span.start for span in after.pauses)
        if after.phase is not Phase.PAUSED:
            assert None not in ends, "who does not pause has no open pause"

    def segment(self, after: str) -> Segment:
        self.segments += 1
        here = self.row.pieces[-1]
        uniqueid = f"1.{self.segments}" if after == "move" else here.uniqueid
        return Segment(f"/spool/{self.segments}.wav", channel="PJSIP/b", uniqueid=uniqueid, reason=after)

    def outside(self, what: str, crash: bool = False) -> None:
        uniqueid = self.row.pieces[-1].uniqueid
        happened: dict[str, Event] = {
            "stop": events.StopRequested(Cause.ABORTED),
            "hangup": events.CallOver(uniqueid=uniqueid),
            "pending": events.StopRequested(Cause.HANGUP, uniqueid=uniqueid),
            "external": events.StoppedByOthers(Cause.ABORTED, self.now),
            "pause": events.PauseRequested(),
            "resume": events.SegmentIntended(self.segment("pause")),
            "move": events.LegMoved(self.segment("move")),
            "flush": events.SegmentIntended(self.segment("still")),
            "loss": events.SegmentIntended(self.segment("loss")),
            "mute": events.MuteRequested("received", True),
            "unmute": events.MuteRequested("received", False),
        }
        self.apply(happened[what], crash=crash)

    def perform(self, *, fails: bool = False, crash: bool = False) -> None:
        if not self.todo:
            return
        effect = self.todo.pop(0)
        match effect:
            case StartSegment(segment) if self.row.requested:
                started = events.Started(replace(segment, started_at=self.now))
                self.apply(events.NotStarted("no room") if fails else started, crash=crash)
            case StartSegment(segment) if segment.mixed == self.row.pieces[-1].mixed:
                began = events.SegmentStarted(replace(segment, started_at=self.now))
                self.apply(events.SegmentFailed() if fails else began, crash=crash)
            case EndSegment() if fails and self.row.paused:
                self.apply(events.PauseFailed(), crash=crash)
            case Mute(direction, on) if fails:
                self.apply(events.MuteFailed(direction, on), crash=crash)
            case StopSegment() if fails:
                self.todo.insert(0, effect)  # told again
            case StopSegment():
                self.apply(events.StopConfirmed(), crash=crash)
            case AwaitClosed():
                self.apply(events.FilesClosed(), crash=crash)
            case Finish() if fails:
                self.apply(events.NotRendered("no room"), crash=crash)
            case Finish():
                self.apply(events.Rendered(1.0, 44, "a" * 64), crash=crash)
            case RemoveRaw():
                assert self.row.finished, "the raw files go when the finished one is journalled"
                self.removed = True

    def step(self, what: str) -> None:
        if what == "perform":
            self.perform()
        elif what == "fails":
            self.perform(fails=True)
        elif what == "crash":
            self.todo = list(owed(self.row))
        elif what == "lost":
            self.perform(crash=True)
        elif what == "refinish":
            self.apply(events.RefinishRequested("/r/x.wav"))
        else:
            self.outside(what)

    def settle(self) -> None:
        """The call ends, and everything that is owed is done."""
        self.outside("hangup")
        for _ in range(20):
            self.todo = self.todo or list(owed(self.row))
            if not self.row.open and self.removed:
                break
            self.outside("hangup")
            self.perform()


@settings(max_examples=1500, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_each_life_ends_once(steps: list[str]) -> None:
    """One end, one cause, one delivery per sink, whatever happened in which order."""
    life = Life()
    for step in steps:
        life.step(step)
    life.settle()
    assert not life.row.open
    assert len(life.ends) == 1, life.ends
    assert life.row.cause is not Cause.NONE
    if life.row.finished:
        assert sorted(life.deliveries) == sorted(SINKS)
        assert life.removed
        assert life.row.started_at is not None
        assert life.row.ended_at is not None
    else:
        assert life.row.cause is Cause.ERROR
        assert life.deliveries == []


@settings(max_examples=500, deadline=None)
@given(st.lists(STEPS, max_size=40), st.integers(0, 40))
def test_a_crash_changes_no_ending(steps: list[str], at: int) -> None:
    """A process that dies between a decision and its effects ends the recording as one that lives: the row says it."""
    quiet = [step for step in steps if step in ("stop", "hangup", "external", "pending", "perform")]
    lives, dies = Life(), Life()
    for number, step in enumerate(quiet):
        lives.step(step)
        dies.step(step)
        if number == at:
            dies.step("crash")
    lives.settle()
    dies.settle()
    assert (dies.row.phase, dies.row.cause) == (lives.row.phase, lives.row.cause)
    assert dies.deliveries == lives.deliveries
