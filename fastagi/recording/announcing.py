"""Announcements: every change of a recording as `UserEvent: FastAGIRecording`, for AMI clients and CRMs.

In the order of the changes, one queue for each Asterisk, those of a moment together. Nothing waits for it: what does
not fit into the queue, or comes while AMI is away, is not told later; the ledger and the HTTP API have it. No value can
hold a line end, so an announcement cannot be mistaken for a command or bring headers of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from itertools import islice
from typing import Any

import structlog

from fastagi.ami import actions
from fastagi.domain.recording import Recording
from fastagi.errors import ActionRefused, AsteriskError, BadArgument
from fastagi.recording.asterisk.pbx import ANNOUNCEMENT, Pbx
from fastagi.recording.ledger.active import ActiveRecordings
from fastagi.store.queries.calls import RECORDED, AnsweredCall

log = structlog.get_logger(__name__)

MOST_WAITING = 2000
"""Announcements that wait for one Asterisk: some 2 MB; it takes 2,000 a second."""

TOGETHER_SECONDS = 0.05
"""What is announced within so long goes out in one write: a busy PBX has dozens of changes in it, and each write costs
more than what it says."""

MOST_TOGETHER = 50
"""Some 25 kB; Asterisk takes them in 25 ms."""

LONGEST_BYTES = 900
"""A manager line of more than 1,024 bytes is discarded by Asterisk, with the header's name in it."""

ALARM_LOOK_SECONDS = 1.0

CHANGES = {
    "requested": "requested",
    "adopted": "adopted",
    "started": "started",
    "paused": "paused",
    "resumed": "resumed",
    "muted": "muted",
    "unmuted": "unmuted",
    "mute_failed": "mute_failed",
    "moved": "moved",
    "files_lost": "files_lost",
    "stop": "stopping",
    "hung_up": "stopping",
    "stopped": "stopped",
    "finished": "finished",
    "failed": "failed",
    "refinish": "finishing",
    "deleting": "deleting",
    "deleted": "deleted",
    "hold_set": "held",
    "hold_released": "released",
}
"""The journal's names of what is announced, and how; the rest (a file closed, a piece begun) is our own business."""


