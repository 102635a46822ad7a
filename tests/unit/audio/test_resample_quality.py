"""fastagi.audio.resample: exact lengths, flat pass band, clean stop band, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from made_sound import Samples, tone, voice

from fastagi.audio import Resampler, interleave, resampled_length


def resample(samples: Samples, from_rate: int, to_rate: int, block: int = 4096) -> Samples:
    stream = Resampler(from_rate, to_rate, 1 if samples.ndim == 1 else samples.shape[1])
    parts = [stream.feed(samples[start : start + block]) for start in range(0, len(samples), block)]
    return np.concatenate([*parts, stream.finish()])


def level_db(samples: Samples, hz: float, rate: int) -> tuple[float, float]:
    """Level of the tone in the middle of the samples, and of everything else, relative to full scale."""
    middle = samples[rate // 2 : -rate // 2].astype(float)
    time = np.arange(len(middle)) / rate
    basis = np.stack((np.sin(2 * np.pi * hz * time), np.cos(2 * np.pi * hz * time)), axis=1)
    weights, *_ = np.linalg.lstsq(basis, middle, rcond=None)
    rest = middle - basis @ weights
    return float(20 * np.log10(np.hypot(*weights) / 32768)), float(20 * np.log10(rest.std() / 32768 + 1e-9))


@pytest.mark.parametrize("rate", [6000, 11000, 11025, 16000, 8000])
@pytest.mark.parametrize("count", [0, 1, 2, 79, 8000, 12345, 65537])
def test_length_is_exact(rate: int, count: int) -> None:
    out = resample(voice(9.0)[:count], 8000, rate)
    assert len(out) == resampled_length(count, 8000, rate)
    assert abs(len(out) - count * rate / 8000) <= 0.5


@pytest.mark.parametrize("rate", [6000, 11000, 11025])
@pytest.mark.parametrize("block", [1, 100, 7777])
def test_block_size_changes_nothing(rate: int, block: int) -> None:
    sound = voice(1.0, seed=9)
    whole, parts = resample(sound, 8000, rate, 10**6), resample(sound, 8000, rate, block)
    assert len(whole) == len(parts)
    assert np.abs(whole.astype(int) - parts).max() <= 2  # soxr rounds to int16 with a dither that depends on the blocks


@pytest.mark.parametrize(("rate", "top"), [(6000, 2700), (11000, 3400), (11025, 3400)])
def test_pass_band_is_flat(rate: int, top: int) -> None:
    """The residue is low, too."""
    for hz in (200, 1004, 2000, top):
        out = resample(tone(hz, 4.0, -6), 8000, rate)
        level, rest = level_db(out, hz, rate)
        wanted, _ = level_db(tone(hz, 4.0, -6), hz, 8000)
        assert abs(level - wanted) <= 0.1
        assert rest - level <= -75


def test_frequencies_above_new_rate_vanish() -> None:
    out = resample(tone(3300, 4.0, -6), 8000, 6000)
    assert 20 * np.log10(out[3000:-3000].astype(float).std() / 32768 + 1e-9) <= -75


def test_channels_stay_apart() -> None:
    sound = interleave(voice(2.0, seed=1), np.zeros(16000, np.int16))
    out = resample(sound, 8000, 11025)
    assert out.shape == (22050, 2)
    assert np.abs(out[:, 0]).max() > 1000
    assert np.abs(out[:, 1]).max() <= 1


def test_equal_rates_pass_through_untouched() -> None:
    sound = voice(1.0)
    assert np.array_equal(resample(sound, 8000, 8000), sound)
