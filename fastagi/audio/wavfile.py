"""RIFF/WAVE headers: whether the file is complete, where its audio is, and repair of an unfinished header.

`reader` decodes samples, `encoder` writes them; here are headers only. Asterisk writes 0 into both sizes when it opens
a file and the true sizes when it closes the file: these are the completion mark. A killed Asterisk leaves the zeros,
and libsndfile then reads 0 frames without an error. So no code in this project believes a size that was not checked
here.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from os import PathLike

from fastagi.errors import AudioError, DiskFull
from fastagi.exposed_files import open_file

PCM, ALAW, ULAW, OKI, IMA = 0x0001, 0x0006, 0x0007, 0x0010, 0x0011
"""`wFormatTag` of the codecs that this project writes into WAV."""

MOST_CHUNKS = 64
"""Most chunks before `data`: real files have 2 to 5; the walk through a file of random bytes must end."""

HEAD_BYTES = 128
"""Bytes read at once: all of a header that Asterisk or this project writes."""

_TO_THE_END = 0xFFFFFFFF
_LARGEST_RATE = 384_000


@dataclass(frozen=True, slots=True)
class WavInfo:
    """Content of a WAV header, with the real sizes of the file.

    :param complete: both sizes are written and fit the file: its writer has closed it
    :param tag: codec (`PCM`, `ALAW`, ...); :param rate: Hz; :param bits: per sample
    :param block_align: bytes per frame (PCM, G.711) or per block (ADPCM)
    :param data_offset: start of the audio; :param data_bytes: its length, cut to whole frames
    :param frames: samples per channel; for ADPCM the number in `fact`
    :param riff_bytes: size of the file that the RIFF size should describe
    """

    complete: bool
    tag: int
    rate: int
    channels: int
    bits: int
    block_align: int
    data_offset: int
    data_bytes: int
    frames: int
    riff_bytes: int

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


@dataclass(frozen=True, slots=True)
class Repair:
    """Result of `repair`.

    :param salvaged: the header was unfinished, and there was audio behind it
    :param frames: samples per channel in the file now
    """

    salvaged: bool
    frames: int


def inspect(path: str | PathLike[str]) -> WavInfo:
    """Return the header of a WAV file, with the real length of its audio.

    :raises AudioError: there is no file, or the file is a link, is empty, or is not a WAV file
    """
    try:
        fd = open_file(path)
    except OSError as exc:
        raise AudioError(f"{os.fspath(path)}: {exc.strerror}") from None
    try:
        return inspect_fd(fd, os.fspath(path))
    finally:
        os.close(fd)


def is_complete(path: str | PathLike[str]) -> bool:
    """Return True once the writer has closed the file. Reads the header only; a missing file is not complete."""
    try:
        return inspect(path).complete
    except AudioError:
        return False


def repair(path: str | PathLike[str]) -> Repair:
    """Write the true sizes into an unfinished header. Idempotent; the file is synced before the function returns.

    Only for files without a writer: a patched header is a completion mark.

    :raises AudioError: not a WAV file, or a file that may not be written
    :raises DiskFull: the patch could not be written
    """
    name = os.fspath(path)
    info = inspect(path)
    if info.complete:
        return Repair(False, info.frames)
    try:
        fd = open_file(path, os.O_RDWR)
        try:
            info = inspect_fd(fd, name)
            end = info.data_offset + info.data_bytes
            if end == info.riff_bytes:
                os.ftruncate(fd, end)  # the rest is less than a frame
            os.pwrite(fd, struct.pack("<I", min(info.riff_bytes - 8, _TO_THE_END)), 4)
            os.pwrite(fd, struct.pack("<I", min(info.data_bytes, _TO_THE_END)), info.data_offset - 4)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{name}: no room to write its header: {exc.strerror}") from None
        raise AudioError(f"{name}: its header cannot be mended: {exc.strerror}") from None
    return Repair(info.frames > 0, info.frames)


def inspect_fd(fd: int, name: str, head: bytes = b"") -> WavInfo:
    """Inspect an open descriptor, as `inspect` does a path.

    :param name: the file's name in errors; :param head: bytes already read from the file's beginning
    """
    size = os.fstat(fd).st_size
    if size == 0:
        raise AudioError(f"{name}: the file is empty")
    head = head or _pread(fd, HEAD_BYTES, 0, name)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        raise AudioError(f"{name}: not a WAV file (no RIFF/WAVE header)")
    riff_size = int.from_bytes(head[4:8], "little")
    fmt = b""
    fact = None
    offset = 12
    for _ in range(MOST_CHUNKS):
        chunk = head[offset : offset + 8]
        if len(chunk) < 8:
            chunk = _pread(fd, 8, offset, name)
        if len(chunk) < 8:
            break
        kind, length = chunk[:4], int.from_bytes(chunk[4:], "little")
        if kind == b"data":
            return _with_data(fd, name, size, riff_size, fmt, fact, offset + 8, length)
        wanted = min(length, 64)
        body = head[offset + 8 : offset + 8 + wanted]
        if len(body) < wanted:
            body = _pread(fd, wanted, offset + 8, name)
        if kind == b"fmt ":
            fmt = body
        elif kind == b"fact" and len(body) >= 4:
            fact = int.from_bytes(body[:4], "little")
        offset += 8 + length + (length & 1)
    raise AudioError(f"{name}: a WAV header without audio behind it")


def _with_data(
    fd: int, name: str, size: int, riff_size: int, fmt: bytes, fact: int | None, offset: int, length: int
) -> WavInfo:
    if len(fmt) < 16:
        raise AudioError(f"{name}: a WAV header that does not say its format")
    tag, channels, rate, _, align, bits = struct.unpack("<HHIIHH", fmt[:16])
    if not (0 < channels <= 64 and 0 < rate <= _LARGEST_RATE and 0 < align <= 0x4000):
        raise AudioError(f"{name}: a WAV header with an impossible format ({channels} channels, {rate} Hz)")
    if tag in (PCM, ALAW, ULAW) and align != channels * max(1, bits // 8):
        raise AudioError(f"{name}: a WAV header that contradicts itself ({bits} bits, {align} bytes per frame)")
    rest = size - offset
    believed = _believable(fd, name, offset, length, size)
    data = length if believed else rest // align * align
    end = offset + data + (data & 1)
    riff_bytes = size if believed else end
    complete = believed and riff_size != 0 and abs(riff_size + 8 - size) <= 1
    frames = data // align
    if tag in (OKI, IMA):
        per_block = int.from_bytes(fmt[18:20], "little") if tag == IMA and len(fmt) >= 20 else 2 // channels
        most = frames * max(1, per_block)
        frames = most if fact is None or fact > most else fact
    return WavInfo(complete, tag, rate, channels, bits, align, offset, data, frames, riff_bytes)


def _believable(fd: int, name: str, offset: int, length: int, size: int) -> bool:
    """Tell whether `length` can be the size of the audio: it fits, and the end of the file or chunks follow."""
    if length > size - offset:
        return False
    at = offset + length + (length & 1)
    for _ in range(MOST_CHUNKS):
        if at >= size:
            return True
        chunk = _pread(fd, 8, at, name)
        if len(chunk) < 8 or not all(0x20 <= byte < 0x7F for byte in chunk[:4]):
            return False
        at += 8 + int.from_bytes(chunk[4:], "little")
        at += at & 1
        if at > size + 1:
            return False
    return False


def _pread(fd: int, count: int, offset: int, name: str) -> bytes:
    try:
        return os.pread(fd, count, offset)
    except OSError as exc:
        raise AudioError(f"{name}: {exc.strerror}") from None
