"""What a UserEvent says, and what an announcement can say: no value is believed, none leaves its header."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from fastagi.ami import actions
from fastagi.ami.events import Headers
from fastagi.domain.recording import Recording, Segment
from fastagi.errors import ActionRefused, ActionTimeout, AsteriskDown, BadArgument
from fastagi.handlers.user_events import parse
from fastagi.recording import announcing
from fastagi.recording.announcing import LONGEST_BYTES, Announcer, about, one_line
from fastagi.recording.ledger.active import ActiveRecording, ActiveRecordings

FROM_AMI = [("Event", "UserEvent"), ("Privilege", "user,all"), ("UserEvent", "FastAGIRecord")]
FROM_DIALPLAN = [
    *FROM_AMI[:2],
    *(("Channel", "SIP/own"), ("ChannelState", "6"), ("Context", "x"), ("Uniqueid", "1.7")),
    *FROM_AMI[2:],
]


def said(*words: tuple[str, str], of: list[tuple[str, str]] = FROM_AMI) -> Any:
    return parse(Headers([*of, *words]))


def test_words_become_a_typed_command() -> None:
    command = said(
        ("Command", "start"),
        ("Channel", "SIP/a"),
        ("FileName", "x/{uniqueid}"),
        ("file_format", "ulaw"),
        ("max_bytes", "4000"),
        ("dtmf_elim", "off"),
        ("mid_call", "no"),
        ("sink", "crm"),
        ("recorder", "two"),
    )
    assert (command.name, command.channel, command.filename, command.recorder) == (
        "start",
        "SIP/a",
        "x/{uniqueid}",
        "two",
    )
    assert command.arguments == {"file_format": "ulaw", "max_bytes": 4000, "dtmf_elim": False}
    assert (command.mid_call, command.sink) == (False, "crm")
    assert said(("Command", "pause"), ("RecordingID", "rec-1"), ("seconds", "2.5")).seconds == 2.5
    assert said(("Command", "mute"), ("Channel", "SIP/a")).direction == "received"
    assert said(("Command", "stop"), of=FROM_DIALPLAN).channel == "SIP/own"


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ([], "Command: '' is not known"),
        ([("Command", "START")], "is not known"),
        ([("Command", "stop"), ("Command", "start")], "command is there twice"),
        ([("Command", "start"), ("rate", "8000"), ("RATE", "6000")], "rate is there twice"),
        ([("Command", "start"), ("filename", "a\rb")], "control character"),
        ([("Command", "start"), ("filename", "a\0b")], "control character"),
        ([("Command", "start"), ("filename", "a" * 1001)], "longer than 1000"),
        ([("Command", "start"), ("RecordingID", "rec-1")], "no meaning with start"),
        ([("Command", "stop"), ("rate", "8000")], "no meaning with stop"),
        ([("Command", "stop"), ("seconds", "1")], "seconds is no argument"),
        ([("Command", "start"), ("mid_call", "perhaps")], "must be yes or no"),
        ([("Command", "start"), ("cipher", "x")], "cipher is no argument"),
    ],
)
def test_wrong_words_are_refused(words: list[tuple[str, str]], fault: str) -> None:
    with pytest.raises(BadArgument, match=fault):
        said(*words)


def test_a_second_channel_is_refused_unless_it_is_the_same() -> None:
    with pytest.raises(BadArgument, match="its own channel only"):
        said(("Command", "stop"), ("Channel", "SIP/victim"), of=FROM_DIALPLAN)
    assert said(("Command", "stop"), ("Channel", "SIP/own"), of=FROM_DIALPLAN).channel == "SIP/own"


def test_only_the_front_tells_whose_event() -> None:
    """Whatever a dialplan's values add comes behind the name of the UserEvent; a manager's own headers do, too."""
    forged = (("Command", "stop"), ("RecordingID", "rec-1"), ("Uniqueid", "9.9"), ("ChannelState", "6"))
    assert said(*forged, of=FROM_DIALPLAN).own == "1.7"
    assert said(*forged).own == ""


@pytest.mark.parametrize(
    "value", ["a\r\nUserEvent: FastAGIRecord\r\nCommand: stop", "x\0y", "\u2028\x1b[31m", "ü" * 2000]
)
def test_no_value_leaves_its_header(value: str) -> None:
    line = one_line(value)
    assert line.isprintable()
    assert len(line.encode()) <= LONGEST_BYTES


class Manager:
    """The `actions.user_event` of one connection, held back or failing as a test wants it."""

    def __init__(self) -> None:
        self.got: list[Mapping[str, object]] = []
        self.gate = asyncio.Event()
        self.writes = 0
        self.fault: Exception | None = None

    async def user_event(self, manager: object, name: str, *events: Mapping[str, object], timeout: float) -> None:
        assert name == "FastAGIRecording"
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        self.got.extend(events)
        self.writes += 1


class FakePbx:
    name = "pbx"
    up = True
    manager = object()
    synced: Callable[[Any, Any], None]

    def on_synced(self, callback: Callable[[Any, Any], None]) -> None:
        self.synced = callback


def recording(n: int, **fields: Any) -> Recording:
    named = {"node": "one", "asterisk": "pbx", "channel": "SIP/a", "uniqueid": "1.1", "name": "x", "file_path": "/x"}
    return Recording(id=f"rec-{n}", **{**named, **fields})


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Manager:
    made = Manager()
    monkeypatch.setattr(actions, "user_event", made.user_event)
    return made


async def test_the_queue_is_bounded_ordered_and_nobody_waits(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcing, "MOST_WAITING", 5)
    tasks: list[asyncio.Task[Any]] = []
    announcer = Announcer({"pbx": FakePbx()}, ActiveRecordings(), lambda w, n: tasks.append(asyncio.create_task(w)))  # type: ignore[dict-item]
    for n in range(8):
        announcer.changed(recording(n, error="a\nb"), "started", {})
    announcer.changed(recording(9), "closed", {})  # nobody else's business
    assert announcer.dropped == 3
    manager.gate.set()
    await asyncio.gather(*tasks)
    assert [h["RecordingID"] for h in manager.got] == [f"rec-{n}" for n in range(5)]
    assert manager.got[0]["Error"] == "a b"
    assert "Recorder" not in manager.got[0]  # empty values are left out
    assert (announcer.sent, len(tasks), manager.writes) == (5, 1, 1)


@pytest.mark.parametrize("fault", [AsteriskDown("away"), ActionTimeout("slow"), ActionRefused("Permission denied")])
async def test_what_asterisk_does_not_take_is_dropped(manager: Manager, fault: Exception) -> None:
    pbx, tasks = FakePbx(), []
    announcer = Announcer({"pbx": pbx}, ActiveRecordings(), lambda w, n: tasks.append(asyncio.create_task(w)))  # type: ignore[dict-item]
    manager.gate.set()
    manager.fault = fault
    for n in range(3):
        announcer.changed(recording(n), "started", {})
    await asyncio.gather(*tasks)
    assert (announcer.sent, announcer.dropped) == (0, 3)
    manager.fault = None
    announcer.changed(recording(4), "started", {})
    await asyncio.gather(*tasks)
    refused = isinstance(fault, ActionRefused)
    assert len(manager.got) == (0 if refused else 1)  # without the right there is no use in trying each time
    pbx.synced(pbx, [])
    announcer.changed(recording(5), "started", {})
    await asyncio.gather(*tasks)
    assert len(manager.got) == (1 if refused else 2)


def test_where_a_recording_is_made_is_said_once_it_has_moved() -> None:
    pieces = (Segment("/x.wav", channel="SIP/a"), Segment("/y.wav", channel="SIP/b"))
    assert about(recording(1, pieces=pieces))["RecordedChannel"] == "SIP/b"
    assert about(recording(1, pieces=pieces[:1]))["RecordedChannel"] == ""
    assert about(recording(1))["RecordedChannel"] == ""


async def test_alarms_come_and_go(manager: Manager) -> None:
    jobs, tasks = ActiveRecordings(), []
    announcer = Announcer({"pbx": FakePbx()}, jobs, lambda w, n: tasks.append(asyncio.create_task(w)))  # type: ignore[dict-item]
    manager.gate.set()
    job = ActiveRecording(recording(1, pieces=(Segment("/x.wav", uniqueid="1.1"),)))
    jobs.add(job)
    for alarms in ({"stalled", "silent"}, {"stalled", "silent"}, {"silent"}):
        job.alarms = set(alarms)
        announcer.look()
    await asyncio.gather(*tasks)
    assert [(h["Change"], h["Alarm"]) for h in manager.got] == [
        ("alarm", "silent"),
        ("alarm", "stalled"),
        ("alarm_over", "stalled"),
    ]
