"""Pause, resume, mute, beeps, several recordings of one call: what is in the file, and what is told."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from fastagi import Error
from fastagi.audio import inspect
from support.call_harness import ask, heard, last_sound, seconds, share_of, span_of, told_of, tones
from support.recorder_harness import Scene

LOW, HIGH = 440.0, 1000.0


async def test_a_pause_is_silence_or_is_cut_out_and_nothing_of_it_is_ever_on_disk(scene: Scene) -> None:
    raw: dict[str, float] = {}

    def route(name: str, **options: Any) -> None:
        @scene.app.route(name)
        async def run(call: Any) -> None:
            recorder = call.WholeCallRecorder
            assert await recorder.start(name, file_format="s16bit", **options)
            await asyncio.sleep(1.0)
            assert await recorder.pause()
            assert await recorder.pause()
            await asyncio.sleep(1.5)
            raw[name] = sum(inspect(path).seconds for path in scene.spool.glob(f"{recorder.recording.id}*.wav"))
            assert await recorder.resume()
            assert await recorder.resume()
            await asyncio.sleep(1.0)
            await recorder.stop()

    route("silence", dtmf_elim=False)
    route("cut", dtmf_elim=False, pause_mode="cut")
    route("both-sides", recording_mode="separate", pause_mode="cut")
    names = ("silence", "cut", "both-sides")
    await asyncio.gather(*(scene.call(name, far_end="Local/loop-low@whole/n") for name in names))
    told = {name: await told_of(scene, name) for name in names}
    for name, m in told.items():
        ((start, end),) = m.extra["paused"]
        assert 0.9 < start < 1.6, name
        assert 1.4 < end - start < 2.5, name
        assert (m.extra["cause"], m.extra["salvaged"]) == ("ABORTED", False), name
    assert raw["silence"] < 1.6  # seconds on the disk when the pause had lasted longer than that

    start, end = told["silence"].extra["gaps"][0]
    samples = heard(told["silence"])
    assert not samples[round(start * 8000) + 8 : round(end * 8000) - 8].any()
    assert share_of(samples[: round(start * 8000)], LOW) > 0.9
    assert share_of(samples[round(end * 8000) :], LOW) > 0.9
    span = told["silence"].extra["paused"][0]
    assert abs((end - start) - (span[1] - span[0])) < 0.3
    assert abs(seconds(told["silence"]) - told["silence"].duration_seconds) < 1.0

    for name in ("cut", "both-sides"):
        assert abs(seconds(told[name]) - (told[name].duration_seconds - (end - start))) < 0.6
    assert share_of(heard(told["cut"])[2000:-1000], LOW) > 0.9
    assert share_of(heard(told["both-sides"])[2000:-1000, 0], LOW) > 0.9


async def test_a_pause_ends_by_itself_also_after_a_restart_of_the_server(scene: Scene) -> None:
    @scene.app.route("by-itself")
    async def by_itself(call: Any) -> None:
        assert await call.WholeCallRecorder.start("by-itself", file_format="s16bit", dtmf_elim=False)
        await asyncio.sleep(0.5)
        await call.WholeCallRecorder.pause(seconds=3600)
        await call.WholeCallRecorder.pause(seconds=2.0)  # the later word counts

    call = await ask(scene, "by-itself", "Local/loop-low@whole/n")
    (job,) = await _running(scene, "paused")
    await scene.restart()
    (job,) = await _running(scene, "active")
    await asyncio.sleep(1.0)
    await scene.asterisk.cli(f"channel request hangup {call.channel}")
    told = await told_of(scene, "by-itself")
    ((start, end),) = told.extra["paused"]
    assert 1.9 < end - start < 8.0
    assert "resume_at" not in told.extra
    samples = heard(told)
    ((from_, to),) = told.extra["gaps"]
    assert not samples[round(from_ * 8000) + 8 : round(to * 8000) - 8].any()
    assert share_of(samples[round(to * 8000) :], LOW) > 0.9
    assert job.recording.id == told.extra["recording_id"]


async def test_the_clocks_of_a_server_that_stopped_stand_still(scene22: Scene) -> None:
    """In a program that goes on, such as this one: its recordings are another server's now."""
    scene = scene22

    @scene.app.route("clocks")
    async def clocks(call: Any) -> None:
        assert await call.recorder("limited").start("limited", seconds_timeout=3)
        assert await call.WholeCallRecorder.start("resumed")
        assert await call.WholeCallRecorder.pause(seconds=3)

    await ask(scene, "clocks", "Local/loop-low@whole/n")
    jobs = [*await _running(scene, "active"), *await _running(scene, "paused")]
    timers = [jobs[0].timer, jobs[1].resume_timer]
    await scene.restart()
    assert [timer.cancelled() for timer in timers] == [True, True]
    told = await told_of(scene, "limited")
    assert (told.extra["cause"], told.duration_seconds) == ("TIMEOUT", pytest.approx(3.0, abs=0.5))
    await _running(scene, "active")
    assert [job.phase.value for job in jobs] == ["active", "paused"]
    assert scene.recorder.parts.context.journal.sides.ids() == []


