"""Limiter: makes the sum of two legs quieter where it would clip, and leaves it alone elsewhere.

The gain is 1 everywhere but near samples that would clip. There it sinks and rises again along a Hann curve, so that
neither a click nor a flattened wave is heard. One gain per millisecond; samples in between are interpolated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]
Sums = NDArray[np.int32]
Floats = NDArray[np.float64]

FULL_SCALE = 32767
"""Least absolute value of a clipped sample."""

SLOPE = 10
"""Hops (ms) by which the gain curve is smoothed to each side."""

REACH = 2 * SLOPE + 1
"""Hops before and after a loud one whose gain it changes."""

FARTHEST_HOPS = REACH + 2
"""Hops (23 ms) around a clipping sample; samples further away from all of them come out bit for bit."""

_HANN: Floats = np.hanning(2 * SLOPE + 3)[1:-1] / np.hanning(2 * SLOPE + 3)[1:-1].sum()


def at_full_scale(samples: NDArray[np.signedinteger]) -> NDArray[np.bool_]:
    """Return which samples are clipped, or would be."""
    return (samples >= FULL_SCALE) | (samples <= -FULL_SCALE)


class Limiter:
    """Limit one stream of sums. The result does not depend on the block size.

    :param rate: Hz
    """

    def __init__(self, rate: int) -> None:
        self._hop = max(1, rate // 1000)
        self._past: Floats = np.ones(REACH)
        self._sums: Sums = np.zeros(0, np.int32)

    def feed(self, sums: Sums) -> tuple[Samples, NDArray[np.bool_]]:
        """Add sums.

        :returns: the samples that are ready (22 ms behind), and a mask of those whose sum was `at_full_scale`
        """
        self._sums = np.concatenate((self._sums, sums)) if len(self._sums) else sums
        return self._emit(len(self._sums) // self._hop - REACH - 1)

    def finish(self) -> tuple[Samples, NDArray[np.bool_]]:
        """Return the rest. Call it once, after the last block."""
        left = len(self._sums)
        silence = np.zeros((REACH + 2) * self._hop, np.int32)
        self._sums = np.concatenate((self._sums, silence))
        out, peaks = self._emit(-(-left // self._hop))
        return out[:left], peaks[:left]

    def _emit(self, hops: int) -> tuple[Samples, NDArray[np.bool_]]:
        if hops <= 0:
            return np.zeros(0, np.int16), np.zeros(0, np.bool_)
        end = hops * self._hop
        sums = self._sums[:end]
        wanted = np.concatenate((self._past, self._wanted(hops + REACH + 1)))
        self._sums = self._sums[end:]
        self._past = wanted[hops : hops + REACH]
        if (wanted == 1).all():
            return sums.astype(np.int16), at_full_scale(sums)
        lowest = np.lib.stride_tricks.sliding_window_view(wanted, 2 * SLOPE + 3).min(axis=1)
        nodes = np.zeros(hops + 1)
        for tap, weight in enumerate(_HANN):  # in this order whatever the block: sums of floats depend on it
            nodes += weight * lowest[tap : tap + hops + 1]
        share = np.arange(self._hop) / self._hop
        gain = nodes[:-1, None] + (nodes[1:] - nodes[:-1])[:, None] * share
        out = np.rint(sums * gain.reshape(-1))
        return np.clip(out, -32768, FULL_SCALE).astype(np.int16), at_full_scale(sums)

    def _wanted(self, hops: int) -> Floats:
        """Return the gain that each of the first `hops` hops needs."""
        block = self._sums[: hops * self._hop].reshape(-1, self._hop)
        high, low = block.max(axis=1), block.min(axis=1)
        beyond = (high > FULL_SCALE) | (low < -FULL_SCALE - 1)
        wanted = np.ones(hops)
        wanted[beyond] = FULL_SCALE / np.maximum(high, -low)[beyond]
        return wanted
