"""Reading of a WAV file that Asterisk is still writing.

Asterisk flushes 32 kB at a time (2 s of telephone audio) and leaves the sizes in the header at 0 until it closes the
file, so only the file's own length counts here. No descriptor stays open between two reads: thousands of calls are
watched at once.
"""

from __future__ import annotations

import os
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from fastagi.audio import wavfile
from fastagi.errors import AudioError
from fastagi.exposed_files import open_file

Samples = NDArray[np.int16]

MOST_FRAMES = 1 << 19
"""Most frames per read: 65 s of telephone audio, 1 MB. A reader that fell further behind reads again at once."""


class GrowingWav:
    """One growing 16-bit mono WAV file.

    :param path: may not exist yet
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.rate = 0
        """Hz; 0 until the header is there."""
        self.frames = 0
        """Frames returned so far."""
        self.complete = False
        """True once the writer has closed the file and all of it has been returned."""

    def read_new(self, most: int = MOST_FRAMES) -> Samples:
        """Return the samples that came since the last call, at most `most`; empty when there are none (yet).

        :raises AudioError: the file is not 16-bit mono PCM in WAV
        """
        empty: Samples = np.zeros(0, np.int16)
        try:
            fd = open_file(self.path)
        except FileNotFoundError:
            return empty
        except OSError as exc:
            raise AudioError(f"{self.path}: {exc.strerror}") from None
        try:
            size = os.fstat(fd).st_size
            if size < 44:  # Asterisk's header; libc may flush it in parts
                return empty
            info = wavfile.inspect_fd(fd, self.path)
            if info.tag != wavfile.PCM or info.bits != 16 or info.channels != 1:
                raise AudioError(f"{self.path}: not 16-bit mono PCM, silence cannot be judged in it")
            self.rate = info.rate
            available = info.frames - self.frames
            count = max(0, min(available, most))
            out = np.empty(count, np.int16)
            if count:
                got = os.preadv(fd, [out.data.cast("B")], info.data_offset + 2 * self.frames)
                out = out[: got // 2]
            self.frames += len(out)
            self.complete = info.complete and self.frames >= info.frames
            return out
        except OSError as exc:
            raise AudioError(f"{self.path}: {exc.strerror}") from None
        finally:
            os.close(fd)
