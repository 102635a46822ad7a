"""The one answer to a call's state: by the channel table, by a call's AGI session, and by Asterisk when it is asked."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from fastagi.ami import actions
from fastagi.ami.events import ChannelRow
from fastagi.errors import ActionRefused, ActionTimeout, Error, Hangup
from fastagi.recording.asterisk.call_state import CallState, ask_state, call_state
from fastagi.recording.asterisk.channel_table import ChannelTable, LiveChannel
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.recorded_call import RecordedCall, ask_session, must_be_answered

UID = "1700000000.1"
UP, NOT_ANSWERED, REQUESTED, GONE, UNKNOWN = CallState
RECORDED = cast(ActiveRecording, object())


def live(state: str = "6", *, requested: bool = False, since: float = 100.0) -> LiveChannel:
    return LiveChannel(UID, "PJSIP/a-1", state=state, hangup_requested=requested, since=since)


@pytest.mark.parametrize(
    ("channel", "in_step", "since", "expected"),
    [
        (live(), True, None, UP),
        (live("4"), True, None, NOT_ANSWERED),
        (live("5"), True, None, NOT_ANSWERED),
        (live(requested=True), True, None, REQUESTED),
        (live("4", requested=True), True, None, REQUESTED),
        (None, True, None, GONE),
        (None, True, 100.0, GONE),
        (live(since=103.0), True, 100.0, UP),
        (live(since=103.1), True, 100.0, GONE),
        (live("4", requested=True, since=200.0), True, 100.0, GONE),
        (live(), False, None, UNKNOWN),
        (live(requested=True), False, None, UNKNOWN),
        (None, False, None, UNKNOWN),
        (live(since=200.0), False, 100.0, UNKNOWN),
    ],
)
def test_table_gives_state(
    channel: LiveChannel | None, in_step: bool, since: float | None, expected: CallState
) -> None:
    """A channel younger than its call by over three seconds is another call's, and out of step nothing that
    the table has is believed."""
    assert call_state(channel, in_step, since) is expected


@pytest.mark.parametrize(
    ("state", "over", "there"),
    [(UP, 0, 1), (NOT_ANSWERED, 0, 1), (REQUESTED, 1, 1), (GONE, 1, 0), (UNKNOWN, 0, 0)],
)
def test_unknown_is_no_end(state: CallState, over: int, there: int) -> None:
    """What is not known neither ends a recording nor keeps one alive."""
    assert (state.over, state.there) == (bool(over), bool(there))


class FakePbx:
    """The part of `Pbx` that answers for a call's state."""

    def __init__(self, channel: LiveChannel | None, up: bool = True) -> None:
        self.channels = ChannelTable()
        self.channels.replace([] if channel is None else [channel])
        self.up = up
        self.manager: Any = object()

    def call_state(self, uniqueid: str, since: float | None = None) -> CallState:
        return call_state(self.channels.get(uniqueid), self.up, since)


class FakeCall:
    """A session whose Asterisk answers as told. ``place`` is (state, context, extension, priority, absolute)."""

    def __init__(self, table: LiveChannel | None = None, up: bool = True, **has: Any) -> None:
        self.pbx, self.uniqueid = FakePbx(table, up), UID
        self.hung_up: bool = has.get("hung_up", False)
        self.closed: bool = has.get("closed", False)
        self.current_command: str | None = has.get("busy")
        self.status: int | Exception | None = has.get("status", AssertionError("the session was asked"))
        self.place: str | None = has.get("place")
        self.env = {"agi_context": "in", "agi_extension": "77", "agi_priority": "3"}

    async def channel_status(self, channel: str = "") -> int:
        if isinstance(self.status, Exception):
            raise self.status
        if self.status is None:
            raise TimeoutError
        return self.status

    async def get_full_variable(self, expression: str) -> str | None:
        if self.place is None:
            raise Error("not to be had")
        return self.place


HERE, ELSEWHERE = "Up|in|77|3|0.000", "Up|away|77|1|0.000"


@pytest.mark.parametrize(
    ("call", "recorded", "expected"),
    [
        # the table tells, and the session is not asked
        (FakeCall(live(requested=True)), False, REQUESTED),
        (FakeCall(None), True, GONE),
        (FakeCall(None, closed=True), False, GONE),
        (FakeCall(live(), closed=True), False, UP),
        (FakeCall(live("4"), closed=True), False, NOT_ANSWERED),
        (FakeCall(None, up=False, closed=True), True, UNKNOWN),
        (FakeCall(live(), busy="EXEC Dial"), False, UP),
        (FakeCall(None, up=False, busy="EXEC Dial"), True, UNKNOWN),
        # an idle session is asked: a hangup that it keeps back makes no event
        (FakeCall(live(), status=6), False, UP),
        (FakeCall(live(), status=Hangup("511")), True, REQUESTED),
        (FakeCall(None, status=6), False, UP),
        (FakeCall(None, status=4), False, NOT_ANSWERED),
        (FakeCall(live("4"), status=6), False, UP),
        (FakeCall(live("4"), busy="EXEC Playback", status=4), False, NOT_ANSWERED),
        (FakeCall(live(), status=0), True, GONE),
        (FakeCall(live(), status=1), False, NOT_ANSWERED),
        (FakeCall(live(), status=None), True, UP),
        (FakeCall(None, up=False, status=None), False, UNKNOWN),
        (FakeCall(None, up=False, status=Error("520")), False, UNKNOWN),
        # it was told HANGUP: only its place tells a hangup from a redirect
        (FakeCall(live(), hung_up=True, place=HERE), True, REQUESTED),
        (FakeCall(live(), hung_up=True, place=ELSEWHERE), True, UP),
        (FakeCall(live(), hung_up=True, place="Down|in|77|3|0"), True, UP),
        (FakeCall(live(), hung_up=True, place="Up|in|77|3|12.5"), True, UP),
        (FakeCall(live(), hung_up=True), True, UP),
        (FakeCall(None, hung_up=True), False, GONE),
        (FakeCall(None, up=False, hung_up=True, place=HERE), False, REQUESTED),
        (FakeCall(None, up=False, hung_up=True, closed=True), True, UNKNOWN),
    ],
)
def test_session_tells_beside_table(call: FakeCall, recorded: bool, expected: CallState) -> None:
    """Asks the session only where the table cannot tell."""
    assert asyncio.run(ask_session(cast(RecordedCall, call), recorded=recorded)) is expected


