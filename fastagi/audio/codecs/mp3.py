"""Encoding of MP3 by the system's LAME, where it is installed.

The LAME inside libsndfile's wheel is built without assembler and takes twice the time. `encoder` uses that one on
machines without libmp3lame.
"""

from __future__ import annotations

import ctypes
import struct
from functools import cache

import numpy as np

from fastagi.audio.codecs.base import Samples, Wanted, Writer
from fastagi.audio.codecs.sndfile import SndFile
from fastagi.audio.output import Counter, Output
from fastagi.errors import AudioError

LIBRARY_NAME = "LAME"
LIBRARY = "libmp3lame.so.0"
PACKAGE = "libmp3lame0"
"""Name of the library's Debian package."""

QUALITY = 5
"""LAME's default quality; 0 is the best, 9 the fastest."""

_JOINT, _MONO = 1, 3
_INFO_BIT_RATES = {8000: 3, 11025: 4, 16000: 5}
"""MPEG's index of 24, 32 and 40 kbit/s by rate: the smallest frame that has room for `_info`."""

_SPACE = 7200
"""Room in bytes that LAME asks for beyond 1.25 bytes a sample."""

_STRETCH = 1 << 15


@cache
def library() -> ctypes.CDLL | None:
    """Return libmp3lame, or None where there is none."""
    try:
        lame = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int
    lame.lame_init.restype = pointer
    for name in ("num_channels", "in_samplerate", "out_samplerate", "brate", "quality", "mode", "bWriteVbrTag"):
        getattr(lame, f"lame_set_{name}").argtypes = [pointer, number]
    lame.lame_set_write_id3tag_automatic.argtypes = [pointer, number]
    lame.lame_init_params.argtypes = lame.lame_close.argtypes = [pointer]
    lame.lame_encode_buffer.argtypes = [pointer, pointer, pointer, number, pointer, number]
    lame.lame_encode_buffer_interleaved.argtypes = [pointer, pointer, number, pointer, number]
    lame.lame_encode_flush.argtypes = [pointer, pointer, number]
    for name in ("encoder_delay", "encoder_padding", "frameNum"):
        getattr(lame, f"lame_get_{name}").argtypes = [pointer]
    return lame


def open_writer(output: Output | Counter, wanted: Wanted) -> Writer:
    """Return a writer of one file, by LAME where it is installed.

    :raises AudioError: LAME refuses this
    """
    if library() is not None:
        return LameFile(output, wanted.rate, wanted.channels, wanted.bit_rate)
    return FloatFile(output, wanted)


class FloatFile(SndFile):
    """One file that libsndfile writes, from floats: it garbles int16 on its way into stereo MP3 (2 dB SNR for 26)."""

    def __init__(self, output: Output | Counter, wanted: Wanted) -> None:
        most = 64_000 if wanted.rate < 16_000 else 160_000
        level = min((most - wanted.bit_rate) / (most - 8_000), 0.99)  # libsndfile refuses 1
        # At a low constant bit rate LAME leaves out its frame with the length; an average one is up to 20 % higher.
        super().__init__(output, wanted, compression=level, bit_rate_mode="AVERAGE")

    def write(self, samples: Samples) -> None:
        """Append samples."""
        self._file.write(samples.astype(np.float32) / 32768)


class LameFile:
    """One MP3 file of constant bit rate being written; its first frame tells players the exact length.

    :param rate: Hz; :param bit_rate: bits a second, one of those that MPEG has for this rate
    :raises AudioError: LAME refuses this
    """

    held_bytes = 0

    def __init__(self, output: Output | Counter, rate: int, channels: int, bit_rate: int) -> None:
        lame = library()
        assert lame is not None
        self._lame = lame
        self._output = output
        self._channels = channels
        self._state: int | None = lame.lame_init()
        if not self._state:
            raise AudioError("LAME has no memory")
        lame.lame_set_num_channels(self._state, channels)
        lame.lame_set_in_samplerate(self._state, rate)
        lame.lame_set_out_samplerate(self._state, rate)
        lame.lame_set_brate(self._state, bit_rate // 1000)
        lame.lame_set_bWriteVbrTag(self._state, 0)
        lame.lame_set_quality(self._state, QUALITY)
        lame.lame_set_mode(self._state, _MONO if channels == 1 else _JOINT)
        lame.lame_set_write_id3tag_automatic(self._state, 0)
        if lame.lame_init_params(self._state) < 0:
            self.abort()
            raise AudioError(f"LAME refuses {rate} Hz with {channels} channels at {bit_rate} bit/s")
        index = _INFO_BIT_RATES[rate]
        self._info_index = index
        self._info_bytes = 72 * 8_000 * index // rate
        self._first = b""
        output.write(bytes(self._info_bytes))
        self._buffer = ctypes.create_string_buffer(_STRETCH * 5 // 4 + _SPACE)

    def write(self, samples: Samples) -> None:
        """Append samples: (frames,) or (frames, channels).

        :raises AudioError: LAME failed
        """
        for start in range(0, len(samples), _STRETCH):
            part = np.ascontiguousarray(samples[start : start + _STRETCH])
            at, size = part.ctypes.data, len(self._buffer)
            if self._channels == 1:
                got = self._lame.lame_encode_buffer(self._state, at, at, len(part), self._buffer, size)
            else:
                got = self._lame.lame_encode_buffer_interleaved(self._state, at, len(part), self._buffer, size)
            self._put(got)

    def close(self) -> None:
        """Encode the rest, and write the first frame, which has the length.

        :raises AudioError: LAME failed
        """
        self._put(self._lame.lame_encode_flush(self._state, self._buffer, len(self._buffer)))
        self._output.patch(0, self._info())
        self.abort()

    def abort(self) -> None:
        """Release LAME."""
        state, self._state = self._state, None
        if state:
            self._lame.lame_close(state)

    def _info(self) -> bytes:
        """Return the silent first frame: how many frames follow, and how much to cut off at both ends.

        LAME leaves it out where it does not fit into a frame of the audio's own bit rate, below 24 kbit/s.
        """
        lame, state = self._lame, self._state
        head = bytes([*self._first[:2], self._info_index << 4 | self._first[2] & 0x0C, self._first[3]])
        side = bytes(9 if self._channels == 1 else 17)
        counts = struct.pack(">4sIII", b"Info", 3, lame.lame_get_frameNum(state), self._output.size)
        cut = lame.lame_get_encoder_delay(state) << 12 | lame.lame_get_encoder_padding(state) & 0xFFF
        frame: bytes = head + side + counts + b"LAME3.100" + bytes(12) + cut.to_bytes(3, "big")
        return frame.ljust(self._info_bytes, b"\0")

    def _put(self, got: int) -> None:
        if got < 0:
            raise AudioError(f"LAME cannot encode this (error {got})")
        if got:
            encoded = ctypes.string_at(self._buffer, got)
            self._first = self._first or encoded[:4]
            self._output.write(encoded)
