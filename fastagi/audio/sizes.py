"""Sizes of finished files computed ahead, for the codecs whose size is arithmetic; no file is touched here.

Header sizes are those of the files that `encoder` writes (measured, and asserted by the tests). FLAC, Opus and MP3
cannot be computed ahead: `max_frames` returns None and the caller watches the size.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastagi.domain.formats import format_named

_IMA_STATE = 4
"""Bytes at the front of an IMA block that hold one sample and the step; then two samples a byte."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Bytes of one codec in its file.

    :param header: bytes before the audio; 0 where the file is no WAV, which is not padded to an even length
        :param block_bytes: the smallest step; :param block_frames: samples per channel in a step
    """

    header: int
    block_bytes: int
    block_frames: int

    def pad(self, data: int) -> int:
        """Return the bytes that RIFF pads `data` bytes of audio with: one after an odd length."""
        return data & 1 if self.header else 0


def layout(file_format: str, rate: int, channels: int) -> Layout | None:
    """Return the layout of a codec, or None when its size depends on the audio."""
    format_named(file_format)
    match file_format:
        case "alaw" | "ulaw":
            return Layout(58, channels, 1)
        case "u8bit":
            return Layout(44, channels, 1)
        case "s16bit":
            return Layout(44, 2 * channels, 1)
        case "oki":
            return Layout(60, 1, 2)
        case "ima":
            block = 256 if rate < 12_000 else 512  # libsndfile's choice
            return Layout(60, block, 2 * (block - _IMA_STATE) + 1)
        case "gsm":
            return Layout(0, 33, 160)
    return None


_EMPTY = {"flac": 200, "opus": 1000, "mp3": 600}
"""Bytes that hold a file without a sample, encoded by libsndfile 1.2 (98, 900, 504)."""


def least_bytes(file_format: str, rate: int, channels: int) -> int:
    """Return the smallest size of a file: a header and the codec's smallest step.

    Where the size is not arithmetic, it is the size of an empty file.
    """
    form = layout(file_format, rate, channels)
    if form is None:
        return _EMPTY[file_format]
    return form.header + form.block_bytes + form.pad(form.block_bytes)


def max_frames(file_format: str, rate: int, channels: int, max_bytes: int) -> int | None:
    """Return the most samples per channel in a file of at most `max_bytes`; 0 when not even the header fits.

    With a cipher, pass `cipher.plaintext_budget(max_bytes)`.

    :returns: None for a codec whose size depends on the audio
    """
    form = layout(file_format, rate, channels)
    if form is None:
        return None
    room = max_bytes - form.header
    room -= form.pad(room)
    return max(0, room // form.block_bytes * form.block_frames)


def file_bytes(file_format: str, rate: int, channels: int, frames: int) -> int | None:
    """Return the exact size of a file of `frames` samples per channel; None when it depends on the audio."""
    form = layout(file_format, rate, channels)
    if form is None:
        return None
    blocks = -(-frames // form.block_frames) or (0 if form.header else 1)  # a file without header is never empty
    data = blocks * form.block_bytes
    return form.header + data + form.pad(data)
