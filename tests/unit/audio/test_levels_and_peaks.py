"""fastagi.audio.levels and peaks: loudness, one-sided calls, waveforms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_sound import silence, to_int16, tone, voice, write_wav

from fastagi.audio import Levels, Peaks, file_peaks, interleave, one_sided


def test_levels_of_known_sounds() -> None:
    full = to_int16(32767 * np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000))
    levels = Levels(8000)
    levels.feed(full)
    facts = levels.facts()
    assert facts.peak_dbfs == pytest.approx(0, abs=0.1)
    assert facts.rms_dbfs == pytest.approx(-3.0, abs=0.1)
    assert facts.active_seconds == 1.0
    assert not facts.silent


def test_digital_silence_has_a_level() -> None:
    for block in (np.zeros(8000, np.int16), np.zeros(0, np.int16)):
        levels = Levels(8000)
        levels.feed(block)
        assert (levels.facts().peak_dbfs, levels.facts().rms_dbfs, levels.facts().silent) == (-120.0, -120.0, True)


def test_block_size_changes_nothing() -> None:
    sound = voice(3.0)
    found = set()
    for block in (1, 79, 4096, 10**6):
        levels = Levels(8000)
        for start in range(0, len(sound) if block > 1 else 3000, block):
            levels.feed(sound[start : min(start + block, len(sound))])
        if block > 1:
            found.add(levels.facts())
    assert len(found) == 1


def test_lowest_sample_does_not_overflow() -> None:
    levels = Levels(8000)
    levels.feed(np.full(800, -32768, np.int16))
    assert levels.facts().peak_dbfs == 0.0


def test_one_sided() -> None:
    def facts(sound: np.ndarray) -> object:
        levels = Levels(8000)
        levels.feed(sound)
        return levels.facts()

    quiet, talk, short = facts(silence(10)), facts(voice(10)), facts(tone(500, 0.5))
    assert one_sided(quiet, talk)  # type: ignore[arg-type]
    assert one_sided(talk, quiet)  # type: ignore[arg-type]
    assert not one_sided(talk, talk)  # type: ignore[arg-type]
    assert not one_sided(quiet, quiet)  # type: ignore[arg-type]
    assert not one_sided(short, quiet)  # type: ignore[arg-type]


def test_two_channels_are_judged_together() -> None:
    levels = Levels(8000)
    levels.feed(interleave(voice(2.0), silence(2.0)))
    assert not levels.facts().silent


@pytest.mark.parametrize("block", [1, 100, 161, 99999])
def test_peaks(block: int) -> None:
    sound = np.arange(-1000, 1001, dtype=np.int16)
    peaks = Peaks(8000)
    for start in range(0, len(sound), block):
        peaks.feed(sound[start : start + block])
    result = peaks.result()
    assert result.shape == (13, 1, 2)
    assert result[0, 0].tolist() == [-1000, -841]
    assert result[-1, 0].tolist() == [920, 1000]
    few = peaks.result(points=4)
    assert few.shape == (4, 1, 2)
    assert (few[..., 0].min(), few[..., 1].max()) == (-1000, 1000)


def test_peaks_of_a_file(tmp_path: Path) -> None:
    sound = voice(2.0)
    peaks = file_peaks(write_wav(tmp_path / "a.wav", sound))
    assert peaks.shape == (100, 1, 2)
    assert peaks.max() == sound.max()
    assert len(Peaks(8000).result()) == 0
