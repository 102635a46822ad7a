"""fastagi.audio.render: max_bytes and the two silence limits in the finished file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from made_sound import Samples, digit, silence, to_int16, tone, voice, write_wav

from fastagi.audio import FileCipher, RawPiece, Rendered, RenderPlan, file_bytes, open_reader, render
from fastagi.cipher import AesCbcCipher, AesGcmCipher, AgeCipher
from fastagi.domain.formats import FORMATS
from fastagi.errors import AudioError

TALK = voice(20.0, seed=50)
CBC = AesCbcCipher(b"k" * 32, b"i" * 16)
GCM = AesGcmCipher(b"k" * 32)
FIXED = tuple(form.name for form in FORMATS.values() if form.container == "wav")


def finish(folder: Path, samples: Samples, **more: object) -> Rendered:
    raw = write_wav(folder / "raw.wav", samples)
    target = str(folder / "done.bin")
    made = render(RenderPlan((RawPiece(raw),), target, dtmf_elim=False, **more))  # type: ignore[arg-type]
    assert made.bytes == os.path.getsize(target)
    return made


def heard(folder: Path) -> Samples:
    reader = open_reader(folder / "done.bin")
    out = reader.read(10**7)
    reader.close()
    return out


@pytest.mark.parametrize("file_format", FIXED)
@pytest.mark.parametrize("cipher", [None, CBC, GCM])
@pytest.mark.parametrize("rate", [8000, 6000, 11025])
def test_fixed_codecs_come_within_15_bytes(
    file_format: str, cipher: FileCipher | None, rate: int, tmp_path: Path
) -> None:
    for limit in (400, 777, 5000, 40_001):
        made = finish(tmp_path, TALK, file_format=file_format, rate=rate, max_bytes=limit, cipher=cipher)
        waste = 15 if file_format != "ima" else 255 if cipher is None else 271
        assert limit - waste <= made.bytes <= limit
        assert made.limit == "SIZE"
        assert made.frames > 0


@pytest.mark.parametrize("file_format", ["flac", "opus", "mp3"])
@pytest.mark.parametrize("cipher", [None, CBC, GCM])
def test_compressed_codecs_are_watched(file_format: str, cipher: FileCipher | None, tmp_path: Path) -> None:
    for limit in (4000, 9000, 30_000):
        made = finish(tmp_path, TALK, file_format=file_format, max_bytes=limit, cipher=cipher)
        assert made.bytes <= limit
        assert made.limit == "SIZE"
        assert made.bytes >= 0.9 * limit
        if cipher is None:
            assert len(heard(tmp_path)) == made.frames


def test_age_stays_below_the_limit(tmp_path: Path) -> None:
    import pyrage

    cipher = AgeCipher([str(pyrage.x25519.Identity.generate().to_public()) for _ in range(3)])
    for _ in range(3):
        made = finish(tmp_path, TALK, max_bytes=70_000, cipher=cipher)
        assert 69_000 <= made.bytes <= 70_000


def test_what_fits_is_whole(tmp_path: Path) -> None:
    size = file_bytes("alaw", 8000, 1, len(TALK))
    assert size is not None
    made = finish(tmp_path, TALK, max_bytes=size)
    assert (made.frames, made.limit) == (len(TALK), "")
    made = finish(tmp_path, TALK, max_bytes=size - 2)
    assert (made.frames, made.limit) == (len(TALK) - 2, "SIZE")
    for file_format in ("flac", "opus", "mp3"):
        made = finish(tmp_path, TALK, max_bytes=10**7, file_format=file_format)
        assert (made.frames, made.limit) == (len(TALK), "")


def test_limit_below_header_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="max_bytes=100 is too small"):
        finish(tmp_path, TALK, file_format="opus", max_bytes=100)
    assert [p.name for p in tmp_path.iterdir()] == ["raw.wav"]


def test_levels_stop_at_size_limit(tmp_path: Path) -> None:
    quiet_then_loud = np.concatenate((silence(2.0), tone(500, 2.0, 0)))
    made = finish(tmp_path, quiet_then_loud, max_bytes=58 + 15_000)
    assert made.level.peak_dbfs < -50


@pytest.mark.parametrize("end_ms", [1000, 1003, 1777])
def test_max_silence_cuts_after_last_sound(end_ms: int, tmp_path: Path) -> None:
    samples = np.concatenate((tone(500, end_ms / 1000, -20), silence(5.0), tone(500, 1.0, -20)))
    made = finish(tmp_path, samples, file_format="s16bit", max_silence_ms=2000)
    assert made.limit == "SILENCE"
    assert not made.no_sound
    assert 0 <= made.frames / 8 - (end_ms + 2000) <= 10
    assert np.array_equal(heard(tmp_path), samples[: made.frames])


def test_silence_shorter_than_the_limit_stays(tmp_path: Path) -> None:
    samples = np.concatenate((tone(500, 1.0, -20), silence(1.5), tone(500, 1.0, -20), silence(1.5)))
    made = finish(tmp_path, samples, max_silence_ms=2000)
    assert (made.frames, made.limit) == (len(samples), "")


def test_initial_silence_is_not_kept(tmp_path: Path) -> None:
    samples = np.concatenate((silence(1.0), tone(500, 1.0, -20), silence(1.0)))
    made = finish(tmp_path, samples, file_format="s16bit", initial_silence_ms=3000)
    assert (made.frames, made.limit, made.no_sound) == (16000, "", False)
    assert np.array_equal(heard(tmp_path), samples[8000:])


@pytest.mark.parametrize("file_format", ["alaw", "ima", "flac", "mp3"])
def test_initial_silence_empties_the_recording(file_format: str, tmp_path: Path) -> None:
    samples = np.concatenate((silence(4.0), tone(500, 1.0, -20)))  # too late
    made = finish(tmp_path, samples, file_format=file_format, initial_silence_ms=3000)
    assert (made.frames, made.limit, made.no_sound) == (0, "SILENCE", True)


def test_hung_up_before_the_initial_limit(tmp_path: Path) -> None:
    made = finish(tmp_path, silence(2.0), initial_silence_ms=3000)
    assert (made.frames, made.limit, made.no_sound) == (0, "", True)


def test_earlier_of_two_limits_counts(tmp_path: Path) -> None:
    samples = np.concatenate((tone(500, 2.0, -20), silence(5.0)))
    assert finish(tmp_path, samples, max_silence_ms=1000, max_bytes=10**6).limit == "SILENCE"
    assert finish(tmp_path, samples, max_silence_ms=1000, max_bytes=8000).limit == "SIZE"


def test_pauses_are_kept_and_not_judged(tmp_path: Path) -> None:
    samples = np.concatenate((tone(500, 1.0, -20), silence(6.0), tone(500, 1.0, -20), silence(3.0)))
    made = finish(tmp_path, samples, max_silence_ms=2000, pauses=((1.5, 6.8),))
    assert made.limit == "SILENCE"
    assert made.frames == pytest.approx(10 * 8000, abs=160)
    made = finish(tmp_path, samples, max_silence_ms=2000, cuts=((1.5, 6.8),))
    assert made.limit == "SILENCE"
    assert made.frames == pytest.approx((10 - 5.3) * 8000, abs=160)


def test_digit_counts_as_sound(tmp_path: Path) -> None:
    """The live watcher heard the key; were the finished file judged without it, it would be cut before its own stop."""
    key = to_int16(digit("5", 100, -10))
    samples = np.concatenate((tone(500, 1.0, -20), silence(1.5), key, silence(3.0)))
    raw = write_wav(tmp_path / "raw.wav", samples)
    made = render(RenderPlan((RawPiece(raw),), str(tmp_path / "done.bin"), max_silence_ms=2000))
    assert made.digits == 1
    assert made.frames / 8000 == pytest.approx(4.6, abs=0.02)


def test_separate_ignores_all_three(tmp_path: Path) -> None:
    raw = write_wav(tmp_path / "raw.wav", np.concatenate((silence(3.0), tone(500, 1.0, -20), silence(5.0))))
    plan = RenderPlan(
        (RawPiece("", raw, raw),),
        str(tmp_path / "done.bin"),
        mode="separate",
        max_bytes=500,
        initial_silence_ms=100,
        max_silence_ms=100,
    )
    made = render(plan)
    assert (made.frames, made.limit) == (72_000, "")
