"""Events and channel rows: lazy, any case, first header wins."""

from __future__ import annotations

import dataclasses

import pytest

from fastagi.ami.events import RECORDER_EVENTS, AmiEvent, ChannelRow, Headers, Party
from fastagi.ami.wire import fields

BRIDGE = AmiEvent(
    "BridgeEnter",
    b"Event: BridgeEnter\r\nPrivilege: call,all\r\nTimestamp: 1795233990.652375\r\nSystemName: pbx22\r\n"
    b"BridgeUniqueid: 5f3c\r\nChannel: PJSIP/a-1\r\nChannelStateDesc: Up\r\nUniqueid: pbx22-1.2\r\n"
    b"Linkedid: pbx22-1.1\r\n"
    b"ChanVariable: A=1\r\nChanVariable: B=2",
)


def test_properties_and_headers() -> None:
    assert (BRIDGE.channel, BRIDGE.uniqueid, BRIDGE.linkedid) == ("PJSIP/a-1", "pbx22-1.2", "pbx22-1.1")
    assert (BRIDGE.bridge_id, BRIDGE.state, BRIDGE.system) == ("5f3c", "Up", "pbx22")
    assert BRIDGE.timestamp == 1795233990.652375
    assert BRIDGE["uniqueID"] == BRIDGE.get("UNIQUEID") == "pbx22-1.2"
    assert BRIDGE.get("nothing") == ""
    assert BRIDGE.get("nothing", "x") == "x"
    assert "PJSIP/a-1" in repr(BRIDGE)
    with pytest.raises(KeyError):
        BRIDGE["nothing"]


def test_an_event_without_timestamp_or_channel() -> None:
    event = AmiEvent("Shutdown", b"Event: Shutdown\r\nPrivilege: system,all")
    assert (event.timestamp, event.channel, event.uniqueid, event.parties()) == (None, "", "", [])


def test_repeated_headers() -> None:
    assert BRIDGE.get("ChanVariable") == "A=1"
    assert BRIDGE.headers.getall("chanvariable") == ["A=1", "B=2"]
    assert BRIDGE.headers.getall("nothing") == []
    assert ("ChanVariable", "B=2") in BRIDGE.headers.items_all()


def test_the_first_of_two_headers_counts() -> None:
    """A value with a line end in it can add headers behind Asterisk's own, never in front of them."""
    event = AmiEvent("Hangup", b"Event: Hangup\r\nUniqueid: true\r\nCallerIDName: x\r\nUniqueid: forged")
    assert event.uniqueid == event.headers["Uniqueid"] == "true"


def test_headers_are_a_mapping() -> None:
    headers = Headers([("Event", "X"), ("Channel", "a"), ("channel", "b")])
    assert dict(headers) == {"Event": "X", "Channel": "a"}
    assert len(headers) == 2
    assert "CHANNEL" in headers
    assert 3 not in headers
    assert "Channel" in repr(headers)


def test_the_parties_of_a_transfer() -> None:
    event = AmiEvent(
        "BlindTransfer",
        b"Event: BlindTransfer\r\nTransfererChannel: PJSIP/a-1\r\nTransfererUniqueid: 1.1\r\n"
        b"TransfererLinkedid: 1.0\r\n"
        b"TransfereeChannel: PJSIP/b-2\r\nTransfereeUniqueid: 1.2\r\nTransfereeLinkedid: 1.0\r\nBridgeUniqueid: b-b",
    )
    assert event.parties() == [
        Party("Transferer", "PJSIP/a-1", "1.1", "1.0"),
        Party("Transferee", "PJSIP/b-2", "1.2", "1.0"),
    ]
    assert BRIDGE.parties() == [Party("", "PJSIP/a-1", "pbx22-1.2", "pbx22-1.1")]


def row(text: bytes) -> ChannelRow:
    return ChannelRow.parse(Headers(fields(text)))


def test_a_row_of_core_show_channels() -> None:
    got = row(
        b"Event: CoreShowChannel\r\nActionID: a7\r\nChannel: Local/s@tests-00000000;2\r\nChannelState: 6\r\n"
        b"ChannelStateDesc: Up\r\nCallerIDNum: 100\r\nCallerIDName: <unknown>\r\nConnectedLineNum: <unknown>\r\n"
        b"Context: tests\r\nExten: s\r\nPriority: 2\r\nUniqueid: pbx22-1.1\r\nLinkedid: pbx22-1.0\r\n"
        b"Application: Wait\r\n"
        b"ApplicationData: 600\r\nDuration: 101:02:07\r\nBridgeId: b1"
    )
    assert got == ChannelRow(
        channel="Local/s@tests-00000000;2",
        uniqueid="pbx22-1.1",
        linkedid="pbx22-1.0",
        state="Up",
        state_num=6,
        bridge_id="b1",
        caller="100",
        connected="",
        context="tests",
        exten="s",
        application="Wait",
        duration=101 * 3600 + 127,
    )
    assert got.up
    with pytest.raises(dataclasses.FrozenInstanceError):
        got.channel = "x"  # type: ignore[misc]


def test_a_row_of_status() -> None:
    got = row(
        b"Event: Status\r\nPrivilege: Call\r\nChannel: a\r\nChannelState: 4\r\nUniqueid: 1\r\nSeconds: 9\r\nBridgeID: b"
    )
    assert (got.duration, got.bridge_id, got.up) == (9, "b", False)


@pytest.mark.parametrize("odd", ["", "-1", "x", "٣", "1:x", "9" * 5000])
def test_odd_numbers_are_no_numbers(odd: str) -> None:
    got = row(f"Event: Status\r\nChannelState: {odd}\r\nSeconds: {odd}".encode())
    assert got.state_num in (0, 999999999)
    assert got.duration in (0, 999999999)


def test_the_recorders_events_are_distinct_names() -> None:
    assert len(set(RECORDER_EVENTS)) == len(RECORDER_EVENTS) == 24
