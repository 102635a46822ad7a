"""One fault each, on a real Asterisk: what was recorded is kept, what comes after is recorded, the operator is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import soundfile

from fastagi import App
from fastagi.domain.states import Phase
from fastagi.recording.asterisk.raw_files import size
from fastagi.recording.recovery.restart import DEAD_HERE_SECONDS
from fastagi.runtime.steady_clock import SteadyClock
from fastagi.testing import AsteriskServer
from fastagi.testing.server_settings import settings_for
from support.ami_gate import AmiGate
from support.crash_harness import until
from support.recorder_harness import Scene, recording_scene


def seconds_of(metadata: Any) -> float:
    return float(soundfile.info(metadata.file_path).duration)


async def ready(scene: Scene) -> dict[str, Any]:
    """What /readyz says."""
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{scene.app.parts.http.port}/readyz") as answer,  # type: ignore[union-attr]
    ):
        body: dict[str, Any] = await answer.json()
        return body


def problems(body: dict[str, Any]) -> list[str]:
    return [problem["what"] for problem in body["problems"]]


HTTP = {"enabled": True, "port": 0}


def recorded(scene: Scene, **options: Any) -> list[float]:
    """A route `r` that records and stays on the line; how long each start took, in seconds."""
    took: list[float] = []

    @scene.app.route("r")
    async def record(call: Any) -> None:
        begun = time.monotonic()
        assert await call.WholeCallRecorder.start(call.params["name"], **options)
        took.append(time.monotonic() - begun)
        await call.exec("Wait", call.params.get("hold", "60"))

    return took


# -- the manager connection


async def test_calls_go_on_and_end_while_the_manager_connection_is_down(
    asterisk22: AsteriskServer, tmp_path: Path
) -> None:
    async with (
        AmiGate(asterisk22.ami_port) as gate,
        recording_scene(asterisk22, tmp_path, asterisk={"port": gate.port}, http=HTTP) as scene,
    ):
        recorded(scene)
        stays = await scene.call("r", "name=stays")
        ends = await scene.call("r", "name=ends")
        await until(lambda: len(scene.recorder.parts.context.jobs) == 2)
        gate.shut()
        await until(lambda: not scene.app.parts.pbxs["pbx"].up)
        assert problems(await ready(scene)) == ["asterisk pbx"]
        during = await scene.call("r", "name=during")
        await until(lambda: len(scene.recorder.parts.context.jobs) == 3, what="a call is recorded without the manager")
        await asyncio.sleep(2.5)
        await scene.hangup(ends)
        (told,) = await scene.delivered(1)
        assert (told.session_id, told.extra["cause"]) == (ends.uniqueid, "HANGUP")
        assert seconds_of(told) == pytest.approx(told.duration_seconds, abs=1.2)
        gate.open()
        await until(lambda: scene.app.parts.pbxs["pbx"].up, 30)
        assert problems(await ready(scene)) == []
        assert len(scene.recorder.parts.context.jobs) == 2, "they are up, and go on"
        for call in (stays, during):
            await scene.hangup(call)
        by_call = {m.session_id: m for m in await scene.delivered(3)}
        for call in (stays, during):
            told = by_call[call.uniqueid]
            assert told.extra["cause"] == "HANGUP"
            assert seconds_of(told) == pytest.approx(told.duration_seconds, abs=1.2)
        assert [p.name for p in scene.spool.iterdir()] == []


async def test_a_manager_that_answers_nothing_keeps_no_call_from_being_recorded(
    asterisk22: AsteriskServer, tmp_path: Path
) -> None:
    async with (
        AmiGate(asterisk22.ami_port) as gate,
        recording_scene(asterisk22, tmp_path, asterisk={"port": gate.port}, http=HTTP) as scene,
    ):
        took = recorded(scene)
        before = await scene.call("r", "name=before")
        await until(lambda: len(took) == 1)
        gate.mute()
        during = await scene.call("r", "name=during")
        await until(lambda: len(took) == 2, 30, "recorded through the AGI session")
        assert took[1] < 15, "somebody hears nothing meanwhile"
        await asyncio.sleep(2.2)
        await scene.hangup(during)
        (told,) = await scene.delivered(1, 40)
        assert (told.session_id, told.extra["cause"]) == (during.uniqueid, "HANGUP")
        assert seconds_of(told) > 1.5
        await until(lambda: not scene.app.parts.pbxs["pbx"].up, 40, "the silence is noticed")
        assert problems(await ready(scene)) == ["asterisk pbx"]
        gate.open()
        await until(lambda: scene.app.parts.pbxs["pbx"].up, 40)
        await scene.hangup(before)
        metadata = (await scene.delivered(2))[1]
        assert seconds_of(metadata) == pytest.approx(metadata.duration_seconds, abs=1.2)


async def test_a_hangup_behind_a_manager_that_answers_nothing_is_no_stop_by_somebody(
    asterisk22: AsteriskServer, tmp_path: Path
) -> None:
    async with (
        AmiGate(asterisk22.ami_port) as gate,
        recording_scene(asterisk22, tmp_path, asterisk={"port": gate.port}, http=HTTP) as scene,
    ):
        call = await asterisk22.originate("Local/tone@fastagi-testing/n")
        recording = await scene.app.parts.commands.start_on_channel(call.channel, "silent")
        (job,) = scene.recorder.parts.context.jobs
        await until(lambda: job.size > 10_000)
        gate.mute()
        await scene.hangup(call)
        (told,) = await scene.delivered(1)
        assert scene.app.parts.pbxs["pbx"].manager.connected, "nobody has noticed yet that it answers nothing"
        gate.open()
        assert (told.extra["recording_id"], told.extra["cause"]) == (recording.id, "HANGUP")
        assert seconds_of(told) == pytest.approx(told.duration_seconds, abs=1.2)


# -- Asterisk itself


@pytest.fixture
async def mortal() -> AsyncIterator[AsteriskServer]:
    """An Asterisk that may be killed."""
    async with AsteriskServer(22) as asterisk:
        yield asterisk


async def test_an_asterisk_that_stays_dead_leaves_no_recording_open(mortal: AsteriskServer, tmp_path: Path) -> None:
    scene = Scene(
        mortal,
        tmp_path,
        settings_for(mortal, tmp_path, recordings={"dead_seconds": 2.0, "close_seconds": 1.0}, http=HTTP),
    )
    await scene.start()
    try:
        recorded(scene)
        calls = [await scene.call("r", f"name=call-{n}") for n in range(3)]
        await until(lambda: len(scene.recorder.parts.context.jobs) == 3)
        await until(lambda: all(p.stat().st_size > 32_000 for p in scene.spool.glob("rec-*-rx.wav")))
        await mortal.kill()
        told = await scene.delivered(3, 40)
        assert {m.session_id for m in told} == {call.uniqueid for call in calls}
        for metadata in told:
            assert metadata.extra["cause"] == "HANGUP"
            assert metadata.extra["salvaged"] is True
            assert metadata.extra["asterisk_unreached"] is True
            assert seconds_of(metadata) > 1.9
        assert scene.recorder.parts.recovery.unreached == 3
        assert problems(await ready(scene)) == ["asterisk pbx"]
        assert len(list(scene.spool.glob("rec-*"))) == 9, "nobody has seen the calls end: Asterisk's files are kept"
        await mortal.start()
        await until(lambda: scene.app.parts.pbxs["pbx"].up, 40)
        await scene.recorder.parts.sweep.round()
        assert list(scene.spool.glob("rec-*")) == [], "now it is known"
        assert len(scene.sink.got) == 3
    finally:
        await scene.app.stop(10)


async def test_asterisk_dead_here_frees_recordings_soon(mortal: AsteriskServer, tmp_path: Path) -> None:
    """With the default `dead_seconds` (120): at a loopback port where no process listens no network can be broken."""
    scene = Scene(mortal, tmp_path, settings_for(mortal, tmp_path, recordings={"close_seconds": 1.0}))
    await scene.start()
    try:
        recorded(scene)
        await scene.call("r", "name=call")
        await until(lambda: any(p.stat().st_size > 32_000 for p in scene.spool.glob("rec-*-rx.wav")))
        await mortal.kill()
        killed = time.monotonic()
        (told,) = await scene.delivered(1, 60)
        assert time.monotonic() - killed >= DEAD_HERE_SECONDS - 1, "a supervisor has its time to start it again"
        assert (told.extra["cause"], told.extra["asterisk_unreached"]) == ("HANGUP", True)
    finally:
        await scene.app.stop(10)


async def test_a_paused_recording_is_not_taken_for_dead_so_soon(mortal: AsteriskServer, tmp_path: Path) -> None:
    scene = Scene(mortal, tmp_path, settings_for(mortal, tmp_path, recordings={"dead_seconds": 0.5}))
    await scene.start()
    try:
        recorded(scene)
        for name in ("speaking", "paused"):
            await scene.call("r", f"name={name}")
        await until(lambda: sum(job.started is not None for job in scene.recorder.parts.context.jobs) == 2)
        paused = next(job for job in scene.recorder.parts.context.jobs if job.recording.name == "paused")
        await scene.recorder.parts.pauser.pause(paused)
        await mortal.kill()
        (speaking,) = await scene.delivered(1, 40)
        assert speaking.name == "speaking"
        assert paused.phase is Phase.PAUSED
        await mortal.start()
        assert (await scene.delivered(2, 60))[1].extra["cause"] == "HANGUP"
    finally:
        await scene.app.stop(10)


async def test_a_restarted_asterisk_that_uses_a_uniqueid_again_is_another_call(
    mortal: AsteriskServer, tmp_path: Path
) -> None:
    async def call(ami: Any, name: str) -> None:
        headers = {"Application": "AGI", "Data": f"{scene.url('r')},name={name}", "Async": "true"}
        answer = await ami.action(
            "Originate", {"Channel": "Local/tone@fastagi-testing/n", "ChannelId": "1700000000.1", **headers}
        )
        assert answer["Response"] == "Success"

    scene = Scene(mortal, tmp_path, settings_for(mortal, tmp_path, recordings={"close_seconds": 2.0}))
    await scene.start()
    try:
        recorded(scene)
        async with mortal.ami() as ami:
            await call(ami, "first")
        await until(lambda: len(scene.recorder.parts.context.jobs) == 1)
        (first,) = [job.id for job in scene.recorder.parts.context.jobs]
        await asyncio.sleep(3.5)  # what is told apart by its age must have one
        await mortal.kill()
        await mortal.start()
        async with mortal.ami() as ami:
            await call(ami, "second")
            (told,) = await scene.delivered(1)
            assert told.extra["recording_id"] == first
            assert (told.extra["cause"], told.extra["salvaged"]) == ("HANGUP", True)
            await until(lambda: len(scene.recorder.parts.context.jobs) == 1, what="the second is being recorded")
            await asyncio.sleep(1.5)
            await mortal.cli("channel request hangup all")
        second = (await scene.delivered(2))[1]
        assert second.session_id == told.session_id == "1700000000.1"
        assert second.extra["recording_id"] != first
        assert seconds_of(second) == pytest.approx(second.duration_seconds, abs=1.2)
    finally:
        await scene.app.stop(10)


# -- the disk


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Any:
    """A file system with little room at `folder`."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder.mkdir(parents=True)
    assert os.system(f"mount -t tmpfs -o size={size},mode=0777 tmpfs {folder}") == 0
    try:
        yield folder
    finally:
        os.system(f"umount -l {folder}")


