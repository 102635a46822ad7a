"""Sizes of finished files computed ahead, for the codecs whose size is arithmetic; no file is touched here.

Header sizes are those of the files that `encoder` writes (measured, and asserted by the tests). FLAC, Opus and MP3
cannot be computed ahead: `max_frames` returns None and the caller watches the size.
"""

from __future__ import annotations

from fastagi.domain.formats import format_named


def least_bytes(file_format: str, rate: int, channels: int) -> int:
    """Return the smallest size of a file: a header and the codec's smallest step.

    Where the size is not arithmetic, it is the size of an empty file.
    """
    form = format_named(file_format)
    layout = form.layout(rate, channels)
    if layout is None:
        return form.empty_bytes
    return layout.header + layout.block_bytes + layout.pad(layout.block_bytes)


def max_frames(file_format: str, rate: int, channels: int, max_bytes: int) -> int | None:
    """Return the most samples per channel in a file of at most `max_bytes`; 0 when not even the header fits.

    With a cipher, pass `cipher.plaintext_budget(max_bytes)`.

    :returns: None for a codec whose size depends on the audio
    """
    form = format_named(file_format).layout(rate, channels)
    if form is None:
        return None
    room = max_bytes - form.header
    room -= form.pad(room)
    return max(0, room // form.block_bytes * form.block_frames)


def file_bytes(file_format: str, rate: int, channels: int, frames: int) -> int | None:
    """Return the exact size of a file of `frames` samples per channel; None when it depends on the audio."""
    form = format_named(file_format).layout(rate, channels)
    if form is None:
        return None
    blocks = -(-frames // form.block_frames) or (0 if form.header else 1)  # a file without header is never empty
    data = blocks * form.block_bytes
    return form.header + data + form.pad(data)
