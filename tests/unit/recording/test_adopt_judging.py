"""The verdict on a call, for every way in which a recording can fall short of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fastagi.domain.recording import Recording, Span
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Cause, Phase
from fastagi.recording.compliance.judging import judge
from fastagi.store.queries.calls import AnsweredCall

CALL = AnsweredCall("pbx", "1.1", linkedid="1.1", answered_at=1000.0, ended_at=1060.0, required=True)


def made(start: float = 1000.5, end: float = 1060.0, **fields: Any) -> Recording:
    base = Recording(
        id=f"rec-{start}",
        node="one",
        asterisk="pbx",
        channel="SIP/a",
        uniqueid="1.1",
        name="x",
        file_path="/x.wav",
        phase=Phase.FINISHED,
        cause=Cause.HANGUP,
        requested_at=start,
        started_at=start,
        ended_at=end,
        audio_seconds=end - start,
    )
    return replace(base, **fields)


def room(*members: list[Any]) -> Recording:
    """A conference's recording, on a channel of its own and all day long."""
    return made(500.0, 2000.0, uniqueid="7.7", linkedid="7.7", facts={"members": list(members)})


CASES = {
    "recorded whole": ([made()], "recorded"),
    "begun within the slack": ([made(1002.9)], "recorded"),
    "two pieces that follow each other": ([made(1000, 1030), made(1030.5, 1060)], "recorded"),
    "two that lie over each other, and a gap": ([made(1000, 1030), made(1010, 1040)], "short"),
    "one within another, and a third": ([made(1000, 1040), made(1005, 1010), made(1011, 1045)], "short"),
    "nothing": ([], "missing"),
    "one of another time": ([made(500, 900), made(2000, 2010)], "missing"),
    "one that failed": ([made(phase=Phase.FAILED, error="no disk")], "failed"),
    "one that failed before it began": (
        [made(1000.2, phase=Phase.FAILED, started_at=None, ended_at=1000.3, error="no spool")],
        "failed",
    ),
    "one that failed and one that did not": ([made(phase=Phase.FAILED), made(1000.1)], "recorded"),
    "one that was never finished": ([made(phase=Phase.FINISHING)], "failed"),
    "begun too late": ([made(1010)], "short"),
    "ended too early": ([made(1000, 1050, cause=Cause.TIMEOUT)], "short"),
    "a file that lacks sound": ([made(audio_seconds=40.0)], "short"),
    "a file that lacks what a pause cut out": (
        [made(audio_seconds=39.5, pauses=(Span(10, 30),), spec=RecordingSpec(pause_mode="cut"))],
        "recorded",
    ),
    "a file that lacks what the initial silence took": (
        [made(audio_seconds=39.5, spec=RecordingSpec(milliseconds_initial_silence=30_000))],
        "recorded",
    ),
    "silent": ([made(facts={"silent": True, "one_sided": False})], "silent"),
    "silent because it was paused": ([made(facts={"silent": True}, pauses=(Span(1, 55),))], "recorded"),
    "one side": ([made(facts={"silent": False, "one_sided": True})], "one_sided"),
    "an adopted one that records bridges only": (
        [made(adopted=True, audio_seconds=20.0, facts={"bridged_seconds": 20.5})],
        "recorded",
    ),
    "an adopted one that lacks sound of the bridge": (
        [made(adopted=True, audio_seconds=20.0, facts={"bridged_seconds": 45.0})],
        "short",
    ),
    "an adopted one that nobody saw bridged": (
        [made(adopted=True, audio_seconds=20.0, facts={"bridged_seconds": None})],
        "recorded",
    ),
    "an adopted one that was never bridged": (
        [made(adopted=True, audio_seconds=0.0, facts={"bridged_seconds": 0.0, "silent": True})],
        "recorded",
    ),
    "an adopted one that is silent": ([made(adopted=True, facts={"bridged_seconds": 59.0, "silent": True})], "silent"),
    "an adopted one that writes unbridged, too": ([made(adopted=True, audio_seconds=20.0)], "short"),
    "a conference from its prompt on": ([room(["1.1", 1009.0, None])], "recorded"),
    "a conference that began with it": ([room(["1.1", 1001.0, 1059.5])], "recorded"),
    "a conference that was left": ([room(["1.1", 1001.0, 1020.0])], "short"),
    "a conference that was left and joined": ([room(["1.1", 1001.0, 1030.0], ["1.1", 1031.0, None])], "recorded"),
    "a conference that was joined late": ([room(["1.1", 1040.0, None])], "short"),
    "a conference with too many members": ([room(["9.9", 1040.0, None])], "recorded"),
    "one side in one, both in another": ([made(facts={"one_sided": True}), made(1000.1)], "recorded"),
}


@pytest.mark.parametrize("case", CASES)
def test_verdict(case: str) -> None:
    recordings, expected = CASES[case]
    verdict = judge(CALL, recordings)
    assert verdict.verdict == expected
    assert bool(verdict.reason) is (expected != "recorded")
    assert bool(verdict.recording_id) is (expected != "missing")


def test_reasons_name_the_figures() -> None:
    assert judge(CALL, [made(1000, 1050, cause=Cause.TIMEOUT)]).reason == (
        "50.0 s of 60.0 s were recorded (ended by TIMEOUT)"
    )
    assert judge(CALL, [made(phase=Phase.FAILED, error="no disk")]).reason == "no disk"
    assert judge(CALL, []).reason == "nothing was recorded of 60.0 s"
    refused = replace(CALL, reason="max_bytes=1 is too little")
    assert judge(refused, []).reason.endswith("; a start was refused: max_bytes=1 is too little")
    assert judge(refused, [made(1030.0)]).reason.endswith("; a start was refused: max_bytes=1 is too little")
    assert judge(refused, [made()]).reason == ""


def test_a_call_of_no_length_is_met_by_the_recording_that_began_with_it() -> None:
    call = replace(CALL, ended_at=1000.0)
    assert judge(call, [made(1000.2, 1000.4)]).verdict == "recorded"
    assert judge(call, []).verdict == "missing"
