"""Whom a recorded channel talked with, and who was in its conference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lifecycle_harness import NOW, Scene

from fastagi.domain.states import Phase
from fastagi.errors import StoreDown
from fastagi.recording.lifecycle.participants import MOST_MET


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def enter(scene: Scene, uniqueid: str, bridge: str = "b", kind: str = "basic") -> None:
    headers = {"Uniqueid": uniqueid, "BridgeUniqueid": bridge, "BridgeType": kind}
    channel = scene.channels.feed("BridgeEnter", headers, scene.now)
    scene.participants.event(scene.pbx, "BridgeEnter", headers, channel)  # type: ignore[arg-type]


def leave(scene: Scene, uniqueid: str, name: str = "BridgeLeave") -> None:
    headers = {"Uniqueid": uniqueid}
    channel = scene.channels.feed(name, headers, scene.now)
    scene.participants.event(scene.pbx, name, headers, channel)  # type: ignore[arg-type]


async def test_both_ways_are_noted(scene: Scene) -> None:
    """It does not matter who came first."""
    job = scene.job()
    for uniqueid in ("1.1", "1.2", "1.3"):
        scene.live(uniqueid)
    enter(scene, "1.2")
    enter(scene, "1.1")
    enter(scene, "1.3")
    assert list(job.participants) == ["PJSIP/1.2", "PJSIP/1.3"]
    await scene.settled()
    assert scene.journal.entries == [], "an ordinary call has no members"


async def test_unknown_channel_is_nobody(scene: Scene) -> None:
    scene.job()
    scene.participants.event(scene.pbx, "BridgeEnter", {}, None)  # type: ignore[arg-type]


async def test_members_are_journalled(scene: Scene) -> None:
    job = scene.job()
    for uniqueid in ("1.1", "1.2", "1.3"):
        scene.live(uniqueid, caller=f"20{uniqueid[-1]}")
    for uniqueid in ("1.2", "1.1", "1.3"):
        enter(scene, uniqueid, kind="multi")
    await scene.settled()
    assert scene.journal.entries == ["members"], "those who come together are one entry"
    assert job.recording.facts == {
        "members": [["1.2", NOW, None], ["1.3", NOW, None]],
        "member_numbers": ["202", "203"],
    }
    assert scene.joined == ["1.2", "1.3"]
    scene.now = NOW + 5
    leave(scene, "1.3", "Hangup")
    await scene.settled()
    assert job.recording.facts["members"] == [["1.2", NOW, None], ["1.3", NOW, NOW + 5]]
    enter(scene, "1.2", kind="multi")
    assert scene.joined == ["1.2", "1.3"]
    leave(scene, "1.1")
    await scene.settled()
    assert job.recording.facts["members"][0] == ["1.2", NOW, NOW + 5]


async def test_member_comes_again(scene: Scene) -> None:
    job = scene.job()
    scene.live("1.1")
    scene.live("1.2")
    enter(scene, "1.1", kind="base")
    for _ in range(2):
        enter(scene, "1.2", kind="base")
        leave(scene, "1.2")
    await scene.settled()
    assert len(job.recording.facts["members"]) == 2
    assert scene.joined == ["1.2", "1.2"]


async def test_ended_recording_takes_no_member(scene: Scene) -> None:
    job = scene.job()
    scene.live("1.1")
    scene.live("1.2")
    enter(scene, "1.1", kind="multi")
    job.recording = job.recording.changed(phase=Phase.FINISHED)
    enter(scene, "1.2", kind="multi")
    assert (scene.joined, len(scene.tasks)) == ([], 0)


async def test_ledger_without_members(scene: Scene) -> None:
    """What could not be noted is noted with the next one."""
    job = scene.job()
    scene.live("1.1")
    scene.live("1.2")
    enter(scene, "1.1", kind="multi")
    scene.journal.lost = StoreDown("away")
    enter(scene, "1.2", kind="multi")
    await scene.settled()
    scene.journal.lost = None
    leave(scene, "1.2")
    await scene.settled()
    assert job.recording.facts["members"] == [["1.2", NOW, NOW]]


async def test_large_conference_has_a_limit(scene: Scene) -> None:
    job = scene.job()
    scene.live("1.1")
    for number in range(MOST_MET + 5):
        scene.live(f"2.{number}")
        enter(scene, f"2.{number}")
    enter(scene, "1.1")
    assert len(job.participants) == MOST_MET


async def test_start_in_a_bridge(scene: Scene) -> None:
    job = scene.job()
    scene.live("1.1", bridge="b", bridge_type="multi")
    scene.live("1.2", bridge="b", bridge_type="multi", caller="202")
    scene.participants.began(scene.pbx, job)  # type: ignore[arg-type]
    await scene.settled()
    assert list(job.participants) == ["PJSIP/1.2"]
    assert job.recording.facts["member_numbers"] == ["202"]


async def test_synced_channels_are_compared(scene: Scene) -> None:
    """Who left the conference while nobody looked has left it now."""
    facts = {"members": [["1.2", NOW - 9, None], ["1.3", NOW - 9, None]], "member_numbers": []}
    job = scene.job(facts=facts)
    scene.live("1.1", bridge="b")
    scene.live("1.3", bridge="b")
    scene.participants.synced(scene.pbx)  # type: ignore[arg-type]
    await scene.settled()
    assert job.recording.facts["members"] == [["1.2", NOW - 9, NOW], ["1.3", NOW - 9, None]]
    leave(scene, "1.3")
    await scene.settled()
    assert job.recording.facts["members"][1] == ["1.3", NOW - 9, NOW]


@pytest.mark.parametrize("up", [True, False])
async def test_members_need_a_manager(scene: Scene, up: bool) -> None:
    scene.pbx.up = up
    scene.live("1.1", bridge="b", bridge_type="multi")
    scene.live("1.2", bridge="b", bridge_type="multi")
    job = scene.job()
    scene.participants.began(scene.pbx, job)  # type: ignore[arg-type]
    await scene.settled()
    assert (scene.joined == ["1.2"]) is up
    assert list(job.participants) == ["PJSIP/1.2"]


async def test_bridged_time_adds_up(scene: Scene) -> None:
    job: Any = scene.job(adopted=True)
    job.bridged_seconds = 2.0
    scene.live("1.1")
    enter(scene, "1.1")
    assert job.bridged_since == NOW
    scene.now = NOW + 3
    leave(scene, "1.1")
    assert (job.bridged_seconds, job.bridged_since) == (5.0, None)
    scene.now = NOW + 9
    enter(scene, "1.1")
    scene.now = NOW + 8
    leave(scene, "1.1")
    assert job.bridged_seconds == 5.0, "a clock that was set back takes nothing away"
