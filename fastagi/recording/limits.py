"""Silence and size, judged on a raw file while Asterisk still writes it.

Asterisk flushes every 2.05 s of 8 kHz audio, so a limit is seen up to that much late; the finished file is cut
exactly by
`fastagi.audio.render`, which judges the whole once more. No growth counts as silence.
"""

from __future__ import annotations

from fastagi.audio import Encoder, GrowingWav, SilenceWatch, max_frames
from fastagi.cipher import Cipher
from fastagi.domain.recording import Recording
from fastagi.domain.states import Cause

FLUSH_SECONDS = 2.2
"""One step of Asterisk's buffer (32,768 bytes at 8 kHz are 2.05 s) and a little for the poll."""


class LimitWatch:
    """The limits of one recording. `look` is blocking: it reads the file.

    :param now: unix seconds, here and in `look`
    """

    def __init__(self, recording: Recording, cipher: Cipher | None, silence_dbfs: float) -> None:
        spec = recording.spec
        piece = recording.pieces[-1]
        self._started = piece.started_at or recording.requested_at
        self._grown_at = self._started
        self._file = GrowingWav(piece.mixed or piece.received)
        self._initial_ms, self._max_ms = spec.silence_limits
        self._silence = (
            SilenceWatch(spec.raw_rate, silence_dbfs, self._initial_ms, self._max_ms)
            if self._initial_ms or self._max_ms
            else None
        )
        self._raw_rate, self._rate = spec.raw_rate, spec.rate
        budget = cipher.plaintext_budget(spec.byte_limit) if cipher and spec.byte_limit else spec.byte_limit
        self._most_bytes = budget
        self._most_frames = max_frames(spec.file_format, spec.rate, spec.channels, budget) if budget else None
        self._counter = (
            Encoder(None, spec.file_format, spec.rate, spec.channels) if budget and self._most_frames is None else None
        )
        self._skipped = 0

    @staticmethod
    def wanted(recording: Recording) -> bool:
        """Does it have a limit that only its audio can tell?"""
        return bool(recording.spec.byte_limit or any(recording.spec.silence_limits))

    def look(self, now: float, paused: bool) -> Cause:
        """The limit that is reached, or NONE. Reads what Asterisk has written since the last look.

        :param paused: silence is asked for now and is not judged
        """
        while len(block := self._file.read_new()):
            self._grown_at = now
            if self._silence is not None:
                if paused:
                    self._silence.skip(len(block))
                elif self._silence.feed(block) is not None:
                    return Cause.SILENCE
            if self._counter is not None:
                self._counter.write(block)
        if self._full():
            return Cause.SIZE
        return Cause.SILENCE if not paused and self._silent_by_clock(now) else Cause.NONE

    def _full(self) -> bool:
        before_sound = 0
        if self._silence is not None and self._initial_ms:
            before_sound = self._file.frames if self._silence.first_sound is None else self._silence.first_sound
        kept = (self._file.frames - before_sound) * self._rate // self._raw_rate
        if self._most_frames is not None:
            return kept >= self._most_frames
        return self._counter is not None and self._counter.bytes_written >= self._most_bytes

    def _silent_by_clock(self, now: float) -> bool:
        """Nothing is being written: a leg without frames makes no file, but the caller hears just as little."""
        if self._silence is None:
            return False
        still = now - self._grown_at - FLUSH_SECONDS
        if self._initial_ms and self._silence.first_sound is None:
            return now - self._started - FLUSH_SECONDS >= self._initial_ms / 1000 and still > 0
        return bool(self._max_ms) and still > 0 and still + self._silence.silent_ms / 1000 >= self._max_ms / 1000
