"""The call goes on and the recorded leg is not in it any more: the recording goes on too, on the leg that stays.

A MixMonitor sits on one channel and ends with it. Whoever transfers or parks a call leaves it; if his leg was the
recorded one, a further piece begins on the leg of the party he had talked to, the sides changed so that this party
stays on his side. Asterisk says so (BlindTransfer, AttendedTransfer, ParkedCall), or it shows: the party is in another
bridge, with somebody else, when the recorded leg hangs up. An ordinary hangup, a caller who goes on in the dialplan
after it, and somebody who leaves a conference are no moves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from fastagi.domain.lifecycle import can_follow
from fastagi.domain.lifecycle.events import LegMoved, SegmentStarted
from fastagi.errors import AsteriskError, Error, FastAGIError, Hangup
from fastagi.recording.asterisk.call_state import CallState, call_state
from fastagi.recording.asterisk.channel_table import LiveChannel
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.engine import Engine
from fastagi.recording.lifecycle.segments import SegmentController

log = structlog.get_logger(__name__)

EVENTS = ("BlindTransfer", "AttendedTransfer", "ParkedCall")

PARTED_SECONDS = 5.0
"""A leg that was taken out of its bridge (AMI Bridge) hangs up at once; who stays longer does something of its own."""

ARRIVES_SECONDS = 0.3
"""Time for a leg to arrive in its next bridge; a party who goes on alone after the talk delays the end by so much."""

LOOKS = 20

LEAVING_DESTINATIONS = ("Bridge", "App", "Link")
"""`DestType` of an attended transfer after which the transferrer's legs are hung up; in a threeway call they stay."""


@dataclass(frozen=True, slots=True)
class Move:
    """One leg leaves, another stays; uniqueids."""

    leaver: str
    stayer: str


class TransferFollower:
    """Moves recordings to the legs that stay."""

    def __init__(self, context: RecordingContext, engine: Engine, segments: SegmentController) -> None:
        self._engine = engine
        self._jobs = context.jobs
        self._segments = segments
        self._pbxs = context.pbxs
        self._spawn = context.tasks.spawn
        self._clock = context.clock

    def event(self, pbx: Pbx, name: str, headers: Mapping[str, str], channel: LiveChannel | None) -> None:
        """A transfer or a parking: every recording on a leg that leaves goes to the leg that stays."""
        for move in moves(pbx, name, headers):
            for job in self._jobs.on_channel(pbx.name, move.leaver):
                self._spawn(self.follow(job, move, name), f"follow {job.id}")

    async def seen_at_hangup(self, pbx: Pbx, gone: LiveChannel | None) -> Move | None:
        """The move that no event told of: those it talked to a moment ago are in another bridge, with others.

        Waits a moment for one who is in no bridge yet and still up (Asterisk 16 takes him out before it puts him in).
        """
        if gone is None:
            return None
        for _ in range(LOOKS):  # its hangup handler may be quicker than the events
            if not gone.bridge or pbx.channels.get(gone.uniqueid) is not gone:
                break
            await asyncio.sleep(ARRIVES_SECONDS / LOOKS)
        now = self._clock()
        left = {uid: bridge for uid, (bridge, at) in gone.recent_peers.items() if now - at <= PARTED_SECONDS}
        deadline = time.monotonic() + ARRIVES_SECONDS
        while left:
            for uniqueid, bridge in list(left.items()):
                peer = pbx.channels.get(uniqueid)
                if peer is None or peer.bridge == bridge:
                    del left[uniqueid]
                elif peer.bridge and pbx.channels.peers(uniqueid):
                    return Move(gone.uniqueid, uniqueid)
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(ARRIVES_SECONDS / LOOKS)
        return None

    async def follow(self, job: ActiveRecording, move: Move, why: str) -> bool:
        """Go on recording on the leg that stays. Idempotent.

        :returns: False where it cannot or must not: then the recording ends with its leg
        """
        async with job.lock:
            recording = job.recording
            before = recording.pieces[-1]
            if before.uniqueid != move.leaver:
                return True
            live = self._pbxs[recording.asterisk].channels.get(move.stayer)
            if live is None or call_state(live, True) is not CallState.UP or not can_follow(recording):
                return False
            segment = self._segments.next(
                job, live.name, live.uniqueid, reason="move", sides_swapped=not before.sides_swapped
            )
            try:
                if recording.paused:
                    await self._engine.apply(job, LegMoved(segment))
                else:
                    began = await self._segments.begin(job, segment)
                    await self._engine.apply(job, SegmentStarted(began))
            except (AsteriskError, Error, Hangup) as exc:
                log.error("not_followed", **job.recording.ids, to=live.name, error=str(exc))
                return False
            self._segments.refile(job, before)
            log.info("recording_moved", **job.recording.ids, left=before.channel, to=live.name, because=why)
        if not before.ended_at:
            try:
                await self._segments.end(job, before)
            except FastAGIError as exc:  # its leg is leaving: Asterisk ends it by itself
                log.debug("left_leg_not_stopped", **job.recording.ids, error=str(exc))
        return True


def moves(pbx: Pbx, name: str, headers: Mapping[str, str]) -> list[Move]:
    """Return who left whom, as a transfer or parking event says."""
    if name == "ParkedCall":
        return _parked(pbx, headers)
    if headers.get("Result", "") not in ("Success", ""):
        return []
    if name == "BlindTransfer":
        pairs = [("TransfererUniqueid", "TransfereeUniqueid")]
    elif headers.get("DestType", "") in LEAVING_DESTINATIONS:
        pairs = [
            ("OrigTransfererUniqueid", "TransfereeUniqueid"),
            ("SecondTransfererUniqueid", "TransferTargetUniqueid"),
        ]
    else:
        pairs = []
    found = [Move(headers.get(leaver, ""), headers.get(stayer, "")) for leaver, stayer in pairs]
    return [move for move in found if move.leaver and move.stayer]


def _parked(pbx: Pbx, headers: Mapping[str, str]) -> list[Move]:
    """The parkee stays; whoever he talked to a moment ago and who parked him leaves."""
    parkee = pbx.channels.get(headers.get("ParkeeUniqueid", ""))
    parker = headers.get("ParkerDialString", "")
    if parkee is None or not parker:
        return []
    leavers = (pbx.channels.get(uniqueid) for uniqueid in parkee.recent_peers)
    return [Move(c.uniqueid, parkee.uniqueid) for c in leavers if c is not None and c.name.startswith(parker + "-")]
