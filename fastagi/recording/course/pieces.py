"""The stretches of one recording: ending Asterisk's files while the recording goes on, and beginning the next ones.

A pause ends a piece and a resume begins one, so that nothing said meanwhile is ever on a disk; a call that moved goes
on in a piece on another channel. Who decides that is `pausing` and `following`; how pieces become one file is `plan`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from fastagi.domain.recording import Piece, Recording
from fastagi.domain.spec import RecordingSpec
from fastagi.errors import AsteriskError, Error, Hangup
from fastagi.recording.asterisk.control import Control, gone
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.course.starting import Starter
from fastagi.recording.ledger.job import Job, Jobs
from fastagi.recording.ledger.journal import Journal
from fastagi.recording.runtime.threads import FileThreads
from fastagi.recording.spool import files

log = structlog.get_logger(__name__)


class Pieces:
    """Begins and ends pieces of recordings that run. The job's lock must be held in all of it."""

    def __init__(
        self,
        journal: Journal,
        jobs: Jobs,
        starter: Starter,
        threads: FileThreads,
        pbxs: Mapping[str, Pbx],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._jobs = jobs
        self._starter = starter
        self._threads = threads
        self._pbxs = pbxs
        self._clock = clock

    async def begin(self, job: Job, channel: str, uniqueid: str, *, after: str, turned: bool) -> Piece:
        """Journal a further piece, and have Asterisk record it. It is not the job's last piece until the caller says so
        with the time it began.

        :raises Hangup: that channel is gone; :raises AsteriskError: it could not be recorded. The job is as it was.
        """
        recording = job.recording
        pbx = self._pbxs[recording.asterisk]
        intended = files.raw_piece(
            pbx.spool,
            recording.id,
            files.next_number(recording.pieces) + job.failed_pieces,  # an order not answered may be carried out yet
            recording.spec,
            channel,
            uniqueid,
            after=after,
            turned=turned,
        )
        intended = replace(intended, started_at=self._clock(), seen=False)
        await self._journal.note(job, "piece", pieces=(*recording.pieces, intended))
        try:
            piece = await self._starter.begin(
                intended, _spec(recording, intended), pbx, job.agi_of(intended), muted(recording, intended)
            )
            return replace(piece, seen=True)
        except (AsteriskError, Error, Hangup):
            job.failed_pieces += 1
            await self._journal.note(job, "piece_failed", pieces=recording.pieces)
            raise

    async def end(self, job: Job, piece: Piece) -> None:
        """Have Asterisk end this piece; its files are closed when this returns.

        :raises AsteriskError: Asterisk cannot be told, or refused. A piece or channel that is gone is no error.
        """
        pbx = self._pbxs[job.recording.asterisk]
        await end_given_up(job, pbx)
        await _end(job, piece, pbx)

    async def give_up(self, job: Job, piece: Piece) -> None:
        """That piece is not to be: Asterisk ends it now, or before anything else that it is told of this recording."""
        try:
            await _end(job, piece, self._pbxs[job.recording.asterisk])
        except (AsteriskError, Error, Hangup) as exc:
            job.given_up.append(piece)
            log.warning("piece_not_given_up", **job.recording.ids, file=piece.paths[0], error=str(exc))

    async def settle(self, job: Job) -> bool:
        """After a restart: was the last piece only intended when the server died? Then see whether Asterisk makes it,
        and if not, have it made now.

        :returns: True when the recording has a further piece by it
        """
        pieces = job.recording.pieces
        last = pieces[-1]
        if last.seen:
            return False
        pbx = self._pbxs[job.recording.asterisk]
        try:
            if await self._threads.run(files.size, last.paths[0]) >= 0:
                made = replace(last, monitor_id=await pbx.control(last.channel).find_id(last))
            else:
                made = await self._starter.begin(
                    last, _spec(job.recording, last), pbx, None, muted(job.recording, last)
                )
        except (AsteriskError, Error, Hangup) as exc:
            log.warning("piece_not_made", **job.recording.ids, on=last.channel, error=str(exc))
            await self._journal.note(job, "piece_failed", pieces=pieces[:-1])
            self._jobs.on_other_channel(job, last.uniqueid)
            return False
        before = pieces[-2]
        ended = before if before.ended_at else replace(before, ended_at=made.started_at, lost=made.after == "loss")
        await self._journal.note(job, "piece_found", pieces=(*pieces[:-2], ended, replace(made, seen=True)))
        if not before.ended_at:
            await self.end(job, before)
        return True

    def ended(self, piece: Piece) -> Piece:
        """It, ended now."""
        return replace(piece, ended_at=self._clock())

    def refile(self, job: Job, before: Piece) -> None:
        """The recording is on another channel than that of `before`."""
        self._jobs.on_other_channel(job, before.uniqueid)


def control_of(job: Job, piece: Piece, pbx: Pbx) -> Control:
    """How Asterisk is told of that piece. :raises AsteriskDown: there is no way to it"""
    live = pbx.book.get(piece.uniqueid)
    return pbx.control(live.name if live is not None else piece.channel, job.agi_of(piece))


async def _end(job: Job, piece: Piece, pbx: Pbx) -> None:
    try:
        await control_of(job, piece, pbx).stop(piece, job.recording.spec)
    except (AsteriskError, Error, Hangup) as exc:
        if not gone(exc):
            raise


async def end_given_up(job: Job, pbx: Pbx) -> None:
    """End the pieces that were given up and could not be ended: nobody else knows that they are still recorded.

    :raises AsteriskError: they still cannot be
    """
    while job.given_up:
        await _end(job, job.given_up[-1], pbx)
        job.given_up.pop()


def _spec(recording: Recording, piece: Piece) -> RecordingSpec:
    """How that piece is made: for who listens, nothing starts where a further file is begun at a standstill."""
    return replace(recording.spec, beep_start=False) if piece.after == "still" else recording.spec


def muted(recording: Recording, piece: Piece) -> list[str]:
    """Asterisk's directions that are muted in the recording now, as they are on that piece."""
    spans: dict[str, list[list[float | None]]] = recording.facts.get("muted", {})
    return [asterisk_direction(side, piece) for side, found in spans.items() if found and found[-1][1] is None]


def asterisk_direction(direction: str, piece: Piece) -> str:
    """Our words for the sides as Asterisk's: ``read`` comes from the channel a MixMonitor is on, ``write`` goes to it.

    :param direction: ``received``, ``sent`` or ``both``, as seen from the leg on which the recording began
    """
    if direction == "both":
        return "both"
    return "read" if (direction == "received") is not piece.turned else "write"
