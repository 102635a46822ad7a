"""Levels of each side of a call: the facts behind "the recording is silent" and "the recording has one side only"."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastagi.audio.energy import FULL_SCALE_SQUARED, FrameEnergy, mean_square_at

Samples = NDArray[np.int16]

LOWEST_DBFS = -120.0
"""Level reported for digital silence: JSON has no minus infinity."""

SILENT_SECONDS = 0.03
"""Sound in seconds below which a recording is silent: less than one burst (`fastagi.audio.silence`)."""

ONE_SIDED_SECONDS = 1.0
"""Sound in seconds of the other side from which a silent side is a fault and not a short call."""


@dataclass(frozen=True, slots=True)
class LevelFacts:
    """Levels of one channel.

    :param peak_dbfs: the highest sample; :param rms_dbfs: over everything, 0 dBFS is an RMS of full scale
    :param active_seconds: time in 10 ms frames above the silence threshold
    """

    peak_dbfs: float
    rms_dbfs: float
    active_seconds: float

    @property
    def silent(self) -> bool:
        """True when the channel was silent throughout."""
        return self.active_seconds < SILENT_SECONDS

    def to_dict(self) -> dict[str, object]:
        return {
            "peak_dbfs": self.peak_dbfs,
            "rms_dbfs": self.rms_dbfs,
            "active_seconds": self.active_seconds,
            "silent": self.silent,
        }


class Levels:
    """Collect the levels of a stream.

    :param rate: Hz; :param threshold_dbfs: RMS from which a 10 ms frame is active
    """

    def __init__(self, rate: int, threshold_dbfs: float = -48.0) -> None:
        self._energy = FrameEnergy(rate)
        self._threshold = mean_square_at(threshold_dbfs)
        self._rate = rate
        self._peak = 0
        self._sum = 0.0
        self._frames = 0
        self._active = 0

    @property
    def peak(self) -> int:
        """Largest sample so far, without its sign."""
        return self._peak

    def feed(self, block: Samples) -> None:
        """Add samples: one channel, or (frames, 2), of which the mean of the two counts."""
        if len(block) == 0:
            return
        self._peak = max(self._peak, int(block.max()), -int(block.min()))
        if block.ndim == 2:
            block = (block[:, 0] >> 1) + (block[:, 1] >> 1)  # ten times faster than a mean over the short axis
        energy = self._energy.feed(block)
        self._sum += float(energy.sum(dtype=np.float64)) * self._energy.frame
        self._frames += len(energy) * self._energy.frame
        self._active += int(np.count_nonzero(energy >= self._threshold))

    def facts(self) -> LevelFacts:
        """Return the levels of everything fed so far."""
        rest = self._energy.rest.astype(np.float64)
        frames = self._frames + len(rest)
        mean = (self._sum + float(rest @ rest)) / frames if frames else 0.0
        return LevelFacts(_dbfs(self._peak**2), _dbfs(mean), round(self._active * self._energy.frame / self._rate, 2))


def one_sided(received: LevelFacts, sent: LevelFacts) -> bool:
    """Tell whether one side of the call was silent throughout while the other was not."""
    quiet, loud = sorted((received, sent), key=lambda facts: facts.active_seconds)
    return quiet.silent and loud.active_seconds >= ONE_SIDED_SECONDS


def _dbfs(square: float) -> float:
    if square <= 0:
        return LOWEST_DBFS
    return round(max(LOWEST_DBFS, 10 * math.log10(square / FULL_SCALE_SQUARED)), 1)
