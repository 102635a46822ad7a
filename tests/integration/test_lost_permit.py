"""Several servers on one ledger: a finished file gets its name only where the recording is still this server's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import structlog

from fastagi.domain.states import Phase
from fastagi.errors import StoreDown
from fastagi.recording.asterisk import raw_files
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.ledger.journal import Journal
from fastagi.recording.lifecycle import finishing
from support.web_harness import WebScene, web_scene

Answer = Callable[[Journal, str], Coroutine[Any, Any, bool]]


async def taken(journal: Journal, recording_id: str) -> bool:
    return False


async def held(journal: Journal, recording_id: str) -> bool:
    return True


async def away(journal: Journal, recording_id: str) -> bool:
    raise StoreDown("the database is gone")


async def silent(journal: Journal, recording_id: str) -> bool:
    await asyncio.sleep(3600)
    return True


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WebScene]:
    monkeypatch.setattr(Journal, "alone", property(lambda self: False))
    monkeypatch.setattr(finishing, "PERMIT_SECONDS", 0.3)
    async with web_scene(tmp_path) as made:
        yield made


async def recorded(scene: WebScene, content: bytes = b"") -> ActiveRecording:
    """A call that is recorded and over, and what is under its name by then."""
    call = scene.ami.call()
    job = await scene.record(call)
    await scene.until(lambda: scene.grown() > 0)
    if content:
        await asyncio.to_thread(Path(job.recording.file_path).write_bytes, content)
    scene.ami.hangup(call)
    assert await job.wait(20)
    return job


@pytest.mark.parametrize(("answer", "phase"), [(held, Phase.FINISHED), (taken, Phase.FAILED)])
async def test_the_ledger_says_whose_it_is(
    scene: WebScene, monkeypatch: pytest.MonkeyPatch, answer: Answer, phase: Phase
) -> None:
    monkeypatch.setattr(Journal, "held_here", answer)
    job = await recorded(scene)
    assert job.phase is phase
    assert (raw_files.size(job.recording.file_path) > 0) is (phase is Phase.FINISHED)
    assert bool(list(scene.spool.glob("rec-*.wav"))) is (phase is Phase.FAILED), "Asterisk's files are kept"


async def test_a_ledger_that_takes_no_writes_is_not_asked(scene: WebScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "held_here", taken)
    scene.app.parts.recorder.parts.context.journal.stuck = True
    job = await recorded(scene)
    assert raw_files.size(job.recording.file_path) > 44


@pytest.mark.parametrize("answer", [away, silent])
async def test_without_a_ledger_a_reserved_name_is_filled_and_a_file_is_not_replaced(
    scene: WebScene, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr(Journal, "held_here", answer)
    assert (await recorded(scene)).phase is Phase.FINISHED
    with structlog.testing.capture_logs() as lines:
        waiting = asyncio.create_task(recorded(scene, b"whose"))
        await scene.until(lambda: [line for line in lines if line["event"] == "ledger_out_of_reach"])
    (job,) = scene.app.parts.recorder.parts.context.jobs
    path = Path(job.recording.file_path)
    assert (job.phase, await asyncio.to_thread(path.read_bytes)) == (Phase.FINISHING, b"whose")
    monkeypatch.setattr(Journal, "held_here", held)  # it was its own, from before a crash
    assert (await waiting).phase is Phase.FINISHED
    assert raw_files.size(str(path)) > 44
    assert not list(scene.spool.glob(f"{job.id}*.wav"))
