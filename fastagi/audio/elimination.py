"""Removal of digits from a leg: comfort noise replaces the spans that `dtmf` found."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from fastagi.audio.digits import Digit

Samples = NDArray[np.int16]

NOISE_DBFS = -60.0


def spans(digits: list[Digit]) -> list[tuple[int, int]]:
    """Return the spans of samples to remove, in order, overlapping ones joined; `eliminate` takes them."""
    joined: list[tuple[int, int]] = []
    for digit in digits:
        if joined and digit.start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], digit.end))
        else:
            joined.append((digit.start, digit.end))
    return joined


def eliminate(block: Samples, start: int, ranges: list[tuple[int, int]]) -> Samples:
    """Return `block` with comfort noise in `ranges` and the rest untouched. The block begins at sample `start` of its
    leg.

    The noise depends on the position only, so the block size does not matter.
    """
    out = block
    for first, last in ranges[bisect_right(ranges, start, key=lambda span: span[1]) :]:
        low, high = max(first - start, 0), min(last - start, len(block))
        if low >= high:
            break
        if out is block:
            out = block.copy()
        out[low:high] = np.take(_NOISE, np.arange(start + low, start + high), mode="wrap")
    return out


_NOISE: Samples = np.rint(np.random.default_rng(4733).normal(0, 32768 * 10 ** (NOISE_DBFS / 20), 1 << 14)).astype(
    np.int16
)
