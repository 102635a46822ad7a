"""How a route leaves its results in the channel: in one command where that is sure to be understood."""

from __future__ import annotations

from typing import Any

import pytest

from fastagi.domain.recording import Recording
from fastagi.domain.states import Phase
from fastagi.errors import Error
from fastagi.handlers.record import _report


class Call:
    """What the report asks of a call."""

    route = "record/start"

    def __init__(self, *, hung_up: bool = False, knows: bool = True) -> None:
        self.hung_up = hung_up
        self.knows = knows
        self.said: list[tuple[Any, ...]] = []

    async def exec(self, application: str, *arguments: str) -> str:
        self.said.append((application, *arguments))
        if not self.knows:
            raise Error(f"there is no application {application!r} in this Asterisk")
        return "0"

    async def set_variable(self, name: str, value: str) -> None:
        self.said.append((name, value))


def recording(path: str) -> Recording:
    return Recording("rec-1", "n", "pbx", "SIP/a", "1.1", "x", path, phase=Phase.ACTIVE)


AT_ONCE = (
    "MSet",
    "RECORDING_ID=rec-1",
    "RECORDING_FILE=/spool/é 1/a-b_c=d:2@3+4.wav",
    "RECORDING_STATE=RECORDING",
    "RECORDING_CAUSE=NONE",
    "RECORDING_ERROR=",
)


async def report(call: Call, path: str, error: str = "", **options: bool) -> None:
    await _report(call, recording(path), error, **options)  # type: ignore[arg-type]


async def test_plain_values_go_at_once() -> None:
    call = Call()
    await report(call, "/spool/é 1/a-b_c=d:2@3+4.wav")
    assert call.said == [AT_ONCE]


@pytest.mark.parametrize("character", list(",\"'\\()[]{}$|&^~"))
async def test_what_an_application_could_take_for_something_else_goes_one_by_one(character: str) -> None:
    call = Call()
    await report(call, "/spool/x.wav", error=f"a{character}b")
    assert len(call.said) == 5
    assert ("RECORDING_ERROR", f"a{character}b") in call.said


async def test_after_a_hangup_or_while_the_session_goes_on_no_application_is_run() -> None:
    for call, options in ((Call(hung_up=True), {}), (Call(), {"at_once": False})):
        await report(call, "/spool/x.wav", **options)
        assert [name for name, _ in call.said] == [f"RECORDING_{n}" for n in ("ID", "FILE", "STATE", "CAUSE", "ERROR")]


async def test_an_asterisk_that_does_not_know_it() -> None:
    call = Call(knows=False)
    await report(call, "/spool/x.wav")
    assert len(call.said) == 6
    assert call.said[-1] == ("RECORDING_ERROR", "")
