"""fastagi.audio.growing: reading what Asterisk is still writing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from made_sound import voice, wav_bytes

from fastagi.audio import GrowingWav
from fastagi.errors import AudioError

SOUND = voice(10.0)
OPEN = wav_bytes(SOUND, closed=False)


def test_file_is_followed_until_closed(tmp_path: Path) -> None:
    path = tmp_path / "raw.wav"
    growing = GrowingWav(path)
    assert len(growing.read_new()) == 0
    heard = []
    with path.open("wb", buffering=0) as file:
        assert len(growing.read_new()) == 0  # there, and empty: the first 32 kB are in Asterisk's buffer
        assert growing.rate == 0
        at = 0
        for step in (20, 24, 1, 32768, 3, 0, 32768, len(OPEN)):
            file.write(OPEN[at : at + step])
            at += step
            heard.append(growing.read_new())
            assert not growing.complete
    assert growing.rate == 8000
    path.write_bytes(wav_bytes(SOUND))
    heard.append(growing.read_new())
    assert growing.complete
    assert np.array_equal(np.concatenate(heard), SOUND)
    assert growing.frames == len(SOUND)
    assert len(growing.read_new()) == 0


def test_a_look_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "raw.wav"
    path.write_bytes(wav_bytes(SOUND))
    growing = GrowingWav(path)
    parts = [growing.read_new(30_000) for _ in range(4)]
    assert [len(p) for p in parts] == [30_000, 30_000, 20_000, 0]
    assert growing.complete
    assert np.array_equal(np.concatenate(parts), SOUND)


def test_not_complete_before_everything_was_read(tmp_path: Path) -> None:
    path = tmp_path / "raw.wav"
    path.write_bytes(wav_bytes(SOUND))
    growing = GrowingWav(path)
    growing.read_new(100)
    assert not growing.complete


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "raw.wav"
    path.write_bytes(OPEN)
    before = len(os.listdir("/proc/self/fd"))
    watched = [GrowingWav(path) for _ in range(20)]
    for growing in watched:
        growing.read_new()
    assert len(os.listdir("/proc/self/fd")) == before


def test_file_that_became_shorter_gives_nothing(tmp_path: Path) -> None:
    path = tmp_path / "raw.wav"
    path.write_bytes(OPEN)
    growing = GrowingWav(path)
    growing.read_new()
    path.write_bytes(OPEN[:1000])
    assert len(growing.read_new()) == 0


@pytest.mark.parametrize("data", [b"x" * 100, wav_bytes(SOUND)[:20] + b"\x06" + wav_bytes(SOUND)[21:]])
def test_other_codec_is_an_error(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "raw.wav"
    path.write_bytes(data)
    with pytest.raises(AudioError):
        GrowingWav(path).read_new()
