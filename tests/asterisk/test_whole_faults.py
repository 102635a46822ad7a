"""What goes wrong with files: spools that vanish or cannot be written, raw files that are no audio, full disks."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastagi.audio import TEMPORARY_SUFFIX, finalfile
from fastagi.recording.asterisk import raw_files
from fastagi.recording.asterisk.sound import Sound
from fastagi.testing import AsteriskServer
from support.call_harness import heard, seconds, share_of, told_of, whole_scene
from support.finished_files import in_directory
from support.recorder_harness import Scene

LOW = 440.0


def route(scene: Scene, name: str, seen: dict[str, Any] | None = None, **options: Any) -> None:
    """Records until the far end hangs up, and notes what the recorder says."""

    @scene.app.route(name)
    async def record(call: Any) -> None:
        recorder = call.WholeCallRecorder
        started = await recorder.start(name, file_format="s16bit", **options)
        if seen is not None:
            seen[name] = (started, str(recorder.state()), str(recorder.cause()), recorder.error)
        await call.exec("Wait", 30)


async def only_job(scene: Scene) -> Any:
    await scene.until(lambda: [j for j in scene.recorder.parts.context.jobs if j.phase.value == "active"])
    (job,) = scene.recorder.parts.context.jobs
    return job


async def ended(scene: Scene, job: Any) -> Any:
    assert await job.wait(30)
    return job.recording


async def test_a_hangup_is_finished_at_once_also_where_a_side_never_sent_a_frame(scene: Scene) -> None:
    """Nothing is ever sent to the recorded channel: its leg stays an empty file that nobody completes."""
    route(scene, "empty-leg", dtmf_elim=True)
    call = await scene.call("empty-leg", far_end="Local/loop-low@whole/n")
    job = await only_job(scene)
    await asyncio.sleep(1.0)
    await scene.hangup(call)
    await scene.until(lambda: scene.recorder.parts.context.pbxs["pbx"].channels.get(call.uniqueid) is None)
    hung_up = time.monotonic()
    recording = await ended(scene, job)
    assert time.monotonic() - hung_up < 3 * 0.3  # 50 ms on a quiet machine
    assert recording.facts["salvaged"] is False
    assert recording.cause.value == "HANGUP"


async def test_the_spool_directory_vanishes_in_mid_call(scene22: Scene) -> None:
    """Asterisk does not notice. The rest of the call is recorded into a new directory; what is lost is told."""
    scene = scene22
    route(scene, "vanished")
    call = await scene.call("vanished", far_end="Local/loop-low@whole/n")
    await only_job(scene)
    await asyncio.sleep(1.0)
    shutil.rmtree(scene.spool)
    await scene.until(lambda: scene.spool.exists() and any(scene.spool.glob("*-1.wav")), 20)
    await asyncio.sleep(1.2)
    await scene.hangup(call)
    told = await told_of(scene, "vanished")
    ((start, end),) = told.extra["lost"]
    assert start == 0.0
    assert 0.9 < end < 8.0
    assert told.extra["cause"] == "HANGUP"
    assert 0.8 < seconds(told) < told.duration_seconds
    assert share_of(heard(told), LOW) > 0.9
    await scene.until(lambda: not list(scene.spool.iterdir()))


async def test_the_spool_vanishes_and_cannot_be_made_again(scene22: Scene) -> None:
    """A file in its place: those who talk are asked of Asterisk, and the end says what became of the recording."""
    scene = scene22
    route(scene, "gone", milliseconds_max_silence=1500)
    await scene.call("gone", far_end="Local/say-hello@whole/n")
    job = await only_job(scene)
    await asyncio.sleep(0.5)
    shutil.rmtree(scene.spool)
    scene.spool.write_text("in the way")
    recording = await ended(scene, job)
    assert (recording.state.value, recording.cause.value) == ("ERROR", "ERROR")
    assert recording.facts["ended_by"] == "SILENCE"  # two seconds of speech, and 1.5 of none
    assert "No such file" in recording.error or "Not a directory" in recording.error
    assert "\n" not in recording.error


async def test_a_spool_that_cannot_be_written_is_an_error_that_says_so(scene22: Scene) -> None:
    scene = scene22
    seen: dict[str, Any] = {}
    route(scene, "no-spool", seen)
    scene.spool.rmdir()
    await scene.call("no-spool", far_end="Local/mute@whole/n")
    await scene.until(lambda: seen)
    started, state, cause, error = seen["no-spool"]
    assert (started, state, cause) == (False, "ERROR", "ERROR")
    assert "does not exist: create it, writable for Asterisk" in error
    assert in_directory(scene.directory) == []  # the name is free again


async def test_a_raw_file_that_asterisk_cannot_open_is_an_error_that_says_so(scene22: Scene) -> None:
    """Asterisk says Success all the same; a folder of the raw file's name is in its way."""
    scene = scene22
    seen: dict[str, Any] = {}
    route(scene, "blocked", seen)
    made = scene.recorder.parts.starter._intended

    def blocking(request: Any) -> Any:
        recording = made(request)
        Path(recording.pieces[0].mixed).mkdir()
        return recording

    scene.recorder.parts.starter._intended = blocking
    scene.recorder.parts.starter._seen = _never
    await scene.call("blocked", far_end="Local/mute@whole/n")
    await scene.until(lambda: seen)
    assert seen["blocked"][:3] == (False, "ERROR", "ERROR")
    assert "Asterisk could not open" in seen["blocked"][3]
    assert in_directory(scene.directory) == []


