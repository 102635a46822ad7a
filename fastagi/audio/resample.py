"""Conversion of sample rates, streaming, with soxr's HQ recipe (flat to 3.4 kHz, residue below -80 dB)."""

from __future__ import annotations

from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.int16]


def resampled_length(frames: int, from_rate: int, to_rate: int) -> int:
    """Return exactly how many samples come out of `frames`: `frames * to_rate / from_rate`, rounded half up."""
    return (2 * frames * to_rate + from_rate) // (2 * from_rate)


class Resampler:
    """Convert one stream from `from_rate` to `to_rate` (Hz). Equal rates pass samples through untouched.

    The total is exactly `resampled_length` of the samples fed, at any block size.
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int = 1) -> None:
        self.from_rate = from_rate
        self.to_rate = to_rate
        self._channels = channels
        self._fed = 0
        self._given = 0
        self._stream: Any = None
        if from_rate != to_rate:
            self._stream = soxr.ResampleStream(from_rate, to_rate, channels, dtype="int16", quality="HQ")

    def feed(self, block: Samples) -> Samples:
        """Return the samples that are ready after this block; samples lag behind by the filter's length."""
        self._fed += len(block)
        if self._stream is None:
            return block
        out: Samples = self._stream.resample_chunk(np.ascontiguousarray(block))
        self._given += len(out)
        return out

    def finish(self) -> Samples:
        """Return the rest. Call it once, after the last block."""
        shape = (0,) if self._channels == 1 else (0, self._channels)
        empty: Samples = np.zeros(shape, np.int16)
        if self._stream is None or self._fed == 0:
            return empty
        out: Samples = self._stream.resample_chunk(empty, last=True)
        missing = resampled_length(self._fed, self.from_rate, self.to_rate) - self._given - len(out)
        if missing < 0:
            out = out[: len(out) + missing]
        elif missing > 0:
            out = np.concatenate((out, np.zeros((missing, *shape[1:]), np.int16)))
        self._given += len(out)
        return out
