"""Monitor, the engine before MixMonitor: Asterisk 16 to 20 have it, 21 has not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastagi import Error
from fastagi.testing import AsteriskServer
from support.call_harness import heard, last_sound, order, seconds, share_of, told_of, whole_scene
from support.finished_files import in_directory
from support.recorder_harness import Scene

LOW, PROMPT = 440.0, 600.0


async def record(scene: Scene, name: str, far_end: str, **options: Any) -> Any:
    """A call on which a prompt is played, after a second of nothing, to a far end that talks all the time."""

    @scene.app.route(name)
    async def run(call: Any) -> None:
        recorder = call.WholeCallRecorder
        assert await recorder.start(name, file_format="s16bit", engine="monitor", **options)
        await asyncio.sleep(1.0)
        await call.stream_file("whole/short-prompt")
        if options.get("pause_mode"):
            await recorder.pause()
            await asyncio.sleep(1.0)
            await recorder.resume()
            await call.stream_file("whole/blip")
            await recorder.stop()
        else:
            await recorder.wait_until_finished()

    return await scene.call(name, far_end=f"Local/{far_end}@whole/n")


async def test_both_sides_mixed_or_apart(whole16: AsteriskServer, tmp_path: Any) -> None:
    async with whole_scene(whole16, tmp_path) as scene:
        calls = await asyncio.gather(
            record(scene, "mixed", "loop-low", dtmf_elim=False),
            record(scene, "apart", "loop-low", recording_mode="separate"),
            record(scene, "paused", "loop-low", recording_mode="separate", pause_mode="silence"),
            record(scene, "silence", "say-hello", milliseconds_max_silence=1500),
            record(scene, "nobody", "mute", milliseconds_max_silence=1500),
        )
        await asyncio.sleep(3.8)
        for call in calls[:2]:
            await scene.hangup(call)
        told = {name: await told_of(scene, name) for name in ("mixed", "apart", "paused", "silence", "nobody")}

        both = heard(told["apart"])
        assert order(both[:, 0], LOW, PROMPT) == [LOW]
        assert order(both[:, 1], LOW, PROMPT) == [PROMPT]
        start = last_sound(both[::-1, 1])  # from the end: the prompt's first sample
        begun = len(both) / 8000 - start
        assert 0.5 < begun < 1.6  # the second in which nothing was sent is there
        mixed = heard(told["mixed"])
        middle = mixed[round(2.0 * 8000) : round(3.0 * 8000)]
        assert share_of(middle, LOW) > 0.3
        assert share_of(middle, PROMPT) > 0.3
        assert {told[name].extra["cause"] for name in ("mixed", "apart")} == {"HANGUP"}

        ((from_, to),) = told["paused"].extra["gaps"]
        assert 0.9 < to - from_ < 2.5
        quiet = heard(told["paused"])[round(from_ * 8000) + 8 : round(to * 8000) - 8]
        assert not quiet.any()
        assert told["paused"].extra["cause"] == "ABORTED"

        assert told["silence"].extra["cause"] == "SILENCE"
        end = last_sound(heard(told["silence"]))
        assert end > 3.5  # the prompt is heard after the speech
        assert abs(seconds(told["silence"]) - end - 1.5) <= 0.011

        # a prompt to one who sends nothing is no silence: all of it is there
        assert told["nobody"].extra["cause"] == "SILENCE"
        end = last_sound(heard(told["nobody"]))
        assert 2.9 < end < 3.3
        assert abs(seconds(told["nobody"]) - end - 1.5) <= 0.011
        await scene.until(lambda: not list(scene.spool.iterdir()))


async def test_one_side_cannot_be_muted_and_a_second_one_is_refused(whole16: AsteriskServer, tmp_path: Any) -> None:
    errors: list[str] = []
    async with whole_scene(whole16, tmp_path) as scene:

        @scene.app.route("mute")
        async def mute(call: Any) -> None:
            assert await call.WholeCallRecorder.start("mute", engine="monitor")
            with pytest.raises(Error) as info:
                await call.WholeCallRecorder.mute("received")
            errors.append(str(info.value))
            with pytest.raises(Error, match="has a Monitor already"):
                await call.recorder("second").start("second", engine="monitor")
            assert await call.recorder("third").start("third")  # beside a MixMonitor it may be

        await scene.call("mute", far_end="Local/loop-low@whole/n")
        await told_of(scene, "mute")
    assert errors == ["engine='monitor' cannot mute one side: use mixmonitor"]


async def test_newer_asterisks_refuse_it_before_anything_is_sent(whole22: AsteriskServer, tmp_path: Any) -> None:
    errors: list[str] = []
    async with whole_scene(whole22, tmp_path) as scene:

        @scene.app.route("refused")
        async def refused(call: Any) -> None:
            with pytest.raises(Error) as info:
                await call.WholeCallRecorder.start("refused", engine="monitor")
            errors.append(str(info.value))
            assert call.WholeCallRecorder.state() == "IDLE"

        await scene.call("refused", far_end="Local/mute@whole/n")
        await scene.until(lambda: errors)
        assert list(scene.spool.iterdir()) == in_directory(scene.directory) == []
    assert errors == [
        "engine='monitor': Asterisk 22 has no Monitor any more (20 was the last): use engine='mixmonitor'"
    ]
