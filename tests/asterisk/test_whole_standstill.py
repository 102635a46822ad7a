"""Limits on phones that really stop sending RTP: nothing is written then, and what was said last stays in Asterisk."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from fastagi import RecordingMetadata
from fastagi.recording.asterisk import limits
from fastagi.recording.asterisk.sound import Sound
from fastagi.testing import AsteriskServer, SippCall
from fastagi.testing.ports import free_port
from fastagi.testing.server_settings import settings_for
from fastagi.testing.sip import Hold, Play, Step, Wait
from fastagi.testing.sound import save, silence_samples, speech_samples
from support.call_harness import heard, last_sound, seconds, told_of, whole_scene
from support.crash_harness import Receiver, Serving, until
from support.recorder_harness import Scene

SERVER = Path(__file__).parents[1] / "support" / "crash_server.py"

FOLLOWS = 5.0
"""What the stop may come after its limit on a busy machine; it is 3 s. Who loses the silence before a standstill, or
takes what is held back for sound, is later than that in these calls."""


@dataclass(frozen=True)
class Line:
    """A phone that sends this.

    :param due: seconds after its first frame at which the limit is reached, by the clock
    :param more: how else it is recorded; :param muted: side that is muted from the start
    :param on: the line whose call this is another recording of
    """

    steps: list[Step]
    limits: dict[str, int]
    due: float
    cause: str = "SILENCE"
    sound: bool = True
    dialled: str = "ask"
    more: dict[str, Any] = field(default_factory=dict)
    muted: str = ""
    on: str = ""
    told: list[RecordingMetadata] = field(default_factory=list)

    @property
    def lag(self) -> float:
        """Of the stop behind the limit; the phone began up to 0.3 s before the recording."""
        return float((self.told[0].duration_seconds or 0.0) - self.due)


def sounds(folder: Path) -> dict[str, Path]:
    def said(name: str, *parts: Any) -> Path:
        return save(folder / f"{name}.wav", np.concatenate(parts))

    def speech(long: float) -> Any:
        return speech_samples(long, 3)

    return {
        "speech": said("speech", speech(2.0)),
        "word": said("word", speech(0.6)),
        "said": said("said", speech(1.0)),
        "fading": said("fading", speech(1.0), silence_samples(4.6)),
        "quieter": said("quieter", speech(1.0), silence_samples(5.9)),
        "quiet": said("quiet", silence_samples(2.7)),
        "silence": said("silence", silence_samples(30.0)),
        "long": said("long", speech(3.0)),
    }


def lines(sound: dict[str, Path]) -> dict[str, Line]:
    """Every way in which frames come and go, by name."""
    most = {"milliseconds_max_silence": 5500}
    first = {"milliseconds_initial_silence": 4000}
    stay = Wait(60)
    return {
        "sound-none": Line([Play(sound["speech"]), stay], most, 7.5),
        "silent-none": Line([Play(sound["fading"]), stay], most, 6.5),
        "none": Line([stay], {"milliseconds_max_silence": 4000}, 4.0, sound=False),
        "none-silent": Line([Wait(2), Play(sound["silence"]), stay], most, 5.5, sound=False),
        "held": Line(
            [Play(sound["word"]), Wait(1), Hold("sendonly"), Wait(2), Hold("sendrecv"), Play(sound["silence"]), stay],
            most,
            6.1,
        ),
        "never-a-word": Line([Play(sound["quiet"]), stay], first, 4.0, sound=False),
        "word-held-back": Line([Wait(2.5), Play(sound["word"]), Wait(5.4)], first, 7.9, cause="HANGUP"),
        "full": Line([Play(sound["long"]), stay], {"max_bytes": 44 + 16 * 2500}, 2.5, cause="SIZE"),
    }


async def calls(scene: Scene, stack: AsyncExitStack, made: dict[str, Line]) -> None:
    """Place all of these calls; returns once all are being recorded."""
    recorded: list[str] = []
    await scene.asterisk.cli(f"dialplan set global SERVER {scene.url('').rstrip('/')}")

    def route(name: str, line: Line) -> None:
        @scene.app.route(name)
        async def run(call: Any) -> None:
            for another in (name, *(n for n, other in made.items() if other.on == name)):
                how = {**made[another].limits, **made[another].more}
                recorder = call.recorder(another)
                assert await recorder.start(another, file_format="s16bit", dtmf_elim=False, **how)
                if line.muted:
                    await recorder.mute(line.muted)
                recorded.append(another)

    for name, line in made.items():
        if line.on:
            continue
        route(name, line)
        await stack.enter_async_context(SippCall(scene.asterisk.sip_port, f"{line.dialled}-{name}", steps=line.steps))
    await scene.until(lambda: len(recorded) == len(made))


def blocking(scene: Scene, made: dict[str, Line]) -> None:
    """The routes of these calls wait for the end of their recordings, so their AGI sessions last as long."""

    def route(name: str, line: Line) -> None:
        @scene.app.route(name)
        async def run(call: Any) -> None:
            recorder = call.WholeCallRecorder
            await recorder.record(name, file_format="s16bit", dtmf_elim=False, **line.limits, **line.more)

    for name, line in made.items():
        route(name, line)


async def judge(scene: Scene, made: dict[str, Line]) -> None:
    for name, line in made.items():
        line.told.append(await told_of(scene, name))
    print({name: (line.told[0].extra["cause"], round(line.lag, 2)) for name, line in made.items()})
    for name, line in made.items():
        (told,) = line.told
        assert told.extra["cause"] == line.cause, name
        assert -1.0 < line.lag < FOLLOWS, (name, line.lag)
        end = last_sound(heard(told))
        assert (end > 0.3) is line.sound, name
        limit = line.limits.get("milliseconds_max_silence", 0) / 1000
        if line.cause == "SILENCE":
            assert abs(seconds(told) - (end + limit if limit else 0.0)) <= 0.011, name
        assert len(told.extra["segments"]) == 1


AS_IT_IS = pytest.mark.parametrize("version", [22, 16], ids=["asterisk22", "asterisk16-restart"])
"""On 16 the server is restarted while nothing comes: two things for the time of one, they do not meet."""


@AS_IT_IS
async def test_limits_hold_where_frames_come_and_go(
    version: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made = lines(sounds(tmp_path))
    pbx = request.getfixturevalue(f"whole{version}")
    async with whole_scene(pbx, tmp_path) as scene, AsyncExitStack() as stack:
        await calls(scene, stack, made)
        if version == 16:
            await asyncio.sleep(4.6)
            await scene.restart()
        await judge(scene, made)
        await scene.until(lambda: not list(scene.spool.iterdir()))


@AS_IT_IS
async def test_and_where_the_files_cannot_be_read(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """TALK_DETECT counts frames: of a phone that stops sending in mid-word it never says that it fell silent."""

    def unreadable(*_: object) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(Sound, "read_new", unreadable)
    sound = sounds(tmp_path)
    most = {"milliseconds_max_silence": 3000}
    made = {
        "breaks-off": Line([Play(sound["speech"]), Wait(60)], most, 5.0),
        "beeps": Line([Play(sound["speech"]), Wait(60)], most, 5.0, more={"beep_stop": True}),
        "talks-on": Line([Play(sound["speech"], loop=True), Wait(3.6), Play(sound["silence"]), Wait(60)], most, 6.6),
        "prompted": Line([Play(sound["silence"]), Wait(60)], most, 7.0, dialled="play"),
        "never": Line([Play(sound["silence"]), Wait(60)], {"milliseconds_initial_silence": 4500}, 4.5, sound=False),
    }
    pbx = request.getfixturevalue(f"whole{version}")
    async with whole_scene(pbx, tmp_path) as scene, AsyncExitStack() as stack:
        await calls(scene, stack, made)
        if version == 16:
            await asyncio.sleep(1.5)
            await scene.restart()
        await judge(scene, made)


@pytest.mark.parametrize("version", [22, 16], ids=["asterisk22-beeps", "asterisk16-monitor"])
async def test_and_where_what_is_held_back_cannot_be_had(
    version: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Beeps would be heard, a muted side recorded, and a channel has one Monitor: Asterisk says what was silence."""
    sound = sounds(tmp_path)
    most = {"milliseconds_max_silence": 5500}
    first = {"milliseconds_initial_silence": 4000}
    stay = Wait(60)
    how: dict[str, Any] = {"engine": "monitor"} if version == 16 else {"beep_stop": True}
    made = {
        "sound-none": Line([Play(sound["speech"]), stay], most, 7.5, more=how),
        "silent-none": Line([Play(sound["quieter"]), stay], most, 6.5, more=how),
        "none": Line([stay], {"milliseconds_max_silence": 4000}, 4.0, sound=False, more=how),
        "none-silent": Line([Wait(2), Play(sound["silence"]), stay], most, 5.5, sound=False, more=how),
        "never-a-word": Line([Play(sound["quiet"]), stay], first, 4.0, sound=False, more=how),
        "prompted": Line([stay], {"milliseconds_max_silence": 3000}, 7.0, dialled="play", more=how),
        "digits": Line([Play(sound["quieter"]), stay], most, 6.5, dialled="read", more=how),
        "menu": Line([stay], {"milliseconds_max_silence": 3000}, 7.0, dialled="dtmf", more=how),
        "word": Line([Play(sound["said"]), Wait(4.8), Play(sound["word"]), stay], most, 10.9, more=how),
        "word-held-back": Line([Wait(2.5), Play(sound["word"]), Wait(5.4)], first, 7.9, cause="HANGUP", more=how),
        "muted": Line([Play(sound["quieter"]), stay], most, 6.5, muted="sent"),
        "muted-word": Line([Play(sound["said"]), Wait(4.8), Play(sound["word"]), stay], most, 10.9, muted="sent"),
        "beep-first": Line([Play(sound["quieter"]), stay], most, 6.5, more={"beep_start": True}),
    }
    if version == 22:
        seldom = {"beep_seconds": 60}  # a beep at the end of the one would be heard in the other
        made["beeps"] = Line([Play(sound["quieter"]), stay], most, 6.5, more=seldom)
        made["shorter"] = Line([], {"milliseconds_max_silence": 3000}, 4.0, on="beeps", more=seldom)
    pbx = request.getfixturevalue(f"whole{version}")
    async with whole_scene(pbx, tmp_path) as scene, AsyncExitStack() as stack:
        await calls(scene, stack, made)
        await judge(scene, made)