async def _never(piece: Any) -> bool:
    return False


BAD: dict[str, tuple[bytes | None, str]] = {
    "empty": (b"", "the file is empty"),
    "headerless": (b"\x01\x02" * 8000, "not audio that can be read"),
    "text": (b"Response: Error\r\n" * 100, "not audio that can be read"),
    "gone": (None, "No such file"),
}


async def test_raw_files_that_are_no_audio_are_kept_and_told(whole22: AsteriskServer, tmp_path: Path) -> None:
    async with whole_scene(whole22, tmp_path, recordings={"close_seconds": 1.0}) as scene:
        spoilt = {kind: _putting(data) for kind, (data, _) in BAD.items()}
        for kind, (recording, raw) in (await _spoiled(scene, spoilt)).items():
            data, reason = BAD[kind]
            assert (recording.state.value, recording.cause.value) == ("ERROR", "ERROR"), kind
            assert reason in recording.error
            assert raw.name in recording.error
            assert "\n" not in recording.error
            assert recording.facts["ended_by"] == "HANGUP"
            assert raw.exists() is (data is not None)
            if data is not None:
                assert raw.read_bytes() == data
        assert in_directory(scene.directory) == []


def _putting(data: bytes | None) -> Callable[[Path], None]:
    def put(path: Path) -> None:
        path.unlink()
        if data is not None:
            path.write_bytes(data)

    return put


async def test_broken_headers_are_mended(whole22: AsteriskServer, tmp_path: Path) -> None:
    """As a killed Asterisk leaves them."""

    def sized(wrong: int) -> Callable[[Path], None]:
        def spoil(path: Path) -> None:
            data = bytearray(path.read_bytes())
            struct.pack_into("<I", data, 4, wrong)
            struct.pack_into("<I", data, 40, wrong)
            path.write_bytes(data)

        return spoil

    def cut_off(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2 | 1])

    async with whole_scene(whole22, tmp_path, recordings={"close_seconds": 1.0}) as scene:
        kinds = {"size 0": sized(0), "too large": sized(0xFFFFFFF0), "cut off": cut_off}
        for kind, (recording, _) in (await _spoiled(scene, kinds)).items():
            assert (recording.state.value, recording.cause.value) == ("IDLE", "HANGUP"), kind
            assert recording.facts["salvaged"] is True
            assert recording.audio_seconds > 0.3
            assert share_of(heard(await told_of(scene, kind))[400:], LOW) > 0.9


async def _spoiled(scene: Scene, kinds: dict[str, Callable[[Path], None]]) -> dict[str, tuple[Any, Path]]:
    """Calls whose raw files are spoiled after Asterisk closed them and before they are finished."""
    closed = scene.recorder.parts.stopper._closed
    raw: dict[str, Path] = {}

    async def spoiling(job: Any) -> bool:
        whole: bool = await closed(job)
        name = job.recording.name
        if whole and name not in raw:
            raw[name] = Path(job.recording.pieces[-1].mixed)
            kinds[name](raw[name])
            whole = await closed(job)
        return whole

    scene.recorder.parts.stopper._closed = spoiling
    for kind in kinds:
        route(scene, kind, dtmf_elim=False)
    calls = await asyncio.gather(*(scene.call(kind, far_end="Local/loop-low@whole/n") for kind in kinds))
    await scene.until(
        lambda: len([j for j in scene.recorder.parts.context.jobs if j.phase.value == "active"]) == len(kinds)
    )
    jobs = list(scene.recorder.parts.context.jobs)
    await asyncio.sleep(1.2)
    for call in calls:
        await scene.hangup(call)
    return {job.recording.name: (await ended(scene, job), raw[job.recording.name]) for job in jobs}


