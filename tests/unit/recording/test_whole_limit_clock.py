"""Limits on a line on which frames come and go: what Asterisk writes and holds back is played here by the clock.

The line is a list of stretches: sound ("s"), silent frames ("q"), no frames at all ("n"). Asterisk writes 32,768 bytes
at a time; a flush ends its file and begins another.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastagi.domain.recording import Recording, Segment
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Cause
from fastagi.recording.asterisk import limits
from fastagi.recording.asterisk.limits import LimitWatch, Talk

NOW = 1_800_000_000.0
FRAME = 160
LOOK = 0.5
FLUSH_TAKES = 0.03

Line = Sequence[tuple[str, float]]


class Played:
    """A recording of `line`, watched as `watching.watch` does it."""

    def __init__(self, folder: Path, line: Line, *, skew: float = 0.0, late: float = 0.0, **spec: Any) -> None:
        """
        :param skew: seconds that the disk's clock is ahead
        :param late: seconds by which Asterisk writes a step too late
        """
        self._skew = skew
        self._keeps = limits.STEP_BYTES + round(16_000 * late)
        self.folder = folder
        self.line = line
        self.spec = RecordingSpec(file_format="s16bit", dtmf_elim=False, **spec)
        self.pieces: list[Segment] = []
        self.knows = True  # Asterisk: that nothing is played
        self.now = 0.0
        self.flushes = 0
        self._begun = 0.0  # of the piece
        self._kinds = [kind for kind, seconds in line for _ in range(round(seconds * 50))]
        self._held = b""
        self._frames = 0
        tone = 8000 * np.sin(2 * np.pi * 500 * np.arange(FRAME) / 8000)
        self._audio = {"s": tone.astype(np.int16).tobytes(), "q": bytes(2 * FRAME), "n": b""}
        self._new_piece("")

    @property
    def row(self) -> Recording:
        return Recording(
            id="rec-1", node="n", asterisk="pbx", channel="a", uniqueid="1", name="x", file_path="/r/x.wav",
            spec=self.spec, pieces=tuple(self.pieces), requested_at=NOW, started_at=NOW,
        )  # fmt: skip

    def time(self) -> float:
        return NOW + self.now

    def stopped(
        self, watch: LimitWatch, patience: float, *, flushable: bool = True, heard: bool = False
    ) -> tuple[Cause, float]:
        """Cause and time of the stop; NONE and infinity when there was none.

        :param heard: Asterisk is asked who talks, where the watch may want it
        """
        regular = LOOK
        while self.now < patience:
            again = max(self.now + 0.05, watch.look_again - NOW)
            self._go_on(min(regular, again))
            if self.now >= regular:
                regular += LOOK
            talk = self._talk() if heard and (watch.wants_talk or not flushable) else None
            cause = watch.look(self.row, NOW + self.now, False, flushable, talk)
            if cause is not Cause.NONE:
                return cause, self.now
            if watch.wants_flush:
                assert flushable
                self._flush()
        return Cause.NONE, math.inf

    def _talk(self) -> Talk:
        """What Asterisk heard, some time later; a prompt is no talk, and that nobody talks yet is no news."""
        since = self.last_sound(max(0.0, self.now - 0.1))
        limit = self.spec.milliseconds_max_silence if since else max(self.spec.silence_limits)
        quiet = 0 < limit <= 1000 * (self.now - since)
        return Talk(quiet and self.knows, NOW + (since if self.knows else self.now), NOW + since if since else 0.0)

    def last_sound(self, until: float = math.inf) -> float:
        """When the last sound ended that began before `until`."""
        at = end = 0.0
        for kind, seconds in self.line:
            if kind == "s" and at < until:
                end = min(at + seconds, until)
            at += seconds
        return end

    def _go_on(self, until: float) -> None:
        """Asterisk's part, to that moment."""
        for number in range(round(self.now * 50), round(until * 50)):
            kind = self._kinds[number] if number < len(self._kinds) else "n"
            self._held += self._audio[kind]
            if len(self._held) >= self._keeps:
                self._write(self._held[: limits.STEP_BYTES], NOW + (number + 1) / 50)
                self._held = self._held[limits.STEP_BYTES :]
        self.now = until

    def _write(self, data: bytes, at: float) -> None:
        with self._path.open("ab") as file:
            file.write(data)
        os.utime(self._path, (at + self._skew, at + self._skew))

    def _flush(self) -> None:
        self._go_on(self.now + FLUSH_TAKES)
        self.flushes += 1
        if self._held:
            self._write(self._held, NOW + self.now)
            self._held = b""
        size = self._path.stat().st_size
        if size > 44:
            with self._path.open("r+b") as file:
                for offset, value in ((4, size - 8), (40, size - 44)):
                    file.seek(offset)
                    file.write(struct.pack("<I", value))
            os.utime(self._path, (self.time() + self._skew, self.time() + self._skew))
        last = self.pieces.pop()
        if self._path.stat().st_size > 44 or last.reason != "still":
            ended = Segment(last.mixed, started_at=last.started_at, ended_at=NOW + self.now, reason=last.reason)
            self.pieces.append(ended)
        self._new_piece("still")

    def _new_piece(self, reason: str) -> None:
        self._path = self.folder / f"{self.flushes}.wav"
        head = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16) + b"data\0\0\0\0"
        self._path.write_bytes(head)
        os.utime(self._path, (self.time() + self._skew, self.time() + self._skew))
        self.pieces.append(Segment(str(self._path), started_at=NOW + self.now, reason=reason))


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`play(line, **spec)`: a recording of that line, and its limits."""

    def begin(line: Line, **spec: Any) -> tuple[Played, LimitWatch]:
        for path in tmp_path.iterdir():
            path.unlink()
        played = Played(tmp_path, line, **spec)
        monkeypatch.setattr(limits, "time", SimpleNamespace(time=played.time))
        return played, LimitWatch(played.row, None, -48.0)

    return begin


FOLLOWS = 3.0
"""Seconds within which a stop follows its limit."""


LINES: list[tuple[Line, float]] = [
    ([("s", 2.9)], 5.0),  # frames, and then none
    ([("s", 0.4)], 5.0),  # all of it is held back
    ([("s", 2.0), ("q", 3.4)], 5.0),  # silent frames, and then none
    ([("s", 2.06), ("q", 4.9)], 5.0),
    ([("s", 1.0), ("q", 1.0)], 8.0),
    ([], 4.0),  # none from the start
    ([("n", 3.0), ("q", 30.0)], 4.0),  # none, and then silent frames
    ([("n", 3.9), ("q", 30.0)], 4.0),
    ([("q", 30.0)], 4.0),  # silent frames for ever
    ([("s", 3.0), ("n", 3.0), ("q", 30.0)], 8.0),  # on hold in between
    ([("s", 3.0), ("n", 7.0), ("q", 30.0)], 8.0),
    ([("s", 3.0), ("q", 1.0), ("n", 5.0), ("q", 1.0)], 8.0),
    ([("s", 3.0), ("n", 3.0), ("s", 2.5), ("q", 0.3)], 4.0),  # said after the hold
    ([("s", 3.0), ("n", 3.0), ("s", 5.0), ("n", 3.0), ("s", 9.0), ("q", 2.0)], 4.0),
    ([("s", 8.12), ("n", 0.18), ("s", 0.1)], 3.0),  # a step becomes complete in the very flush
    ([("s", 8.12), ("n", 0.18), ("s", 0.1)], 15.0),
]


@pytest.mark.parametrize(("line", "most_silence"), LINES)
def test_the_stop_follows_the_silence_within_three_seconds(play: Any, line: Line, most_silence: float) -> None:
    played, watch = play(line, milliseconds_max_silence=round(1000 * most_silence))
    cause, at = played.stopped(watch, 60.0)
    due = played.last_sound() + most_silence
    assert cause is Cause.SILENCE
    assert due - 0.02 <= at <= due + FOLLOWS
    assert abs(watch.quiet_since - NOW - played.last_sound()) < FOLLOWS
    assert played.flushes <= 8


@pytest.mark.parametrize("skew", [-100.0, 100.0, -2.0, 2.0])
def test_the_disk_may_have_another_clock(play: Any, skew: float) -> None:
    for line in ([("s", 6.0), ("q", 30.0)], [("s", 5.0), ("q", 2.0)], [("s", 5.0), ("n", 2.5), ("s", 0.5)]):
        played, watch = play(line, milliseconds_max_silence=5000, skew=skew)
        cause, at = played.stopped(watch, 60.0)
        assert cause is Cause.SILENCE
        assert played.last_sound() + 5.0 - 0.02 <= at <= played.last_sound() + 5.0 + FOLLOWS


@pytest.mark.parametrize(
    "line", [[], [("q", 30.0)], [("q", 2.9)], [("n", 2.0), ("q", 30.0)], [("q", 3.0), ("n", 0.5), ("q", 0.4)]]
)
def test_so_does_that_of_one_who_never_says_a_word(play: Any, line: Line) -> None:
    played, watch = play(line, milliseconds_initial_silence=4000)
    cause, at = played.stopped(watch, 30.0)
    assert cause is Cause.SILENCE
    assert 4.0 <= at <= 4.0 + FOLLOWS
    assert played.flushes <= 1
    assert not watch.heard


def test_a_first_word_that_is_held_back_is_heard_in_time(play: Any) -> None:
    """Half a second of speech just before the limit, and no frame afterwards: the file alone would never tell."""
    played, watch = play([("n", 3.4), ("s", 0.5)], milliseconds_initial_silence=4000)
    assert played.stopped(watch, 30.0) == (Cause.NONE, math.inf)
    assert watch.heard


def test_a_word_in_the_middle_of_a_standstill_is_not_missed(play: Any) -> None:
    for long in (6.0, 20.0):
        played, watch = play([("s", 3.0), ("n", 4.0), ("s", 0.5)], milliseconds_max_silence=round(1000 * long))
        cause, at = played.stopped(watch, 60.0)
        assert cause is Cause.SILENCE
        assert 7.5 + long <= at <= 7.5 + long + FOLLOWS
        assert len(played.pieces) <= 5


def test_the_size_is_seen_though_its_last_part_is_held_back(play: Any) -> None:
    played, watch = play([("s", 5.0)], max_bytes=44 + 16_000 * 4)
    assert played.stopped(watch, 30.0)[1] <= 6.2
    played, watch = play([("s", 3.0)], max_bytes=44 + round(16_000 * 2.9))
    cause, at = played.stopped(watch, 30.0)
    assert (cause, played.flushes) == (Cause.SIZE, 1)
    assert at <= 2.9 + FOLLOWS
    played, watch = play([("s", 3.0)], max_bytes=44 + round(16_000 * 3.1))
    assert played.stopped(watch, 30.0) == (Cause.NONE, math.inf)
    assert played.flushes == 1
    played, watch = play([("s", 3.0)], max_bytes=44 + 16_000 * 30)
    assert played.stopped(watch, 30.0) == (Cause.NONE, math.inf)
    assert played.flushes == 0


def test_a_line_on_which_frames_flow_is_never_flushed(play: Any) -> None:
    played, watch = play([("s", 1.0), ("q", 3.0)] * 6 + [("q", 9.0)], milliseconds_max_silence=5000)
    cause, at = played.stopped(watch, 60.0)
    assert (cause, played.flushes) == (Cause.SILENCE, 0)
    assert 26.0 <= at <= 26.0 + FOLLOWS


def test_a_slow_asterisk_is_given_time(play: Any) -> None:
    """It is not to be made slower, nor what flows to be cut into pieces."""
    played, watch = play([("s", 60.0)], milliseconds_max_silence=5000, late=0.8)
    assert played.stopped(watch, 60.0) == (Cause.NONE, math.inf)
    assert 1 <= played.flushes <= 4
    cause, at = played.stopped(watch, 90.0)
    assert cause is Cause.SILENCE
    assert 65.0 <= at <= 65.0 + 2 * FOLLOWS


def test_what_cannot_be_had_is_taken_for_sound(play: Any) -> None:
    played, watch = play([("s", 2.0), ("q", 3.4)], milliseconds_max_silence=5000)
    cause, at = played.stopped(watch, 60.0, flushable=False)
    assert cause is Cause.SILENCE
    assert 7.0 + FOLLOWS <= at <= 7.0 + 5.0 + FOLLOWS


@pytest.mark.parametrize(("line", "most_silence"), LINES)
def test_unless_asterisk_has_heard_that_it_is_silence(play: Any, line: Line, most_silence: float) -> None:
    played, watch = play(line, milliseconds_max_silence=round(1000 * most_silence))
    cause, at = played.stopped(watch, 60.0, flushable=False, heard=True)
    due = played.last_sound() + most_silence
    assert cause is Cause.SILENCE
    assert due - 0.02 <= at <= due + FOLLOWS


@pytest.mark.parametrize("knows", [True, False])
def test_a_word_that_was_heard_is_waited_for_though_it_is_held_back(play: Any, knows: bool) -> None:
    """Also where it is not known whether something is played: what was heard was heard."""
    played, watch = play([("s", 1.0), ("n", 4.0), ("s", 0.6)], milliseconds_max_silence=5500)
    played.knows = knows
    cause, at = played.stopped(watch, 60.0, flushable=False, heard=True)
    assert cause is Cause.SILENCE
    assert 11.08 <= at <= 11.1 + FOLLOWS
    played, watch = play([("n", 2.5), ("s", 0.6)], milliseconds_initial_silence=4000)
    played.knows = knows
    assert played.stopped(watch, 60.0, flushable=False, heard=True) == (Cause.NONE, math.inf)


@pytest.mark.parametrize("heard", [True, False])
def test_a_word_in_a_long_standstill_is_known_by_ear(play: Any, heard: bool) -> None:
    """Flushes are too rare to tell when it was said."""
    line = [("s", 3.0), ("n", 10.0), ("s", 0.5), ("n", 30.0), ("s", 0.5)]
    played, watch = play(line, milliseconds_max_silence=60_000)
    cause, at = played.stopped(watch, 200.0, heard=heard)
    assert cause is Cause.SILENCE
    assert played.last_sound() == 44.0
    assert 104.0 <= at <= 104.0 + (FOLLOWS if heard else 60 / limits.FLUSHES + FOLLOWS)
    assert heard or at > 104.0 + FOLLOWS


def test_a_server_that_comes_back_knows_how_long_it_has_been_silent(play: Any) -> None:
    played, watch = play([("s", 2.0), ("q", 3.4)], milliseconds_max_silence=9000)
    assert played.stopped(watch, 8.0) == (Cause.NONE, math.inf)
    after = LimitWatch(played.row, None, -48.0)
    cause, at = played.stopped(after, 60.0)
    assert cause is Cause.SILENCE
    assert 11.0 <= at <= 11.0 + FOLLOWS


def due(line: Line, most: float, initial: float, until: float) -> tuple[float, float]:
    """(earliest, latest) moment at which the limit is reached, for one who stopped at `until`.

    A sound that begins less than 30 ms before its limit is not known for one by then; and one that begins between the
    limit and the stop is a reason to go on.
    """
    at = 0.0
    earliest = latest = initial or most
    for kind, seconds in line:
        if kind == "s" and seconds >= 0.03 and at < earliest - 0.03:
            earliest = at + seconds + most
        if kind == "s" and at < until:
            latest = max(latest, at + seconds + most)
        at += seconds
    return earliest - 0.03, latest


kinds = st.sampled_from("sqn")
stretches = st.lists(st.tuples(kinds, st.integers(2, 300).map(lambda frames: frames / 50)), min_size=1, max_size=6)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=stretches, most=st.sampled_from([1500, 3000, 6000, 15000]), initial=st.sampled_from([0, 0, 2500]))
def test_no_line_is_stopped_too_early_nor_too_late(play: Any, line: Line, most: int, initial: int) -> None:
    options = {"milliseconds_max_silence": most, "milliseconds_initial_silence": initial}
    played, watch = play(line, **options)
    cause, at = played.stopped(watch, 120.0)
    assert cause is Cause.SILENCE
    earliest, latest = due(line, most / 1000, initial / 1000, at)
    assert earliest <= at <= latest + FOLLOWS
