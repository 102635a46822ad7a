"""The live ear: running recordings in which nothing, or one side only, has been heard for long.

A recording is listened to from its start until every side that has a file of its own has sounded, mostly a few seconds;
then never again, so that it costs next to nothing. What is found is an alarm of the job (`silent`, `one_sided`), which
goes as soon as the missing side is heard. Pauses do not count. What the finished file says is judged by
`fastagi.audio.render`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from fastagi.audio import GrowingWav, Levels
from fastagi.audio.levels import ONE_SIDED_SECONDS, SILENT_SECONDS
from fastagi.domain.recording import Recording
from fastagi.domain.states import Phase
from fastagi.errors import AudioError
from fastagi.recording.job import Job, Jobs
from fastagi.recording.threads import FileThreads

log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0
"""Asterisk writes every two seconds."""

SILENT_AFTER_SECONDS = 30.0
"""Nothing heard on any side for so long: longer than ringing, and than waiting for somebody to speak first."""

ONE_SIDED_AFTER_SECONDS = 60.0
"""One side heard, the other not for so long: longer than most announcements."""

ALARMS = frozenset({"silent", "one_sided"})


class Ear:
    """How long each side of one recording has sounded. `listen` is blocking: it reads the files.

    :ivar heard: seconds by side: ``received`` and ``sent``, or ``mixed`` where they have no files of their own
    """

    def __init__(self, threshold_dbfs: float) -> None:
        self._threshold = threshold_dbfs
        self._files: dict[str, GrowingWav] = {}
        self._levels: dict[str, Levels] = {}
        self._before: dict[str, float] = {}
        self.heard: dict[str, float] = {}

    def listen(self, recording: Recording) -> None:
        """Hear what came since the last time.

        :raises AudioError: a file that cannot be judged while it grows
        """
        piece = recording.pieces[-1]
        both = {"received": piece.received, "sent": piece.sent}
        for side, path in both.items() if all(both.values()) else [("mixed", piece.paths[0])]:
            file = self._files.get(side)
            if file is None or file.path != path:  # the recording goes on in other files: what was heard counts
                self._before[side] = self.heard.get(side, 0.0)
                self._levels.pop(side, None)
                file = self._files[side] = GrowingWav(path)
            while len(block := file.read_new()):
                self._levels.setdefault(side, Levels(file.rate, self._threshold)).feed(block)
            levels = self._levels.get(side)
            self.heard[side] = self._before[side] + (levels.facts().active_seconds if levels is not None else 0.0)

    @property
    def all_heard(self) -> bool:
        """Has every side sounded?"""
        return bool(self.heard) and all(seconds >= SILENT_SECONDS for seconds in self.heard.values())

    def alarm(self, elapsed: float) -> str:
        """The alarm to be raised, empty when there is none.

        :param elapsed: seconds that the recording has run, without pauses
        """
        if self.all_heard or not self.heard:
            return ""
        loudest = max(self.heard.values())
        if loudest < SILENT_SECONDS:
            return "silent" if elapsed >= SILENT_AFTER_SECONDS else ""
        return "one_sided" if elapsed >= ONE_SIDED_AFTER_SECONDS and loudest >= ONE_SIDED_SECONDS else ""


class Hearing:
    """Listens to all recordings that run."""

    def __init__(
        self, jobs: Jobs, threads: FileThreads, silence_dbfs: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._jobs = jobs
        self._threads = threads
        self._silence_dbfs = silence_dbfs
        self._clock = clock
        self._ears: dict[str, Ear | None] = {}

    async def run(self) -> None:
        """For ever. Owned by the recorder."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Listen to what came, raise alarms and take them back."""
        running = [j for j in self._jobs if j.phase is Phase.ACTIVE]
        self._ears = {j.id: self._ears.get(j.id, Ear(self._silence_dbfs)) for j in self._jobs}
        wanted = [(job, ear) for job in running if (ear := self._ears[job.id]) is not None]
        if not wanted:
            return
        for job, alarm, over in await self._threads.run(self._listen, wanted):
            for gone in (job.alarms & ALARMS) - {alarm}:
                job.alarms.discard(gone)
            if alarm and alarm not in job.alarms:
                job.alarms.add(alarm)
                log.warning(f"recording_{alarm}", recording_id=job.id, channel=job.recording.channel)
            if over:
                self._ears[job.id] = None

    def _listen(self, wanted: list[tuple[Job, Ear]]) -> list[tuple[Job, str, bool]]:
        """(job, alarm, nothing more to listen for) of each."""
        found = []
        for job, ear in wanted:
            recording = job.recording
            try:
                ear.listen(recording)
            except AudioError:
                found.append((job, "", True))  # another format: its finished file is judged
                continue
            paused = sum((s.end or s.start) - s.start for s in recording.pauses)
            started = recording.started_at if recording.started_at is not None else self._clock()
            found.append((job, ear.alarm(self._clock() - started - paused), ear.all_heard))
        return found
