"""Detection of DTMF digits in one leg of a call; `elimination` removes them.

Streaming, numpy only. The scan first looks at every third 25 ms frame, and only at loud ones. A digit fills three
frames in a row, so each digit has such a frame. Around a frame that may be a digit, every frame is examined. The result
is the spans and their number. Which digits were dialled stays inside (`Digit.symbol` is for tests) and is never stored:
digits are card numbers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
from numpy.typing import NDArray

from fastagi.audio.digits import FAINT_ALONE, FAINT_NEAR, Digit, in_order, runs_of, with_faint

Samples = NDArray[np.int16]
Floats = NDArray[np.float32]

ROWS = (697.0, 770.0, 852.0, 941.0)
COLUMNS = (1209.0, 1336.0, 1477.0, 1633.0)
SYMBOLS = "123A456B789C*0#D"

HOPS_PER_SECOND = 200
HOPS_PER_FRAME = 5
"""Hops in a frame: Hann frames of 25 ms, one every 5 ms."""

SHORTEST = 3
"""Frames in a row that must show the same digit: 35 ms of tone."""

STRIDE = SHORTEST
"""Step of the first look in frames. A digit is at least as long, so each digit has a frame that is looked at."""

SMALLEST_RATIO = 0.70
"""Least share of the two tones in all energy, in each frame of a digit."""

STRONG_RATIO = 0.85
"""Least share in at least two frames of a digit."""

FIRST_RATIO = 0.35
"""Least share in the first look, where a tone that is off by 1.8 % is not corrected for the window's slope yet."""

WEAK_RATIO = 0.30
"""Least share in the frames before and after a digit that still belong to the digit."""

LOUDEST_TWIST_DB = 12.0
SELECTIVITY_DB = 6.0
LOWEST_DBM0 = -40.0
FARTHEST = 0.023
"""Largest deviation of a tone, as a share of its frequency (the standard: accept 1.5 %, refuse 3.5 %)."""

GLIDING_HZ = 3.0
DRIFTING_HZ = 8.0
"""Largest glide per frame, and largest drift, of a digit's tones; a run beyond them is a voice. Harmonics of a voice
can be in tune for a while, but both glide at once. In 115,200 digits (40 to 100 ms, down to -30 dBm0, 10 dB above
noise, 1.5 % off) the tones never moved by more than 6.5 Hz together between the first and the last strong frame, nor by
more than 2.7 Hz per frame."""

CROWDED_HZ = 1.0
CROWDED_DB = 12.0
"""A smaller glide is a voice, too, if its tones stand out from their neighbours by less than this. Harmonics of a high
voice have a neighbour at -7 to -11 dB; a digit's neighbours are at -12.7 dB or less, even off frequency or in noise."""

FAINT_DB = 3.0
FAINT_TWIST_DB = 14.0
"""Largest twist in a frame of a digit under a voice, beside `WEAK_RATIO`: see `Faint`."""

NEAR_SECONDS = 3.0
NEAR_DB = 3.5
"""Largest difference in level to a certain digit nearby. Digits come in strings from one sender: near a certain digit
of the same level, a faint one needs less."""

MOST_MAYBE = 10_000
"""Most faint digits remembered that have no certain one near them; speech has some ten in an hour."""

WIDEST = 6
"""Most frames by which a digit grows at each end: with 5 the whole onset of a 25 ms frame is seen."""

GUARD_SECONDS = 0.010

_FULL_DBM0 = 3.14
"""Level of a full-scale sine in dBm0 (ITU-T G.711, A-law)."""

_MARGIN = 12  # hops before and after a chunk that are looked at again; a multiple of STRIDE, at least WIDEST + STRIDE
_CHUNK = 2400  # hops in a chunk: 12 s, 400 kB of float32
_TIE = 1e-12
_SELECTIVITY = 10 ** (SELECTIVITY_DB / 10)


