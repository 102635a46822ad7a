"""A raw file that Asterisk closed unasked, and no event said why: did somebody stop it, or is its call over?

The channel book knows only what Asterisk has told. Behind a manager connection that is open and brings nothing, a call
that has hung up is still up; so Asterisk is asked something that it must answer after the events that came before.
"""

from __future__ import annotations

from fastagi.errors import AsteriskError
from fastagi.recording.asterisk.call_state import ask_state
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.stopping import Stopper

ANSWER_SECONDS = 3.0
"""An Asterisk that is well answers within milliseconds."""


class UnexpectedClose:
    """Ends recordings whose file was closed.

    :param pbxs: by `[[asterisk]] name`
    """

    def __init__(self, context: RecordingContext, stopper: Stopper) -> None:
        self._stopper = stopper
        self._pbxs = context.pbxs
        self._asking: set[str] = set()

    async def end(self, job: ActiveRecording) -> None:
        """End it: as stopped by somebody else where its channel is up, else as a call that is over. Idempotent."""
        if job.id in self._asking:
            return
        self._asking.add(job.id)
        try:
            if await self._up(job):
                await self._stopper.on_external_stop(job)
            else:
                await self._stopper.on_missed_end(job)
        finally:
            self._asking.discard(job.id)

    async def _up(self, job: ActiveRecording) -> bool:
        """Return whether the channel is up, in an Asterisk that answers."""
        pbx = self._pbxs.get(job.recording.asterisk)
        if pbx is None:
            return False
        try:
            state = await ask_state(pbx, job.recording.pieces[-1].uniqueid, timeout=ANSWER_SECONDS)
        except AsteriskError:
            return False
        return state.there
