"""A finished file is made once, and Asterisk's own files go only when the ledger knows of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lifecycle_harness import ID, NOW, Scene, place, rendered

from fastagi.domain.recording import Recording
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Cause, Phase
from fastagi.errors import AudioError, DiskFull, IllegalTransition, StoreDown
from fastagi.recording.asterisk import external
from fastagi.recording.lifecycle import finishing


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the renderer does, one after the other: an exception is raised, a facts' dict is what it says."""
    outcomes: list[Any] = []

    def finish(recording: Recording, plan: Any) -> Any:
        outcome = outcomes.pop(0) if outcomes else {}
        if isinstance(outcome, Exception):
            raise outcome
        return rendered(**outcome)

    monkeypatch.setattr(external, "finish", finish)
    return outcomes


@pytest.fixture
def scene(tmp_path: Path, made: list[Any]) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each wait for the ledger would have been; none takes time."""
    asked: list[float] = []
    sleep = asyncio.sleep

    async def passing(seconds: float) -> None:
        if seconds:
            asked.append(seconds)
        await sleep(0)

    monkeypatch.setattr(finishing.asyncio, "sleep", passing)
    return asked


async def test_finished_file_ends_the_work(scene: Scene) -> None:
    job = scene.job(Phase.FINISHING)
    await scene.finalizer.finish(job)
    after = job.recording
    assert (after.phase, after.audio_seconds, after.bytes, after.sha256) == (Phase.FINISHED, 0.1, 1644, "ab" * 32)
    assert (after.cause, after.finished_at, after.file_path) == (Cause.ABORTED, NOW, str(scene.directory / "x.wav"))
    assert not place(after.pieces[0].mixed).exists()
    assert (scene.jobs.get(ID), await job.wait(0)) == (None, True)


async def test_limit_in_the_sound_wins(scene: Scene, made: list[Any]) -> None:
    made.append({"limit": "SILENCE"})
    job = scene.job(Phase.FINISHING)
    await scene.finalizer.finish(job)
    assert job.recording.cause is Cause.SILENCE


async def test_unwritten_end_keeps_raw_files(scene: Scene) -> None:
    """The ledger does not know yet: the sweep removes them later."""
    job = scene.job(Phase.FINISHING)
    scene.journal.waiting.add(ID)
    await scene.finalizer.finish(job)
    assert place(job.recording.pieces[0].mixed).exists()


async def test_stuck_raw_file_loses_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(paths: tuple[str, ...]) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(finishing.raw_files, "remove", refuse)
    job = scene.job(Phase.FINISHING)
    await scene.finalizer.finish(job)
    assert (job.phase, await job.wait(0)) == (Phase.FINISHED, True)


@pytest.mark.parametrize("inside", [True, False])
async def test_foreign_raw_files_stay(scene: Scene, tmp_path: Path, inside: bool) -> None:
    """Of an adopted recording only what lies in the spool is removed."""
    job = scene.job(Phase.FINISHING, adopted=True)
    if not inside:
        scene.pbx.spool = tmp_path / "elsewhere"
    await scene.finalizer.finish(job)
    assert place(job.recording.pieces[0].mixed).exists() is not inside


@pytest.mark.parametrize(("error", "full"), [(DiskFull("no room"), True), (AudioError("no sound"), False)])
async def test_failure_keeps_raw_files(scene: Scene, made: list[Any], error: Exception, full: bool) -> None:
    made.append(error)
    job = scene.job(Phase.FINISHING)
    raw = job.recording.pieces[0].mixed
    await scene.finalizer.finish(job)
    after = job.recording
    assert (after.phase, after.cause, after.facts["disk_full"]) == (Phase.FAILED, Cause.ERROR, full)
    assert after.error == f"the finished file could not be made: {error} (Asterisk's file is kept: {raw})"
    assert place(raw).exists()
    assert not place(after.file_path).exists(), "the name is given back"
    assert (scene.jobs.get(ID), await job.wait(0)) == (None, True)


async def test_failure_tells_of_a_full_spool(scene: Scene, made: list[Any]) -> None:
    made.append(ValueError())
    job = scene.job(Phase.FINISHING, files=False)
    job.spool_full = True
    await scene.finalizer.finish(job)
    assert job.recording.error == (
        "the finished file could not be made: ValueError; the disk of the spool was full while it was recorded"
    )
    assert job.recording.facts["spool_full"] is True


async def test_late_outcome_changes_nothing(scene: Scene, made: list[Any]) -> None:
    job = scene.job(Phase.FINISHED)
    await scene.finalizer.finish(job)
    made.append(AudioError("x"))
    await scene.finalizer.finish(job)
    assert (scene.journal.entries, await job.wait(0)) == ([], False)


async def test_ledger_is_waited_for(scene: Scene, made: list[Any], waits: list[float]) -> None:
    made.extend(StoreDown("away") for _ in range(8))
    job = scene.job(Phase.FINISHING)
    await scene.finalizer.finish(job)
    assert job.phase is Phase.FINISHED
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]


async def test_key_is_waited_for(scene: Scene, waits: list[float]) -> None:
    cipher = SimpleNamespace(scheme="aes-gcm")
    scene.key = [*(StoreDown("away") for _ in range(7)), cipher]
    job = scene.job(Phase.FINISHING, spec=RecordingSpec(encryption="aes-gcm"))
    await scene.finalizer._unlock(job)
    assert job.cipher is cipher
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


async def test_missing_key_fails(scene: Scene) -> None:
    job = scene.job(Phase.FINISHING, spec=RecordingSpec(encryption="aes-gcm"))
    await scene.finalizer.finish(job)
    assert "its key is not in the ledger" in job.recording.error


async def test_clear_recording_needs_no_key(scene: Scene) -> None:
    scene.key = AssertionError("asked for a key")
    await scene.finalizer._unlock(scene.job(Phase.FINISHING))


async def test_name_is_reserved_again(scene: Scene) -> None:
    """Its folder was removed during the call; another file took the name meanwhile."""
    job = scene.job(Phase.FINISHING)
    place(job.recording.file_path).unlink()
    assert (await scene.finalizer._named(job)).file_path == str(scene.directory / "x.wav")
    assert scene.journal.entries == []
    place(job.recording.file_path).unlink()
    place(job.recording.file_path).mkdir()
    named = await scene.finalizer._named(job)
    assert named.file_path == str(scene.directory / f"x-{ID}.wav")
    assert (job.recording, scene.journal.entries) == (named, ["renamed"])


async def test_name_that_cannot_be_had(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    job = scene.job(Phase.FINISHING)
    place(job.recording.file_path).unlink()

    def refuse(*args: Any) -> Any:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(finishing.raw_files, "reserve", refuse)
    with pytest.raises(AudioError, match="cannot be written: Read-only"):
        await scene.finalizer._named(job)


async def test_refinish_goes_on(scene: Scene) -> None:
    job = scene.job(Phase.FAILED, facts={"ended_by": "SIZE", "disk_full": True})
    place(job.recording.file_path).unlink()
    again = await scene.finalizer.refinish(job.recording)
    assert (again.phase, scene.jobs.get(ID)) == (Phase.FINISHING, again)
    await scene.settled()
    assert (again.phase, again.recording.cause, again.recording.error) == (Phase.FINISHED, Cause.SIZE, "")
    assert again.recording.file_path == str(scene.directory / "x.wav")
    with pytest.raises(IllegalTransition):
        await scene.finalizer.refinish(again.recording)


async def answer(scene: Scene, recording: Recording) -> bool:
    """Ask for the permit as a renderer does, on a thread."""
    permit = scene.finalizer._permit(recording)
    assert permit is not None
    return await asyncio.to_thread(permit)


async def test_lone_server_needs_no_permit(scene: Scene) -> None:
    assert scene.finalizer._permit(scene.job().recording) is None


async def test_permit_is_the_ledgers(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it does not answer, a name that is only reserved may be filled, and a file that is there may not."""
    recording = scene.job(Phase.FINISHING).recording
    scene.journal.alone = False
    for held in (True, False):
        scene.journal.held = held
        assert await answer(scene, recording) is held
    scene.journal.held = StoreDown("away")
    assert await answer(scene, recording) is True
    place(recording.file_path).write_bytes(b"x")
    with pytest.raises(StoreDown, match="does not say whose"):
        await answer(scene, recording)
    scene.journal.held = False
    scene.journal.stuck = True
    with pytest.raises(StoreDown):
        await answer(scene, recording)
    place(recording.file_path).write_bytes(b"")
    assert await answer(scene, recording) is True


