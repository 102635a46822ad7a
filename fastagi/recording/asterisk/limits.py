"""Silence and size, judged on the raw files of a recording while Asterisk still writes them.

Two clocks are at work. The file has a frame for every frame that flowed, so a silence in it is a silence at least as
long on the line; where no frame flows (a phone that stops sending, a hold) the file stands still and only the machine's
clock goes on. What counts is the time since the last sound, by the clock; the file says when that was.

Asterisk writes 32,768 bytes at a time (2.05 s of telephone audio) and keeps the rest to itself. While frames flow, the
rest comes soon. When they cease, up to 2 s of sound may lie there for ever: then this asks for a flush
(`fastagi.recording.monitoring.flushing`), which makes everything readable. Where that cannot be, Asterisk is asked
whether it was silence (`talking`). So a limit is seen less than 3 s late and never too early. The finished file is cut
exactly by `fastagi.audio.render`, which judges the whole once more. Where the files cannot be read, `talking` judges
alone.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass

import numpy as np

from fastagi.audio import Encoder, SilenceWatch, max_frames
from fastagi.audio.energy import mean_square_at
from fastagi.cipher import Cipher
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.states import Cause
from fastagi.errors import AudioError
from fastagi.recording.asterisk.render_plan import gap_seconds
from fastagi.recording.asterisk.sound import LATE_SECONDS, STEP_BYTES, Sound

MOST_PATIENCE = 32.0
"""Times `LATE_SECONDS` that a slow Asterisk gets at most."""

FIRST_LATE_SECONDS = 0.65
"""The first step of a file comes 2.1 to 2.6 s after the start (seen on 16.28 and 22.10)."""

CLOSING_SECONDS = 2.0
"""A file that was ended is closed milliseconds later; one whose header never says so is taken for closed."""

FLUSHES = 8
"""In a standstill as long as the limit, at most: when a word was said in it is then known to so much of the limit."""

EXACT_SECONDS = 20.0
"""Of a longer limit that is not well enough, and Asterisk is asked who talks while it stands still."""

HEARD_SECONDS = 0.25
"""What Asterisk heard may have ended so much later than it says."""

UNSURE_SECONDS = 0.5
"""Clock time of a stretch beyond its audio, from which on somewhere in it no frames flowed."""


@dataclass(frozen=True, slots=True)
class Talk:
    """The sound that Asterisk reported, where TALK_DETECT was asked for.

    :param quiet: a limit is reached by that alone
    :param since: unix seconds; nobody was heard after that, nor may have been
    :param heard_until: unix seconds at which somebody was certainly heard last; 0 for nobody
    """

    quiet: bool
    since: float
    heard_until: float = 0.0


class LimitWatch:
    """The limits of one recording, through all its pieces. `look` is blocking: it reads the files.

    :param recording: its latest row is given to each `look`
    :param silence_dbfs: RMS below which a 10 ms frame is silence
    :ivar wants_flush: the last look could not tell without what Asterisk still holds back
    :ivar look_again: unix seconds at which the next look should be, though nothing be written; infinite for any time
    """

    def __init__(self, recording: Recording, cipher: Cipher | None, silence_dbfs: float) -> None:
        spec = recording.spec
        self._started = started = recording.started_at or recording.requested_at
        self.wants_flush = False
        self.look_again = math.inf
        self._number = 0
        self._file: Sound | None = None
        self._was_there = False
        self._patience = 1.0
        self._looked_at: float | None = None
        self._size = 0
        self._grown = False
        self._after_flush = False
        self._frames = 0
        self._written_at = started  # no frame that was written is younger
        self._known_until = started  # whatever was heard before has been read
        self._quiet_since = started  # no sound ended later; time in which nothing was recorded moves it on
        self._unsure = False  # it may well have ended earlier
        self._talk: Talk | None = None
        self._initial_ms, self._max_ms = spec.silence_limits
        self._silence = (
            SilenceWatch(spec.raw_rate, silence_dbfs, self._initial_ms, self._max_ms)
            if self._initial_ms or self._max_ms
            else None
        )
        self._threshold = mean_square_at(silence_dbfs)
        self._raw_rate, self._rate = spec.raw_rate, spec.rate
        self._step_frames = STEP_BYTES // 2
        self._step_seconds = self._step_frames / spec.raw_rate
        budget = cipher.plaintext_budget(spec.byte_limit) if cipher and spec.byte_limit else spec.byte_limit
        self._most_bytes = budget
        self._most_frames = max_frames(spec.file_format, spec.rate, spec.channels, budget) if budget else None
        self._counter = (
            Encoder(None, spec.file_format, spec.rate, spec.channels, bit_rate=spec.bit_rate)
            if budget and self._most_frames is None
            else None
        )

    @staticmethod
    def wanted(recording: Recording) -> bool:
        """Return whether the recording has a limit that only its audio can tell."""
        return bool(recording.spec.byte_limit or any(recording.spec.silence_limits))

    @property
    def heard(self) -> bool:
        """True once a sound was found in the part that was read."""
        return self._silence is not None and self._silence.first_sound is not None

    @property
    def quiet_since(self) -> float:
        """Unix seconds, pauses left out: no sound that was read ended later."""
        return self._quiet_since

    @property
    def silence_limit(self) -> float:
        """Seconds of silence that end it now; 0 for none."""
        return self._limit

    @property
    def wants_talk(self) -> bool:
        """True where the file stands still and the silence limit is so long that flushes would tell too roughly when
        a word was said.
        """
        return self._after_flush and not self._grown and self._limit > EXACT_SECONDS

    @property
    def kept_from(self) -> float:
        """Unix seconds from which on the finished file has something, so far as is known: with an initial limit, the
        first sound."""
        first = self._silence.first_sound if self._silence is not None and self._initial_ms else None
        return self._started + (first or 0) / self._raw_rate

    @property
    def most_seconds(self) -> float | None:
        """The longest recording that `max_bytes` allows; None where there is no limit, or no telling ahead."""
        return None if self._most_frames is None else self._most_frames / self._rate

    def look(
        self, recording: Recording, now: float, paused: bool, flushable: bool = False, talk: Talk | None = None
    ) -> Cause:
        """The limit that is reached, or NONE. Reads what Asterisk has written since the last look.

        :param recording: its row now; :param now: unix seconds
        :param paused: nothing is being recorded, and silence is not judged
        :param flushable: what Asterisk holds back can be had
        :param talk: what Asterisk heard; where neither is, what it holds back is taken for sound
        :raises AudioError: a file is there and cannot be read, or was there and is gone
        """
        self.wants_flush, self.look_again = False, math.inf
        try:
            self._talk = talk
            return self._look(recording, now, paused, flushable)
        finally:
            self._looked_at = now

    def _look(self, recording: Recording, now: float, paused: bool, flushable: bool) -> Cause:
        pieces = [p for p in recording.pieces if not p.empty and not p.lost]
        closing = False
        while self._number < len(pieces):
            here = pieces[self._number]
            after = pieces[self._number + 1].reason if here.ended_at and self._number + 1 < len(pieces) else ""
            if self._read(here, after, now) is Cause.SILENCE:
                return Cause.SILENCE
            if self._number + 1 >= len(pieces) or not here.ended_at:
                break
            closing = self._closing(here, pieces[self._number + 1], now)
            if closing:
                break
            self._next(recording, here, pieces[self._number + 1])
        gap = self._gap_now(recording, pieces, now)
        if self._full(gap):
            return Cause.SIZE
        if paused or closing:
            return Cause.NONE
        return self._by_clock(now, flushable, self._full(gap + self._step_frames, about=True))

    def _read(self, piece: Segment, after: str, now: float) -> Cause:
        path = piece.paths[0]
        if self._file is None or self._file.path != path:
            self._file, self._was_there, self._grown = Sound(piece, self._threshold), False, False
            self._size = 0
            self._after_flush = piece.reason == "still"
            self._written_at = self._known_until = max(self._known_until, piece.started_at)
        fresh = 0
        while len(block := self._file.read_new()):
            self._was_there = self._grown = True
            self._frames += len(block)
            fresh += len(block)
            if self._silence is not None and self._silence.feed(block) is not None:
                return Cause.SILENCE
            if self._counter is not None:
                self._counter.write(block)
        if not os.path.exists(path):
            if self._was_there or piece.confirmed:
                raise AudioError(f"{path}: it was there and is gone")
            return Cause.NONE
        self._was_there = True
        if self._file.size == self._size:
            return Cause.NONE
        self._size = self._file.size
        # so long ago by the machine's clock, which may be another one than ours, or its disk's
        at = now - max(0.0, time.time() - self._file.written_at)
        if self._looked_at is not None and at < self._looked_at:
            at = now  # it was after the last look: that clock is not to be believed
        at = min(at, piece.ended_at or at)
        self._written_at = max(self._written_at, at)
        if fresh:
            self._heard_until(at, fresh, self._file)
        overdue = self._step_frames + LATE_SECONDS * self._raw_rate  # one may have become complete in the flush itself
        if fresh >= overdue and after == "still" and self._looked_at is not None:
            # a step was complete, and only the flush brought it out: Asterisk is slow, and gets more time from now on,
            # because a flush costs it something, too
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        return Cause.NONE

    def _heard_until(self, at: float, fresh: int, file: Sound) -> None:
        """So many frames have been read, of what was written by then."""
        if self._silence is not None and self._silence.quiet < fresh:  # a sound ended in them
            behind = (self._silence.quiet + file.waiting) / self._raw_rate
            self._unsure = at - self._known_until > fresh / self._raw_rate + UNSURE_SECONDS
            ended = at - behind
            if self._unsure and self._talk is not None and self._talk.since > self._known_until:
                ended = min(ended, self._talk.since + HEARD_SECONDS)
            self._quiet_since = max(self._quiet_since, ended)
        self._known_until = max(self._known_until, at - file.unjudged / self._raw_rate)

    def _closing(self, piece: Segment, after: Segment, now: float) -> bool:
        """Return whether the segment ended a moment ago, so that its last bytes may not be there yet.

        A flush waits for the close; the header of a file in which there is nothing never tells of it.
        """
        told = self._file is None or self._file.complete or (after.reason == "still" and not self._grown)
        return not told and now - piece.ended_at < CLOSING_SECONDS

    def _next(self, recording: Recording, before: Segment, after: Segment) -> None:
        """One piece is read to its end: what lies between it and the next is in the file, and nobody's silence."""
        frames = round(gap_seconds(recording, before, after) * self._raw_rate)
        if self._silence is not None:
            self._silence.skip(frames)
        if self._counter is not None:
            self._counter.write(np.zeros(frames, np.int16))
        self._frames += frames
        self._number += 1
        if after.reason == "pause":
            self._quiet_since += max(0.0, after.started_at - before.ended_at)
        elif after.reason == "loss":  # who knows what was said
            self._quiet_since = max(self._quiet_since, after.started_at)

    def _gap_now(self, recording: Recording, pieces: list[Segment], now: float) -> int:
        """Frames of silence that a pause has put into the file so far."""
        if not pieces or not pieces[-1].ended_at or recording.spec.pause_mode == "cut":
            return 0
        return max(0, round((now - pieces[-1].ended_at) * self._raw_rate))

    def _full(self, more: int, about: bool = False) -> bool:
        """Return whether the file would exceed its limit with so many frames more. :param about: estimate where a
        codec's size cannot be known ahead
        """
        frames = self._frames + more
        before_sound = 0
        if self._silence is not None and self._initial_ms:
            before_sound = frames if self._silence.first_sound is None else self._silence.first_sound
        kept = (frames - before_sound) * self._rate // self._raw_rate
        if self._most_frames is not None:
            return kept >= self._most_frames
        if self._counter is None:
            return False
        share = frames / self._frames if about and self._frames else 1.0
        return self._counter.bytes_written * share >= self._most_bytes

    def _by_clock(self, now: float, flushable: bool, nearly_full: bool) -> Cause:
        """The silence limit, where the file alone does not show it yet."""
        late = self._patience * (LATE_SECONDS if self._grown else FIRST_LATE_SECONDS)
        still_at = self._written_at + self._step_seconds + late
        """From then on no frames flow, and what Asterisk holds back stays there."""
        due = self._quiet_since + self._limit if self._limit else math.inf
        if self._known_until >= due:
            return Cause.SILENCE
        if not flushable:
            return self._by_ear(now, still_at, due, self._step_seconds + late)
        # in a standstill, to learn what was said before it; now and then while it lasts; and when it is due
        asked = self._after_flush and not self._grown
        first = still_at if (self._max_ms or nearly_full) and not asked else math.inf
        again = max(still_at, self._known_until + self._limit / FLUSHES) if self._max_ms and asked else math.inf
        last = due if asked or self._unsure else max(due, still_at)
        ask_at = min(first, again, last)
        self.wants_flush = now >= ask_at
        self.look_again = ask_at
        return Cause.NONE

    def _by_ear(self, now: float, still_at: float, due: float, unread: float) -> Cause:
        """The same, where what Asterisk holds back cannot be had.

        :param unread: seconds of sound that may be held back, at most
        """
        quiet, said = (False, 0.0) if self._talk is None else (self._talk.quiet, self._talk.heard_until)
        limit, first = self._limit, self._initial_now
        if said > self._known_until:  # that is held back
            limit, first = self._max_ms / 1000, False
            due = max(due, said + limit)
        if not limit:
            return Cause.NONE
        # whoever has not said a word yet begins with more than a step; else the step may have been said just now
        sure_at = max(due, due + unread if first else still_at + limit)
        heard_at = max(due, still_at)  # what flows is judged by the file
        if now >= sure_at or (quiet and now >= heard_at):
            return Cause.SILENCE
        self.look_again = heard_at if now < heard_at else sure_at
        return Cause.NONE

    @property
    def _initial_now(self) -> bool:
        return bool(self._initial_ms) and not self.heard

    @property
    def _limit(self) -> float:
        """Seconds of silence that end it now; 0 for none."""
        if self._silence is None:
            return 0.0
        return (self._initial_ms if self._initial_now else self._max_ms) / 1000
