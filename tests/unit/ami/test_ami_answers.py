"""When an answer is whole, and what callers are given: panoramisk's Message, a list, or one response for two."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastagi.ami import pending as pending_module
from fastagi.ami.messages import to_message
from fastagi.ami.pending import Pending, is_true_event
from fastagi.ami.wire import Block
from fastagi.errors import AsteriskError


def response(text: str) -> Any:
    return to_message(Block("", ("Response: " + text.replace("|", "\r\n")).encode()))


def event(name: str, text: str = "") -> Block:
    return Block(name, f"Event: {name}\r\n{text}".replace("|", "\r\n").encode())


@pytest.fixture
def pending() -> Any:
    def make(action: str = "ping", **options: Any) -> Pending:
        return Pending("7", action, asyncio.get_running_loop().create_future(), **options)

    return make


async def test_one_response(pending: Any) -> None:
    p = pending()
    assert p.unanswered
    p.response(response("Success|Ping: Pong"))
    assert p.future.result().ping == "Pong"
    assert not p.unanswered


async def test_an_error_is_a_result(pending: Any) -> None:
    p = pending("coreshowchannels")
    p.response(response("Error|Message: Permission denied"))
    assert not p.future.result().success


@pytest.mark.parametrize("start", ["Success|EventList: start", "Success|Message: Channels will follow"])
@pytest.mark.parametrize("end", ["EventList: Complete", "EventList: cancelled", ""])
async def test_list_ends_with_last_event(pending: Any, start: str, end: str) -> None:
    p = pending("queuestatus")
    p.response(response(start))
    assert p.event(event("QueueParams", "Queue: a"))
    assert not p.future.done()
    assert p.event(event("QueueStatusComplete", end))
    assert [m.event for m in p.future.result()] == ["", "QueueParams", "QueueStatusComplete"]
    assert not p.event(event("QueueParams"))  # too late


async def test_rows_may_be_converted(pending: Any) -> None:
    p = pending("x", row=lambda block: block.name if block.name == "Row" else None)
    p.response(response("Success|EventList: start"))
    p.event(event("Row"))
    p.event(event("XComplete"))
    assert p.future.result()[1:] == ["Row"]


async def test_a_list_is_bounded(pending: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_module, "MAX_ROWS", 10)
    p = pending("x")
    p.response(response("Success|EventList: start"))
    for _ in range(20):
        p.event(event("Row"))
    with pytest.raises(AsteriskError, match="more than 10 rows"):
        p.future.result()


async def test_as_list_false_takes_first_response(pending: Any) -> None:
    p = pending("coreshowchannels", as_list=False)
    p.response(response("Success|EventList: start"))
    assert p.future.result().eventlist == "start"


async def test_as_list_true_is_a_list(pending: Any) -> None:
    for text in ("Success|Ping: Pong", "Error|Message: no"):
        p = pending(as_list=True)
        p.response(response(text))
        assert len(p.future.result()) == 1


async def test_added_to_queue_is_no_list(pending: Any) -> None:
    """panoramisk waits for ever after a QueueAdd: its answer reads like that of an AGI command."""
    p = pending("queueadd")
    p.response(response("Success|Message: Added interface to queue"))
    assert p.future.result().success


async def test_originate_gives_response_and_event(pending: Any) -> None:
    p = pending("originate")
    p.response(response("Success|Message: Originate successfully queued"))
    assert not p.unanswered
    assert not p.event(event("Hangup", "Privilege: call,all"))
    done = event("OriginateResponse", "Privilege: call,all|Response: Failure|Reason: 3")
    assert p.event(done)
    assert p.gives(done)  # it also happened: callbacks get it
    assert [m.response for m in p.future.result()] == ["Success", "Failure"]


@pytest.mark.parametrize(("word", "success"), [("Success", True), ("Failure", False)])
async def test_merged_originate_has_the_result(pending: Any, word: str, success: bool) -> None:
    p = pending("originate", merge=True)
    p.response(response("Success|Message: Originate successfully queued"))
    p.event(event("OriginateResponse", f"ActionID: 7|Response: {word}|Channel: Local/a|Uniqueid: 1.1|Reason: 4"))
    answer = p.future.result()
    assert answer.success is success
    assert (answer.channel, answer.uniqueid, answer.reason, answer.actionid) == ("Local/a", "1.1", "4", "7")


async def test_a_true_event_is_no_row(pending: Any) -> None:
    p = pending("x")
    p.response(response("Success|EventList: start"))
    assert not p.event(event("UserEvent", "Privilege: user,all"))
    assert p.event(event("Status", "Privilege: Call"))


def test_true_events_bear_their_classes() -> None:
    assert is_true_event(event("Hangup", "Privilege: call,all"))
    assert not is_true_event(event("Status", "Privilege: Call"))
    assert not is_true_event(event("CoreShowChannel", "ActionID: 7"))


def test_messages_are_panoramisks() -> None:
    message = to_message(event("VarSet", "ChanVariable: A=1|ChanVariable: B=2|ChanVariable: C=3|Channel: a"))
    assert message.chanvariable == message["ChanVariable"] == ["A=1", "B=2", "C=3"]
    assert message.getdict("chanvariable")["b"] == "2"
    assert (message.event, message.channel, message.nothing, message.success) == ("VarSet", "a", "", True)


def test_async_agi_result_is_unquoted() -> None:
    assert to_message(event("AsyncAGIExec", "Result: 200%20result%3D1%0A")).parsed_result()["result"] == ("1", "")


def test_command_output_is_content() -> None:
    new = to_message(Block("", b"Response: Success\r\nActionID: 7\r\nOutput: one\r\nOutput: two"))
    old = to_message(Block("", b"Response: Follows\r\nActionID: 7\r\none\ntwo\n--END COMMAND--"))
    for message in (new, old):
        assert message.content == "one\ntwo"
        assert list(message.iter_lines()) == ["one", "two"]
        assert message.actionid == "7"
        assert message.success
    assert new.output == ["one", "two"]  # where panoramisk leaves it
