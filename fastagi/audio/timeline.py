"""One recording out of Asterisk's pieces: each role (mixed, left, right) as one stream from start to end.

Decides which file stands for which role when some are missing or broken; never changes a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastagi.audio import wavfile
from fastagi.audio.plan import RawPiece, RenderPlan
from fastagi.audio.reader import BLOCK_FRAMES, Reader, open_reader
from fastagi.errors import AudioError, DiskFull

Samples = NDArray[np.int16]

LONGEST_GAP_SECONDS = 3600.0
"""Silence put between two pieces at most: a clock that jumped must not fill the disk."""


@dataclass(slots=True)
class Segment:
    """One piece on the time line. A role without a path is silence.

    :param start: frame at which it begins; :param frames: its length
    :param paths: role -> file
    """

    start: int
    frames: int
    paths: dict[str, str]


@dataclass(slots=True)
class Timeline:
    """The recording as it was made.

    :param rate: Hz of every stream; :param frames: its whole length
    :param legs: the roles ``left`` and ``right`` are the two legs, at least in one piece
    :param own_mix: there is no usable mixed file for some piece: the legs must be mixed here
    :param salvaged: a header had to be mended
    """

    rate: int
    segments: list[Segment] = field(default_factory=list)
    frames: int = 0
    legs: bool = False
    own_mix: bool = False
    salvaged: bool = False
    warnings: list[str] = field(default_factory=list)

    def blocks(self, role: str, parts: list[tuple[int, int]]) -> Iterator[tuple[int, Samples]]:
        """The samples of one role in the given frame ranges, as (frame, block), in order."""
        with _Stream(self, role) as stream:
            for start, end in parts:
                at = start
                while at < end:
                    count = min(BLOCK_FRAMES, end - at)
                    yield at, stream.read(at, count)
                    at += count


def lay_out(plan: RenderPlan) -> Timeline:
    """Look at every raw file, mend what nobody closed, and put the pieces in order.

    :raises AudioError: a piece of which no file can be read (says which and why)
    :raises DiskFull: a header could not be mended
    """
    line = Timeline(plan.raw_rate)
    wants_legs = plan.mode == "separate" or plan.dtmf_elim
    for number, piece in enumerate(plan.pieces, 1):
        where = f"piece {number}: " if len(plan.pieces) > 1 else ""
        lengths, faults = _measure(line, piece)
        if not lengths:
            raise AudioError(f"nothing to make {plan.target} from: " + ("; ".join(faults) or "no raw file was named"))
        line.warnings += [f"{where}{fault}" for fault in faults]
        frames = max(lengths.values())
        both = "received" in lengths and "sent" in lengths
        paths: dict[str, str] = {}
        mixed = piece.mixed if "mixed" in lengths else ""
        if both:
            paths["left"], paths["right"] = piece.received, piece.sent
            line.legs = True
        elif mixed:
            if wants_legs:
                line.warnings.append(f"{where}{_fallback(plan.mode, lengths)}")
            paths["left"] = mixed
            if plan.mode == "separate":
                paths["left"] = piece.received if "received" in lengths else mixed
                paths["right"] = piece.sent if "sent" in lengths else mixed
        else:
            only = "received" if "received" in lengths else "sent"
            line.warnings.append(f"{where}only the {only} side could be read; the other is silence")
            paths["left" if only == "received" else "right"] = piece.received or piece.sent
        if mixed and not (both and lengths["mixed"] < frames):
            paths["mixed"] = mixed
        else:
            line.own_mix = True  # a killed Asterisk flushed more of the legs than of the mix: keep the longest
        if plan.mode == "mixed" and not both and mixed:
            frames = lengths["mixed"]
        start = line.frames
        if piece.offset_seconds is not None and number > 1:
            gap = piece.offset_seconds - start / line.rate
            if gap > LONGEST_GAP_SECONDS:
                line.warnings.append(
                    f"{where}it began {gap:.0f} s after the piece before; {LONGEST_GAP_SECONDS:.0f} kept"
                )
            start += max(0, round(min(gap, LONGEST_GAP_SECONDS) * line.rate))
        line.segments.append(Segment(start, frames, paths))
        line.frames = start + frames
    return line


def _fallback(mode: str, lengths: dict[str, int]) -> str:
    if mode == "mixed":
        return "the two legs are not there: digits are taken out of the mixed recording"
    missing = [side for side in ("received", "sent") if side not in lengths]
    return f"the {' and the '.join(missing)} leg is not there: the mixed recording stands for it"


def _measure(line: Timeline, piece: RawPiece) -> tuple[dict[str, int], list[str]]:
    """Length of each readable file of a piece by role, and what is wrong with the others."""
    lengths: dict[str, int] = {}
    faults: list[str] = []
    for role in ("mixed", "received", "sent"):
        path: str = getattr(piece, role)
        if not path:
            continue
        try:
            _mend(line, path)
            reader = open_reader(path, line.rate)
            try:
                if reader.channels != 1:
                    raise AudioError(f"{path}: has {reader.channels} channels, a raw recording has one")
                line.rate = reader.rate
                lengths[role] = reader.frames
            finally:
                reader.close()
        except DiskFull:
            raise
        except AudioError as exc:
            faults.append(str(exc))
    return lengths, faults


def _mend(line: Timeline, path: str) -> None:
    try:
        info = wavfile.inspect(path)
    except AudioError:
        return  # not a WAV file: `open_reader` knows whether it is anything else
    if info.complete:
        return
    line.salvaged = line.salvaged or info.frames > 0
    try:
        wavfile.repair(path)
    except DiskFull:
        raise
    except AudioError as exc:
        line.warnings.append(str(exc))  # Asterisk's files may be read-only for us; they are read by their true length


class _Stream:
    """One role, read forwards."""

    def __init__(self, line: Timeline, role: str) -> None:
        self._line = line
        self._role = role
        self._current: Segment | None = None
        self._reader: Reader | None = None
        self._at = 0  # frame of the next sample of the open reader, on the time line

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def read(self, start: int, count: int) -> Samples:
        """`count` samples from frame `start`; silence where there is no file."""
        out: Samples | None = None
        for segment in self._line.segments:
            low, high = max(start, segment.start), min(start + count, segment.start + segment.frames)
            path = segment.paths.get(self._role)
            if low >= high or not path:
                continue
            if self._current is not segment:
                self._close()
                self._reader = open_reader(path, self._line.rate)
                self._current, self._at = segment, segment.start
            assert self._reader is not None
            if low > self._at:
                self._reader.skip(low - self._at)
            got = self._reader.read(high - low)
            self._at = low + len(got)
            if len(got) == count:
                return got
            if out is None:
                out = np.zeros(count, np.int16)
            out[low - start : low - start + len(got)] = got
        return np.zeros(count, np.int16) if out is None else out

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = self._current = None