async def test_silent_ledger_gives_the_permit(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing, "PERMIT_SECONDS", 0.01)
    scene.journal.alone = False
    cancelled = asyncio.Event()

    async def never(recording_id: str) -> bool:
        try:
            return await asyncio.Event().wait()
        finally:
            cancelled.set()

    scene.journal.held_here = never  # type: ignore[method-assign]
    assert await answer(scene, scene.job(Phase.FINISHING).recording) is True
    async with asyncio.timeout(5):
        await cancelled.wait()


async def test_facts_of_the_call(scene: Scene) -> None:
    job = scene.job(Phase.FINISHING, facts={"talked_with": ["PJSIP/z-1"]})
    job.participants = {"PJSIP/b-1": None, "PJSIP/z-1": None}
    job.members.joined("1.9", "100", NOW)
    await scene.finalizer.finish(job)
    facts = job.recording.facts
    assert facts["talked_with"] == ["PJSIP/z-1", "PJSIP/b-1"]
    assert (facts["member_numbers"], facts["one_sided"]) == (["100"], False)
    assert "spool_full" not in facts
    assert "bridged_seconds" not in facts


async def test_facts_without_company(scene: Scene) -> None:
    job = scene.job(Phase.FINISHING)
    assert finishing._noticed(job) == {}


@pytest.mark.parametrize(
    ("adopted", "grew", "expected"), [(True, False, {"bridged_seconds": 7.0}), (True, True, {}), (False, False, {})]
)
async def test_bridged_time_of_an_adopted(scene: Scene, adopted: bool, grew: bool, expected: dict[str, Any]) -> None:
    job = scene.job(Phase.FINISHING, adopted=adopted)
    job.bridged_seconds, job.grew_unbridged = 7.0, grew
    assert finishing._noticed(job) == expected


@pytest.mark.parametrize(
    ("total", "since", "ended", "expected"),
    [
        (None, NOW - 9, NOW, None),
        (4.0, None, NOW, 4.0),
        (4.0, NOW - 9, NOW - 5, 8.0),
        (4.0, NOW, NOW - 5, 4.0),
        (4.04, NOW, None, 4.0),
    ],
)
async def test_bridged_seconds(
    scene: Scene, total: float | None, since: float | None, ended: float | None, expected: float | None
) -> None:
    job = scene.job(Phase.FINISHING, ended_at=ended)
    job.bridged_seconds, job.bridged_since = total, since
    assert finishing.bridged_seconds(job) == expected
