"""Silence and size, judged on the raw files of a recording while Asterisk still writes them.

Asterisk flushes every 2.05 s of 8 kHz audio, so a limit is seen up to that much late; the finished file is cut exactly
by `fastagi.audio.render`, which judges the whole once more. No growth counts as silence. Where the files cannot be
read, `talking` judges instead.
"""

from __future__ import annotations

import os
import time

import numpy as np
from numpy.typing import NDArray

from fastagi.audio import Encoder, GrowingWav, SilenceWatch, max_frames, mix
from fastagi.cipher import Cipher
from fastagi.domain.recording import Piece, Recording
from fastagi.domain.states import Cause
from fastagi.errors import AudioError
from fastagi.recording.spool.plan import gap_seconds

FLUSH_SECONDS = 2.2
"""One step of Asterisk's buffer (32,768 bytes at 8 kHz are 2.05 s) and a little for the poll."""


class LimitWatch:
    """The limits of one recording, through all its pieces. `look` is blocking: it reads the files.

    :param recording: its latest row is given to each `look`
    :param silence_dbfs: RMS below which a 10 ms frame is silence
    """

    def __init__(self, recording: Recording, cipher: Cipher | None, silence_dbfs: float) -> None:
        spec = recording.spec
        self._started = recording.started_at or recording.requested_at
        self._grown_at = self._started
        self._number = 0
        self._file: _Sound | None = None
        self._was_there = False
        self._frames = 0
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

    @staticmethod
    def wanted(recording: Recording) -> bool:
        """Does it have a limit that only its audio can tell?"""
        return bool(recording.spec.byte_limit or any(recording.spec.silence_limits))

    @property
    def heard(self) -> bool:
        """Was there a sound, so far as was read?"""
        return self._silence is not None and self._silence.first_sound is not None

    @property
    def most_seconds(self) -> float | None:
        """The longest recording that `max_bytes` allows; None where there is no limit, or no telling ahead."""
        return None if self._most_frames is None else self._most_frames / self._rate

    def look(self, recording: Recording, now: float, paused: bool) -> Cause:
        """The limit that is reached, or NONE. Reads what Asterisk has written since the last look.

        :param recording: its row now; :param now: unix seconds
        :param paused: nothing is being recorded, and silence is not judged
        :raises AudioError: a file is there and cannot be read, or was there and is gone
        """
        pieces = [p for p in recording.pieces if not p.void and not p.lost]
        while self._number < len(pieces):
            if self._read(pieces[self._number], now) is Cause.SILENCE:
                return Cause.SILENCE
            if self._number + 1 >= len(pieces) or not pieces[self._number].ended_at:
                break
            self._next(recording, pieces[self._number], pieces[self._number + 1])
        if self._full(self._gap_now(recording, pieces, now)):
            return Cause.SIZE
        return Cause.SILENCE if not paused and self._silent_by_clock(recording, now) else Cause.NONE

    def _read(self, piece: Piece, now: float) -> Cause:
        path = piece.paths[0]
        if self._file is None or self._file.path != path:
            self._file, self._was_there = _Sound(piece), False
        while len(block := self._file.read_new()):
            self._was_there = True
            self._frames += len(block)
            # so long ago by the machine's clock, which may be another one than ours
            at = now - max(0.0, time.time() - os.stat(path).st_mtime)
            self._grown_at = max(self._grown_at, min(at, piece.ended_at or at))
            if self._silence is not None and self._silence.feed(block) is not None:
                return Cause.SILENCE
            if self._counter is not None:
                self._counter.write(block)
        if not os.path.exists(path):
            if self._was_there:
                raise AudioError(f"{path}: it was there and is gone")
        else:
            self._was_there = True
        return Cause.NONE

    def _next(self, recording: Recording, before: Piece, after: Piece) -> None:
        """One piece is read to its end: what lies between it and the next is in the file, and nobody's silence."""
        frames = round(gap_seconds(recording, before, after) * self._raw_rate)
        if self._silence is not None:
            self._silence.skip(frames)
        if self._counter is not None:
            self._counter.write(np.zeros(frames, np.int16))
        self._frames += frames
        self._number += 1
        self._grown_at = max(self._grown_at, after.started_at)

    def _gap_now(self, recording: Recording, pieces: list[Piece], now: float) -> int:
        """Frames of silence that a pause has put into the file so far."""
        if not pieces or not pieces[-1].ended_at or recording.spec.pause_mode == "cut":
            return 0
        return max(0, round((now - pieces[-1].ended_at) * self._raw_rate))

    def _full(self, more: int) -> bool:
        frames = self._frames + more
        before_sound = 0
        if self._silence is not None and self._initial_ms:
            before_sound = frames if self._silence.first_sound is None else self._silence.first_sound
        kept = (frames - before_sound) * self._rate // self._raw_rate
        if self._most_frames is not None:
            return kept >= self._most_frames
        return self._counter is not None and self._counter.bytes_written >= self._most_bytes

    def _silent_by_clock(self, recording: Recording, now: float) -> bool:
        """Nothing is being written: a leg without frames makes no file, but who listens hears just as little.

        What was said last may still be in Asterisk's buffer; only after a flush's time is it sure that nothing was.
        """
        if self._silence is None:
            return False
        still = now - self._grown_at - FLUSH_SECONDS
        if still <= 0:
            return False
        if self._silence.first_sound is None and self._initial_ms:
            paused = sum((s.end or now) - s.start for s in recording.pauses)
            return now - self._started - paused - FLUSH_SECONDS >= self._initial_ms / 1000
        return bool(self._max_ms) and still >= self._max_ms / 1000


class _Sound:
    """What a piece's files tell of both sides: Asterisk's own mix, or (Monitor) its two legs put together here."""

    def __init__(self, piece: Piece) -> None:
        self.path = piece.paths[0]
        self._files = [GrowingWav(path) for path in ([piece.mixed] if piece.mixed else [piece.received, piece.sent])]
        self._waiting = [np.zeros(0, np.int16) for _ in self._files]

    def read_new(self) -> NDArray[np.int16]:
        """The samples that came since the last call. :raises AudioError: a file cannot be read"""
        if len(self._files) == 1:
            return self._files[0].read_new()
        self._waiting = [
            np.concatenate((waiting, file.read_new())) for waiting, file in zip(self._waiting, self._files, strict=True)
        ]
        lengths = [len(waiting) for waiting in self._waiting]
        behind = round(2 * FLUSH_SECONDS * max(8000, *(file.rate for file in self._files)))
        count = max(min(lengths), max(lengths) - behind)  # a leg without frames stands still: it is silent
        parts = [np.concatenate((w[:count], np.zeros(max(0, count - len(w)), np.int16))) for w in self._waiting]
        self._waiting = [waiting[count:] for waiting in self._waiting]
        return mix(parts[0], parts[1])
