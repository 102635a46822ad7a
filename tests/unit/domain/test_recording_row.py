"""What a row says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from fastagi.domain.delivery import Delivery, DeliveryStatus, Outcome, SinkRefusals, judge
from fastagi.domain.facts import Facts
from fastagi.domain.members import Members, spans_of
from fastagi.domain.recording import Recording, Segment, Span
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Cause, Phase, State, public_state

BEGAN = 1_800_000_000.0


def row(**changes: Any) -> Recording:
    made = Recording(
        id="rec-1",
        node="one",
        asterisk="pbx",
        channel="PJSIP/a-1",
        uniqueid="1.1",
        name="x",
        file_path="/r/x.wav",
        phase=Phase.FINISHED,
        cause=Cause.HANGUP,
        started_at=BEGAN,
        ended_at=BEGAN + 1.2345,
    )
    return made.changed(**changes)


@pytest.mark.parametrize(
    ("phase", "true"),
    [
        (Phase.REQUESTED, {"requested", "live", "open"}),
        (Phase.ACTIVE, {"running", "active", "live", "open"}),
        (Phase.PAUSED, {"running", "paused", "live", "open"}),
        (Phase.STOPPING, {"stopping", "live", "open"}),
        (Phase.CLOSING, {"open"}),
        (Phase.FINISHING, {"open"}),
        (Phase.FINISHED, {"finished"}),
        (Phase.FAILED, {"failed"}),
    ],
)
def test_words_of_each_phase(phase: Phase, true: set[str]) -> None:
    words = ("requested", "running", "active", "paused", "stopping", "live", "open", "finished", "failed")
    recording = row(phase=phase)
    assert {word: getattr(recording, word) for word in words} == {word: word in true for word in words}
    expected = {Phase.FINISHED: State.IDLE, Phase.FAILED: State.ERROR}.get(phase, State.RECORDING)
    assert public_state(phase) is recording.state is expected
    assert recording.public_cause is (Cause.NONE if expected is State.RECORDING else Cause.HANGUP)


def test_duration_needs_both_ends() -> None:
    assert row().duration_seconds == 1.234
    assert row(ended_at=BEGAN - 1).duration_seconds == 0.0
    assert row(started_at=None).duration_seconds is None
    assert row(ended_at=None).duration_seconds is None


def test_session_names_the_system_once() -> None:
    assert row().session_id == "1.1"
    assert row(system="pbx1").session_id == "pbx1-1.1"
    assert row(system="pbx1", uniqueid="pbx1-1.1").session_id == "pbx1-1.1"


def test_segments_that_are_told() -> None:
    made = Segment("/s/a", "/s/b", started_at=5.0)
    assert (made.empty, made.told, made.paths) == (False, True, ("/s/a", "/s/b"))
    assert Segment("", started_at=5.0, ended_at=5.0).empty
    assert not Segment("", started_at=5.0, ended_at=5.0).told
    assert not Segment("/s/a", started_at=5.0, reason="still").told
    assert Segment("/s/a", started_at=5.0, ended_at=6.0, reason="move").told
    assert not Segment("/s/a").empty


def test_metadata_of_a_recording() -> None:
    recording = row(
        spec=RecordingSpec(encryption="aes"),
        pieces=(Segment("/s/a", channel="c", started_at=BEGAN), Segment("/s/b", started_at=1.0, reason="still")),
        pauses=(Span(1.0, 2.0),),
        recorder="two",
        adopted=True,
        error="odd",
        facts={"digits": 3},
    )
    metadata = recording.metadata()
    assert (metadata.session_id, metadata.name, metadata.file_path) == ("1.1", "x", "/r/x.wav")
    assert (metadata.duration_seconds, metadata.format) == (1.234, "wav")
    extra = metadata.extra
    assert extra["paused"] == [[1.0, 2.0]]
    assert extra["segments"] == [["c", BEGAN]]
    assert (extra["recorder"], extra["adopted"], extra["error"], extra["digits"]) == ("two", True, "odd", 3)
    assert (extra["encryption"], extra["state"], extra["cause"]) == ("aes", "IDLE", "HANGUP")
    plain = row(facts={"file_format": "gsm"}).metadata()
    assert plain.format == "gsm"
    assert plain.extra["encryption"] is None
    assert plain.extra.keys().isdisjoint({"recorder", "adopted", "error"})


def test_members_are_spans() -> None:
    members = Members(Facts())
    assert not members
    assert members.facts() == {}
    assert members.joined("1", "200", 10.00049) is True
    assert members.joined("1", "200", 11.0) is False
    assert members.joined("2", "", 12.0) is True
    assert members.there == ["1", "2"]
    assert members.left("3", 13.0) is False
    assert members.left("1", 13.00049) is True
    assert members.left("1", 14.0) is False
    assert members.left("2", 11.0) is True
    facts = {"members": [["1", 10.0, 13.0], ["2", 12.0, 12.0]], "member_numbers": ["200"]}
    assert members.facts() == facts
    assert Members(Facts(facts)).facts() == facts
    assert spans_of(Facts(facts), "2") == [(12.0, 12.0)]
    assert members.joined("1", "200", 20.0) is True
    assert members.left("1", 21.0) is True
    assert spans_of(Facts(members.facts()), "1") == [(10.0, 13.0), (20.0, 21.0)], "the first stay keeps its end"


def verdict(outcome: Outcome, **changes: Any) -> tuple[DeliveryStatus, float]:
    asked = {"attempts": 1, "first_at": 1000.0, "now": 1000.0, "jitter": 0.0, **changes}
    made = judge(outcome, **asked)
    return made.status, made.next_at


AGAIN, NEVER = Outcome(False), Outcome(False, retry=False)


def test_attempts_and_their_verdicts() -> None:
    assert verdict(Outcome(True)) == (DeliveryStatus.DELIVERED, 0.0)
    assert verdict(NEVER) == (DeliveryStatus.DEAD, 0.0)
    assert verdict(NEVER, held=True) == (DeliveryStatus.WAITING, 1002.5)
    assert verdict(AGAIN) == (DeliveryStatus.WAITING, 1002.5)
    assert verdict(AGAIN, jitter=1.0) == (DeliveryStatus.WAITING, 1005.0)
    assert verdict(AGAIN, attempts=4) == (DeliveryStatus.WAITING, 1020.0)
    assert verdict(AGAIN, attempts=500) == (DeliveryStatus.WAITING, 2800.0)
    assert verdict(Outcome(False, retry_after=9.0)) == (DeliveryStatus.WAITING, 1009.0)
    assert verdict(Outcome(False, retry_after=1.0)) == (DeliveryStatus.WAITING, 1002.5)


def test_last_attempt_is_at_the_end() -> None:
    assert verdict(AGAIN, retry_seconds=2.0) == (DeliveryStatus.WAITING, 1002.0)
    assert verdict(AGAIN, now=1001.5, retry_seconds=2.0) == (DeliveryStatus.WAITING, 1002.5)
    assert verdict(AGAIN, now=1002.0, retry_seconds=2.0) == (DeliveryStatus.DEAD, 0.0)
    assert verdict(AGAIN, now=1000.0 + 72 * 3600 - 1)[0] is DeliveryStatus.WAITING
    assert verdict(AGAIN, now=1000.0 + 72 * 3600)[0] is DeliveryStatus.DEAD


REFUSED = Outcome(False, "401", refused=True)


def test_three_refusals_hold_a_sink() -> None:
    state = SinkRefusals()
    for number, held in ((1, False), (1, False), (2, False), (3, True)):
        state = state.after(REFUSED, f"dlv-{number}", 10.0 + number)
        assert state.held is held
    assert (state.held_since, state.error, len(state.deliveries)) == (13.0, "401", 3)
    assert "held since 1970-01-01T00:00:13.000Z" in state.hint
    later = state.after(REFUSED, "dlv-4", 99.0)
    assert (later.held_since, len(later.deliveries)) == (13.0, 3)
    assert state.after(AGAIN, "dlv-5", 99.0) is state
    assert state.after(NEVER, "dlv-5", 99.0) is state
    assert state.after(Outcome(True), "dlv-5", 99.0) == SinkRefusals()


def test_other_answers_break_the_row() -> None:
    state = SinkRefusals(("dlv-1",), None, "401")
    assert state.hint == ""
    assert state.after(AGAIN, "dlv-2", 1.0) is state
    assert state.after(NEVER, "dlv-2", 1.0) == SinkRefusals()


def test_two_servers_know_together() -> None:
    one, two = SinkRefusals(("a", "b"), None, ""), SinkRefusals(("b", "c"), None, "403")
    joined = one.joined(two, 50.0)
    assert (joined.deliveries, joined.held_since, joined.error) == (("b", "c", "a"), 50.0, "403")
    assert SinkRefusals(("a",)).joined(SinkRefusals(("b",)), 50.0).held_since is None
    assert SinkRefusals((), 9.0).joined(SinkRefusals((), 7.0), 50.0).held_since == 7.0


def test_parked_delivery_says_why() -> None:
    assert Delivery("d", "r", "crm").hint == ""
    assert "has a sink 'crm'" in Delivery("d", "r", "crm", DeliveryStatus.PARKED).hint
    assert "an object without a name" in Delivery("d", "r", "object:1", DeliveryStatus.PARKED).hint
