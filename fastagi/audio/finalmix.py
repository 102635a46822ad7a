"""Audio of a finished file before it is resampled: legs mixed or side by side, digits removed, nothing clipped.

Asterisk's own mix is the sum of the legs, bit for bit. It is used as it is unless the legs may have clipped in it; then
both legs, if they are there, are mixed again and limited.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
from numpy.typing import NDArray

from fastagi.audio.elimination import eliminate
from fastagi.audio.limiter import Limiter, at_full_scale
from fastagi.audio.mix import add, interleave, mix
from fastagi.audio.timeline import Timeline

Samples = NDArray[np.int16]
Spans = list[tuple[int, int]]
Blocks = Generator[tuple[Samples, NDArray[np.bool_]], None, None]
"""Blocks, each with a mask of its clipped samples; where the legs are mixed here, of those that would have clipped."""


def raw_mix(line: Timeline, parts: Spans) -> Iterator[tuple[int, Samples]]:
    """Yield the mixed recording as Asterisk wrote it, or would have written it: (frame, block)."""
    if not line.own_mix:
        yield from line.blocks("mixed", parts)
        return
    for (at, left), (_, right) in zip(line.blocks("left", parts), line.blocks("right", parts), strict=True):
        yield at, mix(left, right)


def as_mixed_by_asterisk(line: Timeline, keep: Spans) -> Blocks:
    """Yield the mixed recording as it is."""
    for _, block in line.blocks("mixed", keep):
        yield block, at_full_scale(block)


def limited(line: Timeline, keep: Spans, left_digits: Spans, right_digits: Spans) -> Blocks:
    """Yield the sum of the legs, limited."""
    limiter = Limiter(line.rate)
    for left, right in _legs(line, keep, left_digits, right_digits):
        yield limiter.feed(add(left, right))
    yield limiter.finish()


def separate(line: Timeline, keep: Spans, left_digits: Spans, right_digits: Spans) -> Blocks:
    """Yield both legs side by side."""
    for left, right in _legs(line, keep, left_digits, right_digits):
        both = interleave(left, right)
        yield both, at_full_scale(both)


def _legs(line: Timeline, keep: Spans, left_digits: Spans, right_digits: Spans) -> Iterator[tuple[Samples, Samples]]:
    legs = zip(line.blocks("left", keep), line.blocks("right", keep), strict=True)
    for (at, left), (_, right) in legs:
        yield eliminate(left, at, left_digits), eliminate(right, at, right_digits)