class Announcer:
    """Announces.

    :param spawn: starts a task that the app owns
    :ivar sent: announcements that Asterisk took; :ivar dropped: those it never saw, because there were too many or AMI
        was away; metrics
    """

    def __init__(
        self,
        pbxs: Mapping[str, Pbx],
        jobs: ActiveRecordings,
        spawn: Callable[[Coroutine[Any, Any, Any], str], object],
    ) -> None:
        self._pbxs = pbxs
        self._jobs = jobs
        self._spawn = spawn
        self._waiting: dict[str, deque[dict[str, str]]] = {name: deque() for name in pbxs}
        self._sending: set[str] = set()
        self._refused: set[str] = set()
        self._alarms: dict[str, frozenset[str]] = {}
        self.sent = 0
        self.dropped = 0
        for pbx in pbxs.values():
            pbx.on_synced(lambda up, gone: self._refused.discard(up.name))

    def changed(self, recording: Recording, event: str, detail: dict[str, Any]) -> None:
        """A listener of the journal."""
        change = CHANGES.get(event)
        if change is not None:
            self._queue(recording.asterisk, {"Change": change, **about(recording)})

    def judged(self, call: AnsweredCall) -> None:
        """A listener of completeness: a call that was not recorded as it had to be."""
        if call.verdict == RECORDED:
            return
        headers = {"Change": "incomplete", "Verdict": call.verdict, "Error": call.reason, "Channel": call.channel}
        more = {"Uniqueid": call.uniqueid, "Linkedid": call.linkedid, "RecordingID": call.recording_id}
        self._queue(call.asterisk, headers | more)

    def refused(self, asterisk: str, command: str, channel: str, error: str, recording_id: str = "") -> None:
        """The answer to a command that was wrong, or could not be carried out."""
        headers = {"Change": "refused", "Command": command, "Channel": channel, "Error": error}
        self._queue(asterisk, headers | {"RecordingID": recording_id})

    async def run(self) -> None:
        """For ever: announce alarms of recordings that run as they come and go. Owned by the recorder."""
        while True:
            await asyncio.sleep(ALARM_LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """One look at the alarms."""
        now = {job.id: (job.recording, frozenset(job.alarms)) for job in self._jobs}
        for recording_id, (recording, alarms) in now.items():
            before = self._alarms.get(recording_id, frozenset())
            for change, names in (("alarm", alarms - before), ("alarm_over", before - alarms)):
                for name in sorted(names):
                    self._queue(recording.asterisk, {"Change": change, "Alarm": name, **about(recording)})
        self._alarms = {recording_id: alarms for recording_id, (_, alarms) in now.items() if alarms}

    def _queue(self, asterisk: str, headers: Mapping[str, str]) -> None:
        pbx, waiting = self._pbxs.get(asterisk), self._waiting.get(asterisk)
        if pbx is None or waiting is None or pbx.manager is None or asterisk in self._refused:
            return
        if not pbx.up or len(waiting) >= MOST_WAITING:
            self.dropped += 1
            return
        waiting.append({name: one_line(value) for name, value in headers.items() if value})
        if asterisk not in self._sending:
            self._sending.add(asterisk)
            self._spawn(self._send(pbx, waiting), f"announce {asterisk}")

    async def _send(self, pbx: Pbx, waiting: deque[dict[str, str]]) -> None:
        assert pbx.manager is not None
        try:
            while waiting:
                await asyncio.sleep(TOGETHER_SECONDS)
                together = list(islice(waiting, MOST_TOGETHER))
                try:
                    await actions.user_event(pbx.manager, ANNOUNCEMENT, *together, timeout=SEND_SECONDS)
                    self.sent += len(together)
                except ActionRefused as exc:
                    log.error(
                        "announcements_refused",
                        asterisk=pbx.name,
                        error=str(exc),
                        hint="give the manager user write=user; silent until the next connection",
                    )
                    self._refused.add(pbx.name)
                    self._drop(waiting)
                    return
                except AsteriskError:
                    self._drop(waiting)
                    return
                except BadArgument as exc:  # a bug, and no reason to stay silent for ever
                    log.error("announcement_malformed", error=str(exc))
                for _ in together:
                    waiting.popleft()
        finally:
            self._sending.discard(pbx.name)

    def _drop(self, waiting: deque[dict[str, str]]) -> None:
        self.dropped += len(waiting)
        waiting.clear()


SEND_SECONDS = 5.0


def about(recording: Recording) -> dict[str, str]:
    """Return the headers that describe a recording; empty values are left out when it is sent."""
    leg = recording.pieces[-1].channel if recording.pieces else recording.channel
    return {
        "RecordingID": recording.id,
        "State": recording.state.value,
        "Phase": recording.phase.value,
        "Cause": recording.public_cause.value,
        "Channel": recording.channel,
        "Uniqueid": recording.uniqueid,
        "Linkedid": recording.linkedid,
        "RecordedChannel": leg if leg != recording.channel else "",
        "Recorder": recording.recorder,
        "Name": recording.name,
        "File": recording.file_path,
        "Error": recording.error,
        "Adopted": "yes" if recording.adopted else "",
        "Seconds": "" if recording.audio_seconds is None else f"{recording.audio_seconds:.3f}",
    }


def one_line(value: str) -> str:
    """A value that stays in its header: control characters become spaces, and it is cut to what Asterisk reads."""
    if value.isascii() and value.isprintable() and len(value) <= LONGEST_BYTES:
        return value.strip()
    clean = "".join(c if c.isprintable() else " " for c in value[:LONGEST_BYTES])
    return clean.encode("utf-8", "replace")[:LONGEST_BYTES].decode("utf-8", "ignore").strip()
