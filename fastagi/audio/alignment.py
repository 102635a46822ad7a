"""Alignment of a recording's two legs with its mixed file, by comparing their frames.

Newer Asterisks insert silence into the legs so that all three files run in step. Asterisk 16 does not: a leg on which
no frame flowed is simply shorter (seen on 16.28), and everything after the gap would be heard too early. MixMonitor
writes in frames of 20 ms, and each frame of the mixed file is bit for bit the saturating sum of a frame of each leg, or
a frame of one leg, or silence. So the mixed file tells where the frames of the legs belong. Equal frames can be
exchanged without an audible difference; that makes the first fit good enough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastagi.audio.mix import mix
from fastagi.audio.reader import BLOCK_FRAMES, Reader

Samples = NDArray[np.int16]

UNITS_PER_SECOND = 50

_FIRST_LOOK = 8
_MOST_UNITS = 512
"""Most units compared at once: 10 s. The number starts small and doubles as long as the units fit."""


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of the mixed recording, and where its frames are in the legs. All numbers are frames.

    :param start: in the mixed file; :param frames: its length
    :param received: offset in that leg, or None where it was silent; :param sent: the same
    :param mixed: the legs do not have it (a killed Asterisk): only the mixed file does
    """

    start: int
    frames: int
    received: int | None
    sent: int | None
    mixed: bool = False


def align(mixed: Reader, received: Reader, sent: Reader) -> list[Run] | None:
    """Return where in the mixed recording each frame of the legs belongs. Reads all three files once.

    A killed Asterisk may have flushed more of the legs than of the mixed file: these frames follow in step. Frames that
    only the mixed file has are marked.

    :returns: runs in order; None when the mixed file is not made of these legs
    """
    unit = mixed.rate // UNITS_PER_SECOND
    both = _Forward(mixed), _Forward(received), _Forward(sent)
    runs: list[Run] = []
    k = i = j = 0
    look = _FIRST_LOOK
    while k < mixed.frames:
        m = both[0].at(k, look * unit)
        r, s = both[1].at(i, look * unit), both[2].at(j, look * unit)
        found = _fit(m, r, s, unit)
        if found is None:
            if len(r) >= unit and len(s) >= unit:
                return None
            runs.append(Run(k, mixed.frames - k, None, None, mixed=True))
            k = mixed.frames
            i, j = received.frames, sent.frames
            break
        frames, with_received, with_sent = found
        runs.append(Run(k, frames, i if with_received else None, j if with_sent else None))
        k += frames
        i = min(received.frames, i + frames) if with_received else i
        j = min(sent.frames, j + frames) if with_sent else j
        look = min(_MOST_UNITS, 2 * look) if frames == len(m) else _FIRST_LOOK
    tail = max(received.frames - i, sent.frames - j)
    if tail > 0:
        runs.append(Run(k, tail, i if i < received.frames else None, j if j < sent.frames else None))
    return _joined(runs)


def _fit(m: Samples, r: Samples, s: Samples, unit: int) -> tuple[int, bool, bool] | None:
    """Return how many frames of `m` the legs explain, and which legs. Both are tried first: silence fits anywhere."""
    if len(r) and len(s):
        count = _prefix(m, mix(r, s)[: min(len(r), len(s))], unit)
        if count:
            return count, True, True
    for leg, with_received in ((s, False), (r, True)):
        count = _prefix(m, leg, unit)
        if count:
            return count, with_received, not with_received
    count = _prefix(m, np.zeros(len(m), np.int16), unit)
    return (count, False, False) if count else None


def _prefix(m: Samples, other: Samples, unit: int) -> int:
    """Return how many samples at the front are equal, in whole units (the last unit of a file may be shorter)."""
    count = min(len(m), len(other))
    same = m[:count] == other[:count]
    first = count if same.all() else int(np.argmin(same))
    if first == count and count == len(m):
        return count
    return first // unit * unit


def _joined(runs: list[Run]) -> list[Run]:
    joined: list[Run] = []
    for run in runs:
        last = joined[-1] if joined else None
        if last is not None and _follows(last, run):
            joined[-1] = Run(last.start, last.frames + run.frames, last.received, last.sent, last.mixed)
        else:
            joined.append(run)
    return joined


def _follows(last: Run, run: Run) -> bool:
    def goes_on(before: int | None, now: int | None) -> bool:
        return now is None if before is None else now == before + last.frames

    return last.mixed == run.mixed and goes_on(last.received, run.received) and goes_on(last.sent, run.sent)


class _Forward:
    """A file read forwards in large blocks, looked at in small ones."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._block: Samples = np.zeros(0, np.int16)
        self._start = 0

    def at(self, position: int, count: int) -> Samples:
        """Return up to `count` samples from `position`, which never goes back; fewer at the end of the file."""
        while position + count > self._start + len(self._block):
            more = self._reader.read(BLOCK_FRAMES)
            if len(more) == 0:
                break
            self._block = np.concatenate((self._block[position - self._start :], more))
            self._start = position
        return self._block[position - self._start : position - self._start + count]