async def test_a_disk_that_is_full_when_a_recording_is_finished(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "64k") as small:
        settings = {"directory": str(small), "min_free_mb": 0}
        async with recording_scene(asterisk22, tmp_path, recordings=settings, http=HTTP) as scene:
            recorded(scene, file_format="s16bit")
            (small / "ballast").write_bytes(b"\0" * 40_000)
            call = await scene.call("r", "name=big")
            await until(lambda: len(scene.recorder.parts.context.jobs) == 1)
            await asyncio.sleep(3.0)
            await scene.hangup(call)
            await until(lambda: len(scene.recorder.parts.context.jobs) == 0)
            recording = scene.recorder.last(("pbx", call.uniqueid, ""))
            assert (recording.state, recording.cause) == ("ERROR", "ERROR")
            assert "no room" in recording.error
            assert recording.pieces[0].mixed in recording.error, "the operator is told where it is"
            raw = recording.pieces[0].mixed
            assert size(raw) > 40_000
            await scene.recorder.parts.sweep.round()
            assert scene.sink.got == [], "there is no room yet"
            await asyncio.to_thread(os.system, f"mount -o remount,size=8m {small}")
            (small / "ballast").unlink()
            await scene.recorder.parts.sweep.round()
            (told,) = await scene.delivered(1)
            assert (told.extra["cause"], told.extra["state"]) == ("HANGUP", "IDLE")
            assert seconds_of(told) == pytest.approx(told.duration_seconds, abs=1.2)
            assert size(raw) == -1


