"""Make journal entries by hand: the decisions that the rules of `fastagi.domain.lifecycle` would make."""

from __future__ import annotations

from typing import Any

from fastagi.domain.lifecycle import Decision
from fastagi.domain.recording import Recording
from fastagi.domain.states import Event, advance
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.ledger.journal import Journal


async def move(journal: Journal, job: ActiveRecording, event: Event, **changes: Any) -> Recording:
    """One transition, with what changes in the row."""
    after = job.recording.changed(phase=advance(job.phase, event), **changes)
    await journal.record(job, Decision(after, event.value, event, changes, ()))
    return job.recording


async def note(journal: Journal, job: ActiveRecording, what: str, **changes: Any) -> Recording:
    """A change that is no transition, journalled under the name `what`."""
    await journal.record(job, Decision(job.recording.changed(**changes), what, None, changes, ()))
    return job.recording


async def finish(journal: Journal, job: ActiveRecording, **changes: Any) -> Recording:
    """FINISHED and its deliveries."""
    return await move(journal, job, Event.FINISHED, **changes)
