"""Encoding of int16 samples into a file of any format, block by block.

IMA is encoded in `ima`, Opus and MP3 by the system's libopus and LAME (`opus`, `lame`). libsndfile encodes all other
formats, and Opus and MP3 where these libraries are not installed. Faults of libsndfile are mended here, each explained
beside its line. `fastagi.domain.formats` lists formats and rates, `sizes` computes sizes ahead, `reader` reads files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from os import PathLike
from types import TracebackType
from typing import BinaryIO, Protocol, Self

import numpy as np
import soundfile
from numpy.typing import NDArray

from fastagi.audio import lame, opus
from fastagi.audio.ima import ImaFile, fitting_block, usual_block
from fastagi.audio.output import Counter, Output
from fastagi.audio.sequential import SequentialFile
from fastagi.audio.sizes import file_bytes
from fastagi.domain.formats import bit_rate_for, check_format
from fastagi.errors import AudioError, DiskFull

Samples = NDArray[np.int16]

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""errno values of a finished file without room: full disk, quota, the process's file size limit."""

LARGEST_WAV = 0xFFFFFFFF - 4096
"""Largest WAV in bytes: RIFF sizes have 32 bits, and libsndfile would wrap them silently."""

_LIBSNDFILE = {
    "alaw": ("WAV", "ALAW"),
    "ulaw": ("WAV", "ULAW"),
    "s16bit": ("WAV", "PCM_16"),
    "u8bit": ("WAV", "PCM_U8"),
    "oki": ("RAW", "VOX_ADPCM"),
    "flac": ("FLAC", "PCM_16"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "gsm": ("RAW", "GSM610"),
}

_OKI_HEADER = 60


class _Writer(Protocol):
    """Encoder of samples into an `Output`."""

    @property
    def held_bytes(self) -> int:
        """Bytes of encoded audio not handed to the output yet."""

    def write(self, samples: Samples) -> None:
        """Append samples."""

    def close(self) -> None:
        """Write the remaining audio, and the header."""

    def abort(self) -> None:
        """Release everything; the file stays as it is."""


class Encoder:
    """One file being written.

    :param target: a path (created or emptied), a binary file open for writing, or None to count bytes only
    :param file_format: a name of `fastagi.domain.formats.FORMATS`
    :param rate: Hz; :param channels: 1 or 2
    :param bit_rate: bits a second of opus and mp3; 0 for the usual one
    :param frames: samples of each channel that will come, if known: IMA chooses its block size by this number
    :param most_bytes: size that the choice of blocks must not exceed; 0 for no limit
    :param name: name of an open file in errors
    :raises BadArgument: the codec cannot do that
    :raises AudioError: the file cannot be opened; :raises DiskFull: there is no room
    """

    def __init__(
        self,
        target: str | PathLike[str] | BinaryIO | None,
        file_format: str,
        rate: int,
        channels: int = 1,
        name: str = "the encoded file",
        *,
        bit_rate: int = 0,
        frames: int = 0,
        most_bytes: int = 0,
    ) -> None:
        mode = "separate" if channels == 2 else "mixed"
        check_format(file_format, rate, mode)
        self._bit_rate = bit_rate_for(file_format, rate, mode, bit_rate)
        self._block = fitting_block(frames, rate, most_bytes) if frames else usual_block(rate)
        self.file_format = file_format
        self.rate = rate
        self.channels = channels
        self.frames = 0
        self._odd: Samples | None = None
        self._own: int | None = None
        self._name = name
        base = _OKI_HEADER if file_format == "oki" else 0
        self._output: Output | Counter
        if target is None:
            self._output = Counter(base)
        elif isinstance(target, (str, PathLike)):
            self._name = os.fspath(target)
            try:
                self._own = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            except OSError as exc:
                raise self._reason(exc) from None
            self._output = Output(self._own, base)
        else:
            self._output = Output(target.fileno(), base)
        self._file: _Writer | None = None
        try:
            self._file = self._writer()
        except (soundfile.SoundFileError, RuntimeError, OSError, AudioError) as exc:
            self._release()
            raise self._reason(self._output.failure or exc) from None

    @property
    def bytes_written(self) -> int:
        """Bytes so far, without audio that the codec still holds back. After `close`: the file's size."""
        return self._output.size + (self._file.held_bytes if self._file is not None else 0)

    def write(self, block: Samples) -> None:
        """Append samples: one dimension for one channel, (frames, channels) for two.

        :raises DiskFull: there is no room; :raises AudioError: the file would be larger than a WAV can be
        """
        if self._file is None:
            raise AudioError(f"{self._name}: the file is closed")
        if len(block) == 0:
            return
        frames = self.frames + len(block)
        if (file_bytes(self.file_format, self.rate, self.channels, frames) or 0) > LARGEST_WAV:
            raise AudioError(f"{self._name}: longer than a WAV file can be (4 GB); choose flac, opus or mp3")
        self.frames = frames
        if self.file_format == "u8bit":
            # libsndfile truncates to 8 bits: 9 dB worse, and a bias. After rounding here, truncation loses nothing.
            block = (np.minimum(block, 32767 - 128) + np.int16(128)) & np.int16(-256)
        elif self.file_format == "oki":
            if self._odd is not None:
                block = np.concatenate((self._odd, block))
            even = len(block) & ~1  # two samples a byte: libsndfile would pad an odd block in the middle of the file
            self._odd = block[even:].copy() if even < len(block) else None
            block = block[:even]
            if not even:
                return
        self._put(block)

    def close(self) -> None:
        """Finish the file: write the audio that the codec holds back, then the header. Idempotent.

        :raises DiskFull: there is no room; :raises AudioError: the codec failed
        """
        if self._file is None:
            return
        if self._odd is not None:
            self._put(np.repeat(self._odd, 2))
            self._odd = None
        if self.frames == 0 and self.file_format in ("flac", "opus", "mp3", "gsm"):
            # Before the first sample libsndfile writes no header (FLAC, MP3) or no audio page (Opus, which ffmpeg then
            # refuses): one silent sample makes it a file.
            self._put(np.zeros(1 if self.channels == 1 else (1, self.channels), np.int16))
        failure = self._shut(self._file)
        if failure is None and self._output.failure is None:
            self._mend()
            self._output.flush()
        self._release()
        failure = self._output.failure or failure
        if failure is not None:
            raise self._reason(failure)

    def abort(self) -> None:
        """Release the file as it is. Never raises."""
        file, self._file = self._file, None
        if file is not None:
            file.abort()
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _writer(self) -> _Writer:
        if self.file_format == "ima":
            return ImaFile(self._output, self.rate, self._block)
        if self.file_format == "opus" and opus.library() is not None:
            return opus.OpusFile(self._output, self.rate, self.channels, self._bit_rate)
        if self.file_format == "mp3" and lame.library() is not None:
            return lame.LameFile(self._output, self.rate, self.channels, self._bit_rate)
        return _SoundFile(self._output, self.file_format, self.rate, self.channels, self._bit_rate)

    def _put(self, block: Samples) -> None:
        assert self._file is not None
        try:
            self._file.write(block)
        except (soundfile.SoundFileError, RuntimeError, AssertionError, AudioError) as exc:
            raise self._reason(self._output.failure or exc) from None
        if self._output.failure is not None:
            raise self._reason(self._output.failure)

    def _shut(self, file: _Writer) -> Exception | None:
        self._file = None
        try:
            file.close()
        except (soundfile.SoundFileError, RuntimeError, AudioError) as exc:
            file.abort()
            return exc
        return None

    def _mend(self) -> None:
        """Correct headers that libsndfile writes wrongly."""
        if self.file_format == "oki":
            data = self._output.size - _OKI_HEADER
            if data & 1:
                self._output.seek(0, os.SEEK_END)
                self._output.write(b"\0")
            self._output.patch(0, oki_header(self.rate, self.frames, data))

    def _release(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            os.close(own)

    def _reason(self, exc: Exception) -> AudioError:
        if isinstance(exc, OSError) and exc.errno in NO_ROOM:
            return DiskFull(f"{self._name}: no room for the {self.file_format} file: {exc.strerror}")
        text = exc.strerror if isinstance(exc, OSError) else str(exc).strip()
        text = text or "the codec wrote less than it was given"
        return AudioError(f"{self._name}: cannot be written as {self.file_format}: {text}")


class _SoundFile:
    """One file that libsndfile writes."""

    held_bytes = 0

    def __init__(self, output: Output | Counter, file_format: str, rate: int, channels: int, bit_rate: int) -> None:
        container, codec = _LIBSNDFILE[file_format]
        level = _compression(file_format, rate, channels, bit_rate)
        # At a low constant bit rate LAME leaves out its frame with the length; an average one is up to 20 % higher.
        mode = "AVERAGE" if file_format == "mp3" else None
        self._floats = file_format == "mp3"
        self._file = SequentialFile(
            output, "w", rate, channels, codec, format=container, compression_level=level, bitrate_mode=mode
        )

    def write(self, samples: Samples) -> None:
        # libsndfile garbles int16 on its way into stereo MP3 (2 dB SNR); floats come out right (26 dB).
        self._file.write(samples.astype(np.float32) / 32768 if self._floats else samples)

    def close(self) -> None:
        self._file.close()

    def abort(self) -> None:
        with contextlib.suppress(soundfile.SoundFileError, RuntimeError):
            self._file.close()


def _compression(file_format: str, rate: int, channels: int, bit_rate: int) -> float | None:
    """Return libsndfile's compression level for a bit rate: 0 is the largest bit rate, 1 the smallest."""
    if file_format == "opus":  # 6 to 256 kbit/s for each channel
        return 1 - (bit_rate / channels - 6_000) / 250_000
    if file_format == "mp3":
        most = 64_000 if rate < 16_000 else 160_000
        return min((most - bit_rate) / (most - 8_000), 0.99)  # libsndfile refuses 1
    return None


def oki_header(rate: int, frames: int, data_bytes: int) -> bytes:
    """Return the 60 bytes before OKI ADPCM (tag 0x0010, Dialogic VOX): libsndfile writes that codec without a
    container.

    :param frames: the true sample count, for `fact`; :param data_bytes: bytes of audio, a pad byte not counted
    """
    fmt = struct.pack("<HHIIHHHH", 0x0010, 1, rate, rate // 2, 1, 4, 2, 0)
    riff = 4 + 8 + len(fmt) + 12 + 8 + data_bytes + (data_bytes & 1)
    return (
        struct.pack("<4sI4s4sI", b"RIFF", riff, b"WAVE", b"fmt ", len(fmt))
        + fmt
        + struct.pack("<4sII4sI", b"fact", 4, frames, b"data", data_bytes)
    )
