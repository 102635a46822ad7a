"""A server that died while it resumed a recording: the next one resumes it, if not at once, then soon."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from delivery_scenes import recording

from fastagi.domain.recording import Piece
from fastagi.domain.states import Phase
from fastagi.recording.course.pausing import Pauser
from fastagi.recording.ledger.job import Job, Jobs
from fastagi.recording.spool.plan import RESUME_AT

DONE = Piece("/s/1.wav", uniqueid="1.1", started_at=1.0, ended_at=2.0)


class Untaken:
    """Asterisk does not take the further piece: it is dropped, as `Pieces.settle` does."""

    async def settle(self, job: Job) -> bool:
        job.recording = replace(job.recording, pieces=(DONE,))
        return False

    async def end(self, job: Job, piece: Piece) -> None:
        return None


class Notes:
    async def note(self, job: Job, what: str, **fields: Any) -> None:
        job.recording = replace(job.recording, **fields)


@pytest.mark.parametrize(("after", "again"), [("pause", True), ("transfer", False)])
async def test_resume_that_failed_is_tried_again(after: str, again: bool) -> None:
    """Only what was being resumed: a paused recording that was being moved stays paused."""
    spawned: list[str] = []
    told = asyncio.Event()

    def spawn(work: Any, name: str) -> None:
        work.close()
        spawned.append(name)
        told.set()

    pauser = Pauser(cast(Any, Notes()), Jobs(), cast(Any, Untaken()), {"pbx": cast(Any, SimpleNamespace())}, spawn)
    intended = Piece("/s/2.wav", uniqueid="1.1", started_at=3.0, seen=False, after=after)
    job = Job(recording(1, asterisk="pbx", phase=Phase.PAUSED, pieces=(DONE, intended)))
    await pauser.settle(job)
    assert (RESUME_AT in job.recording.facts) is again
    if again:
        await asyncio.wait_for(told.wait(), 5)
    assert spawned == ([f"resume {job.id}"] if again else [])
