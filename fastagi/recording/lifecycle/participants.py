"""The participants of recorded calls: the other channels of a recorded channel's bridges, as Asterisk's events name
them.

It is how a call is found again by the agent who took it, though the recording is made on the caller's channel. Kept in
memory until the recording ends: who left before a restart of this server is not known after it. Members of a conference
are noted in the ledger as they come and go: they are recorded with the channel, and may have to be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import islice

import structlog

from fastagi.domain.lifecycle.events import MembersNoted
from fastagi.errors import FastAGIError
from fastagi.recording.asterisk.channel_table import LiveChannel
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.engine import Engine

log = structlog.get_logger(__name__)

EVENTS = ("BridgeEnter", "BridgeLeave", "Hangup")

MOST_MET = 32
"""Of a conference nobody needs all guests in every recording's metadata."""


class ParticipantTracker:
    """Notes on each running recording whom its channel met.

    :param on_member: called with (asterisk, uniqueid, job) when that channel has joined the recording's conference
    """

    def __init__(
        self, context: RecordingContext, engine: Engine, on_member: Callable[[str, str, ActiveRecording], None]
    ) -> None:
        self._engine = engine
        self._jobs = context.jobs
        self._spawn = context.tasks.spawn
        self._clock = context.clock
        self._on_member = on_member
        self._rooms: defaultdict[tuple[str, str], dict[str, ActiveRecording]] = defaultdict(dict)
        self._unwritten: set[str] = set()

    def event(self, pbx: Pbx, name: str, headers: Mapping[str, str], channel: LiveChannel | None) -> None:
        """A channel has entered or left a bridge, or is gone."""
        if channel is None:
            return
        if name == "BridgeEnter":
            self._entered(pbx, channel)
        elif name in ("BridgeLeave", "Hangup"):
            self._left(pbx, channel)

    def synced(self, pbx: Pbx) -> None:
        """The channel list is new: who is with whom now."""
        for job in self._jobs.on_asterisk(pbx.name):
            self.began(pbx, job)

    def began(self, pbx: Pbx, job: ActiveRecording) -> None:
        """A recording runs: with whom is its channel connected already?"""
        uniqueid = job.recording.pieces[-1].uniqueid
        here = pbx.channels.get(uniqueid)
        peers = pbx.channels.peers(uniqueid)
        for other in islice(peers, MOST_MET):
            _note(job, other)
        if not pbx.up:
            return
        self._bridged(job, here)
        there = {other.uniqueid for other in peers}
        for member in job.members.there:
            if member not in there:
                self._member_left(pbx, job, member)
            else:
                self._rooms[pbx.name, member][job.id] = job
        if here is not None and (here.in_room or job.members):
            for other in peers:
                self._member_joined(pbx, job, other)

    def _entered(self, pbx: Pbx, channel: LiveChannel) -> None:
        own = self._jobs.on_channel(pbx.name, channel.uniqueid)
        for job in own:
            self._bridged(job, channel)
        for number, other in enumerate(pbx.channels.peers(channel.uniqueid)):
            others = self._jobs.on_channel(pbx.name, other.uniqueid)
            if number < MOST_MET:
                for job in own:
                    _note(job, other)
                for job in others:
                    _note(job, channel)
            if channel.in_room:
                for job in own:
                    self._member_joined(pbx, job, other)
                for job in others:
                    self._member_joined(pbx, job, channel)

    def _left(self, pbx: Pbx, channel: LiveChannel) -> None:
        for job in self._rooms.pop((pbx.name, channel.uniqueid), {}).values():
            self._member_left(pbx, job, channel.uniqueid)
        for job in self._jobs.on_channel(pbx.name, channel.uniqueid):
            self._bridged(job, None)
            for member in job.members.there:
                self._member_left(pbx, job, member)

    def _bridged(self, job: ActiveRecording, channel: LiveChannel | None) -> None:
        """Count how long the channel of an adopted recording is bridged: MixMonitor's option ``b`` records nothing
        else.
        """
        now = self._clock()
        if job.bridged_since is not None and job.bridged_seconds is not None:
            job.bridged_seconds += max(0.0, now - job.bridged_since)
        job.bridged_since = now if channel is not None and channel.bridge else None

    def _member_joined(self, pbx: Pbx, job: ActiveRecording, member: LiveChannel) -> None:
        rooms = self._rooms[pbx.name, member.uniqueid]
        if not job.open or job.id in rooms:
            return
        rooms[job.id] = job
        self._on_member(pbx.name, member.uniqueid, job)
        if job.members.joined(member.uniqueid, member.caller, self._clock()):
            self._write(job)

    def _member_left(self, pbx: Pbx, job: ActiveRecording, uniqueid: str) -> None:
        if job.members.left(uniqueid, self._clock()) and job.open:
            self._write(job)

    def _write(self, job: ActiveRecording) -> None:
        """Journal the members soon: those who come together are one entry."""
        if job.id not in self._unwritten:
            self._unwritten.add(job.id)
            self._spawn(self._written(job), f"members {job.id}")

    async def _written(self, job: ActiveRecording) -> None:
        try:
            async with job.lock:
                self._unwritten.discard(job.id)
                if job.open:
                    await self._engine.apply(job, MembersNoted(job.members.facts()))
        except FastAGIError as exc:
            log.warning("members_not_noted", **job.recording.ids, error=str(exc))
        finally:
            self._unwritten.discard(job.id)


def _note(job: ActiveRecording, other: LiveChannel) -> None:
    if len(job.participants) < MOST_MET:
        job.participants.setdefault(other.name)
