"""Encoding of int16 samples into a file of any format, block by block.

`codecs` encodes. What holds for every codec is here: targets, errors, a file without a sample, the largest WAV.
`fastagi.domain.formats` lists formats and rates, `sizes` computes sizes ahead, `reader` reads files.
"""

from __future__ import annotations

import errno
import os
from os import PathLike
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import soundfile

from fastagi.audio.codecs import open_writer
from fastagi.audio.codecs.base import Samples, Wanted, Writer
from fastagi.audio.output import Counter, Output
from fastagi.audio.sizes import file_bytes
from fastagi.domain.formats import FORMATS, bit_rate_for, check_format
from fastagi.errors import AudioError, DiskFull

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""errno values of a finished file without room: full disk, quota, the process's file size limit."""

LARGEST_WAV = 0xFFFFFFFF - 4096
"""Largest WAV in bytes: RIFF sizes have 32 bits, and libsndfile would wrap them silently."""

_WITHOUT_LIMIT = " or ".join(form.name for form in FORMATS.values() if not form.layouts)

_CODEC_ERRORS = (soundfile.SoundFileError, RuntimeError, AssertionError, AudioError)
"""Errors of a codec. soundfile asserts that libsndfile took everything."""


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
        form = check_format(file_format, rate, mode)
        bits = bit_rate_for(file_format, rate, mode, bit_rate)
        self.file_format = file_format
        self._form = form
        self.rate = rate
        self.channels = channels
        self.frames = 0
        self._own: int | None = None
        self._name = name
        self._output: Output | Counter
        if target is None:
            self._output = Counter()
        elif isinstance(target, (str, PathLike)):
            self._name = os.fspath(target)
            try:
                self._own = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            except OSError as exc:
                raise self._reason(exc) from None
            self._output = Output(self._own)
        else:
            self._output = Output(target.fileno())
        self._file: Writer | None = None
        try:
            self._file = open_writer(self._output, Wanted(form, rate, channels, bits, frames, most_bytes))
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
            raise AudioError(f"{self._name}: longer than a WAV file can be (4 GB); choose {_WITHOUT_LIMIT}")
        self.frames = frames
        self._put(block)

    def close(self) -> None:
        """Finish the file: write the audio that the codec holds back, then the header. Idempotent.

        :raises DiskFull: there is no room; :raises AudioError: the codec failed
        """
        if self._file is None:
            return
        if self.frames == 0 and self._form.container != "wav":
            # Before the first sample libsndfile writes no header (FLAC, MP3) or no audio page (Opus, which ffmpeg then
            # refuses): one silent sample makes it a file.
            self._put(np.zeros(1 if self.channels == 1 else (1, self.channels), np.int16))
        failure = self._shut(self._file)
        if failure is None and self._output.failure is None:
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

    def _put(self, block: Samples) -> None:
        assert self._file is not None
        try:
            self._file.write(block)
        except _CODEC_ERRORS as exc:
            raise self._reason(self._output.failure or exc) from None
        if self._output.failure is not None:
            raise self._reason(self._output.failure)

    def _shut(self, file: Writer) -> Exception | None:
        self._file = None
        try:
            file.close()
        except _CODEC_ERRORS as exc:
            file.abort()
            return exc
        return None

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