def test_answer_may_come_while_session_is_busy() -> None:
    """The session is asked for two seconds behind another command: the event of the answer comes meanwhile."""

    class Answered(FakeCall):
        async def channel_status(self, channel: str = "") -> int:
            self.pbx.channels.replace([live()])
            raise TimeoutError

    call = Answered(live("4"), busy="EXEC ConfBridge")
    assert asyncio.run(ask_session(cast(RecordedCall, call))) is UP


@pytest.mark.parametrize(
    ("call", "job", "refusal"),
    [
        (FakeCall(live(), status=6), None, None),
        (FakeCall(live(), busy="EXEC Dial"), None, None),
        (FakeCall(live("4"), status=4), None, "not answered"),
        (FakeCall(live("4"), status=0), None, "not answered"),
        (FakeCall(live("4"), closed=True), None, "not answered"),
        (FakeCall(None, up=False, closed=True), None, "session of this call is over"),
        (FakeCall(None, up=False, busy="EXEC Dial", status=None), None, "EXEC Dial is running"),
        (FakeCall(None, up=False, busy="EXEC Dial"), RECORDED, None),
        (FakeCall(None, up=False, closed=True), RECORDED, None),
    ],
)
def test_unanswered_call_is_refused(call: FakeCall, job: ActiveRecording | None, refusal: str | None) -> None:
    """Not hung up and not Up gives Error (seed)."""
    if refusal is None:
        asyncio.run(must_be_answered(cast(RecordedCall, call), job))
        return
    with pytest.raises(Error, match=refusal):
        asyncio.run(must_be_answered(cast(RecordedCall, call), job))


@pytest.mark.parametrize(
    ("call", "job"),
    [
        (FakeCall(live(), hung_up=True), None),
        (FakeCall(live(requested=True)), None),
        (FakeCall(None), RECORDED),
        (FakeCall(live(), status=Hangup("511")), None),
    ],
)
def test_ended_call_raises_hangup(call: FakeCall, job: ActiveRecording | None) -> None:
    """Hung up gives Hangup (seed), before anything else is looked at."""
    with pytest.raises(Hangup):
        asyncio.run(must_be_answered(cast(RecordedCall, call), job))


@pytest.mark.parametrize(
    ("table", "answer", "expected"),
    [
        (live("4"), ChannelRow("PJSIP/a-1", UID, state_num=6), UP),
        (live(), ChannelRow("PJSIP/a-1", UID, state_num=4), NOT_ANSWERED),
        (live(), ActionRefused("No such channel"), GONE),
        (live(), ActionRefused("Permission denied"), UP),
        (live(requested=True), ChannelRow("PJSIP/a-1", UID, state_num=6), REQUESTED),
        (None, AssertionError("it was asked"), GONE),
    ],
)
def test_asterisk_is_asked(
    monkeypatch: pytest.MonkeyPatch, table: LiveChannel | None, answer: Any, expected: CallState
) -> None:
    """Asterisk's own word counts where its events may be late."""
    monkeypatch.setattr(actions, "status", _answering(answer))
    assert asyncio.run(ask_state(cast(Any, FakePbx(table)), UID)) is expected


def test_hangup_during_question_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hangup event before the answer is newer than what was asked for."""
    pbx = FakePbx(live())

    async def status(*_: Any, **__: Any) -> ChannelRow:
        pbx.channels.feed("Hangup", {"Uniqueid": UID}, 1.0)
        return ChannelRow("PJSIP/a-1", UID, state_num=6)

    monkeypatch.setattr(actions, "status", status)
    assert asyncio.run(ask_state(cast(Any, pbx), UID)) is GONE


def test_renamed_channel_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old name is refused, though the channel lives under its new one."""
    pbx = FakePbx(live())

    async def status(*_: Any, **__: Any) -> ChannelRow:
        pbx.channels.feed("Rename", {"Uniqueid": UID, "Channel": "PJSIP/a-1", "Newname": "PJSIP/b-2"}, 1.0)
        raise ActionRefused("No such channel")

    monkeypatch.setattr(actions, "status", status)
    assert asyncio.run(ask_state(cast(Any, pbx), UID)) is UP


def test_silent_asterisk_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks decides what silence means."""
    monkeypatch.setattr(actions, "status", _answering(ActionTimeout("3 s")))
    with pytest.raises(ActionTimeout):
        asyncio.run(ask_state(cast(Any, FakePbx(live())), UID))


def _answering(answer: Any) -> Any:
    async def status(*_: Any, **__: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return status
