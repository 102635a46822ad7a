"""With whom a recorded channel talked: the other channels of its bridges, as Asterisk's events name them.

It is how a call is found again by the agent who took it, though the recording is made on the caller's channel. Kept in
memory until the recording ends: who left before a restart of this server is not known after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from fastagi.recording.asterisk.channels import LiveChannel
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.ledger.job import Job, Jobs

EVENTS = ("BridgeEnter",)

MOST_MET = 32
"""Of a conference nobody needs all guests in every recording's metadata."""


class Company:
    """Notes on each running recording whom its channel met."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def event(self, pbx: Pbx, name: str, headers: Mapping[str, str], channel: LiveChannel | None) -> None:
        """A channel has entered a bridge."""
        if channel is not None:
            for other in islice(pbx.book.peers(channel.uniqueid), MOST_MET):
                self._met(pbx, channel, other)
                self._met(pbx, other, channel)

    def synced(self, pbx: Pbx) -> None:
        """The channel list is new: who is with whom now."""
        for job in self._jobs.on_asterisk(pbx.name):
            self.began(pbx, job)

    def began(self, pbx: Pbx, job: Job) -> None:
        """A recording runs: with whom is its channel connected already?"""
        here = pbx.book.get(job.recording.pieces[-1].uniqueid)
        if here is not None:
            for other in islice(pbx.book.peers(here.uniqueid), MOST_MET):
                _note(job, other)

    def _met(self, pbx: Pbx, here: LiveChannel, other: LiveChannel) -> None:
        for job in self._jobs.on_channel(pbx.name, here.uniqueid):
            _note(job, other)


def _note(job: Job, other: LiveChannel) -> None:
    if len(job.met) < MOST_MET:
        job.met.setdefault(other.name)
