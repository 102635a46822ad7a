from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastagi.testing import sound


def test_speech_depends_on_its_seed() -> None:
    one, again, other = (sound.speech_samples(4.0, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert sound.correlation(one, other).coefficient < 0.3


def test_speech_has_loud_parts_and_pauses() -> None:
    samples = sound.speech_samples(20.0, 3, level=0.2)
    frames = [sound.rms(samples[i : i + 160]) for i in range(0, len(samples) - 160, 160)]
    assert np.abs(samples).max() <= 0.98
    assert 0.05 < np.mean([f < 0.003 for f in frames]) < 0.6
    longest = max(len(run) for run in "".join("." if f < 0.003 else "x" for f in frames).split("x"))
    assert longest * 0.02 < 1.0


def test_digits_have_their_two_frequencies() -> None:
    samples = sound.digit_samples("5", on=0.2, off=0.0)
    spectrum = np.abs(np.fft.rfft(samples))
    loudest = sorted(np.argsort(spectrum)[-2:] * 8000 / len(samples))
    assert loudest == pytest.approx([770, 1336], abs=5)


def test_files_come_back_as_they_went(tmp_path: Path) -> None:
    path = sound.tone(tmp_path / "deep" / "tone.wav", 1.0, 1000.0)
    back = sound.load(path)
    assert len(back) == 8000
    assert sound.rms(back) == pytest.approx(0.25, rel=0.01)
    assert len(sound.load(path, rate=16000)) == 16000


@pytest.mark.parametrize("offset", [-1.5, 0.0, 0.25, 3.0])
def test_correlation_ignores_loudness(offset: float) -> None:
    whole = sound.speech_samples(12.0, 4)
    start = round(abs(offset) * 8000)
    a, b = (whole, whole[start:] * 0.3) if offset >= 0 else (whole[start:] * 0.3, whole)
    found = sound.correlation(a, b)
    assert found.offset == pytest.approx(offset)
    assert found.coefficient == pytest.approx(1.0, abs=1e-3)


def test_correlation_of_nothing_is_nothing() -> None:
    assert sound.correlation(sound.silence_samples(1), sound.speech_samples(1, 1)).coefficient == 0
    assert sound.correlation(sound.silence_samples(0), sound.speech_samples(1, 1)).coefficient == 0


def test_share_found_tolerates_gaps_and_shifts() -> None:
    """Sound of another voice is not found."""
    said = sound.speech_samples(4.0, 5)
    gapped = np.concatenate([sound.silence_samples(0.3), said[:16000], sound.silence_samples(1), said[16000:]])
    assert sound.share_found(gapped, said) == 1.0
    assert sound.share_found(gapped[:20000], said) < 0.7
    assert sound.share_found(sound.speech_samples(6.0, 6), said) < 0.2
    assert sound.share_found(said, sound.silence_samples(1)) == 1.0
