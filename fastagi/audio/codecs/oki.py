"""Encoding of OKI ADPCM (tag 0x0010, Dialogic VOX) in WAV: libsndfile writes that codec without a container."""

from __future__ import annotations

import os
import struct

import numpy as np

from fastagi.audio.codecs.base import Samples, Wanted
from fastagi.audio.codecs.sndfile import SndFile
from fastagi.audio.output import Counter, Output

HEADER_BYTES = 60


class OkiFile(SndFile):
    """One WAV file of one channel being written. Its header follows when the file is closed."""

    def __init__(self, output: Output | Counter, wanted: Wanted) -> None:
        output.reserve(HEADER_BYTES)
        super().__init__(output, wanted)
        self._output = output
        self._rate = wanted.rate
        self._frames = 0
        self._odd: Samples = np.zeros(0, np.int16)

    def write(self, samples: Samples) -> None:
        """Append samples.

        A byte holds two. libsndfile would pad an odd block in the middle of the file, so the last sample of one waits.
        """
        self._frames += len(samples)
        samples = np.concatenate((self._odd, samples))
        even = len(samples) & ~1
        self._odd = samples[even:].copy()
        if even:
            super().write(samples[:even])

    def close(self) -> None:
        """Write the remaining sample, and the header."""
        if len(self._odd):
            super().write(np.repeat(self._odd, 2))
        super().close()
        data = self._output.size - HEADER_BYTES
        if data & 1:
            self._output.seek(0, os.SEEK_END)
            self._output.write(b"\0")
        self._output.patch(0, header(self._rate, self._frames, data))


def open_writer(output: Output | Counter, wanted: Wanted) -> OkiFile:
    """Return a writer of one file."""
    return OkiFile(output, wanted)


def header(rate: int, frames: int, data_bytes: int) -> bytes:
    """Return the bytes before the audio.

    :param frames: the true sample count, for `fact`; :param data_bytes: bytes of audio, a pad byte not counted
    """
    fmt = struct.pack("<HHIIHHHH", 0x0010, 1, rate, rate // 2, 1, 4, 2, 0)
    riff = 4 + 8 + len(fmt) + 12 + 8 + data_bytes + (data_bytes & 1)
    return (
        struct.pack("<4sI4s4sI", b"RIFF", riff, b"WAVE", b"fmt ", len(fmt))
        + fmt
        + struct.pack("<4sII4sI", b"fact", 4, frames, b"data", data_bytes)
    )