async def _running(scene: Scene, phase: str) -> list[Any]:
    await scene.until(lambda: [j for j in scene.recorder.parts.context.jobs if j.phase.value == phase])
    return [j for j in scene.recorder.parts.context.jobs if j.phase.value == phase]


async def test_hung_up_or_stopped_while_paused(scene22: Scene) -> None:
    scene = scene22

    def route(name: str, stop: bool) -> None:
        @scene.app.route(name)
        async def run(call: Any) -> None:
            assert await call.WholeCallRecorder.start(name, file_format="s16bit", milliseconds_max_silence=1000)
            await asyncio.sleep(0.8)
            await call.WholeCallRecorder.pause()
            await asyncio.sleep(4.0)  # longer than the limit: nobody judges a pause
            assert call.WholeCallRecorder.state() == "RECORDING"
            if stop:
                await call.WholeCallRecorder.stop()

    route("hung-up", False)
    route("stopped", True)
    await asyncio.gather(*(scene.call(n, far_end="Local/loop-low@whole/n") for n in ("hung-up", "stopped")))
    for name, cause in (("hung-up", "HANGUP"), ("stopped", "ABORTED")):
        told = await told_of(scene, name)
        assert told.extra["cause"] == cause
        ((start, end),) = told.extra["paused"]
        assert 3.9 < end - start < 8.0
        before = last_sound(heard(told))  # the pause is silence, to the end
        assert 0.2 < before < 1.5
        assert abs(seconds(told) - before - (end - start)) < 0.1
        assert share_of(heard(told)[: int(before * 8000)], LOW) > 0.9
    await scene.until(lambda: not list(scene.spool.iterdir()))


async def test_several_recordings_of_one_call_do_not_disturb_each_other(scene: Scene) -> None:
    """Pausing one leaves the other alone, on 16 too, where MixMonitorMute cannot tell them apart."""

    @scene.app.route("several")
    async def several(call: Any) -> None:
        first, second = call.recorder("first"), call.recorder("second")
        assert await first.start("first", file_format="s16bit", dtmf_elim=False)
        assert await second.start("second", file_format="s16bit", dtmf_elim=False)
        await asyncio.sleep(0.6)
        await second.pause()
        await asyncio.sleep(1.2)
        await second.resume()
        await asyncio.sleep(0.4)
        await first.pause()
        await asyncio.sleep(1.2)
        await first.resume()
        await asyncio.sleep(0.6)
        if scene.asterisk.major < 21:
            with pytest.raises(Error, match="cannot mute one of several"):
                await second.mute("received")
        await first.stop()
        assert (first.state(), second.state()) == ("IDLE", "RECORDING")
        await second.stop()

    await scene.call("several", far_end="Local/loop-low@whole/n")
    first, second = await told_of(scene, "first"), await told_of(scene, "second")
    for told in (first, second):
        ((start, end),) = told.extra["gaps"]
        assert end - start > 1.1
        samples = heard(told)
        assert not samples[round(start * 8000) + 8 : round(end * 8000) - 8].any()
        assert share_of(samples[: round(start * 8000)], LOW) > 0.9
        assert share_of(samples[round(end * 8000) :], LOW) > 0.9
    assert first.extra["gaps"][0][0] > second.extra["gaps"][0][1]  # each has the other's pause in full
    assert (first.extra["recorder"], second.extra["recorder"]) == ("first", "second")