@pytest.mark.parametrize("version", [22, 16], ids=["asterisk22", "asterisk16"])
async def test_and_without_a_manager_connection(version: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Over the sessions of those who wait for the end."""
    asterisk: AsteriskServer = request.getfixturevalue(f"whole{version}")
    made = {name: line for name, line in lines(sounds(tmp_path)).items() if name != "held"}
    scene = Scene(asterisk, tmp_path, settings_for(asterisk, tmp_path, asterisk={"port": free_port()}))
    await asterisk.cli(f"dialplan set global SERVER {scene.url('').rstrip('/')}")
    blocking(scene, made)
    await scene.app.start()
    try:
        async with AsyncExitStack() as stack:
            for name, line in made.items():
                await stack.enter_async_context(SippCall(asterisk.sip_port, f"ask-{name}", steps=line.steps))
            await judge(scene, made)
            await scene.until(lambda: not list(scene.spool.iterdir()))
    finally:
        await scene.app.stop(5)


async def test_and_where_flushes_are_too_rare_to_tell_when_a_word_was_said(
    whole22: AsteriskServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a limit of minutes they are; here of a short one."""
    monkeypatch.setattr(limits, "FLUSHES", 1)
    monkeypatch.setattr(limits, "EXACT_SECONDS", 1.0)
    sound = sounds(tmp_path)
    steps = [Play(sound["speech"]), Wait(5.0), Play(sound["word"]), Wait(60)]
    made = {"word": Line(steps, {"milliseconds_max_silence": 11_000}, 16.6)}
    async with whole_scene(whole22, tmp_path) as scene, AsyncExitStack() as stack:
        await calls(scene, stack, made)
        await judge(scene, made)


FLUSH_SEAMS = {
    "write:3": "the next piece is in the ledger, and Asterisk does not know of it",
    "stop:before": "both pieces are being made",
    "stop:after": "the old one is closed, and the ledger does not know",
    "write:4": "the ledger knows it all",
}


async def test_a_server_that_dies_in_the_middle_of_a_flush_loses_nothing(
    whole22: AsteriskServer, tmp_path: Path
) -> None:
    save(whole22.sounds / "whole" / "word.wav", speech_samples(1.0, 3))

    async def one(point: str) -> None:
        environ = {"LOST_AT": point}
        folder = tmp_path / point.replace(":", "-")
        server = Serving(whole22, folder, sink=receiver.url, script=SERVER, environ=environ)
        try:
            await server.start()
            route = "record/start?filename=x&file_format=s16bit&milliseconds_max_silence=2500"
            await whole22.originate(
                "Local/say-word@whole/n",
                context="whole",
                exten="asked",
                variables={"__SERVER": server.url, "ROUTE": route, "THEN": ""},
            )
            assert await server.wait() == -9, f"it was not at {point}:\n{server.tail()}"
            server.environ.clear()
            await server.start()
            await until(lambda: [r for r in server.recordings() if r["phase"] == "finished"], 30, point)
            await until(lambda: not server.unsettled(), 30, point)
            (row,) = server.recordings()
            audio, _ = soundfile.read(row["file_path"], dtype="float32")
            end = last_sound(audio)
            assert (row["cause"], 0.9 < end < 1.05) == ("SILENCE", True), (point, row["cause"], end)
            assert abs(len(audio) / 8000 - end - 2.5) <= 0.011, point
            assert not list(server.spool.glob("rec-*")), point
            assert len(receiver.ids()[row["id"]]) == 1
        finally:
            await server.close()

    async with Receiver() as receiver, asyncio.TaskGroup() as group:
        for point in FLUSH_SEAMS:
            group.create_task(one(point))
    await whole22.cli("channel request hangup all")
