"""The segments of one recording: ends Asterisk's files while the recording goes on, and begins the next ones.

A pause ends a segment and a resume begins one, so that nothing said meanwhile is ever on a disk; a call that moved goes
on in a segment on another channel. When that is done is decided by `pausing` and `following`; `spool.plan` says how
segments become one file.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from fastagi.domain.lifecycle import muted_directions
from fastagi.domain.lifecycle.effects import EndSegment
from fastagi.domain.lifecycle.events import SegmentFailed, SegmentIntended, SegmentStarted
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.spec import RecordingSpec
from fastagi.errors import AsteriskError, Error, Hangup
from fastagi.recording.asterisk import raw_files
from fastagi.recording.asterisk.control import Control, gone
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.engine import Engine
from fastagi.recording.lifecycle.starting import Starter

log = structlog.get_logger(__name__)


class SegmentController:
    """Begins and ends segments of recordings that run. The job's lock must be held in all of it."""

    def __init__(self, context: RecordingContext, engine: Engine, starter: Starter) -> None:
        self._engine = engine
        self._jobs = context.jobs
        self._starter = starter
        self._threads = context.threads
        self._pbxs = context.pbxs

    def next(self, job: ActiveRecording, channel: str, uniqueid: str, *, reason: str, sides_swapped: bool) -> Segment:
        """Return a further segment on that channel, not begun: its files have names that were never used.

        :param reason: why there is a further one (`fastagi.domain.recording.Segment.after`)
        :param sides_swapped: it is on the other leg of the call
        """
        recording = job.recording
        return raw_files.raw_segment(
            self._pbxs[recording.asterisk].spool,
            recording.id,
            raw_files.next_number(recording.pieces) + job.failed_pieces,  # an order not answered may be carried out yet
            recording.spec,
            channel,
            uniqueid,
            reason=reason,
            sides_swapped=sides_swapped,
        )

    async def begin(self, job: ActiveRecording, segment: Segment) -> Segment:
        """Journal a further segment, and have Asterisk record it. The caller applies `SegmentStarted` with what is
        returned, or `SegmentFailed`.

        :returns: the segment with its MixMonitor id and the time it began
        :raises IllegalTransition: the recording takes no further segment now
        :raises Hangup: that channel is gone; :raises AsteriskError: it could not be recorded. The row is as it was.
        """
        decision = await self._engine.apply(job, SegmentIntended(segment))
        intended = decision.after.pieces[-1]
        pbx = self._pbxs[decision.after.asterisk]
        try:
            return await self._starter.begin(
                intended, _spec(decision.after, intended), pbx, job.agi_of(intended), muted(decision.after, intended)
            )
        except (AsteriskError, Error, Hangup):
            job.failed_pieces += 1
            await self._engine.apply(job, SegmentFailed())
            raise

    async def end(self, job: ActiveRecording, segment: Segment) -> None:
        """End this segment in Asterisk; its files are closed when this returns. Idempotent.

        :raises AsteriskError: Asterisk cannot be told, or refused. A segment or channel that is gone is no error.
        """
        pbx = self._pbxs[job.recording.asterisk]
        await end_given_up(job, pbx)
        await _end(job, segment, pbx)

    async def give_up(self, job: ActiveRecording, segment: Segment) -> None:
        """Tell Asterisk to end a segment that is not to be, now or before anything else that it is told of this
        recording."""
        try:
            await _end(job, segment, self._pbxs[job.recording.asterisk])
        except (AsteriskError, Error, Hangup) as exc:
            job.given_up.append(segment)
            log.warning("piece_not_given_up", **job.recording.ids, file=segment.paths[0], error=str(exc))

    async def settle(self, job: ActiveRecording) -> None:
        """After a restart: where the last segment was only intended when the server died, see whether Asterisk makes
        it, and if not, have it made now. Idempotent."""
        last = job.recording.pieces[-1]
        if last.confirmed:
            return
        pbx = self._pbxs[job.recording.asterisk]
        try:
            if await self._threads.run(raw_files.size, last.paths[0]) >= 0:
                made = replace(last, monitor_id=await pbx.control(last.channel).find_id(last))
            else:
                made = await self._starter.begin(
                    last, _spec(job.recording, last), pbx, None, muted(job.recording, last)
                )
        except (AsteriskError, Error, Hangup) as exc:
            log.warning("piece_not_made", **job.recording.ids, on=last.channel, error=str(exc))
            await self._engine.apply(job, SegmentFailed())
            self._jobs.on_other_channel(job, last.uniqueid)
            return
        decision = await self._engine.apply(job, SegmentStarted(made))
        for effect in decision.effects:
            if isinstance(effect, EndSegment):
                await self.end(job, effect.segment)

    def refile(self, job: ActiveRecording, before: Segment) -> None:
        """The recording is on another channel than that of `before`."""
        self._jobs.on_other_channel(job, before.uniqueid)


def control_of(job: ActiveRecording, piece: Segment, pbx: Pbx) -> Control:
    """Return the way to command Asterisk about that segment. :raises AsteriskDown: there is none"""
    live = pbx.channels.get(piece.uniqueid)
    return pbx.control(live.name if live is not None else piece.channel, job.agi_of(piece))


async def _end(job: ActiveRecording, piece: Segment, pbx: Pbx) -> None:
    try:
        await control_of(job, piece, pbx).stop(piece, job.recording.spec)
    except (AsteriskError, Error, Hangup) as exc:
        if not gone(exc):
            raise


async def end_given_up(job: ActiveRecording, pbx: Pbx) -> None:
    """End the pieces that were given up and could not be ended: nobody else knows that they are still recorded.

    :raises AsteriskError: they still cannot be
    """
    while job.given_up:
        await _end(job, job.given_up[-1], pbx)
        job.given_up.pop()


def _spec(recording: Recording, piece: Segment) -> RecordingSpec:
    """Return the parameters of that segment: no start beep where a further file is begun at a standstill."""
    return replace(recording.spec, beep_start=False) if piece.reason == "still" else recording.spec


def muted(recording: Recording, piece: Segment) -> list[str]:
    """Asterisk's directions that are muted in the recording now, as they are on that segment."""
    return [asterisk_direction(side, piece) for side in muted_directions(recording)]


def asterisk_direction(direction: str, piece: Segment) -> str:
    """Our words for the sides as Asterisk's: ``read`` comes from the channel a MixMonitor is on, ``write`` goes to it.

    :param direction: ``received``, ``sent`` or ``both``, as seen from the leg on which the recording began
    """
    if direction == "both":
        return "both"
    return "read" if (direction == "received") is not piece.sides_swapped else "write"
