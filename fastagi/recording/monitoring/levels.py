"""The live ear: running recordings in which nothing has been heard for long, or one side never.

What is found is an alarm of the job: `silent` while nobody is heard for `quiet_seconds`, `one_sided` once the recording
has run so long and one side was never heard while the other was. Both go as soon as it is not so any more. A side that
was heard once may listen for as long as it likes; pauses and muted sides are silent because somebody wanted it so.

It costs little: until every side was heard, all that comes is listened to, mostly some seconds; after that two seconds
now and then, from the end of the file backwards, and more only where those are silent. What the finished file says is
judged by `fastagi.audio.render`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import structlog

from fastagi.audio import Levels
from fastagi.audio.levels import ONE_SIDED_SECONDS, SILENT_SECONDS
from fastagi.audio.wavfile import PCM, inspect_fd
from fastagi.domain.recording import Segment
from fastagi.errors import AudioError
from fastagi.exposed_files import open_file
from fastagi.recording.ledger.active import ActiveRecording, ActiveRecordings
from fastagi.runtime.threads import FileThreads

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
"""Asterisk writes every two seconds, and the alarms count in tens of seconds."""

STEP_SECONDS = 2
"""Listened to at once, going backwards."""

MOST_SECONDS = 600
"""Not yet heard audio that is looked at in one round: more has been silent for longer than any alarm waits."""

SILENT, ONE_SIDED = "silent", "one_sided"


@dataclass(slots=True)
class _Side:
    """One side of a recording: its file now, how much of that was listened to, how long it has sounded in all."""

    path: str = ""
    frames: int = 0
    heard: float = 0.0


class LevelTracker:
    """The sound heard of one recording so far. Times are seconds during which it ran, pauses left out.

    :ivar listened: since it was first listened to; :ivar quiet: since anything was last heard
    """

    def __init__(self, silence_dbfs: float) -> None:
        self._silence_dbfs = silence_dbfs
        self._sides: dict[str, _Side] = {}
        self.listened = 0.0
        self.quiet = 0.0

    def passed(self, seconds: float) -> None:
        """So much time has passed since the last look."""
        self.listened += seconds
        self.quiet += seconds

    def paused(self) -> None:
        """Note a pause: the silence before it is not continued by the silence after it."""
        self.quiet = 0.0

    @property
    def all_heard(self) -> bool:
        """Return whether every side has sounded."""
        return bool(self._sides) and all(side.heard >= SILENT_SECONDS for side in self._sides.values())

    def listen(self, piece: Segment) -> None:
        """Hear what came since the last time. Blocking.

        :raises AudioError: a file that cannot be judged while it grows
        """
        everything = not self.all_heard
        for name, path in _paths(piece).items():
            side = self._sides.setdefault(name, _Side())
            if path != side.path:
                side.path, side.frames = path, 0
            ago = self._hear(side, everything)
            if ago is not None:
                self.quiet = min(self.quiet, ago)
                if not everything:
                    return  # one is enough to know that it is not silent

    def _hear(self, side: _Side, everything: bool) -> float | None:
        """Seconds since the last sound in what is new, None when there is none."""
        try:
            fd = open_file(side.path)
        except OSError:
            return None  # not there (yet): nothing is heard
        try:
            if os.fstat(fd).st_size < 44:  # Asterisk's header; libc may flush it in parts
                return None
            info = inspect_fd(fd, side.path)
            if info.tag != PCM or info.bits != 16 or info.channels != 1:
                raise AudioError(f"{side.path}: not 16-bit mono PCM")
            ago = None
            step, end = STEP_SECONDS * info.rate, info.frames
            low = max(side.frames, end - MOST_SECONDS * info.rate)
            high = end
            while high > low and (everything or ago is None):
                start = max(low, high - step)
                block = os.pread(fd, 2 * (high - start), info.data_offset + 2 * start)
                levels = Levels(info.rate, self._silence_dbfs)
                levels.feed(np.frombuffer(block[: len(block) // 2 * 2], np.int16))
                sounded = levels.facts().active_seconds
                if sounded >= SILENT_SECONDS and ago is None:
                    ago = (end - high) / info.rate
                side.heard += sounded
                high = start
            side.frames = end
            return ago
        except OSError as exc:
            raise AudioError(f"{side.path}: {exc.strerror}") from None
        finally:
            os.close(fd)

    def alarm(self, quiet_seconds: float, muted: frozenset[str]) -> str:
        """The alarm that is true now, empty when none is.

        :param muted: sides that somebody muted
        """
        if self.quiet >= quiet_seconds:
            return SILENT
        unheard = [name for name, side in self._sides.items() if side.heard < SILENT_SECONDS and name not in muted]
        loudest = max((side.heard for side in self._sides.values()), default=0.0)
        if unheard and loudest >= ONE_SIDED_SECONDS and self.listened >= quiet_seconds:
            return ONE_SIDED
        return ""


class LevelMonitor:
    """Listens to all recordings that run; adopted ones are left alone, nobody here knows how they were meant.

    :param quiet_seconds: how long may be silent; 0 for any time: then nothing is listened to
    :param clock: seconds that only grow
    """

    def __init__(
        self,
        jobs: ActiveRecordings,
        threads: FileThreads,
        *,
        silence_dbfs: float,
        quiet_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._jobs = jobs
        self._threads = threads
        self._silence_dbfs = silence_dbfs
        self._quiet_seconds = quiet_seconds
        self._clock = clock
        self._ears: dict[str, LevelTracker] = {}
        self._unreadable: set[str] = set()
        self._last = clock()

    async def run(self) -> None:
        """For ever. Owned by the recorder."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.round()

    async def round(self) -> None:
        """Listen to what came, raise alarms and take them back."""
        now = self._clock()
        passed, self._last = now - self._last, now
        if not self._quiet_seconds:
            return
        known, self._ears = self._ears, {}
        wanted: list[tuple[ActiveRecording, LevelTracker]] = []
        for job in self._jobs:
            if job.recording.adopted or job.id in self._unreadable:
                continue
            ear = self._ears[job.id] = known.get(job.id) or LevelTracker(self._silence_dbfs)
            if job.recording.active:
                if job.id in known:
                    ear.passed(passed)
                wanted.append((job, ear))
            else:
                ear.paused()
        self._unreadable &= {job.id for job in self._jobs}
        if wanted:
            self._alarm(await self._threads.run(self._listen, wanted))

    def _listen(self, wanted: list[tuple[ActiveRecording, LevelTracker]]) -> list[tuple[ActiveRecording, str]]:
        """(job, alarm) of each; blocking."""
        found = []
        for job, ear in wanted:
            # once all were heard, half of what may be silent passes between two looks
            if not ear.all_heard or ear.quiet >= self._quiet_seconds / 2:
                try:
                    ear.listen(job.recording.pieces[-1])
                except AudioError as exc:
                    log.info("recording_not_listened_to", **job.recording.ids, error=str(exc))
                    self._unreadable.add(job.id)
                    continue
            found.append((job, ear.alarm(self._quiet_seconds, _muted(job))))
        return found

    def _alarm(self, found: list[tuple[ActiveRecording, str]]) -> None:
        for job, alarm in found:
            for name in (SILENT, ONE_SIDED):
                if name != alarm:
                    job.alarms.discard(name)
            if alarm and alarm not in job.alarms:
                job.alarms.add(alarm)
                log.warning(f"recording_{alarm}", **job.recording.ids)


def _paths(piece: Segment) -> dict[str, str]:
    """The sides' files; where there are none, the mixed one."""
    if not (piece.received and piece.sent):
        return {"mixed": piece.paths[0]}
    sides = (piece.sent, piece.received) if piece.sides_swapped else (piece.received, piece.sent)
    return dict(zip(("received", "sent"), sides, strict=True))


def _muted(job: ActiveRecording) -> frozenset[str]:
    """Sides that may be silent: somebody muted them, or the channel is in a conference, where many only listen."""
    muted = job.recording.facts.muted
    if muted.get("both"):
        return frozenset(("received", "sent"))
    return frozenset(side for side in muted if muted[side]) | (frozenset(("received",)) if job.members else frozenset())
