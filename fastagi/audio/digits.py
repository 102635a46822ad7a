"""Runs of frames and the digits made from them: the rules of `dtmf`, without the sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Digit:
    """One digit: samples `start` to `end` are to be removed."""

    start: int
    end: int
    symbol: str


@dataclass(frozen=True, slots=True)
class Faint:
    """Conditions under which a run of faint frames is a digit under a voice.

    A voice's harmonics glide, a digit's tones do not. Most frames of a digit are at the same two frequencies, within a
    few Hz, though the voice shifts single frames.

    :param frames: so many frames must be within `hertz` of the run's median, both tones; :param ratio: energy in the
        two tones against all, the mean of these frames; :param margin_db: by how much the tones stand out, their mean
    """

    hertz: float
    frames: int
    ratio: float
    margin_db: float

    def fits(self, deviation: NDArray[np.floating], ratio: NDArray[np.floating], margin: NDArray[np.floating]) -> bool:
        steady = deviation <= self.hertz
        return (
            int(np.count_nonzero(steady)) >= self.frames
            and float(ratio[steady].mean()) >= self.ratio
            and float(margin[steady].mean()) >= self.margin_db
        )


FAINT_ALONE = (Faint(1.5, 9, 0.45, 10.0), Faint(2.5, 10, 0.50, 12.0))
FAINT_NEAR = (Faint(4.0, 3, 0.30, 6.0), Faint(6.0, 5, 0.30, 6.0))
"""Conditions of which one suffices; measured by `benchmarks/audio/digits.py`."""


def runs_of(codes: NDArray[np.int8]) -> list[tuple[int, int]]:
    """Return the runs of equal digit frames as (first, end): `end` is the frame after the last one."""
    edges = np.flatnonzero(np.diff(codes)) + 1
    starts = np.concatenate(([0], edges))
    ends = np.concatenate((edges, [len(codes)]))
    digits = codes[starts] >= 0
    return list(zip(starts[digits].tolist(), ends[digits].tolist(), strict=True))


def in_order(digits: list[Digit]) -> list[Digit]:
    """Return the digits by start. Overlapping digits of one symbol are joined: they are one digit with a hole in it."""
    found: list[Digit] = []
    for digit in sorted(digits, key=lambda d: (d.start, d.end)):
        if digit.end <= digit.start:
            continue
        before = found[-1] if found else None
        if before is not None and before.symbol == digit.symbol and digit.start <= before.end:
            found[-1] = Digit(before.start, max(digit.end, before.end), digit.symbol)
        else:
            found.append(digit)
    return found


def with_faint(sure: list[Digit], faint: list[Digit]) -> list[Digit]:
    """Return all digits by start. A faint digit that overlaps a certain one only makes the certain one longer."""
    marks = [*((digit, True) for digit in sure), *((digit, False) for digit in faint)]
    found: list[tuple[Digit, bool]] = []
    for digit, certain in sorted(marks, key=lambda mark: (mark[0].start, mark[0].end)):
        before, known = found[-1] if found else (digit, True)
        if found and digit.start <= before.end and not (certain and known):
            symbol = digit.symbol if certain else before.symbol
            found[-1] = Digit(before.start, max(before.end, digit.end), symbol), certain or known
        else:
            found.append((digit, certain))
    return [digit for digit, _ in found]
