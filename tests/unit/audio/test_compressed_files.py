"""fastagi.audio: IMA's blocks, and opus and mp3 by the machine's libraries as by libsndfile."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_sound import Samples, ffmpeg_decode, program, silence, snr_db, sox_decode, tone, voice, write_wav

from fastagi.audio import Encoder, RawPiece, RenderPlan, open_reader, render
from fastagi.audio.codecs import mp3, opus
from fastagi.audio.codecs.ima import block_frames, fitting_block
from fastagi.audio.codecs.ogg import checksum
from fastagi.domain.formats import FORMATS
from fastagi.errors import BadArgument

TALK = voice(20.0, seed=51)


@pytest.fixture(params=["the machine's libraries", "libsndfile"])
def codecs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "libsndfile":
        monkeypatch.setattr(opus, "library", lambda: None)
        monkeypatch.setattr(mp3, "library", lambda: None)
    else:
        assert opus.library() is not None, f"apt-get install {opus.PACKAGE}"
        assert mp3.library() is not None, f"apt-get install {mp3.PACKAGE}"
    return str(request.param)


def encode(path: Path, samples: Samples, file_format: str, rate: int = 8000, **more: int) -> Path:
    channels = 1 if samples.ndim == 1 else 2
    with Encoder(path, file_format, rate, channels, **more) as encoder:  # type: ignore[arg-type]
        for start in range(0, len(samples), 1777):
            encoder.write(samples[start : start + 1777])
    assert encoder.bytes_written == path.stat().st_size
    return path


def decoded(path: Path) -> Samples:
    reader = open_reader(path)
    out = reader.read(10**7)
    reader.close()
    return out


@pytest.mark.parametrize("rate", [6000, 8000, 11025, 16000])
def test_ima_ends_there_for_every_reader(rate: int, tmp_path: Path) -> None:
    """ffmpeg, sox and libsndfile decode whole blocks, whatever the header says of the length."""
    for ms in (1000, 2345, 5021):
        sound = np.concatenate((tone(500, ms / 1000, -20), silence(3.0)))
        raw = write_wav(tmp_path / "raw.wav", sound)
        target = tmp_path / "done.wav"
        plan = RenderPlan((RawPiece(raw),), str(target), "ima", rate, max_silence_ms=1500)
        made = render(plan)
        assert made.frames / rate == pytest.approx(ms / 1000 + 1.5, abs=0.01)
        heard = (len(ffmpeg_decode(target)), len(sox_decode(target)), soundfile.info(target).frames)
        assert all(0 <= n - made.frames <= 0.005 * rate for n in heard), (heard, made.frames)
        assert len(decoded(target)) == made.frames


def test_ima_blocks_leave_little_over() -> None:
    for frames in range(4000, 60_000, 997):
        block = fitting_block(frames, 8000)
        assert 64 <= block <= 512
        assert -frames % block_frames(block) <= 40
    assert fitting_block(5050, 8000) == 256, "what libsndfile would take, where it fits"
    for frames in range(4000, 9000, 371):
        most = 60 + -(-frames // 505) * 256
        block = fitting_block(frames, 8000, most)
        assert 60 + -(-frames // block_frames(block)) * block <= most, "as max_bytes counted it"


def test_ima_is_as_good_as_libsndfile(tmp_path: Path) -> None:
    ours = decoded(encode(tmp_path / "a.wav", TALK, "ima"))
    soundfile.write(tmp_path / "b.wav", TALK, 8000, "IMA_ADPCM")
    theirs, _ = soundfile.read(tmp_path / "b.wav", dtype="int16")
    assert snr_db(TALK, ours) >= snr_db(TALK, theirs[: len(TALK)]) - 0.2


@pytest.mark.parametrize("length", [2, 504, 505, 506, 70_001])
def test_ima_full_scale_and_short(length: int, tmp_path: Path) -> None:
    """The loudest square wave: predictions stay within int16, in each decoder (ffmpeg rounds another way)."""
    sound = np.where(np.arange(length) // 20 % 2, 32767, -32768).astype(np.int16)
    path = encode(tmp_path / "a.wav", sound, "ima", frames=length)
    for heard in (ffmpeg_decode(path)[:length], sox_decode(path)[:length], decoded(path)):
        assert snr_db(sound, heard) > 6


def test_ogg_checksum_is_the_standards() -> None:
    """CRC-32/MPEG-2 without its initial value, by its definition."""
    page = bytes(range(256)) * 3
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    assert checksum(page) == crc


@pytest.mark.parametrize("length", [1, 160, 8000, 8007, 23_456, 160_000])
@pytest.mark.parametrize(("file_format", "rate"), [("opus", 8000), ("opus", 16000), ("mp3", 8000), ("mp3", 11025)])
def test_length_is_exact_when_decoded(file_format: str, rate: int, length: int, codecs: str, tmp_path: Path) -> None:
    path = encode(tmp_path / "a.bin", TALK[:length], file_format, rate)
    assert len(decoded(path)) == length
    if codecs != "libsndfile" and length > 1000:
        scale = 48_000 // rate if file_format == "opus" else 1
        assert len(ffmpeg_decode(path)) == length * scale


@pytest.mark.parametrize("rate", [8000, 11025, 16000])
def test_mp3_length_is_exact(rate: int, tmp_path: Path) -> None:
    """LAME leaves its own frame with the length out below 24 kbit/s: then 64 ms too many were heard."""
    for bit_rate in FORMATS["mp3"].bit_rates[rate].only:
        for sound in (TALK[:8007], np.stack((TALK[:8007], TALK[1000:9007]), axis=1)):
            path = encode(tmp_path / "a.mp3", sound, "mp3", rate, bit_rate=bit_rate)
            assert len(decoded(path)) == 8007
    assert len(ffmpeg_decode(path)) == 2 * 8007


@pytest.mark.parametrize(
    ("file_format", "rate", "bit_rate"),
    [
        *(("opus", 8000, bit_rate) for bit_rate in (0, 8000, 24_000)),
        *(("opus", 16000, bit_rate) for bit_rate in (0, 32_000)),
        *(("mp3", 8000, bit_rate) for bit_rate in (0, 8000, 48_000)),
        *(("mp3", 16000, bit_rate) for bit_rate in (0, 48_000)),
    ],
)
def test_bit_rate_is_kept(file_format: str, rate: int, bit_rate: int, codecs: str, tmp_path: Path) -> None:
    path = encode(tmp_path / "a.bin", TALK, file_format, rate, bit_rate=bit_rate)
    wanted = bit_rate or FORMATS[file_format].bit_rates[rate].usual
    got = path.stat().st_size * 8 / (len(TALK) / rate)
    constant = file_format == "mp3" and codecs != "libsndfile"
    assert got == pytest.approx(wanted, rel=0.1 if constant else 0.25)


def test_opus_default_is_16_kbit(codecs: str, tmp_path: Path) -> None:
    assert FORMATS["opus"].bit_rates[8000].usual == 16_000
    size = encode(tmp_path / "a.opus", TALK, "opus").stat().st_size
    assert size * 8 / 20 < 20_000, "it was 21,000"


@pytest.mark.parametrize("file_format", ["flac", "opus", "mp3"])
@pytest.mark.parametrize("limit", [4000, 8000, 20_000])
def test_max_bytes_is_used(file_format: str, limit: int, codecs: str, tmp_path: Path) -> None:
    """Of 8,000 bytes an opus file had 46 %: libsndfile held a second back, and the rest was left free for it."""
    raw = write_wav(tmp_path / "raw.wav", TALK)
    target = str(tmp_path / "done.bin")
    bit_rate = 24_000 if file_format == "opus" else 0
    made = render(RenderPlan((RawPiece(raw),), target, file_format, max_bytes=limit, bit_rate=bit_rate))
    assert made.limit == "SIZE"
    assert 0.9 * limit <= made.bytes <= limit
    assert len(decoded(Path(target))) == made.frames


def test_opus_passes_opusinfo_like_checks(tmp_path: Path) -> None:
    """Pages in sequence, positions that rise, the first and last marked, every checksum right."""
    data = encode(tmp_path / "a.opus", TALK, "opus").read_bytes()
    at, number, last = 0, 0, -1
    while at < len(data):
        magic, _, flags, granule, _, count, crc, segments = struct.unpack_from("<4sBBqIIIB", data, at)
        lacing = data[at + 27 : at + 27 + segments]
        page = data[at : at + 27 + segments + sum(lacing)]
        assert magic == b"OggS"
        assert count == number
        assert checksum(page[:22] + bytes(4) + page[26:]) == crc
        assert bool(flags & 2) == (number == 0)
        assert bool(flags & 4) == (at + len(page) == len(data))
        assert granule >= last
        at, number, last = at + len(page), number + 1, granule
    (skip,) = struct.unpack_from("<H", data, 28 + 10)
    assert last == skip + len(TALK) * 6


def test_encoders_are_let_go(tmp_path: Path) -> None:
    for file_format in ("opus", "mp3", "ima"):
        encoder = Encoder(tmp_path / "a.bin", file_format, 8000)
        encoder.write(TALK[:8000])
        encoder.abort()
        encoder.abort()


@pytest.mark.parametrize(
    ("file_format", "rate", "channels", "bit_rate", "text"),
    [
        ("alaw", 8000, 1, 16_000, "bit_rate=16000 is nothing that alaw has: leave it out, or record opus and mp3"),
        ("opus", 8000, 1, 16, "bit_rate=16 is not possible as opus at 8000 Hz, mixed: use 6000 to 128000 bit/s"),
        ("opus", 8000, 2, 6000, "at 8000 Hz, separate: use 12000 to 128000 bit/s"),
        ("mp3", 8000, 1, 20_000, "use one of 8000, 16000, 24000, 32000, 40000, 48000, 56000, 64000 bit/s"),
        ("opus", 8000, 1, True, "bit_rate=True must be a whole number of bits a second, or 0"),
        ("opus", 8000, 1, 16_000.5, "must be a whole number of bits a second, or 0"),
    ],
)
def test_wrong_bit_rate_is_refused(file_format: str, rate: int, channels: int, bit_rate: int, text: str) -> None:
    with pytest.raises(BadArgument) as caught:
        Encoder(None, file_format, rate, channels, bit_rate=bit_rate)
    assert text in str(caught.value)


@pytest.mark.slow
def test_opus_costs_no_more_than_ffmpeg(tmp_path: Path) -> None:
    """Measured 0.8 of it; ten times that would be another library. `benchmarks/audio` has the numbers."""
    import resource

    raw = write_wav(tmp_path / "raw.wav", np.concatenate([TALK] * 3))

    def spent(who: int) -> float:
        return resource.getrusage(who).ru_utime

    before = spent(resource.RUSAGE_SELF)
    encode(tmp_path / "a.opus", np.concatenate([TALK] * 3), "opus")
    ours = spent(resource.RUSAGE_SELF) - before
    before = spent(resource.RUSAGE_CHILDREN)
    command = [program("ffmpeg"), "-v", "error", "-i", raw, "-c:a", "libopus", "-b:a", "16k", str(tmp_path / "b.opus")]
    subprocess.run(command, check=True, capture_output=True)
    assert ours < 3 * (spent(resource.RUSAGE_CHILDREN) - before)
