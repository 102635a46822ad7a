"""The live alarms "silent" and "one_sided": raised when they are true, taken back when they are not."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastagi.domain.recording import Recording, Segment
from fastagi.domain.states import Phase
from fastagi.recording.ledger.active import ActiveRecording, ActiveRecordings
from fastagi.recording.monitoring.levels import LevelMonitor
from fastagi.runtime.threads import FileThreads
from fastagi.testing.sound import RATE, speech_samples

HEADER = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 0, b"WAVE", b"fmt ", 16, 1, 1, RATE, RATE * 2, 2, 16, b"data", 0)
VOICE = (np.asarray(speech_samples(5.0, 1)) * 32767).astype(np.int16).tobytes()
NOISE = (np.random.default_rng(1).normal(0, 40, 5 * RATE)).astype(np.int16).tobytes()  # -58 dBFS: a line's own


class Scene:
    """One recording that runs; `minute` lets time pass while its legs get what is said."""

    def __init__(self, folder: Path, threads: FileThreads, legs: bool = True, quiet: float = 60.0) -> None:
        paths = {name: folder / f"{name}.wav" for name in ("mixed", "received", "sent")}
        piece = Segment(*(str(p) if legs or n == "mixed" else "" for n, p in paths.items()), channel="SIP/a")
        row = Recording("rec-1", "here", "pbx", "SIP/a", "1.1", "n", "/n.wav", phase=Phase.ACTIVE, pieces=(piece,))
        self.job = ActiveRecording(row)
        self.jobs = ActiveRecordings()
        self.jobs.add(self.job)
        self.now = 1000.0
        self.paths = paths
        for path in paths.values():
            path.write_bytes(HEADER)
        self.hearing = LevelMonitor(self.jobs, threads, silence_dbfs=-48.0, quiet_seconds=quiet, clock=lambda: self.now)

    async def pass_(self, seconds: float, **said: bytes) -> set[str]:
        """Five seconds at a time: each leg gets its sound, and LevelMonitor looks."""
        for _ in range(round(seconds / 5)):
            self.now += 5.0
            for name, sound in said.items():
                with self.paths[name].open("ab") as file:
                    file.write(sound)
            await self.hearing.round()
        return self.job.alarms

    def change(self, **changes: Any) -> None:
        self.job.recording = replace(self.job.recording, **changes)


@pytest.fixture
async def threads() -> AsyncIterator[FileThreads]:
    pools = FileThreads()
    yield pools
    pools.close()


@pytest.fixture
def scene(tmp_path: Path, threads: FileThreads) -> Scene:
    return Scene(tmp_path, threads)


async def test_a_call_in_which_both_speak_is_never_alarmed(scene: Scene) -> None:
    assert await scene.pass_(300, received=VOICE, sent=VOICE) == set()


async def test_a_line_on_which_there_is_only_its_own_noise_is_silent_until_somebody_speaks(scene: Scene) -> None:
    assert await scene.pass_(50, received=NOISE, sent=NOISE) == set()
    assert await scene.pass_(20, received=NOISE, sent=NOISE) == {"silent"}
    assert await scene.pass_(5, received=VOICE, sent=NOISE) == {"one_sided"}, "now one side was heard, one never"
    assert await scene.pass_(5, received=NOISE, sent=VOICE) == set()


async def test_files_that_do_not_grow_are_silent_too(scene: Scene) -> None:
    assert await scene.pass_(70) == {"silent"}


async def test_a_side_that_was_never_heard_is_a_fault_and_one_that_listens_is_not(scene: Scene) -> None:
    assert await scene.pass_(70, received=VOICE, sent=NOISE) == {"one_sided"}
    assert await scene.pass_(5, received=VOICE, sent=VOICE) == set()
    assert await scene.pass_(600, received=VOICE, sent=NOISE) == set(), "a listener says nothing for minutes"


async def test_one_word_in_a_minute_is_heard_wherever_it_falls(tmp_path: Path, threads: FileThreads) -> None:
    word = NOISE[: RATE * 4] + VOICE[: RATE // 2] + NOISE[: len(NOISE) - RATE * 4 - RATE // 2]
    for place in range(12):
        (tmp_path / str(place)).mkdir()
        scene = Scene(tmp_path / str(place), threads)
        for n in range(12):
            await scene.pass_(5, received=VOICE, sent=word if n == place else NOISE)
        assert scene.job.alarms == set(), place


async def test_who_falls_silent_after_talking_is_noticed(scene: Scene) -> None:
    await scene.pass_(120, received=VOICE, sent=VOICE)
    assert await scene.pass_(50, received=NOISE, sent=NOISE) == set()
    assert await scene.pass_(30, received=NOISE, sent=NOISE) == {"silent"}


async def test_without_legs_only_silence_can_be_told(tmp_path: Path, threads: FileThreads) -> None:
    scene = Scene(tmp_path, threads, legs=False)
    assert await scene.pass_(120, mixed=VOICE) == set()
    assert await scene.pass_(80, mixed=NOISE) == {"silent"}


async def test_a_pause_is_silent_because_somebody_wanted_it_so(scene: Scene) -> None:
    await scene.pass_(20, received=VOICE, sent=VOICE)
    scene.change(phase=Phase.PAUSED)
    assert await scene.pass_(300) == set()
    scene.change(phase=Phase.ACTIVE)
    assert await scene.pass_(50, received=NOISE, sent=NOISE) == set()
    assert await scene.pass_(20, received=NOISE, sent=NOISE) == {"silent"}


async def test_a_muted_side_is_no_fault(scene: Scene) -> None:
    scene.change(facts={"muted": {"sent": [[0.0, None]]}})
    assert await scene.pass_(120, received=VOICE, sent=NOISE) == set()


async def test_the_next_piece_is_another_file_of_the_same_sides(scene: Scene, tmp_path: Path) -> None:
    await scene.pass_(30, received=VOICE, sent=VOICE)
    first = scene.job.recording.pieces[0]
    later = {name: tmp_path / f"{name}-1.wav" for name in scene.paths}
    for path in later.values():
        path.write_bytes(HEADER)
    scene.paths = later
    scene.change(pieces=(replace(first, ended_at=5.0), replace(first, **{n: str(p) for n, p in later.items()})))
    assert await scene.pass_(300, received=VOICE, sent=NOISE) == set(), "both sides have been heard before"


async def test_zero_is_never_and_adopted_ones_are_left_alone(tmp_path: Path, threads: FileThreads) -> None:
    assert await Scene(tmp_path, threads, quiet=0).pass_(600) == set()
    scene = Scene(tmp_path, threads)
    scene.change(adopted=True)
    assert await scene.pass_(600) == set()


async def test_what_has_ended_is_forgotten(scene: Scene) -> None:
    await scene.pass_(10, received=VOICE)
    assert scene.hearing._ears
    scene.jobs.close(scene.job)
    await scene.pass_(5)
    assert not scene.hearing._ears