class DtmfScanner:
    """Find the digits in one channel. The result does not depend on the block size.

    :param rate: Hz, a multiple of 200 (Asterisk's 8000 and 16000 are)
    """

    def __init__(self, rate: int) -> None:
        if rate <= 0 or rate % HOPS_PER_SECOND:
            raise ValueError(f"rate={rate} must be a multiple of {HOPS_PER_SECOND} Hz")
        self.rate = rate
        self._hop = rate // HOPS_PER_SECOND
        self._frame = self._hop * HOPS_PER_FRAME
        window = np.hanning(self._frame + 2)[1:-1]
        time = np.arange(self._frame) / rate
        tones = np.array(ROWS + COLUMNS)
        turn = 2 * np.pi * np.outer(time, tones)
        self._basis: Floats = (window[:, None] * np.hstack((np.cos(turn), -np.sin(turn)))).astype(np.float32)
        self._window_squared: Floats = (window**2).astype(np.float32)
        # tone power from |X|^2: a sine of amplitude A has |X| = A/2 * sum(w), and windowed energy A^2/2 * sum(w^2)
        self._share = float(2 * (window**2).sum() / window.sum() ** 2)
        peak = 32256 * 10 ** ((LOWEST_DBM0 - _FULL_DBM0) / 20)
        self._floor = float(peak**2 / 2 * (window**2).sum())
        self._advance = 2 * np.pi * tones / HOPS_PER_SECOND
        self._tones = tones
        self._buffer: list[Samples] = [np.zeros(_MARGIN * self._hop, np.int16)]
        self._held = _MARGIN * self._hop
        self._base = 0  # frame index at which the next chunk begins
        self._fed = 0
        self._codes = np.zeros(0, np.int8)  # frames looked at whose runs are not decided yet
        self._weak = np.zeros(0, np.int8)
        self._faint = np.zeros(0, np.int8)
        self._strong = np.zeros(0, np.bool_)
        self._shape: Floats = np.zeros((0, 6), np.float32)
        self._first = 0  # index of the first of them
        self.digits: list[Digit] = []
        """Digits found so far; complete and in order after `finish`."""
        self._faint_digits: list[Digit] = []
        self._maybe: list[tuple[Digit, Floats]] = []
        self._heard: list[tuple[Digit, Floats]] = []

    def feed(self, block: Samples) -> None:
        """Look at the next samples."""
        self._fed += len(block)
        self._buffer.append(block)
        self._held += len(block)
        need = (_CHUNK + 2 * _MARGIN + HOPS_PER_FRAME + 1) * self._hop
        if self._held < need:
            return
        samples = np.concatenate(self._buffer)
        at = 0
        while len(samples) - at >= need:
            self._look(samples[at : at + need], _CHUNK)
            at += _CHUNK * self._hop
        rest = samples[at:].copy()
        self._buffer = [rest]
        self._held = len(rest)

    def finish(self) -> list[Digit]:
        """End the scan. A digit that the end of the leg cuts off counts too.

        :returns: all digits
        """
        hops = -(-max(0, self._fed - self._base * self._hop) // self._hop)
        if hops:
            hops = -(-hops // STRIDE) * STRIDE
            need = (hops + 2 * _MARGIN + HOPS_PER_FRAME + 1) * self._hop
            samples = np.concatenate(self._buffer)
            self._look(np.concatenate((samples, np.zeros(max(0, need - len(samples)), np.int16))), hops)
            self._buffer = []
            self._held = 0
        self._decide(last=True)
        found = [maybe for maybe, loud in self._maybe if self._is_in_a_string(maybe, loud)]
        self.digits = with_faint(in_order(self.digits), [*self._faint_digits, *found])
        self._faint_digits, self._maybe, self._heard = [], [], []
        return self.digits

    def _look(self, samples: Samples, hops: int) -> None:
        """Classify `hops` frames from `_base`; `samples` begins `_MARGIN` hops before and ends as much behind."""
        total = hops + 2 * _MARGIN
        audio = samples.astype(np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(audio, self._frame)[:: self._hop]
        per_hop = audio[: (total + HOPS_PER_FRAME) * self._hop].reshape(-1, self._hop)
        energy = np.einsum("ij,ij->i", per_hop, per_hop)
        look = np.arange(0, total, STRIDE)
        loud = sum(energy[look + i] for i in range(HOPS_PER_FRAME))
        look = look[np.asarray(loud) >= self._floor]
        codes = np.full(hops, -1, np.int8)
        weak = np.full(hops, -1, np.int8)
        faint = np.full(hops, -1, np.int8)
        strong = np.zeros(hops, np.bool_)
        shape: Floats = np.zeros((hops, 6), np.float32)
        if len(look):
            power, _, whole = self._transform(frames[look])
            row, column, margin = _pair(power)
            tone = (np.take_along_axis(power, row[:, None], 1) + np.take_along_axis(power, column[:, None], 1))[:, 0]
            loud_enough = whole >= self._floor * FIRST_RATIO
            look = look[(margin >= _SELECTIVITY) & (tone * self._share >= FIRST_RATIO * whole) & loud_enough]
        if len(look):
            near = np.zeros(total + 1, np.bool_)
            for shift in range(-(WIDEST + STRIDE - 1), WIDEST + STRIDE):
                near[np.clip(look + shift, 0, total - 1)] = True
            near[total] = False
            close = np.flatnonzero(near)
            close = close[(close >= _MARGIN) & (close < _MARGIN + hops)]
            if len(close):
                at = close - _MARGIN
                codes[at], weak[at], faint[at], strong[at], shape[at] = self._classify(frames, close)
        self._base += hops
        if len(self._codes) or (faint >= 0).any() or (weak >= 0).any():
            if not len(self._codes):
                self._first = self._base - hops
            self._codes = np.concatenate((self._codes, codes))
            self._weak = np.concatenate((self._weak, weak))
            self._faint = np.concatenate((self._faint, faint))
            self._strong = np.concatenate((self._strong, strong))
            self._shape = np.concatenate((self._shape, shape))
            self._decide(last=False)

    def _transform(self, frames: Floats) -> tuple[Floats, NDArray[np.complex64], Floats]:
        """Return the power at the eight tones, the complex values, and each frame's energy under the window."""
        values = frames @ self._basis
        half = len(self._tones)
        power = values[:, :half] ** 2 + values[:, half:] ** 2
        turning = values[:, :half].astype(np.complex64)
        turning.imag = values[:, half:]
        whole: Floats = np.matmul(frames * frames, self._window_squared)
        return power, turning, whole

    def _classify(
        self, frames: Floats, close: NDArray[np.intp]
    ) -> tuple[NDArray[np.int8], NDArray[np.int8], NDArray[np.int8], NDArray[np.bool_], NDArray[np.floating]]:
        """Classify the frames at `close`.

        :returns: by frame: the digit (or -1), the digit that the frame may still belong to, the digit that it may be
            under a voice, whether the frame is strong, and its shape. The shape is the tones' deviation in Hz, how far
            they stand out from the other six in dB, their share of the energy, and their levels in dB.
        """
        both = np.union1d(close, close + 1)
        power, values, whole = self._transform(frames[both])
        here = np.searchsorted(both, close)
        following = np.searchsorted(both, close + 1)
        turned = np.angle(values[following] * np.conj(values[here])) - self._advance
        off = (np.mod(turned + np.pi, 2 * np.pi) - np.pi) * HOPS_PER_SECOND / (2 * np.pi)  # Hz
        power, whole = power[here], np.maximum(whole[here], _TIE)
        row, column, margin = _pair(power)
        ok = margin >= _SELECTIVITY
        pick = np.stack((row, column), axis=1)
        two = np.take_along_axis(power, pick, 1)
        tones = self._tones[pick]
        offset = np.take_along_axis(off, pick, 1)
        near = np.abs(offset) <= FARTHEST * tones
        # A tone beside its nominal frequency sits on the slope of the window's main lobe: undo that loss.
        bins = np.clip(offset, -FARTHEST * tones, FARTHEST * tones) * (self._frame / self.rate)
        slope = np.sinc(bins) / (1 - np.minimum(bins**2, 0.98))
        full = two / slope**2 * self._share
        ratio = full.sum(axis=1) / whole
        twist = np.abs(10 * np.log10((full[:, 0] + _TIE) / (full[:, 1] + _TIE)))
        symbol = (row * 4 + (column - 4)).astype(np.int8)
        digit = (
            ok
            & near.all(axis=1)
            & (ratio >= SMALLEST_RATIO)
            & (twist <= LOUDEST_TWIST_DB)
            & (full.sum(axis=1) >= self._floor)
        )
        weak = ok & (two.sum(axis=1) * self._share >= WEAK_RATIO * whole)
        stand_out = 10 * np.log10(np.maximum(margin, _TIE))
        faint = (
            near.all(axis=1)
            & (stand_out >= FAINT_DB)
            & (ratio >= WEAK_RATIO)
            & (twist <= FAINT_TWIST_DB)
            & (full.sum(axis=1) >= self._floor)
        )
        none = np.int8(-1)
        strong = digit & (ratio >= STRONG_RATIO)
        shape = np.column_stack((offset, stand_out, ratio, 10 * np.log10(full + _TIE)))
        found = [np.where(kind, symbol, none) for kind in (digit, weak | digit, faint)]
        return found[0], found[1], found[2], strong, shape

    def _decide(self, last: bool) -> None:
        """Turn runs of equal frames into digits. A run that may continue is kept for the next chunk."""
        total = len(self._codes)
        if not total:
            return
        keep = total if last else max(0, total - _MARGIN)
        for codes, accept in ((self._codes, self._accept), (self._faint, self._accept_faint)):
            for start, end in runs_of(codes):
                if not last and end >= total - WIDEST:
                    keep = min(keep, max(0, start - WIDEST))
                    break
                accept(start, end)
        if last or not ((self._faint[keep:] >= 0) | (self._weak[keep:] >= 0)).any():
            keep = total
        self._codes, self._weak, self._strong = self._codes[keep:], self._weak[keep:], self._strong[keep:]
        self._faint, self._shape = self._faint[keep:], self._shape[keep:]
        self._first += keep

    def _accept(self, start: int, end: int) -> None:
        """Add the digit of a run of digit frames, if the run is one."""
        sure = np.flatnonzero(self._strong[start:end]) + start
        if end - start < SHORTEST or len(sure) < 2 or self._is_voice(sure):
            return
        digit = self._widened(start, end, int(self._codes[start]))
        self.digits.append(digit)
        self._heard.append((digit, np.median(self._shape[start:end, 4:], axis=0)))

    def _accept_faint(self, start: int, end: int) -> None:
        """Add the digit of a run of faint frames, unless `_accept` added a digit in it already."""
        if end - start < SHORTEST:
            return
        shape = self._shape[start:end]
        middle = np.median(shape[:, :2], axis=0)
        code = int(self._faint[start])
        tones = self._tones[[code // 4, code % 4 + 4]]
        if (np.abs(middle) > FARTHEST * tones).any():
            return
        deviation = np.abs(shape[:, :2] - middle).max(axis=1)
        alone = any(kind.fits(deviation, shape[:, 3], shape[:, 2]) for kind in FAINT_ALONE)
        if alone:
            self._faint_digits.append(self._widened(start, end, code))
        elif any(kind.fits(deviation, shape[:, 3], shape[:, 2]) for kind in FAINT_NEAR):
            self._maybe.append((self._widened(start, end, code), np.median(shape[:, 4:], axis=0)))
            del self._maybe[:-MOST_MAYBE]

    def _widened(self, start: int, end: int, code: int) -> Digit:
        """Return the digit of a run, with the frames at both ends that it is still heard in."""
        low, high = start, end
        while low > 0 and start - low < WIDEST and self._weak[low - 1] == code:
            low -= 1
        while high < len(self._weak) and high - end < WIDEST and self._weak[high] == code:
            high += 1
        first, last = self._first + low, self._first + high - 1
        guard = int(GUARD_SECONDS * self.rate)
        begin = first * self._hop + self._frame // 2 - guard if first > 0 else 0
        return Digit(begin, min(self._fed, last * self._hop + self._frame // 2 + guard), SYMBOLS[code])

    def _is_in_a_string(self, maybe: Digit, loud: Floats) -> bool:
        """Tell whether a certain digit of the same levels is near."""
        near = int(NEAR_SECONDS * self.rate)
        low = bisect_left(self._heard, maybe.start - near, key=lambda heard: heard[0].end)
        high = bisect_right(self._heard, maybe.end + near, key=lambda heard: heard[0].start)
        return any(np.abs(loud - as_loud).max() <= NEAR_DB for _, as_loud in self._heard[low:high])

    def _is_voice(self, sure: NDArray[np.intp]) -> bool:
        """Tell whether both tones of a run drift further than a digit's. `sure` are the run's strong frames."""
        drift = float(np.abs(self._shape[sure[-1], :2] - self._shape[sure[0], :2]).min())
        glide = drift / float(sure[-1] - sure[0])
        if drift > DRIFTING_HZ or glide > GLIDING_HZ:
            return True
        return glide > CROWDED_HZ and float(self._shape[sure, 2].mean()) < CROWDED_DB


def _pair(power: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Return the strongest row and column tone, and the factor by which both stand out from the other three."""
    rows = np.sort(power[:, :4], axis=1) + np.float32(_TIE)
    columns = np.sort(power[:, 4:], axis=1) + np.float32(_TIE)
    margin = np.minimum(rows[:, 3] / rows[:, 2], columns[:, 3] / columns[:, 2])
    return power[:, :4].argmax(axis=1), power[:, 4:].argmax(axis=1) + 4, margin