async def test_a_full_disk_keeps_the_raw_file_and_finishes_it_later(
    whole22: AsteriskServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with whole_scene(whole22, tmp_path) as scene:
        route(scene, "full", dtmf_elim=False, rate=11025)
        opened = finalfile.FinalFile.commit

        def no_room(self: Any) -> str:
            raise self._fault(OSError(28, "No space left on device"))

        monkeypatch.setattr(finalfile.FinalFile, "commit", no_room)
        call = await scene.call("full", far_end="Local/loop-low@whole/n")
        job = await only_job(scene)
        await asyncio.sleep(0.8)
        await scene.hangup(call)
        recording = await ended(scene, job)
        assert (recording.state.value, recording.cause.value) == ("ERROR", "ERROR")
        assert recording.facts["disk_full"] is True
        assert "no room" in recording.error
        raw = recording.pieces[0].mixed
        assert raw in recording.error
        assert [str(p) for p in scene.spool.iterdir()] == [raw]
        assert [p for p in in_directory(scene.directory) if p.stat().st_size] == []
        monkeypatch.setattr(finalfile.FinalFile, "commit", opened)
        again = await scene.recorder.parts.finalizer.refinish(recording)
        assert (await ended(scene, again)).cause.value == "HANGUP"
        told = await told_of(scene, "full")
        assert share_of(heard(told)[1000:], LOW, 11025) > 0.9
        await scene.until(lambda: not list(scene.spool.iterdir()))


async def test_a_full_spool_is_refused_at_the_start(scene22: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene22
    seen: dict[str, Any] = {}
    route(scene, "no-room", seen)
    monkeypatch.setattr(raw_files, "free_bytes", lambda path: 4096)
    await scene.call("no-room", far_end="Local/mute@whole/n")
    await scene.until(lambda: seen)
    started, state, cause, error = seen["no-room"]
    assert (started, state, cause) == (False, "ERROR", "ERROR")
    assert "is full: make room" in error
    assert list(scene.spool.iterdir()) == []


async def test_a_spool_that_fills_up_in_mid_call_is_told(scene22: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asterisk goes on without a word and the file stands still: that is not silence, and the metadata say so."""
    scene = scene22
    route(scene, "filled-up", milliseconds_max_silence=1500)
    route(scene, "had-room", milliseconds_max_silence=20_000)
    call = await scene.call("filled-up", far_end="Local/loop-talk@whole/n")
    job = await only_job(scene)
    await scene.until(lambda: job.size > 32_768)
    full, written = True, os.stat(job.recording.pieces[0].mixed).st_size
    monkeypatch.setattr(raw_files, "free_bytes", lambda path: 4096 if full else 1 << 40)
    size, read = raw_files.size, Sound.read_new
    monkeypatch.setattr(raw_files, "size", lambda path: min(size(path), written) if full else size(path))
    monkeypatch.setattr(Sound, "read_new", lambda self: np.zeros(0, np.int16) if full else read(self))
    await scene.until(lambda: "spool_full" in job.alarms)
    await asyncio.sleep(3.0)  # twice the silence that it may last
    assert job.recording.state.value == "RECORDING"
    full = False
    await scene.until(lambda: "spool_full" not in job.alarms)
    await scene.hangup(call)
    told = await told_of(scene, "filled-up")
    assert (told.extra["cause"], told.extra["spool_full"]) == ("HANGUP", True)

    call = await scene.call("had-room", far_end="Local/loop-low@whole/n")
    await only_job(scene)
    await scene.hangup(call)
    assert "spool_full" not in (await told_of(scene, "had-room")).extra


async def test_the_recordings_directory_vanishes_in_mid_call(scene22: Scene) -> None:
    """It is made again for the finished file; where that cannot be, Asterisk's file is kept and the error says why."""
    scene = scene22
    route(scene, "folders/deep/gone")
    call = await scene.call("folders/deep/gone", far_end="Local/loop-low@whole/n")
    job = await only_job(scene)
    await asyncio.sleep(0.8)
    shutil.rmtree(scene.directory)
    await scene.hangup(call)
    recording = await ended(scene, job)
    assert (recording.state.value, recording.cause.value, recording.error) == ("IDLE", "HANGUP", "")
    told = await told_of(scene, "folders/deep/gone")
    assert told.file_path == str(scene.directory / "folders" / "deep" / "gone.wav")
    assert share_of(heard(told), LOW) > 0.9
    assert list(scene.spool.iterdir()) == []

    route(scene, "in-the-way")
    call = await scene.call("in-the-way", far_end="Local/loop-low@whole/n")
    job = await only_job(scene)
    await asyncio.sleep(0.8)
    shutil.rmtree(scene.directory)
    scene.directory.write_text("in the way")
    await scene.hangup(call)
    recording = await ended(scene, job)
    assert (recording.state.value, recording.cause.value) == ("ERROR", "ERROR")
    assert f"{scene.directory}/in-the-way.wav: cannot be written" in recording.error
    assert recording.pieces[0].mixed in recording.error
    assert os.stat(recording.pieces[0].mixed).st_size > 44
    scene.directory.unlink()
    scene.directory.mkdir()


async def test_clear_leftovers_of_a_crash_are_swept_at_start(whole22: AsteriskServer, tmp_path: Path) -> None:
    """Whoever was killed while it finished an encrypted file leaves no clear one; what it leaves goes at the start."""
    async with whole_scene(whole22, tmp_path) as scene:
        folder = scene.directory / "2026"
        folder.mkdir()
        left = [folder / f".secret.wav{TEMPORARY_SUFFIX}", folder / f".other.flac{TEMPORARY_SUFFIX}"]
        for path in left:
            path.write_bytes(b"half a file")
            os.utime(path, (1_700_000_000, 1_700_000_000))
        kept = folder / "finished.wav"
        kept.write_bytes(b"whole")
        await scene.restart()
        await scene.until(lambda: not any(path.exists() for path in left), 15)
        assert kept.exists()
