"""Energy per 10 ms frame, by which silence, levels and activity are judged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]

FRAME_SECONDS = 0.01
FULL_SCALE_SQUARED = 32768.0**2


def frame_length(rate: int) -> int:
    """Return the samples in a 10 ms frame (at 11025 Hz: 110, that is 9.98 ms)."""
    return max(1, int(rate * FRAME_SECONDS))


def mean_square_at(dbfs: float) -> float:
    """Return the mean square of int16 samples at an RMS level.

    0 dBFS is an RMS of 32768; a full-scale sine has -3 dBFS.
    """
    return float(FULL_SCALE_SQUARED * 10.0 ** (dbfs / 10.0))


class FrameEnergy:
    """Mean squares of consecutive 10 ms frames, whatever the size of the blocks."""

    def __init__(self, rate: int) -> None:
        self.frame = frame_length(rate)
        self._rest: Samples = np.zeros(0, np.int16)

    @property
    def rest(self) -> Samples:
        """Samples of the frame that is not complete yet."""
        return self._rest

    def feed(self, block: Samples) -> NDArray[np.float32]:
        """Return the mean squares of the frames that this block completes.

        :param block: one channel
        """
        samples = np.concatenate((self._rest, block)) if len(self._rest) else block
        whole = len(samples) // self.frame * self.frame
        self._rest = samples[whole:].copy()
        frames = samples[:whole].astype(np.float32).reshape(-1, self.frame)
        energy: NDArray[np.float32] = np.einsum("ij,ij->i", frames, frames)
        energy /= self.frame
        return energy

    def skip(self, count: int) -> int:
        """Skip `count` samples unseen.

        :returns: how many frames are complete now; in a frame that is partly seen, the unseen samples count as zeros
        """
        total = len(self._rest) + count
        self._rest = np.zeros(total % self.frame, np.int16)
        return total // self.frame
