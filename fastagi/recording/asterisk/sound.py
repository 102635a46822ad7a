"""The sound of both sides in the raw files of one segment while Asterisk writes them. Blocking; judges nothing."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from fastagi.audio import GrowingWav, mix
from fastagi.audio.energy import FrameEnergy
from fastagi.domain.recording import Segment

STEP_BYTES = 32_768
"""Asterisk's buffer for a file that it writes."""

LATE_SECONDS = 0.15
"""A busy Asterisk writes a step so much later than the sound was."""


class Sound:
    """Asterisk's own mix, or (Monitor) its two legs put together here."""

    def __init__(self, piece: Segment, threshold: float) -> None:
        """:param threshold: mean square from which on a 10 ms frame is no silence"""
        self._threshold = threshold
        self.path = piece.paths[0]
        self._files = [GrowingWav(path) for path in ([piece.mixed] if piece.mixed else [piece.received, piece.sent])]
        self._waiting = [np.zeros(0, np.int16) for _ in self._files]

    @property
    def size(self) -> int:
        """Frames in its files, together."""
        return sum(file.frames for file in self._files)

    @property
    def written_at(self) -> float:
        """Return the time of the last write to any of its files, unix seconds by the clock of their disk."""
        return max(os.lstat(file.path).st_mtime for file in self._files)

    @property
    def waiting(self) -> int:
        """Frames that wait for what the other leg has beside them."""
        return max(len(waiting) for waiting in self._waiting)

    @property
    def unjudged(self) -> int:
        """Return the samples from the first audible frame on."""
        most = 0
        for waiting in self._waiting:
            energy = FrameEnergy(8000 if self._files[0].rate < 16000 else 16000)
            loud = np.flatnonzero(energy.feed(waiting) >= self._threshold)
            if len(loud):
                most = max(most, len(waiting) - int(loud[0]) * energy.frame)
        return most

    @property
    def complete(self) -> bool:
        """Asterisk has closed it, and everything has been given out."""
        return all(file.complete for file in self._files)

    def read_new(self) -> NDArray[np.int16]:
        """The samples that came since the last call. :raises AudioError: a file cannot be read"""
        if len(self._files) == 1:
            return self._files[0].read_new()
        self._waiting = [
            np.concatenate((waiting, file.read_new())) for waiting, file in zip(self._waiting, self._files, strict=True)
        ]
        lengths = [len(waiting) for waiting in self._waiting]
        behind = STEP_BYTES // 2 + round(LATE_SECONDS * max(8000, *(file.rate for file in self._files)))
        # a leg without frames stands still: it is silent
        count = max(lengths) if self.complete else max(min(lengths), max(lengths) - behind)
        parts = [np.concatenate((w[:count], np.zeros(max(0, count - len(w)), np.int16))) for w in self._waiting]
        self._waiting = [waiting[count:] for waiting in self._waiting]
        return mix(parts[0], parts[1])
