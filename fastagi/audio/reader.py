"""Reading of int16 samples from an audio file, block by block.

Asterisk's own recordings (16-bit PCM in WAV) are read directly, by the file's real length and not by its header.
libsndfile reads all other files that this project writes or adopts. `growing` reads files that still grow.
"""

from __future__ import annotations

import io
import os
from os import PathLike
from pathlib import PurePath
from typing import Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from fastagi.audio import wavfile
from fastagi.audio.resample import Resampler, resampled_length
from fastagi.audio.sequential import SequentialFile
from fastagi.domain.formats import FORMATS
from fastagi.errors import AudioError
from fastagi.exposed_files import open_file

Samples = NDArray[np.int16]

BLOCK_FRAMES = 1 << 17
"""Frames per block: 16 s of telephone audio, 256 kB. No numpy step on a block takes a millisecond."""

HEADERLESS = {
    ".alaw": ("ALAW", 8000),
    ".al": ("ALAW", 8000),
    ".ulaw": ("ULAW", 8000),
    ".ul": ("ULAW", 8000),
    ".pcm": ("ULAW", 8000),
    ".mu": ("ULAW", 8000),
    ".sln": ("PCM_16", 8000),
    ".sln16": ("PCM_16", 16000),
    **{form.suffix: (form.sndfile[1], form.rates[0]) for form in FORMATS.values() if form.headerless},
}
"""Codecs by Asterisk's suffixes of files without a header (adopted recordings): only the name tells the codec."""


class Reader(Protocol):
    """Audio file being read. `frames` is exact."""

    rate: int
    channels: int
    frames: int
    complete: bool
    """True when the header was finished by the file's writer. Only PCM can be read before that."""

    def read(self, count: int) -> Samples:
        """Return the next samples, at most `count` frames; empty at the end. Several channels: (frames, channels)."""

    def skip(self, count: int) -> None:
        """Skip `count` frames."""

    def close(self) -> None:
        """Close the file."""


def open_reader(path: str | PathLike[str], rate: int = 0, *, own: bool = False) -> Reader:
    """Open any audio file that this project knows.

    :param rate: Hz of the samples returned; a file of another rate is converted; 0 takes the file's own
    :param own: the file lies where only the server writes; anywhere else a link is not followed
    :raises AudioError: no file, a link, empty, not audio, or an unknown codec
    """
    name = os.fspath(path)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK) if own else open_file(name)
    except OSError as exc:
        raise AudioError(f"{name}: {exc.strerror}") from None
    reader: Reader | None = None
    try:
        reader = _reader(fd, name)
    finally:
        if not isinstance(reader, _Pcm):
            os.close(fd)
    if rate and reader.rate != rate:
        return _Converted(reader, rate)
    return reader


def _reader(fd: int, name: str) -> Reader:
    """Return the reader for a file: `_Pcm` keeps this descriptor, all others use a copy of it."""
    reader: Reader
    suffix = PurePath(name).suffix
    head = _head(fd, name)
    magic = head[:4]
    if suffix in HEADERLESS and magic not in (b"RIFF", b"fLaC", b"OggS"):
        codec, own = HEADERLESS[suffix]
        reader = _Decoded(fd, name, codec=codec, rate=own)
    elif magic == b"RIFF":
        info = wavfile.inspect_fd(fd, name, head)
        if info.tag == wavfile.PCM and info.bits == 16:
            reader = _Pcm(fd, name, info)
        elif info.tag == wavfile.OKI:
            reader = _Decoded(fd, name, codec="VOX_ADPCM", rate=info.rate, window=(info.data_offset, info.data_bytes))
            reader.frames = min(reader.frames, info.frames)
        else:
            if not info.complete:
                raise AudioError(f"{name}: its header was never finished")
            reader = _Decoded(fd, name)
            if info.tag == wavfile.IMA:
                reader.frames = min(reader.frames, info.frames)  # whole blocks are decoded; `fact` has the true count
    else:
        reader = _Decoded(fd, name)
    return reader


class _Pcm:
    """Reader of 16-bit PCM in WAV, straight from the file.

    :param fd: open for reading; closed by `close`
    """

    def __init__(self, fd: int, name: str, info: wavfile.WavInfo) -> None:
        self.rate = info.rate
        self.channels = info.channels
        self.frames = info.data_bytes // info.block_align
        self.complete = info.complete
        self._name = name
        self._offset = info.data_offset
        self._at = 0
        self._fd = fd

    def read(self, count: int) -> Samples:
        count = min(count, self.frames - self._at)
        out = np.empty(max(0, count) * self.channels, np.int16)
        view = out.data.cast("B") if count > 0 else memoryview(b"")
        done = 0
        start = self._offset + self._at * 2 * self.channels
        while done < len(view):
            try:
                got = os.preadv(self._fd, [view[done:]], start + done)
            except OSError as exc:
                raise AudioError(f"{self._name}: {exc.strerror}") from None
            if got == 0:
                raise AudioError(f"{self._name}: became shorter while it was read")
            done += got
        self._at += max(0, count)
        return out if self.channels == 1 else out.reshape(-1, self.channels)

    def skip(self, count: int) -> None:
        self._at = min(self.frames, self._at + count)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _read_past(reader: Reader, count: int) -> None:
    """Skip `count` frames of a file that cannot seek, by reading them."""
    while count > 0:
        got = len(reader.read(min(count, BLOCK_FRAMES)))
        if got == 0:
            return
        count -= got


