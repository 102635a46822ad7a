"""Time line of a recording: its segments in order, each role (mixed, left, right) as one stream from start to end.

Decides which file serves which role when some are missing, broken or out of step; never changes a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastagi.audio import wavfile
from fastagi.audio.alignment import Run, align
from fastagi.audio.plan import RawPiece, RenderPlan
from fastagi.audio.reader import BLOCK_FRAMES, Reader, open_reader
from fastagi.errors import AudioError, DiskFull

Samples = NDArray[np.int16]

LONGEST_GAP_SECONDS = 3600.0
"""Longest silence between two segments, or after the last: a clock that jumped must not fill the disk."""


@dataclass(frozen=True, slots=True)
class Part:
    """Stretch of a role that a file holds; a role without a part is silent.

    :param start: frame on the time line; :param frames: length; :param path: the file; :param offset: frame in it
    """

    start: int
    frames: int
    path: str
    offset: int = 0


@dataclass(slots=True)
class Timeline:
    """Recording laid out from its start to its end.

    :param rate: Hz of every stream; :param frames: length of the recording
    :param parts: parts of each role (``mixed``, ``left``, ``right``) in order
    :param pieces: number of segments
    :param legs: ``left`` and ``right`` are the two legs, at least in one segment
    :param own_mix: some segment has no usable mixed file: the legs must be mixed here
    :param salvaged: a header had to be mended
    :param gaps: spans without a recording between two segments or after the last, as (start, end) in frames
    """

    rate: int
    frames: int = 0
    parts: dict[str, list[Part]] = field(default_factory=lambda: {"mixed": [], "left": [], "right": []})
    pieces: int = 0
    legs: bool = False
    own_mix: bool = False
    salvaged: bool = False
    gaps: list[tuple[int, int]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def blocks(self, role: str, ranges: list[tuple[int, int]]) -> Iterator[tuple[int, Samples]]:
        """Yield the samples of one role in the given frame ranges, as (frame, block), in order."""
        with _Stream(self.parts[role], self.rate) as stream:
            for start, end in ranges:
                at = start
                while at < end:
                    count = min(BLOCK_FRAMES, end - at)
                    yield at, stream.read(at, count)
                    at += count


def lay_out(plan: RenderPlan) -> Timeline:
    """Examine every raw file, mend unfinished headers, and put the segments in order.

    :raises AudioError: no file of some segment can be read (the text names the files and the reasons)
    :raises DiskFull: a header could not be mended
    """
    line = Timeline(plan.raw_rate)
    for number, piece in enumerate(plan.pieces, 1):
        where = f"piece {number}: " if len(plan.pieces) > 1 else ""
        lengths, faults = _measure(line, piece)
        if not lengths:
            raise AudioError(f"nothing to make {plan.target} from: " + ("; ".join(faults) or "no raw file was named"))
        line.warnings += [where + fault for fault in faults]
        if number > 1:
            offset = piece.offset_seconds
            gap = piece.gap_seconds if offset is None else offset - line.frames / line.rate
            _leave_a_gap(line, gap, f"{where}it began {gap:.0f} s after the piece before")
        line.pieces += 1
        if "received" in lengths and "sent" in lengths:
            _place_legs(plan, line, piece, lengths, where)
        else:
            _place_without_leg(plan, line, piece, lengths, where)
    tail = min(plan.tail_seconds, plan.most_seconds - line.frames / line.rate)
    _leave_a_gap(line, tail, f"the last piece ended {tail:.0f} s before the recording")
    return line


def _leave_a_gap(line: Timeline, gap: float, what: str) -> None:
    """Add a gap to the time line, shortened to the longest one allowed.

    :param gap: seconds; :param what: name of the gap in the warning when it is too long
    """
    if gap > LONGEST_GAP_SECONDS:
        line.warnings.append(f"{what}; {LONGEST_GAP_SECONDS:.0f} s of silence are kept")
    frames = max(0, round(min(gap, LONGEST_GAP_SECONDS) * line.rate))
    if frames:
        line.gaps.append((line.frames, line.frames + frames))
        line.frames += frames


def _place_legs(plan: RenderPlan, line: Timeline, piece: RawPiece, lengths: dict[str, int], where: str) -> None:
    """Place a segment that has both legs, with or without the mixed file."""
    start = line.frames
    longest = max(lengths.values())
    wants_legs = plan.mode == "separate" or plan.dtmf_elim
    if "mixed" in lengths and len(set(lengths.values())) > 1:
        runs = _in_step(line, piece)
        if runs is not None:
            line.legs = True
            for run in runs:
                _place_run(line, piece, start, run)
            line.frames = start + (runs[-1].start + runs[-1].frames if runs else 0)
            line.parts["mixed"].append(Part(start, lengths["mixed"], piece.mixed))
            line.own_mix = line.own_mix or line.frames > start + lengths["mixed"]
            return
        if plan.mode == "mixed":
            if wants_legs:
                line.warnings.append(f"{where}the legs are not in step: digits are taken out of the mixed recording")
            _place(line, ("mixed", "left"), piece.mixed, lengths["mixed"])
            return
        line.warnings.append(f"{where}the legs are not in step with each other")
    line.legs = True
    _place(line, ("left",), piece.received, lengths["received"], start)
    _place(line, ("right",), piece.sent, lengths["sent"], start)
    if "mixed" in lengths:
        _place(line, ("mixed",), piece.mixed, lengths["mixed"], start)
    else:
        line.own_mix = True
    line.frames = start + longest


def _place_run(line: Timeline, piece: RawPiece, start: int, run: Run) -> None:
    if run.mixed:
        line.parts["left"].append(Part(start + run.start, run.frames, piece.mixed, run.start))
    if run.received is not None:
        line.parts["left"].append(Part(start + run.start, run.frames, piece.received, run.received))
    if run.sent is not None:
        line.parts["right"].append(Part(start + run.start, run.frames, piece.sent, run.sent))


def _place_without_leg(plan: RenderPlan, line: Timeline, piece: RawPiece, lengths: dict[str, int], where: str) -> None:
    """Place a segment without one of its legs. No audio is lost, even if the sides cannot be told apart."""
    start = line.frames
    side = "received" if "received" in lengths else "sent"
    role = "left" if side == "received" else "right"
    path: str = getattr(piece, side)
    if "mixed" not in lengths:
        line.warnings.append(f"{where}only the {side} side could be read; the other is silence")
        line.own_mix = True
        _place(line, (role,), path, lengths[side])
        return
    if plan.mode == "mixed":
        if plan.dtmf_elim:
            line.warnings.append(f"{where}the two legs are not there: digits are taken out of the mixed recording")
        _place(line, ("mixed", "left"), piece.mixed, lengths["mixed"])
        return
    if side in lengths:
        other, missing = ("right", "sent") if role == "left" else ("left", "received")
        line.warnings.append(f"{where}the {missing} leg is not there: the mixed recording stands for it")
        _place(line, (role,), path, lengths[side], start)
        _place(line, ("mixed", other), piece.mixed, lengths["mixed"], start)
        line.frames = start + max(lengths.values())
        return
    line.warnings.append(f"{where}the two legs are not there: the mixed recording stands for both")
    _place(line, ("mixed", "left", "right"), piece.mixed, lengths["mixed"])


def _place(line: Timeline, roles: tuple[str, ...], path: str, frames: int, start: int | None = None) -> None:
    """Place a whole file for these roles; without `start` it is appended to the time line."""
    at = line.frames if start is None else start
    for role in roles:
        line.parts[role].append(Part(at, frames, path))
    if start is None:
        line.frames = at + frames


def _in_step(line: Timeline, piece: RawPiece) -> list[Run] | None:
    readers: list[Reader] = []
    try:
        for path in (piece.mixed, piece.received, piece.sent):
            readers.append(open_reader(path))
            if readers[-1].rate != line.rate:
                return None  # converted samples are not bit-exact
        return align(readers[0], readers[1], readers[2])
    finally:
        for reader in readers:
            reader.close()


def _measure(line: Timeline, piece: RawPiece) -> tuple[dict[str, int], list[str]]:
    """Return the length of each readable file of a segment by role, and the faults of the others."""
    lengths: dict[str, int] = {}
    faults: list[str] = []
    for role in ("mixed", "received", "sent"):
        path: str = getattr(piece, role)
        if not path:
            continue
        try:
            reader = _open(line, path)
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


def _open(line: Timeline, path: str) -> Reader:
    """Open the file; an unfinished header is mended first."""
    try:
        reader = open_reader(path, line.rate)
    except AudioError:
        _mend(line, path)
    else:
        if reader.complete:
            return reader
        reader.close()
        _mend(line, path)
    return open_reader(path, line.rate)


def _mend(line: Timeline, path: str) -> None:
    try:
        info = wavfile.inspect(path)
    except AudioError:
        return  # not a WAV file: `open_reader` decides whether the file is audio at all
    if info.complete:
        return
    line.salvaged = line.salvaged or info.frames > 0
    try:
        wavfile.repair(path)
    except DiskFull:
        raise
    except AudioError:
        return  # Asterisk left the file read-only: reading goes by its true length, so nothing is lost


class _Stream:
    """Stream of one role, read forwards."""

    def __init__(self, parts: list[Part], rate: int) -> None:
        self._parts = parts
        self._rate = rate
        self._next = 0
        self._path = ""
        self._reader: Reader | None = None
        self._at = 0  # frame in the open file

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def read(self, start: int, count: int) -> Samples:
        """Return `count` samples from frame `start`; silence where there is no file."""
        while self._next < len(self._parts) and self._parts[self._next].start + self._parts[self._next].frames <= start:
            self._next += 1
        out: Samples | None = None
        for index in range(self._next, len(self._parts)):
            part = self._parts[index]
            low, high = max(start, part.start), min(start + count, part.start + part.frames)
            if low >= start + count:
                break
            got = self._fetch(part.path, part.offset + low - part.start, high - low)
            if len(got) == count:
                return got
            if out is None:
                out = np.zeros(count, np.int16)
            out[low - start : low - start + len(got)] = got
        return np.zeros(count, np.int16) if out is None else out

    def _fetch(self, path: str, position: int, count: int) -> Samples:
        if self._reader is None or path != self._path or position < self._at:
            self._close()
            self._reader = open_reader(path, self._rate)
            self._path, self._at = path, 0
        if position > self._at:
            self._reader.skip(position - self._at)
        got = self._reader.read(count)
        self._at = position + len(got)
        return got

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None
