"""Encoding by libsndfile, by the names of container and codec in the format's row."""

from __future__ import annotations

import contextlib

import soundfile

from fastagi.audio.codecs.base import Samples, Wanted
from fastagi.audio.output import Counter, Output
from fastagi.audio.sequential import SequentialFile


class SndFile:
    """One file that libsndfile writes.

    :param compression: libsndfile's level for a bit rate: 0 is the largest bit rate, 1 the smallest
    :param bit_rate_mode: CONSTANT, AVERAGE or VARIABLE, where the codec has them
    """

    held_bytes = 0

    def __init__(
        self,
        output: Output | Counter,
        wanted: Wanted,
        *,
        compression: float | None = None,
        bit_rate_mode: str | None = None,
    ) -> None:
        container, codec = wanted.form.sndfile
        self._file = SequentialFile(
            output,
            "w",
            wanted.rate,
            wanted.channels,
            codec,
            format=container,
            compression_level=compression,
            bitrate_mode=bit_rate_mode,
        )

    def write(self, samples: Samples) -> None:
        """Append samples."""
        self._file.write(samples)

    def close(self) -> None:
        """Write the remaining audio, and the header."""
        self._file.close()

    def abort(self) -> None:
        """Close libsndfile's side of the file."""
        with contextlib.suppress(soundfile.SoundFileError, RuntimeError):
            self._file.close()
