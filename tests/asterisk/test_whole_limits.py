"""The limits of a recording on real calls: silence, first sound, size, time; cut exactly, wherever the call goes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import soundfile

from fastagi import AesCbcCipher, AesGcmCipher
from fastagi.recording.asterisk import sound
from support.call_harness import SPEECH_SECONDS, ask, bytes_of, heard, last_sound, seconds, told_of
from support.recorder_harness import Scene

FOLLOWS = 3.0
"""Seconds in which the stop follows the limit; the tests allow three times that on a busy machine."""


def lag(told: Any, limit: float) -> float:
    """Seconds from the moment at which the limit was reached to that at which the recording ended."""
    return float(told.duration_seconds - limit)


async def test_silence_ends_it_and_the_file_is_cut_to_the_hundredth(scene: Scene) -> None:
    causes: dict[str, str] = {}

    def recording(name: str, **options: Any) -> None:
        @scene.app.route(name)
        async def route(call: Any) -> None:
            causes[name] = (await call.WholeCallRecorder.record(name, file_format="s16bit", **options)).value

    recording("after-speech", milliseconds_max_silence=2000)
    recording("first-sound", milliseconds_initial_silence=5000, milliseconds_max_silence=1500)
    recording("no-sound", milliseconds_initial_silence=1500)
    recording("no-frames", milliseconds_max_silence=2000)
    recording("no-frames-at-first", milliseconds_initial_silence=2000)
    far_ends = {
        "after-speech": "say-hello",
        "first-sound": "say-late",
        "no-sound": "say-quiet",
        "no-frames": "mute",
        "no-frames-at-first": "mute",
    }

    @scene.app.route("prompted")
    async def prompted(call: Any) -> None:
        assert await call.WholeCallRecorder.start("prompted", file_format="s16bit", milliseconds_max_silence=1500)
        for _ in range(4):
            await call.stream_file("whole/blip")
        causes["prompted"] = (await call.WholeCallRecorder.wait_until_finished()).value

    far_ends["prompted"] = "say-quiet"
    await asyncio.gather(*(scene.call(name, far_end=f"Local/{far}@whole/n") for name, far in far_ends.items()))
    told = {name: await told_of(scene, name) for name in far_ends}
    assert {m.extra["cause"] for m in told.values()} == {"SILENCE"}
    assert set(causes.values()) == {"SILENCE"}

    spoken = last_sound(heard(told["after-speech"]))
    assert abs(spoken - SPEECH_SECONDS) < 0.5  # the far end began a moment before or after the recording
    assert abs(seconds(told["after-speech"]) - (spoken + 2.0)) <= 0.011
    assert lag(told["after-speech"], spoken + 2.0) < 3 * FOLLOWS

    kept = heard(told["first-sound"])
    assert last_sound(kept[:800]) > 0.0  # it begins with the sound
    assert abs(len(kept) / 8000 - (last_sound(kept) + 1.5)) <= 0.011
    assert 0.7 * SPEECH_SECONDS < last_sound(kept) < 1.2 * SPEECH_SECONDS

    assert seconds(told["no-sound"]) == 0.0
    assert lag(told["no-sound"], 1.5) < 3 * FOLLOWS
    for name in ("no-frames", "no-frames-at-first"):
        assert last_sound(heard(told[name])) == 0.0
        assert 2.0 <= told[name].duration_seconds < 2.0 + 3 * FOLLOWS

    # prompts to a caller who said not a word: no silence
    end = last_sound(heard(told["prompted"]))
    assert end > 3.0
    assert abs(seconds(told["prompted"]) - end - 1.5) <= 0.011


async def test_size_bounds_the_finished_file_header_and_encryption_included(scene22: Scene) -> None:
    scene = scene22
    key = bytes(range(32))
    kinds: dict[str, dict[str, Any]] = {
        "alaw": {"max_bytes": 20_000},
        "ima": {"max_bytes": 12_345, "rate": 11025},
        "flac": {"max_bytes": 30_000},
        "cbc": {"max_bytes": 20_001, "cipher": AesCbcCipher(key, bytes(16))},
        "gcm": {"max_bytes": 20_001, "cipher": AesGcmCipher(key)},
    }
    started = asyncio.Event()

    @scene.app.route("sized")
    async def sized(call: Any) -> None:
        for name, options in kinds.items():
            options = {"file_format": name if name in ("alaw", "ima", "flac") else "ulaw", **options}
            assert await call.recorder(name).start(name, mid_call=True, **options)
        started.set()
        await asyncio.gather(*(call.recorder(name).wait_until_finished() for name in kinds))

    await scene.call("sized", far_end="Local/loop-talk@whole/n")
    for name, options in kinds.items():
        told = await told_of(scene, name)
        assert told.extra["cause"] == "SIZE", name
        size = bytes_of(told)
        assert size == told.extra["bytes"] <= options["max_bytes"]
        assert size > options["max_bytes"] - (300 if name != "flac" else 12_000), name
        if name == "alaw":
            assert lag(told, seconds(told)) < 3 * FOLLOWS


async def test_time_ends_it_to_the_hundredth(scene22: Scene) -> None:
    scene = scene22

    @scene.app.route("timed")
    async def timed(call: Any) -> None:
        cause = await call.WholeCallRecorder.record("timed", seconds_timeout=1.5)
        assert cause == call.WholeCallRecorder.Cause.TIMEOUT

    await scene.call("timed", far_end="Local/loop-talk@whole/n")
    told = await told_of(scene, "timed")
    assert told.extra["cause"] == "TIMEOUT"
    assert 1.0 <= seconds(told) <= 1.5


async def test_limits_hold_through_dial_after_the_session_and_after_a_restart(scene: Scene) -> None:
    def starting(name: str, **options: Any) -> None:
        @scene.app.route(name)
        async def route(call: Any) -> None:
            assert await call.WholeCallRecorder.start(name, file_format="s16bit", **options)

    starting("dial", milliseconds_max_silence=1500)
    starting("silence", milliseconds_max_silence=2500)
    starting("size", max_bytes=16_000 * 4)
    starting("time", seconds_timeout=4.5)
    await asyncio.gather(
        ask(scene, "dial", "Local/mute@whole/n", then="Dial(Local/say-hello@whole/n)"),
        ask(scene, "silence", "Local/say-hello@whole/n"),
        ask(scene, "size", "Local/loop-talk@whole/n"),
        ask(scene, "time", "Local/loop-talk@whole/n"),
    )
    await scene.until(lambda: len(scene.recorder.parts.context.jobs) == 4 and not scene.app.parts.agi.sessions)
    await scene.restart()
    told = {name: await told_of(scene, name) for name in ("dial", "silence", "size", "time")}
    assert {name: m.extra["cause"] for name, m in told.items()} == {
        "dial": "SILENCE",
        "silence": "SILENCE",
        "size": "SIZE",
        "time": "TIMEOUT",
    }
    for name, limit in (("dial", 1.5), ("silence", 2.5)):
        end = last_sound(heard(told[name]))
        assert end > 1.0  # through Dial, the callee's speech is heard
        assert abs(seconds(told[name]) - end - limit) <= 0.011
        assert lag(told[name], end + limit) < 3 * FOLLOWS
    assert told["size"].extra["bytes"] <= 64_000
    assert soundfile.info(told["size"].file_path).frames == (64_000 - 44) // 2
    assert 4.0 <= seconds(told["time"]) <= 4.5


async def test_where_the_spool_is_gone_those_who_talk_are_asked_of_asterisk(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The raw file cannot be read: TALK_DETECT on the channel and on its bridged peer decides."""

    def unreadable(*_: object) -> None:
        raise OSError(13, "Permission denied")

    def starting(name: str, **options: Any) -> None:
        @scene.app.route(name)
        async def route(call: Any) -> None:
            assert await call.WholeCallRecorder.start(name, file_format="s16bit", **options)

    starting("caller", milliseconds_max_silence=1500)
    starting("callee", milliseconds_max_silence=1500)
    starting("nobody", milliseconds_initial_silence=1500)
    starting("big", max_bytes=16_000 * 3)
    monkeypatch.setattr(sound.Sound, "read_new", unreadable)
    await asyncio.gather(
        ask(scene, "caller", "Local/say-hello@whole/n"),
        ask(scene, "callee", "Local/mute@whole/n", then="Dial(Local/say-hello@whole/n)"),
        ask(scene, "nobody", "Local/mute@whole/n"),
        ask(scene, "big", "Local/loop-talk@whole/n"),
    )
    told = {name: await told_of(scene, name) for name in ("caller", "callee", "nobody", "big")}
    assert {name: m.extra["cause"] for name, m in told.items()} == {
        "caller": "SILENCE",
        "callee": "SILENCE",
        "nobody": "SILENCE",
        "big": "SIZE",
    }
    assert abs(last_sound(heard(told["caller"])) - SPEECH_SECONDS) < 0.5
    assert abs(last_sound(heard(told["callee"])) - SPEECH_SECONDS) < 0.5
    for name in ("caller", "callee"):
        assert abs(seconds(told[name]) - last_sound(heard(told[name])) - 1.5) <= 0.011
    assert told["big"].extra["bytes"] <= 48_000
