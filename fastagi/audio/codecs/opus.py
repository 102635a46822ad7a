"""Encoding of Ogg Opus (RFC 7845) by the system's libopus, where it is installed.

The encoder inside libsndfile's wheel is built without the processor's vector instructions, holds a second of audio back
and takes no bit rate in numbers. It is used on machines without libopus.
"""

from __future__ import annotations

import ctypes
import struct
from functools import cache

import numpy as np

from fastagi.audio.codecs.base import Samples, Wanted, Writer
from fastagi.audio.codecs.ogg import OggPages
from fastagi.audio.codecs.sndfile import SndFile
from fastagi.audio.output import Counter, Output
from fastagi.errors import AudioError

LIBRARY_NAME = "libopus"
LIBRARY = "libopus.so.0"
PACKAGE = "libopus0"
"""Name of the library's Debian package."""

_GRANULES = 48_000
"""Granule positions a second, at any rate of the audio."""

_PACKETS_PER_SECOND = 50
_PACKETS_PER_PAGE = 50
_MOST_PACKET = 1500
_APPLICATION_AUDIO = 2049
"""libopus' mode that keeps the sound unchanged; its mode for calls raises formants and cuts off below 60 Hz."""

_SET_BITRATE, _SET_COMPLEXITY, _GET_LOOKAHEAD = 4002, 4010, 4027
COMPLEXITY = 9
"""Complexity, 0 to 10. libopus' default; 10 takes a fifth more time without an audible difference."""


@cache
def library() -> ctypes.CDLL | None:
    """Return libopus, or None where there is none."""
    try:
        opus = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    opus.opus_encoder_create.restype = ctypes.c_void_p
    opus.opus_encoder_create.argtypes = [ctypes.c_int32, ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.c_int)]
    opus.opus_encode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int32]
    opus.opus_encode.restype = ctypes.c_int32
    opus.opus_encoder_destroy.argtypes = [ctypes.c_void_p]
    opus.opus_encoder_destroy.restype = None
    return opus


def open_writer(output: Output | Counter, wanted: Wanted) -> Writer:
    """Return a writer of one file, by libopus where it is installed.

    :raises AudioError: libopus refuses this
    """
    if library() is not None:
        return OpusFile(output, wanted.rate, wanted.channels, wanted.bit_rate)
    # libsndfile's levels are 6 to 256 kbit/s for each channel
    return SndFile(output, wanted, compression=1 - (wanted.bit_rate / wanted.channels - 6_000) / 250_000)


class OpusFile:
    """Ogg Opus file being written.

    :param rate: Hz; :param bit_rate: bits a second
    :raises AudioError: libopus refuses this
    """

    def __init__(self, output: Output | Counter, rate: int, channels: int, bit_rate: int) -> None:
        opus = library()
        assert opus is not None
        self._opus = opus
        self._channels = channels
        self._size = rate // _PACKETS_PER_SECOND
        self._scale = _GRANULES // rate
        error = ctypes.c_int()
        self._encoder: int | None = opus.opus_encoder_create(rate, channels, _APPLICATION_AUDIO, ctypes.byref(error))
        if not self._encoder:
            raise AudioError(f"libopus refuses {rate} Hz with {channels} channels (error {error.value})")
        self._set(_SET_BITRATE, bit_rate)
        self._set(_SET_COMPLEXITY, COMPLEXITY)
        ahead = ctypes.c_int32()
        opus.opus_encoder_ctl(ctypes.c_void_p(self._encoder), _GET_LOOKAHEAD, ctypes.byref(ahead))
        self._ahead = ahead.value
        self._buffer = ctypes.create_string_buffer(_MOST_PACKET)
        self._rest: Samples = np.zeros((0, channels), np.int16)
        self._frames = 0
        self._packets = 0
        self._pages = OggPages(output, _PACKETS_PER_PAGE)
        skip = self._ahead * self._scale
        self._pages.add(struct.pack("<8sBBHIhB", b"OpusHead", 1, channels, skip, rate, 0, 0), 0)
        self._pages.flush()
        self._pages.add(struct.pack("<8sI7sI", b"OpusTags", 7, b"fastagi", 0), 0)
        self._pages.flush()

    @property
    def held_bytes(self) -> int:
        """Bytes of packets that are not in the file yet."""
        return self._pages.held_bytes

    def write(self, samples: Samples) -> None:
        """Append samples: (frames,) or (frames, channels).

        :raises AudioError: libopus failed
        """
        self._frames += len(samples)
        self._encode(samples.reshape(-1, self._channels))

    def close(self) -> None:
        """Encode libopus' look-ahead, and end the file at the true length.

        :raises AudioError: libopus failed
        """
        needed = max(1, -(-(self._frames + self._ahead) // self._size)) - self._packets
        missing = needed * self._size - len(self._rest)
        self._frames = max(1, self._frames)
        self._encode(np.zeros((max(0, missing), self._channels), np.int16))
        self._pages.flush(last=True)
        self.abort()

    def abort(self) -> None:
        """Release the encoder."""
        encoder, self._encoder = self._encoder, None
        if encoder:
            self._opus.opus_encoder_destroy(encoder)

    def _set(self, what: int, value: int) -> None:
        self._opus.opus_encoder_ctl(ctypes.c_void_p(self._encoder), what, ctypes.c_int32(value))

    def _encode(self, samples: Samples) -> None:
        """Encode whole packets and keep the rest. No packet's position is beyond the last sample."""
        audio = np.ascontiguousarray(np.concatenate((self._rest, samples)) if len(self._rest) else samples)
        at, width = audio.ctypes.data, 2 * self._channels
        whole = len(audio) // self._size
        for number in range(whole):
            start = at + number * self._size * width
            got = self._opus.opus_encode(self._encoder, start, self._size, self._buffer, _MOST_PACKET)
            if got < 0:
                raise AudioError(f"libopus cannot encode this (error {got})")
            self._packets += 1
            end = min(self._packets * self._size, self._ahead + self._frames)
            self._pages.add(ctypes.string_at(self._buffer, got), end * self._scale)
        self._rest = audio[whole * self._size :].copy()
