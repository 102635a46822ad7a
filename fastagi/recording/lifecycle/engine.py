"""Applies events to recordings: decides, journals, and hands back what is to be done.

The order is the promise: a decision is on disk before any of its effects is performed. Which effects follow is said by
`fastagi.domain.lifecycle`; they are performed by `starting`, `ending`, `pausing` and `pieces`.
"""

from __future__ import annotations

from fastagi.domain.lifecycle import Decision, Event, decide
from fastagi.errors import IllegalTransition
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording


class Engine:
    """Applies events to recordings.

    :param clock: unix seconds
    """

    def __init__(self, context: RecordingContext) -> None:
        self._journal = context.journal
        self._clock = context.clock

    async def apply(self, job: ActiveRecording, event: Event) -> Decision:
        """Decide and journal what follows from `event`. The job's lock must be held.

        :raises IllegalTransition: nothing follows from it; nothing was written
        :raises TakenOver: another server has the recording
        """
        decision = decide(job.recording, event, self._clock())
        await self._journal.record(job, decision)
        return decision

    async def offer(self, job: ActiveRecording, event: Event) -> Decision | None:
        """Take the job's lock and apply `event`; None when it came too late, or is about another channel.

        :raises TakenOver: another server has the recording
        """
        async with job.lock:
            try:
                return await self.apply(job, event)
            except IllegalTransition:
                return None