class _Decoded:
    """Reader of a file that libsndfile decodes."""

    def __init__(
        self, fd: int, name: str, codec: str = "", rate: int = 0, window: tuple[int, int] | None = None
    ) -> None:
        self._name = name
        try:
            self._raw = _Window(os.dup(fd), *window) if window else None
            source = self._raw or os.dup(fd)  # libsndfile closes its own, also where it cannot read the file
            if codec:
                self._file = SequentialFile(source, "r", rate, 1, codec, format="RAW")
            else:
                self._file = SequentialFile(source)
        except (soundfile.SoundFileError, RuntimeError) as exc:
            why = str(getattr(exc, "error_string", exc)).rstrip(".")
            raise AudioError(f"{name}: not audio that can be read ({why})") from None
        except OSError as exc:
            raise AudioError(f"{name}: {exc.strerror}") from None
        self.rate = int(self._file.samplerate)
        self.channels = int(self._file.channels)
        self.frames = int(self._file.frames)
        self.complete = True
        self._at = 0
        self._pairs = codec == "VOX_ADPCM"
        self._odd: Samples | None = None

    def read(self, count: int) -> Samples:
        count = max(0, min(count, self.frames - self._at))
        if count == 0:
            return np.zeros(0 if self.channels == 1 else (0, self.channels), np.int16)
        out = self._decode_pairs(count) if self._pairs else self._decode(count)
        self._at = self._at + len(out) if len(out) else self.frames
        return out

    def _decode(self, count: int) -> Samples:
        try:
            out: Samples = self._file.read(count, dtype="int16")
        except (soundfile.SoundFileError, RuntimeError) as exc:
            raise AudioError(f"{self._name}: cannot be decoded ({str(exc).rstrip('.')})") from None
        return out

    def _decode_pairs(self, count: int) -> Samples:
        """Read an even number of samples and keep the rest: libsndfile drops a sample of VOX ADPCM at odd numbers."""
        kept = self._odd if self._odd is not None else np.zeros(0, np.int16)
        wanted = count - len(kept)
        out = np.concatenate((kept, self._decode(wanted + (wanted & 1)))) if wanted > 0 else kept
        self._odd = out[count:].copy() if len(out) > count else None
        return out[:count]

    def skip(self, count: int) -> None:
        _read_past(self, count)

    def close(self) -> None:
        self._file.close()
        if self._raw is not None:
            self._raw.close()


class _Converted:
    """Reader at another rate than the file's."""

    def __init__(self, inner: Reader, rate: int) -> None:
        self._inner = inner
        self.rate = rate
        self.channels = inner.channels
        self.frames = resampled_length(inner.frames, inner.rate, rate)
        self.complete = inner.complete
        self._stream = Resampler(inner.rate, rate, inner.channels)
        self._ready: list[Samples] = []
        self._held = 0
        self._over = False

    def read(self, count: int) -> Samples:
        while self._held < count and not self._over:
            block = self._inner.read(BLOCK_FRAMES)
            out = self._stream.feed(block) if len(block) else self._stream.finish()
            self._over = len(block) == 0
            self._ready.append(out)
            self._held += len(out)
        held = np.concatenate(self._ready) if self._ready else self._stream.finish()
        self._ready = [held[count:]]
        self._held = len(self._ready[0])
        return held[:count]

    def skip(self, count: int) -> None:
        _read_past(self, count)

    def close(self) -> None:
        self._inner.close()


class _Window(io.RawIOBase):
    """Part of a file as a file: libsndfile decodes VOX ADPCM only without a header."""

    def __init__(self, fd: int, offset: int, length: int) -> None:
        super().__init__()
        self._fd = fd
        self._offset = offset
        self._length = length
        self._at = 0

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)[: max(0, self._length - self._at)]  # type: ignore[arg-type]
        got = os.preadv(self._fd, [view], self._offset + self._at) if len(view) else 0
        self._at += got
        return got

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


def _head(fd: int, name: str) -> bytes:
    try:
        head = os.pread(fd, wavfile.HEAD_BYTES, 0)
    except OSError as exc:
        raise AudioError(f"{name}: {exc.strerror}") from None
    if not head:
        raise AudioError(f"{name}: the file is empty")
    return head
