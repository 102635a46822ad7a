"""A recording goes on on the leg that stays, and ends with its leg where none does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from lifecycle_harness import ID, NOW, Scene

from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Phase
from fastagi.errors import AsteriskDown, AsteriskError
from fastagi.recording.lifecycle import following
from fastagi.recording.lifecycle.following import Move, moves

MOVE = Move("1.1", "1.2")


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(following, "ARRIVES_SECONDS", 0.05)
    return Scene(tmp_path)


async def test_recording_moves_over(scene: Scene) -> None:
    job = scene.job()
    scene.live("1.2", "PJSIP/b-1")
    assert await scene.follower.follow(job, MOVE, "BlindTransfer") is True
    first, second = job.recording.pieces
    assert (second.uniqueid, second.channel, second.sides_swapped, second.reason) == ("1.2", "PJSIP/b-1", True, "move")
    assert first.ended_at == NOW
    assert scene.asterisk.orders == [
        ("start", f"{ID}-1.wav", "PJSIP/b-1"),
        ("stop", f"{ID}.wav", "PJSIP/a-1"),
    ]
    assert scene.journal.entries == ["piece", "moved"]
    assert (scene.jobs.on_channel("pbx", "1.1"), scene.jobs.on_channel("pbx", "1.2")) == ([], [job])
    assert await scene.follower.follow(job, MOVE, "AttendedTransfer") is True
    assert len(job.recording.pieces) == 2


async def test_second_move_swaps_back(scene: Scene) -> None:
    job = scene.job()
    scene.live("1.2")
    scene.live("1.3")
    await scene.follower.follow(job, MOVE, "x")
    await scene.follower.follow(job, Move("1.2", "1.3"), "x")
    assert [piece.sides_swapped for piece in job.recording.pieces] == [False, True, False]


async def test_paused_recording_moves_without_file(scene: Scene) -> None:
    job = scene.job(Phase.PAUSED)
    scene.live("1.2")
    assert await scene.follower.follow(job, MOVE, "x") is True
    assert (scene.asterisk.told, scene.journal.entries) == ([], ["moved"])
    assert job.recording.pieces[-1].empty
    assert scene.jobs.on_channel("pbx", "1.2") == [job]


@pytest.mark.parametrize("state", [None, "4"])
async def test_leg_that_is_not_up(scene: Scene, state: str | None) -> None:
    if state is not None:
        scene.live("1.2", state=state)
    assert await scene.follower.follow(scene.job(), MOVE, "x") is False
    assert scene.asterisk.told == []


async def test_told_not_to_follow(scene: Scene) -> None:
    scene.live("1.2")
    assert await scene.follower.follow(scene.job(spec=RecordingSpec(follow=False)), MOVE, "x") is False


async def test_failed_move_ends_with_the_leg(scene: Scene) -> None:
    scene.live("1.2")
    scene.asterisk.refuse["start"] = AsteriskError("no")
    job = scene.job()
    before = job.recording
    assert await scene.follower.follow(job, MOVE, "x") is False
    assert job.recording == before
    assert scene.jobs.on_channel("pbx", "1.1") == [job]


async def test_left_leg_may_be_gone(scene: Scene) -> None:
    scene.live("1.2")
    scene.asterisk.refuse["stop"] = AsteriskDown("away")
    assert await scene.follower.follow(scene.job(), MOVE, "x") is True


async def test_event_moves_each_recording(scene: Scene) -> None:
    scene.live("1.2")
    job = scene.job()
    scene.follower.event(
        scene.pbx,  # type: ignore[arg-type]
        "BlindTransfer",
        {"Result": "Success", "TransfererUniqueid": "1.1", "TransfereeUniqueid": "1.2"},
        None,
    )
    await scene.settled()
    assert job.recording.pieces[-1].uniqueid == "1.2"


ATTENDED = {
    "Result": "Success",
    "DestType": "Bridge",
    "OrigTransfererUniqueid": "1",
    "TransfereeUniqueid": "2",
    "SecondTransfererUniqueid": "3",
    "TransferTargetUniqueid": "4",
}


@pytest.mark.parametrize(
    ("name", "headers", "expected"),
    [
        ("BlindTransfer", {"TransfererUniqueid": "1", "TransfereeUniqueid": "2"}, [Move("1", "2")]),
        ("BlindTransfer", {"TransfererUniqueid": "1"}, []),
        ("BlindTransfer", {"TransfereeUniqueid": "2"}, []),
        ("BlindTransfer", {"Result": "Fail", "TransfererUniqueid": "1", "TransfereeUniqueid": "2"}, []),
        ("AttendedTransfer", ATTENDED, [Move("1", "2"), Move("3", "4")]),
        ("AttendedTransfer", {**ATTENDED, "DestType": "App"}, [Move("1", "2"), Move("3", "4")]),
        ("AttendedTransfer", {**ATTENDED, "DestType": "Threeway"}, []),
        ("AttendedTransfer", {**ATTENDED, "Result": "Not Permitted"}, []),
    ],
)
def test_transfers_say_who_left(scene: Scene, name: str, headers: dict[str, str], expected: list[Move]) -> None:
    assert moves(scene.pbx, name, headers) == expected  # type: ignore[arg-type]


def test_parker_leaves_the_parkee(scene: Scene) -> None:
    parkee = scene.live("2", "PJSIP/parkee-1")
    scene.live("1", "PJSIP/200-00000001")
    scene.live("3", "PJSIP/2001-00000002")
    parkee.recent_peers = {"1": ("b", NOW), "3": ("b", NOW), "4": ("b", NOW)}
    headers = {"ParkeeUniqueid": "2", "ParkerDialString": "PJSIP/200"}
    assert moves(scene.pbx, "ParkedCall", headers) == [Move("1", "2")]  # type: ignore[arg-type]
    assert moves(scene.pbx, "ParkedCall", {"ParkeeUniqueid": "2"}) == []  # type: ignore[arg-type]
    assert moves(scene.pbx, "ParkedCall", {**headers, "ParkeeUniqueid": "9"}) == []  # type: ignore[arg-type]


async def seen(scene: Scene, ago: float = 0.0, bridge: str = "old") -> Move | None:
    """What shows after 1.1, which had talked to 1.2 in `bridge`, has hung up."""
    gone = scene.live("1.1")
    gone.recent_peers = {"1.2": (bridge, NOW - ago)}
    scene.part("1.1")
    return await scene.follower.seen_at_hangup(scene.pbx, gone)  # type: ignore[arg-type]


async def test_party_in_another_bridge(scene: Scene) -> None:
    scene.live("1.2", bridge="new")
    scene.live("1.3", bridge="new")
    assert await seen(scene, 5.0) == MOVE
    assert await seen(scene, 5.1) is None


async def test_party_in_the_same_bridge(scene: Scene) -> None:
    scene.live("1.2", bridge="old")
    scene.live("1.3", bridge="old")
    assert await seen(scene) is None


async def test_party_alone_in_a_bridge(scene: Scene) -> None:
    scene.live("1.2", bridge="new")
    assert await seen(scene) is None


async def test_party_that_arrives_later(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asterisk 16 takes it out of a bridge before it puts it into the next one."""
    monkeypatch.setattr(following, "ARRIVES_SECONDS", 5.0)
    party = scene.live("1.2")
    scene.live("1.3", bridge="new")
    looking = asyncio.create_task(seen(scene))
    await asyncio.sleep(0)
    party.bridge = "new"
    scene.channels.replace(list(scene.channels))
    assert await looking == MOVE


async def test_party_that_hung_up(scene: Scene) -> None:
    assert await seen(scene) is None
    assert await scene.follower.seen_at_hangup(scene.pbx, None) is None  # type: ignore[arg-type]


async def test_handler_quicker_than_events(scene: Scene) -> None:
    """The leg is in its bridge yet: what it parted from is known when it has left."""
    scene.live("1.2", bridge="new")
    scene.live("1.3", bridge="new")
    leg = scene.live("1.1", bridge="old")
    looking = asyncio.create_task(scene.follower.seen_at_hangup(scene.pbx, leg))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert not looking.done()
    leg.bridge, leg.recent_peers = "", {"1.2": ("old", NOW)}
    assert await looking == MOVE
