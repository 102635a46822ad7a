"""fastagi.audio.encoder and sizes: every format, judged by sox, ffmpeg and libsndfile."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_sound import Samples, ffmpeg_decode, ffprobe, snr_db, sox_decode, tone, voice

from fastagi.audio import Encoder, file_bytes, interleave, max_frames, open_reader
from fastagi.domain.formats import FORMATS
from fastagi.errors import AudioError, BadArgument, DiskFull
from support.sox_ng import sox_ng

SPEECH = voice(6.0, seed=3)
OTHER = voice(6.0, seed=4)
CASES = [(f.name, rate) for f in FORMATS.values() for rate in f.rates]
CODECS = {
    "alaw": "pcm_alaw",
    "ulaw": "pcm_mulaw",
    "s16bit": "pcm_s16le",
    "u8bit": "pcm_u8",
    "oki": "adpcm_ima_oki",
    "ima": "adpcm_ima_wav",
    "flac": "flac",
    "opus": "opus",
    "mp3": "mp3",
    "gsm": "gsm",
}
FIXED = ("alaw", "ulaw", "s16bit", "u8bit", "oki", "ima", "gsm")


def encode(path: Path, samples: Samples, file_format: str, rate: int = 8000, block: int = 3001) -> Path:
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with Encoder(path, file_format, rate, channels) as encoder:
        for start in range(0, len(samples), block):
            encoder.write(samples[start : start + block])
    assert encoder.bytes_written == path.stat().st_size
    assert encoder.frames == len(samples)
    return path


def decode(path: Path) -> Samples:
    reader = open_reader(path)
    try:
        blocks = []
        while len(block := reader.read(5000)):
            blocks.append(block)
        return np.concatenate(blocks)
    finally:
        reader.close()


def by_sox(path: Path, file_format: str, rate: int) -> Samples:
    """sox knows no OKI in WAV: the header off, and raw. Opus it reads at 48 kHz."""
    if file_format == "oki":
        raw = path.with_suffix(".vox")
        raw.write_bytes(path.read_bytes()[60:])
        return sox_decode(raw, "-t", "vox", "-r", str(rate))
    return sox_decode(path, by=sox_ng() if file_format == "opus" else ())


@pytest.mark.parametrize(("file_format", "rate"), CASES)
def test_sox_and_ffmpeg_open_every_format(file_format: str, rate: int, tmp_path: Path) -> None:
    sound = SPEECH[: 8000 + 7]
    path = encode(tmp_path / ("a" + FORMATS[file_format].suffix), sound, file_format, rate, block=777)
    probe = ffprobe(path)
    assert probe["codec_name"] == CODECS[file_format]
    assert probe["channels"] == "1"
    assert int(probe["sample_rate"]) == (48000 if file_format == "opus" else rate)
    frames = len(ffmpeg_decode(path))
    if file_format == "ima":
        assert 0 <= frames - len(sound) <= (504 if rate < 12000 else 1016)
    elif file_format == "oki":
        assert 0 <= frames - len(sound) <= 1
    elif file_format == "gsm":
        assert 0 <= frames - len(sound) < 160
    elif file_format in ("opus", "mp3"):
        assert frames / int(probe["sample_rate"]) == pytest.approx(len(sound) / rate, abs=0.4)
    else:
        assert frames == len(sound)
    heard = len(by_sox(path, file_format, rate))
    assert heard == frames if file_format == "opus" else heard >= len(sound)
    # frames of 20 ms and no header that could tell of a part of one
    assert len(decode(path)) == (-(-len(sound) // 160) * 160 if file_format == "gsm" else len(sound))


@pytest.mark.parametrize("file_format", [f.name for f in FORMATS.values() if f.channels == 2])
def test_two_channels_stay_on_their_sides(file_format: str, tmp_path: Path) -> None:
    sound = interleave(SPEECH, OTHER)
    path = encode(tmp_path / "a.bin", sound, file_format)
    assert ffprobe(path)["channels"] == "2"
    heard = decode(path)
    assert heard.shape == sound.shape
    for side in (0, 1):
        a, b = sound[:, side].astype(float), heard[:, side].astype(float)
        assert np.corrcoef(a, b)[0, 1] > 0.97
        assert abs(np.corrcoef(sound[:, 1 - side].astype(float), b)[0, 1]) < 0.3


@pytest.mark.parametrize(
    ("file_format", "least"), [("alaw", 37.0), ("ulaw", 37.5), ("u8bit", 36.0), ("ima", 21), ("oki", 21)]
)
@pytest.mark.parametrize("judge", ["own", "ffmpeg", "sox"])
def test_1004_hz_at_minus_10_dbm0(file_format: str, least: float, judge: str, tmp_path: Path) -> None:
    sound = tone(1004, 2.0, -10)
    path = encode(tmp_path / "a.bin", sound, file_format)
    if judge == "own":
        heard = decode(path)
    else:
        heard = ffmpeg_decode(path) if judge == "ffmpeg" else by_sox(path, file_format, 8000)
    assert snr_db(sound, heard[: len(sound)]) >= least


@pytest.mark.parametrize(
    ("file_format", "rate", "least"),
    [
        ("alaw", 8000, 36),
        ("ulaw", 8000, 36),
        ("u8bit", 8000, 32),
        ("ima", 8000, 18),
        ("oki", 8000, 18),
        ("ima", 6000, 17),
        ("oki", 6000, 17),
        ("mp3", 8000, 15),
        ("gsm", 8000, 5),
    ],
)
def test_speech(file_format: str, rate: int, least: float, tmp_path: Path) -> None:
    sound = SPEECH if rate == 8000 else voice(6.0, seed=3, rate=rate)
    heard = decode(encode(tmp_path / ("a" + FORMATS[file_format].suffix), sound, file_format, rate))
    assert snr_db(sound, heard[: len(sound)]) >= least


@pytest.mark.parametrize("file_format", ["s16bit", "flac"])
@pytest.mark.parametrize("block", [1, 160, 99999])
def test_lossless_is_bit_exact(file_format: str, block: int, tmp_path: Path) -> None:
    sound = SPEECH[:2000] if block == 1 else SPEECH
    path = encode(tmp_path / "a.bin", sound, file_format, block=block)
    assert np.array_equal(decode(path), sound)
    assert np.array_equal(ffmpeg_decode(path), sound)


@pytest.mark.parametrize("file_format", FIXED)
def test_block_size_changes_nothing(file_format: str, tmp_path: Path) -> None:
    sound = SPEECH[:12345]
    files = {encode(tmp_path / f"{b}.bin", sound, file_format, block=b).read_bytes() for b in (1000, 1, 505, 77, 99999)}
    assert len(files) == 1


def test_alaw_leg_comes_back_bit_exact(tmp_path: Path) -> None:
    once = decode(encode(tmp_path / "a.wav", SPEECH, "alaw"))
    assert np.array_equal(decode(encode(tmp_path / "b.wav", once, "alaw")), once)


def test_u8_is_rounded_without_bias(tmp_path: Path) -> None:
    ramp = np.arange(-32768, 32768, dtype=np.int32).astype(np.int16)
    error = decode(encode(tmp_path / "a.wav", ramp, "u8bit")).astype(int) - ramp
    inner = error[128:-256]
    assert abs(inner.mean()) < 1
    assert np.abs(inner).max() <= 128
    assert np.abs(error).max() <= 255  # the top code cannot round up


@pytest.mark.parametrize("file_format", ["oki", "ima"])
@pytest.mark.parametrize("count", [0, 1, 2, 505, 506, 8001])
def test_fact_has_the_true_count(file_format: str, count: int, tmp_path: Path) -> None:
    data = encode(tmp_path / "a.wav", SPEECH[:count], file_format).read_bytes()
    assert data[40:44] == b"fact"
    assert int.from_bytes(data[48:52], "little") == count
    assert data[52:56] == b"data"
    assert int.from_bytes(data[4:8], "little") == len(data) - 8
    assert len(data) % 2 == 0


@pytest.mark.parametrize(("file_format", "rate"), [c for c in CASES if c[0] in FIXED])
@pytest.mark.parametrize("channels", [1, 2])
def test_sizes_are_exact_ahead(file_format: str, rate: int, channels: int, tmp_path: Path) -> None:
    if channels > FORMATS[file_format].channels:
        channels = 1
    for count in (0, 1, 2, 511, 1018, 4001):
        sound = SPEECH[:count] if channels == 1 else interleave(SPEECH[:count], OTHER[:count])
        path = encode(tmp_path / "a.wav", sound, file_format, rate)
        assert path.stat().st_size == file_bytes(file_format, rate, channels, count)


@pytest.mark.parametrize(("file_format", "rate"), [c for c in CASES if c[0] in FIXED])
def test_max_frames_fills_but_keeps_limit(file_format: str, rate: int) -> None:
    channels = FORMATS[file_format].channels
    waste = {"ima": 254 if rate < 12000 else 510, "gsm": 32}.get(file_format, 15)
    for limit in range(600, 1700):
        frames = max_frames(file_format, rate, channels, limit)
        assert frames is not None
        size = file_bytes(file_format, rate, channels, frames)
        assert size is not None
        assert size <= limit
        assert limit - size <= waste + (1 if file_format == "ima" else 0)
        assert (file_bytes(file_format, rate, channels, frames + (2 if file_format == "oki" else 1)) or 0) > limit
    assert max_frames(file_format, rate, channels, 10) == 0


def test_sizes_of_compressed_formats_are_unknown() -> None:
    for name in ("flac", "opus", "mp3"):
        assert max_frames(name, 8000, 1, 5000) is None
        assert file_bytes(name, 8000, 1, 5000) is None


@pytest.mark.parametrize("file_format", list(FORMATS))
def test_counting_needs_no_file(file_format: str, tmp_path: Path) -> None:
    path = encode(tmp_path / "a.bin", SPEECH, file_format)
    counted = Encoder(None, file_format, 8000)
    seen = [counted.bytes_written]
    for start in range(0, len(SPEECH), 3001):
        counted.write(SPEECH[start : start + 3001])
        seen.append(counted.bytes_written)
    counted.close()
    assert seen == sorted(seen)
    assert counted.bytes_written == path.stat().st_size
    assert seen[-2] > seen[1]  # it grows while it is written: the watcher can see it coming


@pytest.mark.parametrize("file_format", list(FORMATS))
def test_nothing_recorded_is_a_valid_file(file_format: str, tmp_path: Path) -> None:
    path = tmp_path / ("a" + FORMATS[file_format].suffix)
    with Encoder(path, file_format, 8000) as encoder:
        encoder.write(np.zeros(0, np.int16))
    assert encoder.frames == 0
    assert ffprobe(path)["codec_name"] == CODECS[file_format]
    reader = open_reader(path)
    assert reader.frames <= (160 if file_format == "gsm" else 1)
    reader.close()


def test_open_file_stays_open(tmp_path: Path) -> None:
    with (tmp_path / "a.wav").open("wb") as file:
        with Encoder(file, "ima", 8000) as encoder:
            encoder.write(SPEECH)
        assert not file.closed
    assert len(decode(tmp_path / "a.wav")) == len(SPEECH)


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [("oki", 8000, 2), ("opus", 11025, 1), ("mp3", 6000, 1), ("gsm", 8000, 2), ("gsm", 11025, 1)],
)
def test_impossible_format_makes_no_file(name: str, rate: int, channels: int, tmp_path: Path) -> None:
    with pytest.raises(BadArgument):
        Encoder(tmp_path / "a.wav", name, rate, channels)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file_format", list(FORMATS))
def test_full_disk_is_told_as_such(file_format: str) -> None:
    def fill() -> None:
        with open("/dev/full", "wb", buffering=0) as full, Encoder(full, file_format, 8000) as encoder:
            for _ in range(400):
                encoder.write(SPEECH)

    with pytest.raises(DiskFull, match="no room") as caught:
        fill()
    assert "\n" not in str(caught.value)


def test_closed_encoder_refuses(tmp_path: Path) -> None:
    """A second close does nothing."""
    encoder = Encoder(tmp_path / "a.wav", "alaw", 8000)
    encoder.close()
    encoder.close()
    with pytest.raises(AudioError, match="closed"):
        encoder.write(SPEECH)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="No such file"):
        Encoder(tmp_path / "no" / "a.wav", "alaw", 8000)


def test_wav_beyond_header_limit_is_refused() -> None:
    encoder = Encoder(None, "alaw", 8000)
    encoder.frames = 0xFFFFFFFF - 5000
    with pytest.raises(AudioError, match="4 GB"):
        encoder.write(SPEECH)
    encoder.abort()


def test_abort_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        encoder = Encoder(tmp_path / "a.wav", "oki", 8000)
        encoder.write(SPEECH)
        encoder.abort()
    assert len(os.listdir("/proc/self/fd")) == before


def test_mp3_blocks_are_read_undamaged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = encode(tmp_path / "a.mp3", SPEECH, "mp3")
    whole, _ = soundfile.read(path, dtype="int16")
    assert np.abs(decode(path).astype(int) - whole).max() <= 1
    assert capfd.readouterr().err == ""  # libmpg123 complains there about frames it cannot decode


def test_libsndfile_reads_our_wav(tmp_path: Path) -> None:
    info = soundfile.info(encode(tmp_path / "a.wav", SPEECH, "alaw"))
    assert (info.frames, info.subtype) == (len(SPEECH), "ALAW")
