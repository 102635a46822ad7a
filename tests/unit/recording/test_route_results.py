"""How a route leaves its results in the channel: in one command where that is sure to be understood."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fastagi.domain.recording import Recording
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Phase
from fastagi.errors import Error
from fastagi.handlers.record import _report, _unheard
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.starting import Request


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


class Asking:
    """A call that asks for a start, and what its channel's variables say."""

    def __init__(self, job: ActiveRecording | None, **variables: str) -> None:
        self.job = job
        self.variables = variables
        self.params: dict[str, str] = {}

    def recorder(self, name: str) -> Asking:
        return self

    async def running_as(self, filename: str, arguments: object, asked: object) -> ActiveRecording | None:
        return self.job

    async def get_variable(self, name: str) -> str | None:
        return self.variables.get(name)

    def sink_names(self, sink: str) -> tuple[str, ...]:
        return (sink,)


async def unheard(call: Asking) -> ActiveRecording | None:
    return await _unheard(call, "x", {}, ())  # type: ignore[arg-type]


async def test_unanswered_start_is_answered_once() -> None:
    """A start that was lost with its server, and is asked for again, is no second one; once told, the next is."""
    job = ActiveRecording(recording("/spool/x.wav"))
    assert await unheard(Asking(job)) is job
    assert await unheard(Asking(job, RECORDING_ID="rec-0", RECORDING_STATE="RECORDING")) is job
    assert await unheard(Asking(job, RECORDING_ID="rec-1", RECORDING_STATE="ERROR")) is job
    assert await unheard(Asking(job, RECORDING_ID="rec-1", RECORDING_STATE="RECORDING")) is None
    assert await unheard(Asking(job, RECORDING_ID="", RECORDING_STATE="ERROR")) is None, "the refusal took the id away"
    assert await unheard(Asking(None)) is None


async def test_another_sink_is_another_start() -> None:
    call = Asking(ActiveRecording(recording("/spool/x.wav").changed(sinks=("crm",))))
    call.params = {"sink": "archive"}
    assert await unheard(call) is None
    call.params = {"sink": "crm"}
    assert await unheard(call) is call.job


def request(filename: str, **options: Any) -> Request:
    channels = SimpleNamespace(origin=lambda uniqueid: None)
    pbx: Any = SimpleNamespace(name="pbx", channels=channels)
    return Request(pbx, "SIP/a", "1.1", filename, RecordingSpec(**options), fields={"uniqueid": "1.1"})


def test_same_request_is_by_name_and_options() -> None:
    """What defaults filled in does not count: they may have changed with the restart."""
    made = recording("/spool/x.wav").changed(name="2026/1.1", requested_at=1_790_000_000.0)
    assert request("{date:%Y}/{uniqueid}").asks_for(made, ())
    assert request("2026/1.1", rate=6000).asks_for(made, ("file_format",))
    assert not request("2026/1.1", rate=6000).asks_for(made, ("rate",))
    assert not request("2026/1.2").asks_for(made, ())
    assert not request("").asks_for(made, ())
    assert request("").asks_for(made.changed(name="rec-1"), ())