async def test_one_direction_is_muted_and_the_other_goes_on(scene: Scene) -> None:
    @scene.app.route("muted")
    async def muted(call: Any) -> None:
        recorder = call.WholeCallRecorder
        options = {"file_format": "s16bit", "recording_mode": "separate", "dtmf_elim": False}
        assert await recorder.start("muted", mid_call=True, **options)
        playing = asyncio.create_task(call.stream_file("whole/longer-prompt"))
        await asyncio.sleep(0.5)
        await recorder.mute("received")
        await recorder.mute("received")
        await asyncio.sleep(1.0)
        await recorder.unmute("received")
        await recorder.mute("sent")
        await asyncio.sleep(0.3)
        await recorder.pause()  # what is muted is muted after it, too
        await asyncio.sleep(0.3)
        await recorder.resume()
        await asyncio.sleep(0.7)
        await recorder.unmute("sent")
        await playing
        await recorder.stop()

    await scene.call("muted", far_end="Local/loop-low@whole/n")
    told = await told_of(scene, "muted")
    both = heard(told)
    ((from_, to),) = told.extra["muted"]["received"]
    ((sent_from, sent_to),) = told.extra["muted"]["sent"]
    assert to - from_ > 0.8
    first, last = round((from_ + 0.15) * 8000), round((to - 0.15) * 8000)
    assert share_of(both[first:last, 0], LOW) == 0.0
    assert share_of(both[first:last, 1], 600.0) > 0.9
    first, last = round((sent_from + 0.15) * 8000), round((sent_to - 0.45) * 8000)
    assert share_of(both[first:last, 0], LOW) > 0.7
    assert np.count_nonzero(both[first:last, 1]) <= 3 * 160  # a frame or two before the mute came
    after = tones(both[round((sent_to + 0.1) * 8000) :, 1], 600.0)
    assert (600.0,) in after


async def test_beeps_are_heard_by_the_caller(scene22: Scene) -> None:
    """At the start, every three seconds, at the stop: as the far half of the recorded channel hears them."""
    scene = scene22

    def listening() -> bool:
        return any(j.recording.name == "heard" and j.phase.value == "active" for j in scene.recorder.parts.context.jobs)

    @scene.app.route("beeps")
    async def beeps(call: Any) -> None:
        await scene.until(listening)
        await asyncio.sleep(0.5)
        assert await call.WholeCallRecorder.start("beeps", beep_start=True, beep_stop=True, beep_seconds=3)
        playing = asyncio.create_task(call.exec("Playback", "whole/quiet"))
        await asyncio.sleep(4.7)
        await scene.recorder.stop(scene.recorder.current((call.pbx.name, call.uniqueid, "")))
        await asyncio.sleep(1.5)  # until the last beep is out
        playing.cancel()

    @scene.app.route("listener")
    async def listener(call: Any) -> None:
        assert await call.WholeCallRecorder.start("heard", file_format="s16bit", mid_call=True, dtmf_elim=False)
        await call.exec("Wait", 30)

    await scene.asterisk.cli(f"dialplan set global SERVER {scene.url('').rstrip('/')}")
    await scene.asterisk.originate("Local/listening@whole/n", application="AGI", data=scene.url("beeps"), wait=False)
    samples = heard(await told_of(scene, "heard"))
    loud = [i / 50 for i in range(len(samples) // 160) if abs(samples[i * 160 : i * 160 + 160]).max() > 0.01]
    groups = [at for before, at in zip([-9.0, *loud], loud, strict=False) if at - before > 0.6]
    assert len(groups) == 3, groups
    assert 2.0 < groups[1] - groups[0] < 4.5
    assert 3.7 < groups[2] - groups[0] < 6.5


async def test_agi_routes_pause_and_resume(scene22: Scene) -> None:
    """From the dialplan: AGI(agi://.../record/pause,seconds=...)."""
    scene = scene22

    @scene.app.route("routes")
    async def routes(call: Any) -> None:
        url = scene.url("record")
        await call.exec("AGI", f"{url}/start", "filename=routes", "file_format=s16bit", "dtmf_elim=no")
        await asyncio.sleep(0.6)
        await call.exec("AGI", f"{url}/pause", "seconds=1")
        assert await call.get_variable("RECORDING_STATE") == "RECORDING"
        await asyncio.sleep(2.2)
        await call.exec("AGI", f"{url}/pause")
        await asyncio.sleep(0.6)
        await call.exec("AGI", f"{url}/resume")
        await asyncio.sleep(0.4)
        await call.exec("AGI", f"{url}/stop")

    await scene.call("routes", far_end="Local/loop-low@whole/n")
    told = await told_of(scene, "routes")
    first, second = told.extra["paused"]
    assert 0.9 < first[1] - first[0] < 2.0
    assert 0.5 < second[1] - second[0] < 2.0
    assert span_of(heard(told), LOW)[0] < 0.5
    assert [LOW in part for part in tones(heard(told), LOW)].count(True) >= 4
