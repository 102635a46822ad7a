"""The shipped conferences and the calls that must be recorded: who is in a recorded room is covered."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastagi.store.queries import calls, catalogue
from fastagi.store.queries.calls import AnsweredCall
from fastagi.testing import AsteriskServer
from support.recorder_harness import Scene, recording_scene

pytestmark = pytest.mark.asterisk

SHIPPED = Path(__file__).parents[2] / "dialplan"


async def judged(scene: Scene) -> dict[str, AnsweredCall]:
    """The ledger's calls by uniqueid, once all have a verdict."""

    async def all_judged() -> bool:
        found, _ = await scene.app.parts.store.read(calls.page)
        return all(call.verdict for call in found)

    await scene.until(all_judged)
    found, _ = await scene.app.parts.store.read(calls.page)
    return {call.uniqueid: call for call in found}


@pytest.mark.parametrize("version", [22, 16])
async def test_conference_members_are_covered(version: int, tmp_path: Path) -> None:
    """Two required callers in the shipped recorded conference: both were "missing", and found by nobody's number."""
    required = {"required": ["conference-recorded"]}
    dialplan = [SHIPPED / "record.conf", SHIPPED / "conference.conf"]
    async with (
        AsteriskServer(version, dialplan=dialplan) as asterisk,
        recording_scene(asterisk, tmp_path, recordings=required) as scene,
    ):
        await asterisk.cli(f"dialplan set global FASTAGI {scene.url('').rstrip('/')}")
        jobs = scene.recorder.parts.context.jobs
        members = []
        for number in ("4711", "4712"):  # one after the other: each who finds the room empty brings a guest along
            members.append(
                await asterisk.originate("Local/room7@conference-recorded/n", application="Milliwatt", caller_id=number)
            )
            await scene.until(lambda: [len(job.members.there) for job in jobs] == [len(members)])
        room = next(iter(jobs))
        await scene.until(lambda: room.size > 70_000)
        first, second = members
        await scene.hangup(first)
        await scene.until(lambda: len(room.members.there) == 1)
        await scene.restart()  # who left before is known after it
        await scene.until(lambda: [len(job.members.there) for job in scene.recorder.parts.context.jobs] == [1])
        await scene.hangup(second)
        (told,) = await scene.delivered(1)
        assert (told.extra["one_sided"], told.extra["silent"]) == (False, False)
        assert {number for number in told.extra["member_numbers"] if number} == {"4711", "4712"}
        found = await judged(scene)
        verdicts = {
            found[m.other_uniqueid].caller: (found[m.other_uniqueid].verdict, found[m.other_uniqueid].reason)
            for m in members
        }
        assert verdicts == {"4711": ("recorded", ""), "4712": ("recorded", "")}
        assert {found[m.other_uniqueid].recording_id for m in members} == {room.id}
        for number in ("4711", "4712"):
            by_number, _ = await scene.app.parts.store.read(catalogue.page, catalogue.RecordingFilter(search=number))
            assert [r.id for r in by_number] == [room.id]
