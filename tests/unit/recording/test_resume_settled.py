"""A server that died while it resumed a recording: the next one resumes it, if not at once, then soon."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastagi.domain.lifecycle import RESUME_AT, Decision
from fastagi.domain.recording import Segment
from fastagi.domain.states import Phase
from fastagi.recording.ledger.active import ActiveRecording, ActiveRecordings
from fastagi.recording.lifecycle.engine import Engine
from fastagi.recording.lifecycle.pausing import Pauser
from support.delivery_harness import recording

DONE = Segment("/s/1.wav", uniqueid="1.1", started_at=1.0, ended_at=2.0)


class Untaken:
    """Asterisk does not take the further piece: it is dropped, as `SegmentController.settle` does."""

    async def settle(self, job: ActiveRecording) -> None:
        job.recording = replace(job.recording, pieces=(DONE,))

    async def end(self, job: ActiveRecording, piece: Segment) -> None:
        return None


class Notes:
    async def record(self, job: ActiveRecording, decision: Decision) -> None:
        job.recording = decision.after


@pytest.mark.parametrize(("after", "again"), [("pause", True), ("transfer", False)])
async def test_resume_that_failed_is_tried_again(after: str, again: bool) -> None:
    """Only what was being resumed: a paused recording that was being moved stays paused."""
    spawned: list[str] = []
    told = asyncio.Event()

    def spawn(work: Any, name: str) -> None:
        work.close()
        spawned.append(name)
        told.set()

    context: Any = SimpleNamespace(
        journal=Notes(), jobs=ActiveRecordings(), pbxs={}, tasks=SimpleNamespace(spawn=spawn), clock=time.time
    )
    pauser = Pauser(context, Engine(context), cast(Any, Untaken()))
    intended = Segment("/s/2.wav", uniqueid="1.1", started_at=3.0, confirmed=False, reason=after)
    job = ActiveRecording(recording(1, asterisk="pbx", phase=Phase.PAUSED, pieces=(DONE, intended)))
    await pauser.settle(job)
    assert (RESUME_AT in job.recording.facts) is again
    if again:
        await asyncio.wait_for(told.wait(), 5)
    assert spawned == ([f"resume {job.id}"] if again else [])
