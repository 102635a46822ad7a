"""fastagi.audio.limiter, and what becomes of two loud sides in a finished file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_sound import Samples, digit, snr_db, to_int16, tone, voice, write_wav
from numpy.typing import NDArray

from fastagi.audio import RawPiece, Rendered, RenderPlan, interleave, mix, open_reader, render
from fastagi.audio.limiter import FARTHEST_HOPS, Limiter
from fastagi.audio.mix import add


def limit(sums: NDArray[np.int32], block: int = 1 << 17, rate: int = 8000) -> tuple[Samples, int]:
    """The limited stream, and how many of its sums were at full scale or beyond."""
    limiter = Limiter(rate)
    parts = [limiter.feed(sums[start : start + block]) for start in range(0, len(sums), block)]
    parts.append(limiter.finish())
    return np.concatenate([p[0] for p in parts]), int(sum(np.count_nonzero(p[1]) for p in parts))


def loud(seconds: float = 4.0, dbfs: float = -9.0) -> tuple[Samples, Samples]:
    return voice(seconds, 71, dbfs=dbfs), voice(seconds, 72, dbfs=dbfs)


def test_limiter_leaves_quiet_sums_bit_exact() -> None:
    sums = add(voice(3.0, 5, dbfs=-24), voice(3.0, 6, dbfs=-24))
    sums[500], sums[900] = 32767, -32768  # both fit
    out, clipped = limit(sums)
    assert np.array_equal(out, sums)
    assert clipped == 2


@pytest.mark.parametrize("rate", [8000, 16000, 11025])
def test_limiter_changes_only_the_surroundings(rate: int) -> None:
    sums = np.full(rate, 20000, np.int32)
    sums[rate // 2 : rate // 2 + 3] = [40000, -40000, 33000]
    out, clipped = limit(sums, rate=rate)
    assert clipped == 3
    reach = FARTHEST_HOPS * (rate // 1000)
    near = slice(rate // 2 - reach, rate // 2 + 3 + reach)
    assert np.array_equal(np.delete(out, near), np.delete(sums, near))
    assert np.abs(out.astype(int)).max() <= 32767
    assert out[rate // 2] == 32767
    assert out[rate // 2 + 1] == -32767


def test_limiter_gain_never_jumps() -> None:
    sums = np.full(8000, 30000, np.int32)
    sums[4000] = 65534
    out, _ = limit(sums)
    gain = np.delete(out, 4000) / 30000
    assert np.abs(np.diff(gain)).max() < 0.01, "0.09 dB from one sample to the next"
    assert gain.min() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("block", [1, 7, 160, 1777])
def test_limiter_is_independent_of_blocks(block: int) -> None:
    sums = add(*loud(2.0))[: 4000 if block == 1 else None]
    whole, clipped = limit(sums)
    assert clipped
    out, count = limit(sums, block)
    assert np.array_equal(out, whole)
    assert count == clipped


@pytest.mark.parametrize("length", [0, 1, 100, 183, 184, 185])
def test_limiter_keeps_the_length(length: int) -> None:
    out, clipped = limit(np.full(length, 50000, np.int32))
    assert len(out) == length == clipped
    assert (out == 32767).all()


def test_limited_tones_stay_clean() -> None:
    """Full-scale 400 Hz and 1000 Hz: 40 % of their sum is beyond full scale. Cut off, 13 dB are left of it."""
    a, b = tone(400, 2.0, 3.0), tone(1000, 2.0, 3.0)
    sums = add(a, b)

    def distortion(out: Samples) -> float:
        spectrum = np.abs(np.fft.rfft(out[2000:14000] * np.hanning(12000))) ** 2
        wanted = np.zeros(len(spectrum), bool)
        for hz in (400, 1000):
            wanted[round(hz * 1.5) - 60 : round(hz * 1.5) + 61] = True
        return float(10 * np.log10(spectrum[wanted].sum() / spectrum[~wanted].sum()))

    out, clipped = limit(sums)
    assert clipped / len(sums) > 0.3
    assert distortion(mix(a, b)) < 20
    assert distortion(out) > 40


class Loud:
    """Raw files of a loud call and what is made of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.legs = loud()
        names = ("m", mix(*self.legs)), ("r", self.legs[0]), ("t", self.legs[1])
        self.piece = RawPiece(*(write_wav(folder / f"{n}.wav", s) for n, s in names))

    def make(self, piece: RawPiece | None = None, **more: object) -> tuple[Rendered, Samples]:
        target = str(self.folder / "done.wav")
        made = render(RenderPlan((piece or self.piece,), target, "s16bit", **more))  # type: ignore[arg-type]
        reader = open_reader(target)
        heard = reader.read(10**7)
        reader.close()
        return made, heard


def test_two_loud_sides_do_not_clip(tmp_path: Path) -> None:
    scene = Loud(tmp_path)
    sums = add(*scene.legs)
    made, heard = scene.make()
    assert made.facts()["clipped"] == np.count_nonzero(np.abs(sums) >= 32767) > 1000
    assert made.facts()["limited"] is True
    assert not made.copied
    assert np.array_equal(heard, limit(sums)[0])
    assert snr_db(sums, mix(*scene.legs)) < 20, "so far from it was the file that clipped"


def test_loud_sides_do_not_clip(tmp_path: Path) -> None:
    """A digit is removed, so the legs are mixed here."""
    scene = Loud(tmp_path)
    received = scene.legs[0].astype(float)
    received[8000:8800] = digit("5", 100, -6)
    write_wav(Path(scene.piece.received), to_int16(received))
    write_wav(Path(scene.piece.mixed), mix(to_int16(received), scene.legs[1]))
    made, heard = scene.make()
    assert made.digits == 1
    assert made.limited
    assert np.count_nonzero(np.abs(heard.astype(int)) >= 32767) < made.clipped / 10


def test_clipping_by_asterisk_is_counted(tmp_path: Path) -> None:
    """Without the legs nothing can be done about it."""
    scene = Loud(tmp_path)
    made, heard = scene.make(RawPiece(scene.piece.mixed), dtmf_elim=False)
    assert np.array_equal(heard, mix(*scene.legs))
    assert (made.clipped, made.limited) == (np.count_nonzero(np.abs(heard.astype(int)) >= 32767), False)
    made, heard = scene.make(mode="separate")
    assert np.array_equal(heard, interleave(*scene.legs))
    assert not made.limited


def test_quiet_sides_are_asterisks_mix(tmp_path: Path) -> None:
    legs = voice(2.0, 3, dbfs=-26), voice(2.0, 4, dbfs=-26)
    names = ("m", mix(*legs)), ("r", legs[0]), ("t", legs[1])
    piece = RawPiece(*(write_wav(tmp_path / f"{n}.wav", s) for n, s in names))
    made = render(RenderPlan((piece,), str(tmp_path / "done.wav"), "s16bit"))
    assert (made.clipped, made.limited, made.copied) == (0, False, True)
