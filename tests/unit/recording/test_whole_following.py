"""Who left whom: what the events of a transfer, a parking or a hangup say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from fastagi.recording.asterisk.channel_table import ChannelTable
from fastagi.recording.lifecycle.following import PARTED_SECONDS, Move, TransferFollower, moves
from fastagi.runtime.tasks import Tasks

NOW = 1_800_000_000.0


class Site:
    """A channel book, as much of a PBX as following looks at."""

    def __init__(self) -> None:
        self.channels = ChannelTable()
        self.name = "pbx"
        self.now = NOW
        context: Any = SimpleNamespace(jobs=None, pbxs={}, tasks=Tasks(), clock=lambda: self.now)
        self.follower = TransferFollower(context, None, None)  # type: ignore[arg-type]

    def event(self, name: str, uniqueid: str, **headers: str) -> Any:
        return self.channels.feed(name, {"Uniqueid": uniqueid, "Channel": f"PJSIP/{uniqueid}-1", **headers}, self.now)

    def bridge(self, bridge: str, *uniqueids: str, kind: str = "basic") -> None:
        for uniqueid in uniqueids:
            self.event("Newchannel", uniqueid, ChannelState="6")
            self.event("BridgeEnter", uniqueid, BridgeUniqueid=bridge, BridgeType=kind)

    def moves(self, name: str, **headers: str) -> list[Move]:
        return moves(self, name, headers)  # type: ignore[arg-type]

    async def hangup(self, uniqueid: str) -> Move | None:
        return await self.follower.seen_at_hangup(self, self.event("Hangup", uniqueid))  # type: ignore[arg-type]


BLIND = {"Result": "Success", "TransfererUniqueid": "1", "TransfereeUniqueid": "2"}
ATTENDED = {
    "Result": "Success",
    "DestType": "Bridge",
    "OrigTransfererUniqueid": "1",
    "SecondTransfererUniqueid": "3",
    "TransfereeUniqueid": "2",
    "TransferTargetUniqueid": "4",
}


@pytest.mark.parametrize(
    ("name", "headers", "found"),
    [
        ("BlindTransfer", BLIND, [("1", "2")]),
        ("BlindTransfer", {**BLIND, "Result": "Fail"}, []),
        ("BlindTransfer", {"Result": "Success", "TransfererUniqueid": "1"}, []),  # a conference of several
        ("AttendedTransfer", ATTENDED, [("1", "2"), ("3", "4")]),
        ("AttendedTransfer", {**ATTENDED, "Result": "Not Permitted"}, []),
        ("AttendedTransfer", {**ATTENDED, "DestType": "Threeway"}, []),  # he stays
        ("AttendedTransfer", {**ATTENDED, "DestType": "Fail"}, []),
    ],
)
def test_transfers(name: str, headers: Mapping[str, str], found: list[tuple[str, str]]) -> None:
    assert Site().moves(name, **headers) == [Move(*pair) for pair in found]


def test_parking_is_left_by_whoever_parked() -> None:
    site = Site()
    site.bridge("b", "1", "2")
    site.event("BridgeLeave", "2", BridgeUniqueid="b")
    parked = {"ParkeeUniqueid": "2", "ParkerDialString": "PJSIP/1"}
    assert site.moves("ParkedCall", **parked) == [Move("1", "2")]
    assert site.moves("ParkedCall", ParkeeUniqueid="2", ParkerDialString="PJSIP/9") == []
    assert site.moves("ParkedCall", ParkeeUniqueid="77", ParkerDialString="PJSIP/1") == []


async def test_a_hangup_after_the_other_was_taken_away() -> None:
    site = Site()
    site.bridge("b", "1", "2")
    site.bridge("c", "2", "3")
    assert await site.hangup("1") == Move("1", "2")


@pytest.mark.parametrize("first", ["1", "2"])
async def test_both_hang_up(first: str) -> None:
    site = Site()
    site.bridge("b", "1", "2")
    second = {"1": "2", "2": "1"}[first]
    site.event("BridgeLeave", first, BridgeUniqueid="b")
    site.event("BridgeLeave", second, BridgeUniqueid="b")
    gone = site.event("Hangup", first)
    site.event("Hangup", second)
    assert await site.follower.seen_at_hangup(site, gone) is None  # type: ignore[arg-type]


async def test_the_other_goes_on_alone_or_among_those_whom_one_left() -> None:
    site = Site()
    site.bridge("b", "1", "2")
    site.event("BridgeLeave", "1", BridgeUniqueid="b")
    site.event("BridgeLeave", "2", BridgeUniqueid="b")
    assert await site.hangup("1") is None  # 2 goes on in the dialplan
    site.bridge("conference", "5", "6", "7", kind="base")
    site.event("BridgeLeave", "5", BridgeUniqueid="conference")
    assert await site.hangup("5") is None


async def test_a_hangup_handler_may_be_quicker_than_the_events() -> None:
    site = Site()
    site.bridge("b", "1", "2")
    leg = site.channels.get("1")
    looking = asyncio.create_task(site.follower.seen_at_hangup(site, leg))  # type: ignore[arg-type]
    await asyncio.sleep(0.03)
    site.event("BridgeLeave", "1", BridgeUniqueid="b")
    site.bridge("c", "2", "3")
    assert await looking == Move("1", "2")


async def test_who_stayed_on_for_a_while_did_something_of_his_own() -> None:
    site = Site()
    site.bridge("b", "1", "2")
    site.bridge("c", "2", "3")
    site.now += PARTED_SECONDS + 1
    assert await site.hangup("1") is None


def test_a_channel_in_a_conference_does_not_remember_all_guests() -> None:
    site = Site()
    site.bridge("conference", "1", kind="base")
    for number in range(100):
        site.bridge("conference", f"guest{number}", kind="base")
        site.event("BridgeLeave", f"guest{number}", BridgeUniqueid="conference")
        site.event("Hangup", f"guest{number}")
    host = site.channels.get("1")
    assert host is not None
    assert list(host.recent_peers) == [f"guest{number}" for number in range(68, 100)]
