"""fastagi.audio.reader: our own formats, Asterisk's, and converted rates."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_sound import snr_db, tone, voice, wav_bytes, write_wav

from fastagi.audio import Encoder, Reader, interleave, open_reader
from fastagi.errors import AudioError

SOUND = voice(3.0, seed=21)


def everything(reader: Reader, block: int = 3333) -> np.ndarray:
    parts = []
    while len(got := reader.read(block)):
        parts.append(got)
    reader.close()
    return np.concatenate(parts)


def test_pcm_header_sizes_are_ignored(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", SOUND, closed=False)
    reader = open_reader(path)
    assert (reader.rate, reader.channels, reader.frames) == (8000, 1, len(SOUND))
    assert np.array_equal(everything(reader), SOUND)


def test_skip(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", SOUND)
    for name, file_format in (("a.wav", ""), ("b.flac", "flac"), ("c.wav", "oki")):
        if file_format:
            with Encoder(tmp_path / name, file_format, 8000) as encoder:
                encoder.write(SOUND)
        reader = open_reader(tmp_path / name)
        reader.skip(10_000)
        got = everything(reader)
        assert len(got) == len(SOUND) - 10_000
        assert snr_db(SOUND[10_000:], got) > 15
        past = open_reader(tmp_path / name)
        past.skip(10**9)
        assert len(past.read(10)) == 0
        past.close()


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".ulaw", "ULAW"), (".alaw", "ALAW"), (".gsm", "GSM610"), (".sln", "PCM_16"), (".pcm", "ULAW")],
)
def test_asterisks_headerless_files(suffix: str, codec: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, SOUND, 8000, codec, format="RAW")
    reader = open_reader(path)
    assert (reader.rate, reader.channels) == (8000, 1)
    assert snr_db(SOUND, everything(reader)[: len(SOUND)]) > 5


def test_wav_of_another_codec(tmp_path: Path) -> None:
    path = tmp_path / "a.WAV"
    soundfile.write(path, SOUND[:16000], 8000, "GSM610", format="WAV")
    assert len(everything(open_reader(path))) >= 15_000


def test_converted_length_is_exact(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(440, 2.00005, rate=16000), 16000)
    reader = open_reader(path, 8000)
    assert (reader.rate, reader.frames) == (8000, 16001)
    got = everything(reader)
    assert len(got) == 16001
    assert snr_db(tone(440, 2.0)[2000:14000], got[2000:14000]) > 60
    reader = open_reader(path, 8000)
    reader.skip(5000)
    assert np.array_equal(everything(reader, 10**6), got[5000:])


def test_two_channels(tmp_path: Path) -> None:
    both = interleave(SOUND, SOUND[::-1])
    with Encoder(tmp_path / "a.wav", "s16bit", 8000, 2) as encoder:
        encoder.write(both)
    assert np.array_equal(everything(open_reader(tmp_path / "a.wav")), both)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.wav", b"", "empty"),
        ("a.wav", b"this is a text" * 99, "not audio"),
        ("a.wav", wav_bytes(SOUND)[:25], "without audio"),
        ("a.mp3", np.random.default_rng(1).bytes(20), "not audio"),
        ("a.gsm", b"", "empty"),
        ("a.wav", b"\x93" * 400, "not audio"),
    ],
)
def test_what_is_no_audio(name: str, data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(AudioError, match=reason) as caught:
        open_reader(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="No such file"):
        open_reader(tmp_path / "a.wav")


def test_shrinking_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, SOUND)
    reader = open_reader(path)
    reader.read(10)
    os.truncate(path, 1000)
    with pytest.raises(AudioError, match="shorter"):
        everything(reader)
