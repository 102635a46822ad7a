"""Encoding of 8-bit PCM in WAV."""

from __future__ import annotations

import numpy as np

from fastagi.audio.codecs.base import Samples, Wanted
from fastagi.audio.codecs.sndfile import SndFile
from fastagi.audio.output import Counter, Output


class RoundedFile(SndFile):
    """One file of samples that are rounded to 8 bits.

    libsndfile truncates them: 9 dB worse, and a bias. After rounding here, truncation loses nothing.
    """

    def write(self, samples: Samples) -> None:
        """Append samples."""
        super().write((np.minimum(samples, 32767 - 128) + np.int16(128)) & np.int16(-256))


def open_writer(output: Output | Counter, wanted: Wanted) -> RoundedFile:
    """Return a writer of one file."""
    return RoundedFile(output, wanted)
