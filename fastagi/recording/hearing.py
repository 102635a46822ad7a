"""The live ear: running recordings in which nothing, or one side only, has been heard for long.

A recording is listened to from its start until each side that has a file of its own has sounded, mostly a few seconds;
then never again, so that it costs next to nothing. What is found is an alarm of the job (`silent`, `one_sided`), which
goes as soon as the missing side is heard. Pauses do not count. What the finished file says is judged by
`fastagi.audio.render`.
"""

from __future__ import annotations

import asyncio

import structlog

from fastagi.audio import GrowingWav, Levels
from fastagi.audio.levels import ONE_SIDED_SECONDS
from fastagi.domain.recording import Piece
from fastagi.domain.states import Phase
from fastagi.errors import AudioError
from fastagi.recording.job import Job, Jobs
from fastagi.recording.threads import FileThreads

log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0
"""Asterisk writes every two seconds."""

SILENT_SECONDS = 30.0
"""Nothing heard on any side for so long: longer than ringing, and than waiting for somebody to speak first."""

ONE_SIDED_AFTER_SECONDS = 60.0
"""One side heard, the other not for so long: longer than most announcements."""

ALARMS = ("silent", "one_sided")


class Ear:
    """What has been heard of one recording so far. `listen` is blocking: it reads the files."""

    def __init__(self, threshold_dbfs: float) -> None:
        self._threshold = threshold_dbfs
        self._files: dict[str, tuple[GrowingWav, Levels]] = {}
        self._heard: dict[str, float] = {}
        self._piece: tuple[str, ...] = ()
        self.seconds = 0.0
        """Audio listened to: the longest side."""

    def listen(self, piece: Piece) -> None:
        """Hear what came since the last time.

        :raises AudioError: not a file that can be judged while it grows
        """
        sides = {"received": piece.received, "sent": piece.sent} if piece.received and piece.sent else {}
        sides = sides or {"mixed": piece.mixed or piece.received or piece.sent}
        if piece.paths != self._piece:  # the recording goes on in other files: what was heard counts on
            self._piece = piece.paths
            self._files = {}
        longest = 0.0
        for side, path in sides.items():
            if side not in self._files:
                file = GrowingWav(path)
                self._files[side] = (file, Levels(8000, self._threshold))
            file, levels = self._files[side]
            before = file.frames
            while len(block := file.read_new()):
                if before == 0 and file.rate != 8000:
                    levels = Levels(file.rate, self._threshold)
                    self._files[side] = (file, levels)
                    before = 1
                levels.feed(block)
            longest = max(longest, (file.frames - max(0, before - 1)) / (file.rate or 8000))
            self._heard[side] = max(self._heard.get(side, 0.0), levels.active_seconds)
        self.seconds += longest
