"""fastagi.audio.wavfile: the completion mark, and headers that nobody finished."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_sound import tone, wav_bytes, write_wav

from fastagi.audio import inspect, is_complete, repair
from fastagi.errors import AudioError

SOUND = tone(440, 0.5)
N = len(SOUND)
WHOLE = wav_bytes(SOUND)


def sizes(data: bytes, riff: int, audio: int) -> bytes:
    return data[:4] + struct.pack("<I", riff) + data[8:40] + struct.pack("<I", audio) + data[44:]


def with_list_before(data: bytes) -> bytes:
    return data[:36] + b"LIST" + struct.pack("<I", 6) + b"abcdef" + data[36:]


RECOVERABLE = {
    "both sizes 0": (sizes(WHOLE, 0, 0), N),
    "only the data size 0": (sizes(WHOLE, len(WHOLE) - 8, 0), N),
    "only the RIFF size 0": (sizes(WHOLE, 0, 2 * N), N),
    "both 0xFFFFFFFF": (sizes(WHOLE, 0xFFFFFFFF, 0xFFFFFFFF), N),
    "data size too large": (sizes(WHOLE, 36 + 4 * N, 4 * N), N),
    "cut in the middle": (WHOLE[: 44 + N], N // 2),
    "cut in a sample": (WHOLE[: 44 + N + 1], N // 2),
    "data size too small, audio behind it": (sizes(WHOLE, 36 + 1000, 1000), N),
    "sizes 0 and half a sample": (sizes(WHOLE, 0, 0) + b"\x7f", N),
    "sizes 0 and a chunk before the data": (with_list_before(sizes(WHOLE, 0, 0)), N),
    "sizes 0 and one sample": (sizes(WHOLE, 0, 0)[:46], 1),
    "RIFF size of a shorter file": (sizes(WHOLE, 36 + 2 * 100, 2 * N), N),
    "sizes 0, audio that begins like a chunk": (sizes(WHOLE, 0, 0)[:44] + b"LIST" + WHOLE[48:], N),
}


@pytest.mark.parametrize("case", RECOVERABLE)
def test_repair_recovers_and_is_idempotent(case: str, tmp_path: Path) -> None:
    data, frames = RECOVERABLE[case]
    path = tmp_path / "raw.wav"
    path.write_bytes(data)
    assert not is_complete(path)

    found = repair(path)

    assert found.salvaged
    assert found.frames == frames
    assert is_complete(path)
    assert inspect(path).data_bytes == 2 * frames
    once = path.read_bytes()
    samples, rate = soundfile.read(path, dtype="int16")  # libsndfile believes the header
    assert rate == 8000
    assert len(samples) == frames
    if "begins like" not in case:
        assert np.array_equal(samples, SOUND[:frames])
    again = repair(path)
    assert not again.salvaged
    assert again.frames == frames
    assert path.read_bytes() == once


def test_whole_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "raw.wav"
    path.write_bytes(WHOLE + b"LIST" + struct.pack("<I", 4) + b"more")
    path.write_bytes(sizes(path.read_bytes(), path.stat().st_size - 8, 2 * N))
    before = path.read_bytes()
    assert is_complete(path)
    assert repair(path).salvaged is False
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"RIFF", "not a WAV"),
        (np.random.default_rng(4).bytes(5000), "not a WAV"),
        (b"Dear operator,\nthis is a text.\n" * 40, "not a WAV"),
        (SOUND.tobytes(), "not a WAV"),
        (WHOLE[:30], "without audio"),
        (WHOLE[:12] + b"data" + struct.pack("<I", 0) + b"12345678", "does not say its format"),
        (WHOLE[:22] + b"\0\0" + WHOLE[24:], "impossible format"),
        (WHOLE[:32] + b"\x07\0" + WHOLE[34:], "contradicts itself"),
        (b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 1000, "without audio"),
    ],
)
def test_other_file_is_one_line_error(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "raw.wav"
    path.write_bytes(data)
    for attempt in (inspect, repair):
        with pytest.raises(AudioError, match=reason) as caught:
            attempt(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not is_complete(path)
    assert path.read_bytes() == data


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: os.mkfifo(p)])
def test_pipe_and_folder_never_block(make: Callable[[Path], None], tmp_path: Path) -> None:
    """A missing file, a folder and a pipe are errors at once."""
    path = tmp_path / "raw.wav"
    make(path)
    assert not is_complete(path)
    with pytest.raises(AudioError):
        repair(path)


def test_file_without_audio_is_valid(tmp_path: Path) -> None:
    closed, never_closed = tmp_path / "a.wav", tmp_path / "b.wav"
    nothing = np.zeros(0, np.int16)
    write_wav(closed, nothing)
    write_wav(never_closed, nothing, closed=False)
    assert closed.stat().st_size == 44
    assert is_complete(closed)
    assert not is_complete(never_closed)  # it may be one whose first 2 s are still in Asterisk's buffer
    found = repair(never_closed)
    assert (found.salvaged, found.frames) == (False, 0)
    assert is_complete(never_closed)
    assert never_closed.read_bytes() == closed.read_bytes()


def test_completion_mark_follows_asterisks_writes(tmp_path: Path) -> None:
    path = tmp_path / "raw.wav"
    steps = [b"", WHOLE[:20], sizes(WHOLE, 0, 0)[:1000], sizes(WHOLE, 0, 0), sizes(WHOLE, len(WHOLE) - 8, 0)]
    for data in steps:
        path.write_bytes(data)
        assert not is_complete(path)
    path.write_bytes(WHOLE)
    assert is_complete(path)


def test_inspect_tells_the_format(tmp_path: Path) -> None:
    info = inspect(write_wav(tmp_path / "raw.wav", SOUND, 16000))
    assert (info.complete, info.rate, info.channels, info.bits, info.frames) == (True, 16000, 1, 16, N)
    assert info.seconds == pytest.approx(N / 16000)


def test_file_beyond_4_gb_is_read(tmp_path: Path) -> None:
    path = tmp_path / "raw.wav"
    path.write_bytes(sizes(WHOLE, 0xFFFFFFFF, 0xFFFFFFFF))
    os.truncate(path, 0x1_2000_0000)  # no blocks are used: the disk need not have them
    assert not is_complete(path)
    assert repair(path).frames == (0x1_2000_0000 - 44) // 2
    assert repair(path).frames == (0x1_2000_0000 - 44) // 2


def test_read_only_file_cannot_be_repaired(tmp_path: Path) -> None:
    path = tmp_path / "raw.wav"
    write_wav(path, SOUND, closed=False)
    real = os.open

    def refuse(name: object, flags: int, *rest: int, **more: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return real(name, flags, *rest, **more)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(AudioError, match="cannot be mended: Permission denied"):
            repair(path)
