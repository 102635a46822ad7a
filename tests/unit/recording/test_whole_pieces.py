"""Pieces of a recording: how they are put together, and what limits see of them while they are made."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastagi.domain.recording import Recording, Segment, Span
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Cause, Phase
from fastagi.errors import AudioError
from fastagi.recording.asterisk import raw_files
from fastagi.recording.asterisk.limits import FIRST_LATE_SECONDS, LimitWatch
from fastagi.recording.asterisk.render_plan import made, render_plan
from fastagi.recording.ledger.active import ActiveRecording, ActiveRecordings
from fastagi.recording.lifecycle.segments import asterisk_direction
from fastagi.recording.monitoring.talk_detect import TalkDetectState

NOW = 1_800_000_000.0


def recording(*pieces: Segment, **more: Any) -> Recording:
    spec = more.pop("spec", RecordingSpec(file_format="s16bit", milliseconds_max_silence=1000))
    return Recording(
        id="rec-1", node="n", asterisk="pbx", channel="a", uniqueid="1", name="x", file_path="/r/x.wav",
        spec=spec, pieces=pieces, requested_at=NOW, started_at=NOW, **more,
    )  # fmt: skip


def piece(name: str, start: float, end: float = 0.0, **more: Any) -> Segment:
    ended = NOW + end if end else 0.0
    files = (f"{name}.wav", f"{name}-rx.wav", f"{name}-tx.wav")
    return Segment(*files, channel="a", uniqueid="1", started_at=NOW + start, ended_at=ended, **more)


def test_a_pause_is_as_long_as_it_was_or_nothing() -> None:
    parts = (piece("a", 0, 4), piece("b", 9, 12, reason="pause"), piece("c", 12.5, reason="pause"))
    plan = render_plan(recording(*parts), None, -48.0)
    assert [p.gap_seconds for p in plan.pieces] == [0.0, 5.0, 0.5]
    assert (plan.cuts, plan.pauses) == ((), ())
    cut = RecordingSpec(pause_mode="cut")
    assert [p.gap_seconds for p in render_plan(recording(*parts, spec=cut), None, -48.0).pieces] == [0.0, 0.0, 0.0]


def test_the_one_who_stays_stays_on_his_side() -> None:
    plan = render_plan(recording(piece("a", 0, 4), piece("b", 4.1, reason="move", sides_swapped=True)), None, -48.0)
    assert [(p.received, p.sent) for p in plan.pieces] == [("a-rx.wav", "a-tx.wav"), ("b-tx.wav", "b-rx.wav")]
    assert plan.pieces[1].gap_seconds == pytest.approx(0.1)


def test_pieces_without_files_are_left_out(tmp_path: Path) -> None:
    there = tmp_path / "seen.wav"
    there.touch()
    parts = (
        piece("a", 0, 4),
        piece("b", 5, 5),  # moved while it was paused
        piece("c", 6, 7, lost=True),
        piece("d", 8, confirmed=False),
        piece(str(there).removesuffix(".wav"), 9, confirmed=False),
    )
    assert [p.mixed for p in made(recording(*parts))] == ["a.wav", str(there)]
    assert made(recording(piece("a", 0, 4, lost=True)))  # of nothing, the error names the file


def test_no_piece_gets_the_name_of_another(tmp_path: Path) -> None:
    """Asterisk would begin anew in a file that is being written. One was given up, and the server restarted since."""
    for spec in (RecordingSpec(), RecordingSpec(dtmf_elim=False), RecordingSpec(engine="monitor")):
        parts = [
            raw_files.raw_segment(tmp_path, "rec-01m7yv7xnsv8v4zc683x90aba9", number, spec, "a", "1")
            for number in (0, 2)
        ]
        assert raw_files.next_number(parts) == 3
        assert raw_files.next_number(parts[:1]) == 1


def test_a_muted_recording_of_others_is_cut_by_the_clock() -> None:
    spans = {"pauses": (Span(1.0, 2.0), Span(5.0, None))}
    assert render_plan(recording(piece("a", 0), adopted=True, **spans), None, -48.0).pauses == ((1.0, 2.0),)
    cut = RecordingSpec(pause_mode="cut")
    assert render_plan(recording(piece("a", 0), adopted=True, spec=cut, **spans), None, -48.0).cuts == ((1.0, 2.0),)


@pytest.mark.parametrize(
    ("direction", "turned", "asterisk"),
    [
        ("received", False, "read"),
        ("received", True, "write"),
        ("sent", False, "write"),
        ("sent", True, "read"),
        ("both", True, "both"),
    ],
)
def test_sides_are_meant_as_on_the_first_leg(direction: str, turned: bool, asterisk: str) -> None:
    assert asterisk_direction(direction, piece("a", 0, sides_swapped=turned)) == asterisk


def test_a_job_is_found_on_the_channel_it_moved_to() -> None:
    jobs, job = ActiveRecordings(), ActiveRecording(recording(piece("a", 0)))
    jobs.add(job)
    moved = Segment("b.wav", channel="b", uniqueid="2", reason="move")
    job.recording = recording(piece("a", 0, 4), moved)
    jobs.on_other_channel(job, "1")
    assert (jobs.on_channel("pbx", "1"), jobs.on_channel("pbx", "2")) == ([], [job])
    assert jobs.current(("pbx", "1", "")) is job  # the call asks for its own recording
    jobs.close(job)
    assert jobs.on_channel("pbx", "2") == []
    last = jobs.last(("pbx", "1", ""))
    assert last is not None
    assert last.id == "rec-1"


# -- limits


def write(path: Path, *parts: tuple[str, float]) -> None:
    """A growing WAV file: sound ("s") and quiet ("q") of so many seconds, sizes still 0."""
    time = np.arange(8000 * 60) / 8000
    tone = (8000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)
    data = b"".join((tone if kind == "s" else 0 * tone)[: round(8000 * s)].tobytes() for kind, s in parts)
    head = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16) + b"data\0\0\0\0"
    path.write_bytes(head + data)


class Tape:
    """A recording whose pieces are files in a folder."""

    def __init__(self, folder: Path, **spec: Any) -> None:
        self.folder = folder
        self.spec = RecordingSpec(file_format="s16bit", dtmf_elim=False, **spec)
        self.row = recording(spec=self.spec)

    def piece(self, name: str, start: float, end: float = 0.0, reason: str = "", confirmed: bool = True) -> Path:
        path = self.folder / f"{name}.wav"
        made = Segment(
            str(path), started_at=NOW + start, ended_at=NOW + end if end else 0.0, reason=reason, confirmed=confirmed
        )
        self.row = recording(*(p for p in self.row.pieces if p.mixed != made.mixed), made, spec=self.spec)
        return path

    def watch(self) -> LimitWatch:
        return LimitWatch(self.row, None, -48.0)


def test_silence_goes_on_over_a_pause(tmp_path: Path) -> None:
    tape = Tape(tmp_path, milliseconds_max_silence=3000)
    first = tape.piece("a", 0)
    watch = tape.watch()
    write(first, ("s", 1), ("q", 2))
    assert watch.look(tape.row, NOW + 3, False) is Cause.NONE
    tape.piece("a", 0, 3)
    assert watch.look(tape.row, NOW + 100, True) is Cause.NONE
    second = tape.piece("b", 100, reason="pause")
    write(second, ("q", 0.9))
    assert watch.look(tape.row, NOW + 100.9, False) is Cause.NONE
    write(second, ("q", 1.1))
    assert watch.look(tape.row, NOW + 102, False) is Cause.SILENCE


def test_a_pause_is_no_part_of_the_time_for_a_first_word(tmp_path: Path) -> None:
    tape = Tape(tmp_path, milliseconds_initial_silence=5000)
    watch = tape.watch()
    write(tape.piece("a", 0), ("q", 3))
    assert watch.look(tape.row, NOW + 3, False) is Cause.NONE
    write(tape.piece("a", 0, 3), ("q", 3))
    assert watch.look(tape.row, NOW + 100, True) is Cause.NONE
    second = tape.piece("b", 100, reason="pause")
    write(second, ("q", 1.5))
    assert watch.look(tape.row, NOW + 101.5, False) is Cause.NONE
    write(second, ("q", 2.5))
    assert watch.look(tape.row, NOW + 102.5, False) is Cause.SILENCE


def test_a_piece_that_never_grows_is_silent_only_since_it_began(tmp_path: Path) -> None:
    tape = Tape(tmp_path, milliseconds_max_silence=2000)
    first = tape.piece("a", 0, 3)
    write(first, ("s", 3))
    write(tape.piece("b", 100, reason="pause"))
    watch = tape.watch()
    assert watch.look(tape.row, NOW + 101, False) is Cause.NONE
    held_back = 2.048 + FIRST_LATE_SECONDS  # and it cannot be had
    assert watch.look(tape.row, NOW + 101.9 + held_back, False) is Cause.NONE
    assert watch.look(tape.row, NOW + 102.1 + held_back, False) is Cause.SILENCE


@pytest.mark.parametrize(("mode", "full"), [("silence", True), ("cut", False)])
def test_a_pause_that_is_kept_fills_the_file(mode: str, full: bool, tmp_path: Path) -> None:
    tape = Tape(tmp_path, max_bytes=16_000 * 10, pause_mode=mode)
    write(tape.piece("a", 0, 3), ("s", 3))
    watch = tape.watch()
    assert watch.look(tape.row, NOW + 9, True) is Cause.NONE
    assert (watch.look(tape.row, NOW + 11, True) is Cause.SIZE) is full
    write(tape.piece("b", 9, reason="pause"), ("s", 1.5))
    assert (watch.look(tape.row, NOW + 11, False) is Cause.SIZE) is full


def test_a_file_that_vanished_is_no_silence(tmp_path: Path) -> None:
    tape = Tape(tmp_path, milliseconds_max_silence=1000)
    path = tape.piece("a", 0, confirmed=False)
    watch = tape.watch()
    assert watch.look(tape.row, NOW + 0.1, False) is Cause.NONE  # not there yet
    write(path, ("s", 0.5))
    watch.look(tape.row, NOW + 0.5, False)
    path.unlink()
    with pytest.raises(AudioError, match="was there and is gone"):
        watch.look(tape.row, NOW + 60, False)
    tape.piece("a", 0)
    with pytest.raises(AudioError, match="was there and is gone"):  # a restarted server has not seen it itself
        tape.watch().look(tape.row, NOW + 60, False)


def test_two_legs_are_heard_together_where_nobody_mixed_them(tmp_path: Path) -> None:
    """Monitor: a prompt to a silent caller is no silence, whichever leg it is in."""
    spec = RecordingSpec(file_format="s16bit", engine="monitor", milliseconds_max_silence=2000)
    legs = [tmp_path / "in.wav", tmp_path / "out.wav"]
    row = recording(Segment("", str(legs[0]), str(legs[1]), started_at=NOW), spec=spec)
    watch = LimitWatch(row, None, -48.0)
    write(legs[0], ("q", 4))
    write(legs[1], ("q", 1), ("s", 3))
    assert watch.look(row, NOW + 4, False) is Cause.NONE
    write(legs[0], ("q", 8))
    write(legs[1], ("q", 1), ("s", 3), ("q", 4))
    assert watch.look(row, NOW + 8, False) is Cause.SILENCE


def test_sound_that_waits_for_the_other_leg_is_no_silence(tmp_path: Path) -> None:
    spec = RecordingSpec(file_format="s16bit", engine="monitor", milliseconds_max_silence=2500)
    legs = [tmp_path / "in.wav", tmp_path / "out.wav"]
    row = recording(Segment("", str(legs[0]), str(legs[1]), started_at=NOW), spec=spec)
    watch = LimitWatch(row, None, -48.0)
    write(legs[0])
    write(legs[1], ("s", 0.5), ("q", 2.1), ("s", 1.5))
    assert watch.look(row, NOW + 4.1, False) is Cause.NONE
    assert watch.quiet_since == pytest.approx(NOW + 0.5, abs=0.1)
    write(legs[1], ("s", 0.5), ("q", 2.1), ("s", 1.5), ("q", 2.0))
    assert watch.look(row, NOW + 6.1, False) is Cause.NONE
    assert watch.quiet_since == pytest.approx(NOW + 3.9, abs=0.1)  # the rest of it waits


def test_a_prompt_to_one_who_sends_nothing_is_no_silence_for_monitor(tmp_path: Path) -> None:
    """His file has stood still since it was made; only the other one is being written."""
    spec = RecordingSpec(file_format="s16bit", engine="monitor", milliseconds_max_silence=2000)
    legs = [tmp_path / "in.wav", tmp_path / "out.wav"]
    row = recording(Segment("", str(legs[0]), str(legs[1]), started_at=NOW), spec=spec)
    watch = LimitWatch(row, None, -48.0)
    write(legs[0])
    began = legs[0].stat().st_mtime
    for second in range(2, 60, 2):
        write(legs[1], ("s", second))
        os.utime(legs[0], (began - second, began - second))
        for look in (0.0, 0.5, 1.0, 1.5):
            assert watch.look(row, NOW + second + look, False) is Cause.NONE
            os.utime(legs[1], (began - look - 0.5, began - look - 0.5))
    for look in (61.0, 62.0):
        os.utime(legs[1], (began - look + 58, began - look + 58))
        assert watch.look(row, NOW + look, False) is Cause.NONE
    assert watch.look(row, NOW + 66.5, False) is Cause.SILENCE


# -- limits by talk


def talk(**spec: Any) -> tuple[ActiveRecording, TalkDetectState]:
    row = recording(piece("a", 0), phase=Phase.ACTIVE, spec=RecordingSpec(file_format="s16bit", **spec))
    job = ActiveRecording(row)
    return job, TalkDetectState(job, LimitWatch(row, None, -48.0), NOW)


def test_talk_and_prompts_are_no_silence() -> None:
    job, watch = talk(milliseconds_max_silence=2000, milliseconds_initial_silence=4000)
    assert watch.look(job, NOW + 3.9, False) is Cause.NONE
    watch.talks("1", NOW + 3.9)
    assert watch.look(job, NOW + 60, False) is Cause.NONE
    watch.talks("2", NOW + 60)
    watch.is_quiet("1", NOW + 61)
    assert watch.look(job, NOW + 70, False) is Cause.NONE
    watch.is_quiet("2", NOW + 71)
    assert watch.look(job, NOW + 72.9, False) is Cause.NONE
    assert watch.look(job, NOW + 90, True) is Cause.NONE  # a prompt
    assert watch.look(job, NOW + 90.5, False) is Cause.NONE  # it ended since the last look
    assert watch.look(job, NOW + 92.4, False) is Cause.NONE
    assert watch.look(job, NOW + 92.6, False) is Cause.SILENCE


def test_a_muted_side_is_no_sound() -> None:
    """It is none in the file."""
    spec = RecordingSpec(file_format="s16bit", milliseconds_max_silence=2000)
    for side, own, others in (("received", True, False), ("sent", False, True), ("both", True, True)):
        row = recording(piece("a", 0), phase=Phase.ACTIVE, spec=spec, facts={"muted": {side: [[0.0, None]]}})
        job = ActiveRecording(row)
        for who, unheard in (("1", own), ("2", others), ("", others)):
            watch = TalkDetectState(job, LimitWatch(row, None, -48.0), NOW)
            if who:
                watch.talks(who, NOW + 1)
            found = watch.look(job, NOW + 2.1, playing=not who)
            assert found is (Cause.SILENCE if unheard else Cause.NONE), (side, who)


def test_nobody_ever_said_a_word() -> None:
    job, watch = talk(milliseconds_initial_silence=4000)
    assert watch.look(job, NOW + 3.9, False) is Cause.NONE
    assert watch.look(job, NOW + 4.1, False) is Cause.SILENCE


def test_a_talker_who_is_not_heard_any_more_is_doubted() -> None:
    """A phone that stops sending in mid-word: Asterisk never says that it fell silent."""
    job, watch = talk(milliseconds_max_silence=2000)
    watch.talks("1", NOW + 1)
    assert watch.doubtful(NOW + 1.9) == []
    assert watch.doubtful(NOW + 2.1) == ["1"]
    watch.is_quiet("1", NOW + 2.1)
    assert watch.look(job, NOW + 4.0, False) is Cause.NONE
    assert watch.look(job, NOW + 4.2, False) is Cause.SILENCE


def test_the_dialplan_plays_and_asterisk_was_away() -> None:
    job, watch = talk(milliseconds_max_silence=2000)
    watch.playing.plays = True
    assert watch.look(job, NOW + 9, False) is Cause.NONE
    watch.playing.plays = False
    assert watch.look(job, NOW + 10, False) is Cause.NONE  # it ended at some time since the last look
    watch.lost(NOW + 10)
    assert watch.look(job, NOW + 11.9, False) is Cause.NONE
    assert watch.look(job, NOW + 12.1, False) is Cause.SILENCE


def test_after_a_restart_nobody_knows_what_was_said_before() -> None:
    row = recording(
        piece("a", 0), phase=Phase.ACTIVE,
        spec=RecordingSpec(milliseconds_max_silence=3000, milliseconds_initial_silence=2000),
    )  # fmt: skip
    job = ActiveRecording(row)
    watch = TalkDetectState(job, LimitWatch(row, None, -48.0), NOW + 60)
    assert watch.look(job, NOW + 62.9, False) is Cause.NONE  # it has outlived the limit of a first word
    assert watch.look(job, NOW + 63.1, False) is Cause.SILENCE


def test_size_by_the_clock() -> None:
    job, watch = talk(max_bytes=160_044)
    assert watch.look(job, NOW + 9.9, False) is Cause.NONE
    assert watch.look(job, NOW + 10.1, False) is Cause.SIZE
    job, watch = talk(max_bytes=160_044, milliseconds_initial_silence=60_000)
    assert watch.look(job, NOW + 30, False) is Cause.NONE  # nothing is kept before the first sound
    watch.talks("1", NOW + 30)
    assert watch.look(job, NOW + 39.9, False) is Cause.NONE
    assert watch.look(job, NOW + 40.1, False) is Cause.SIZE