async def test_a_disk_that_is_full_while_asterisk_records(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    with small_disk(tmp_path / "spool", "64k"):
        async with recording_scene(asterisk22, tmp_path, recordings={"stalled_seconds": 3.0}, http=HTTP) as scene:
            recorded(scene, dtmf_elim=False)
            call = await scene.call("r", "name=long")
            await until(lambda: len(scene.recorder.parts.context.jobs) == 1)
            await until(lambda: scene.recorder.parts.watch.stalled == 1, 40, "the alarm for a file that does not grow")
            assert f"disk {scene.spool}" in problems(await ready(scene))
            await scene.hangup(call)
            (told,) = await scene.delivered(1, 40)
            assert told.extra["cause"] == "HANGUP"
            assert seconds_of(told) == pytest.approx(4.0, abs=1.0), "64 kB are 4 s: what there was room for is kept"


# -- the clock


async def test_a_clock_that_is_set_meanwhile_changes_no_recording(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    try:
        await asyncio.gather(*(_set_by(jump, asterisk22, tmp_path) for jump in (86_400.0, -86_400.0)))
    finally:
        await asterisk22.cli("channel request hangup all")


async def _set_by(jump: float, asterisk: AsteriskServer, folder: Path) -> None:
    folder = folder / ("forwards" if jump > 0 else "back")
    folder.mkdir()
    by = 0.0
    clock = SteadyClock(lambda: time.time() + by)
    scene = Scene(asterisk, folder, settings_for(asterisk, folder))
    scene.app = App(scene.settings, recording_sink=scene.sink, clock=clock)
    await scene.start()
    try:
        recorded(scene, milliseconds_max_silence=3000)

        @scene.app.route("three")
        async def three(call: Any) -> None:
            assert await call.WholeCallRecorder.record("three", seconds_timeout=3) == "TIMEOUT"

        call = await scene.call("r", "name=through", "hold=4")
        await scene.call("three")
        await until(lambda: len(scene.recorder.parts.context.jobs) == 2)
        await asyncio.sleep(1.0)
        by = jump
        told = {m.name: m for m in await scene.delivered(2)}
        assert told["three"].extra["cause"] == "TIMEOUT"
        assert told["three"].duration_seconds == pytest.approx(3.0, abs=1.0)
        assert told["through"].session_id == call.uniqueid
        assert told["through"].extra["cause"] == "HANGUP", "a day of silence is none"
        assert told["through"].duration_seconds == pytest.approx(4.0, abs=1.5)
        assert clock.jumps == 1
        await until(lambda: abs(clock.off_seconds) < 1, 15, "taken over when nothing is recorded")
    finally:
        await scene.app.stop(5)
