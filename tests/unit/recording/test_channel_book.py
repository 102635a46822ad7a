"""What is known of live channels, event by event."""

from __future__ import annotations

from typing import Any

import pytest

from fastagi.recording.asterisk.channel_table import EVENTS, ChannelTable, LiveChannel


def book_of(*events: tuple[str, dict[str, str]]) -> ChannelTable:
    book = ChannelTable()
    for number, (name, headers) in enumerate(events):
        book.feed(name, headers, 100.0 + number)
    return book


def event(name: str, n: int = 1, **headers: str) -> tuple[str, dict[str, str]]:
    known = {"Uniqueid": f"{n}.1", "Channel": f"PJSIP/{n}-01", "Linkedid": "1.1", "ChannelState": "6"}
    return name, {**known, **headers}


def test_a_call_from_its_first_event_to_its_last() -> None:
    book = book_of(
        event("Newchannel", ChannelState="4", CallerIDNum="4711", CallerIDName="<unknown>", Context="in", Exten="100")
    )
    channel = book.get("1.1")
    assert channel is not None
    assert (channel.up, channel.answered_at, channel.caller, channel.caller_name) == (False, None, "4711", "")
    book.feed(*event("Newstate", Context="later"), now=200.0)
    assert (channel.up, channel.answered_at, channel.first_context, channel.context) == (True, 200.0, "in", "later")
    assert book.find("PJSIP/1-01") is book.find("1.1") is channel
    assert book.feed(*event("Hangup"), now=300.0) is channel
    assert (len(book), book.find("1.1"), book.named("PJSIP/1-01")) == (0, None, None)
    assert book.feed(*event("Hangup"), now=301.0) is None


def test_a_rename_keeps_the_uniqueid() -> None:
    book = book_of(event("Newchannel"), event("Rename", Newname="PJSIP/new-02"))
    assert book.named("PJSIP/1-01") is None
    assert book.named("PJSIP/new-02") is book.get("1.1")
    assert book_of(event("Newchannel"), event("Newstate", Channel="SIP/x")).named("SIP/x") is not None


@pytest.mark.parametrize(
    ("events", "busy"),
    [
        ([], ""),
        ([event("BridgeEnter", BridgeUniqueid="b", BridgeType="basic")], "connected to another channel"),
        ([event("BridgeEnter", BridgeUniqueid="b", BridgeType="base")], "in a conference"),
        ([event("MusicOnHoldStart")], "on music on hold"),
        ([event("MusicOnHoldStart"), event("MusicOnHoldStop")], ""),
        ([event("BridgeEnter", BridgeUniqueid="b"), event("BridgeLeave", BridgeUniqueid="b")], ""),
        ([event("BridgeEnter", BridgeUniqueid="b"), event("BridgeEnter", BridgeUniqueid="c", BridgeType="basic"),
          event("BridgeLeave", BridgeUniqueid="b")], "connected to another channel"),
    ],
)  # fmt: skip
def test_what_a_channel_is_busy_with(events: Any, busy: str) -> None:
    channel = book_of(event("Newchannel"), *events).get("1.1")
    assert channel is not None
    assert channel.busy_with() == busy


def test_who_talks_to_whom() -> None:
    book = book_of(*(event("Newchannel", n) for n in (1, 2, 3)))
    for n in (1, 2):
        book.feed(*event("BridgeEnter", n, BridgeUniqueid="b"), now=1.0)
    assert [c.uniqueid for c in book.peers("1.1")] == ["2.1"]
    assert book.peers("3.1") == book.peers("nobody") == []
    book.feed(*event("Hangup", 2), now=2.0)
    assert book.peers("1.1") == []


@pytest.mark.parametrize(
    ("name", "cause", "leaving"),
    [
        ("HangupRequest", "", True),
        ("HangupRequest", "2", True),  # here it is the network's cause
        ("SoftHangupRequest", "32", True),
        ("SoftHangupRequest", "16", True),
        ("SoftHangupRequest", "2", False),  # a redirect: AST_SOFTHANGUP_ASYNCGOTO
        ("SoftHangupRequest", "64", False),  # taken out of its bridge
    ],
)
def test_a_hangup_that_was_asked_for(name: str, cause: str, leaving: bool) -> None:
    channel = book_of(event("Newchannel"), event(name, Cause=cause)).get("1.1")
    assert channel is not None
    assert channel.hangup_requested is leaving


@pytest.mark.parametrize("name", ["HangupRequest", "SoftHangupRequest", "BridgeLeave", "MusicOnHoldStop"])
def test_an_event_that_comes_after_the_hangup_brings_no_ghost(name: str) -> None:
    assert len(book_of(event("Newchannel"), event("Hangup"), event(name))) == 0


def test_a_snapshot_takes_the_place_of_all_and_tells_who_is_gone() -> None:
    book = book_of(event("Newchannel"), event("HangupRequest"), event("MusicOnHoldStart"), event("Newchannel", 2))
    new = LiveChannel("1.1", "PJSIP/1-01", state="6", bridge="b", since=100.0)
    gone = book.replace([new, LiveChannel("3.1", "PJSIP/3-01", bridge="b", since=99.0)])
    assert [c.uniqueid for c in gone] == ["2.1"]
    assert (new.hangup_requested, new.on_hold_music) == (True, True)
    assert [c.uniqueid for c in book.peers("1.1")] == ["3.1"]
    book.clear()
    assert len(book) == 0


def test_strange_events_are_survived() -> None:
    book = ChannelTable()
    assert book.feed("Newchannel", {}, 1.0) is None
    assert book.feed("Nonsense", {"Uniqueid": "1.1"}, 1.0) is None
    for name in EVENTS:
        book.feed(name, {"Uniqueid": "1.1"}, 1.0)
    assert len(book) <= 1
