"""The interface of a codec: the file that is wanted, and the writer that encodes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastagi.domain.formats import Format

Samples = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Wanted:
    """File that a codec is asked for.

    :param rate: Hz; :param channels: 1 or 2
    :param bit_rate: bits a second; 0 for a codec that has one only
    :param frames: samples of each channel that will come, if known, else 0
    :param most_bytes: size that a choice of block sizes must not exceed; 0 for no limit
    """

    form: Format
    rate: int
    channels: int
    bit_rate: int = 0
    frames: int = 0
    most_bytes: int = 0


class Writer(Protocol):
    """Encoder of samples into an `Output`. Errors of the output stay in its `failure`."""

    @property
    def held_bytes(self) -> int:
        """Bytes of encoded audio not handed to the output yet."""

    def write(self, samples: Samples) -> None:
        """Append samples: (frames,) for one channel, (frames, channels) for two."""

    def close(self) -> None:
        """Write the remaining audio, and the header."""

    def abort(self) -> None:
        """Release everything; the file stays as it is."""
