"""Mixing of two legs into one recording: summed as Asterisk sums them, or side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]


def mix(received: Samples, sent: Samples) -> Samples:
    """Return the saturating sum of two legs; the shorter one is continued with silence.

    The rule is Asterisk's `ast_slinear_saturated_add`, which MixMonitor mixes with.
    """
    out = add(received, sent)
    np.clip(out, -32768, 32767, out=out)
    return out.astype(np.int16)


def add(received: Samples, sent: Samples) -> NDArray[np.int32]:
    """Return the sum of two legs, which may be beyond int16; the shorter one is continued with silence."""
    long, short = (received, sent) if len(received) >= len(sent) else (sent, received)
    out = long.astype(np.int32)
    out[: len(short)] += short
    return out


def interleave(left: Samples, right: Samples) -> Samples:
    """Return left and right side by side, (frames, 2); the shorter one is continued with silence."""
    out = np.zeros((max(len(left), len(right)), 2), np.int16)
    out[: len(left), 0] = left
    out[: len(right), 1] = right
    return out
