"""The seed "whole-call-recorder", line by line, on a real Asterisk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import soundfile

from fastagi import Cause, Error, Hangup, State
from fastagi.cipher import AesGcmCipher
from fastagi.errors import BadArgument
from fastagi.recording.ledger import active
from fastagi.testing import AsteriskServer
from support.recorder_calls import on_call, place, route_for
from support.recorder_harness import Remembering, Scene, recording_scene

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(asterisk22: AsteriskServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with recording_scene(asterisk22, tmp_path_factory.mktemp("seed")) as scene:
        yield scene


# -- the seed's usage examples, as they stand in it


def example_state(channel: Any) -> None:
    state = channel.WholeCallRecorder.state()
    if state != channel.WholeCallRecorder.State.RECORDING:
        # recording a call has terminated
        cause = channel.WholeCallRecorder.cause()
        if cause == channel.WholeCallRecorder.Cause.SILENCE:
            # recording stopped due to silence
            pass
    state = channel.WholeCallRecorder.state()
    if state == channel.WholeCallRecorder.State.RECORDING:
        # recording a call in progress
        pass


def example_record(channel: Any) -> Any:
    # record until finished due to two seconds of silence
    cause = channel.WholeCallRecorder.record(filename="recfile",
                                             milliseconds_max_silence=2000)  # fmt: skip
    if cause == channel.WholeCallRecorder.Cause.SILENCE:
        # the recording job was terminated because of two seconds of silence
        pass
    return cause


def example_start(channel: Any) -> Any:
    cause = None
    # Start a record job that will terminate on 2 seconds of silence.
    if channel.WholeCallRecorder.start(filename="recfile", milliseconds_max_silence=2000) == True:  # noqa: E712
        # While recording, we can do something else; then wait until recording is complete.
        cause = channel.WholeCallRecorder.wait_until_finished()
        if cause == channel.WholeCallRecorder.Cause.SILENCE:
            # recording stopped due to 2 seconds of silence
            pass
    return cause


def example_stop(channel: Any) -> Any:
    # Start a record job.
    if channel.WholeCallRecorder.start(filename="recfile") == True:  # noqa: E712
        # While recording, we can do something else; then stop the recording.
        channel.WholeCallRecorder.stop()
    return channel.WholeCallRecorder.cause()


async def test_the_seeds_examples_run_as_they_stand(scene: Scene) -> None:
    def states(channel: Any) -> Any:
        example_state(channel)
        before = channel.WholeCallRecorder.state()
        channel.WholeCallRecorder.start(filename="recfile")
        example_state(channel)
        return before, channel.WholeCallRecorder.state()

    async def awaited(channel: Any) -> Any:
        """The same, every call awaited."""
        cause = None
        if await channel.WholeCallRecorder.start(filename="recfile", milliseconds_max_silence=2000) == True:  # noqa: E712
            cause = await channel.WholeCallRecorder.wait_until_finished()
        assert await channel.WholeCallRecorder.cause() == channel.WholeCallRecorder.cause()
        assert await channel.WholeCallRecorder.state() == channel.WholeCallRecorder.state() == State.IDLE
        return cause

    far_end = "Local/nothing@fastagi-testing/n"
    examples = (example_record, example_start, awaited, example_stop, states)
    given = await asyncio.gather(*(on_call(scene, example, far_end=far_end) for example in examples))
    assert given == [
        Cause.SILENCE, Cause.SILENCE, Cause.SILENCE, Cause.ABORTED, (State.IDLE, State.RECORDING),
    ]  # fmt: skip
    # they all asked for "recfile": none has overwritten another's
    assert (scene.directory / "recfile.wav").exists()
    assert len(list(scene.directory.glob("recfile-rec-*.wav"))) == 4


async def test_a_pyst2_script_records_over_the_same_session(scene: Scene) -> None:
    def script(channel: Any) -> Any:
        agi = channel.agi
        agi.verbose("from pyst2")
        assert channel.WholeCallRecorder.start("pyst2")
        agi.set_variable("KEPT", "yes")
        cause = channel.WholeCallRecorder.wait_until_finished(0.1)
        channel.WholeCallRecorder.stop()
        return agi.get_variable("KEPT"), cause, channel.WholeCallRecorder.cause()

    assert await on_call(scene, script) == ("yes", Cause.TIMEOUT, Cause.ABORTED)


# -- state() and cause()


async def test_state_and_cause_of_a_call_that_outlives_the_memory_of_all_calls(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(active, "REMEMBERED", 0)

    async def handler(call: Any) -> Any:
        rec = call.WholeCallRecorder
        assert await rec.record("long", seconds_timeout=0.3) == Cause.TIMEOUT
        return rec.state(), rec.cause(), await rec.wait_until_finished()

    assert await on_call(scene, handler) == (State.IDLE, Cause.TIMEOUT, Cause.TIMEOUT)


async def test_state_and_cause_before_in_and_after(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        rec = call.WholeCallRecorder
        seen = [(rec.state(), rec.cause())]
        assert await rec.start("states") is True
        seen.append((rec.state(), rec.cause()))
        assert await rec.stop() is True
        return [*seen, (rec.state(), rec.cause())]

    call = await place(scene, handler)
    assert await call.done() == [
        (State.IDLE, Cause.NONE), (State.RECORDING, Cause.NONE), (State.IDLE, Cause.ABORTED),
    ]  # fmt: skip
    (told,) = await call.told()
    assert told.extra["cause"] == "ABORTED"


# -- call state first


async def test_a_call_that_hung_up_raises_hangup(scene: Scene) -> None:
    async def handler(call: Any) -> list[str]:
        await call.hangup()
        await scene.until(lambda: call.hung_up)
        rec = call.WholeCallRecorder
        raised = []
        for ask in (
            lambda: rec.record("dead"), lambda: rec.start("dead"), rec.stop, rec.wait_until_finished,
            # before any argument is looked at
            lambda: rec.record("", "gsm"), lambda: rec.start("dead", max_bytes=-1), lambda: rec.wait_until_finished(-1),
            lambda: call.record_start("dead", "gsm"),
        ):  # fmt: skip
            with pytest.raises(Hangup):
                await ask()
            raised.append(rec.state())
        return raised

    assert await on_call(scene, handler) == [State.IDLE] * 8
    assert not list(scene.directory.glob("dead*"))


async def test_a_call_that_is_not_answered_raises_error(scene: Scene) -> None:
    async def handler(call: Any) -> list[str]:
        rec = call.WholeCallRecorder
        texts = []
        for ask in (
            lambda: rec.record("early"), lambda: rec.start("early"), rec.stop, rec.wait_until_finished,
        ):  # fmt: skip
            with pytest.raises(Error, match="not answered") as info:
                await ask()
            texts.append(str(info.value))
        await call.answer()
        assert await rec.start("early")
        return texts

    route, result = route_for(scene, handler)
    await scene.asterisk.cli(f"dialplan add extension early,1,AGI,{scene.url(route)} into recorder-tests")
    await scene.asterisk.originate("Local/early@recorder-tests/n")
    texts = await asyncio.wait_for(result, 20)
    assert all("answer it before recording" in text for text in texts)


async def test_one_recording_at_a_time(scene: Scene) -> None:
    async def handler(call: Any) -> State:
        rec = call.WholeCallRecorder
        assert await rec.start("first")
        for ask in (rec.start, rec.record):
            with pytest.raises(Error, match="recorded already"):
                await ask("second")
        with pytest.raises(Error, match="recorded already"):
            await call.record_start("second")
        await rec.stop()
        assert await rec.start("second")  # afterwards it may
        return rec.state()

    assert await on_call(scene, handler) is State.RECORDING
    assert len(list(scene.directory.glob("second*"))) == 1


async def _busy(call: Any, how: str) -> tuple[asyncio.Task[Any] | None, str]:
    """Make the channel busy; the task that does it and what the refusal says."""
    if how == "hold music":
        await call.set_music(True)
        return None, "on music on hold"
    work, text = {
        "bridged": (lambda: call.exec("Dial", "Local/tone@fastagi-testing/n"), "connected to another channel"),
        "conference": (lambda: call.exec("ConfBridge", "recorder-tests"), "in a conference"),
        "playing": (lambda: call.stream_file("demo-congrats"), "playing"),
        "playback": (lambda: call.exec("playback", "demo-congrats"), "playing"),
    }[how]
    return asyncio.create_task(work()), text


@pytest.mark.parametrize("how", ["bridged", "conference", "hold music", "playing", "playback"])
async def test_a_busy_channel_is_refused_unless_mid_call(scene: Scene, how: str) -> None:
    async def handler(call: Any) -> str:
        rec = call.WholeCallRecorder
        task, text = await _busy(call, how)
        live = call.pbx.channels.get(call.uniqueid)
        await scene.until(lambda: live.busy_with() or call.playing)
        with pytest.raises(Error, match=text) as info:
            await rec.start("busy")
        with pytest.raises(Error, match=text):
            await rec.record("busy")
        assert await rec.start("busy", mid_call=True)
        assert await rec.stop()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return str(info.value)

    assert "mid_call=True" in await on_call(scene, handler)


# -- what they give back


async def test_record_blocks_and_gives_the_cause(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        rec = call.WholeCallRecorder
        timed = await rec.record("timed", seconds_timeout=0.5)
        assert rec.state() is State.IDLE
        waiting = asyncio.create_task(rec.record("stopped"))
        await scene.until(lambda: rec.state() is State.RECORDING and rec.recording.started_at)
        assert await rec.stop() is True
        return timed, await waiting

    assert await on_call(scene, handler) == (Cause.TIMEOUT, Cause.ABORTED)
    info = soundfile.info(scene.directory / "timed.wav")
    assert info.duration <= 0.55


async def test_a_wait_that_runs_out_leaves_the_recording_running(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        rec = call.WholeCallRecorder
        nothing = await rec.wait_until_finished()
        assert await rec.start("long")
        gone = await rec.wait_until_finished(0.2), await rec.wait_until_finished(seconds_timeout=0)
        during = rec.state(), rec.cause()
        stopping = asyncio.create_task(rec.stop())
        return nothing, gone, during, await rec.wait_until_finished(None), await stopping

    assert await on_call(scene, handler) == (
        Cause.NONE, (Cause.TIMEOUT, Cause.TIMEOUT), (State.RECORDING, Cause.NONE), Cause.ABORTED, True,
    )  # fmt: skip


async def test_stop_without_a_recording_is_true(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        return await call.WholeCallRecorder.stop(), await call.WholeCallRecorder.stop()

    assert await on_call(scene, handler) == (True, True)


async def test_a_hangup_in_mid_recording_is_the_cause(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        return await call.WholeCallRecorder.record("cut")

    call = await place(scene, handler)
    await scene.until(lambda: scene.recorder.parts.context.jobs.on_channel("pbx", call.uniqueid))
    await scene.hangup(call.placed)
    assert await call.done() is Cause.HANGUP
    (told,) = await call.told()
    assert told.extra["cause"] == "HANGUP"


@pytest.mark.parametrize(
    ("file_format", "subtype"), [("alaw", "ALAW"), ("ulaw", "ULAW"), ("s16bit", "PCM_16"), ("u8bit", "PCM_U8")]
)
async def test_the_file_has_the_codec_asked_for(scene: Scene, file_format: str, subtype: str) -> None:
    async def handler(call: Any) -> Any:
        return await call.WholeCallRecorder.record(f"codec/{file_format}", file_format, seconds_timeout=0.4)

    assert await on_call(scene, handler) is Cause.TIMEOUT
    info = soundfile.info(scene.directory / "codec" / f"{file_format}.wav")
    assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", subtype, 8000, 1)


async def test_separate_has_two_channels(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        return await call.WholeCallRecorder.record("two", recording_mode="separate", seconds_timeout=0.4)

    assert await on_call(scene, handler) is Cause.TIMEOUT
    assert soundfile.info(scene.directory / "two.wav").channels == 2


async def test_a_cipher_leaves_no_clear_file(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        return await call.WholeCallRecorder.record("sealed", seconds_timeout=0.4, cipher=AesGcmCipher(bytes(32)))

    assert await on_call(scene, handler) is Cause.TIMEOUT
    (file,) = scene.directory.glob("sealed*")
    assert not file.read_bytes().startswith(b"RIFF")


# -- bad arguments: an Error that says what is wrong, and nothing is sent

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("format", {"file_format": "g729"}, "file_format='g729'"),
    ("gsm separate", {"file_format": "gsm", "recording_mode": "separate"}, "separate"),
    ("gsm rate", {"file_format": "gsm", "rate": 11025}, "use one of 8000"),
    ("rate", {"rate": 44100}, "rate=44100"),
    ("rate text", {"rate": "8000"}, "rate='8000'"),
    ("mode", {"recording_mode": "stereo"}, "recording_mode='stereo'"),
    ("oki separate", {"file_format": "oki", "recording_mode": "separate"}, "separate"),
    ("ima separate", {"file_format": "ima", "recording_mode": "separate"}, "separate"),
    ("negative bytes", {"max_bytes": -1}, "max_bytes=-1"),
    ("tiny bytes", {"max_bytes": 10}, "max_bytes=10"),
    ("negative silence", {"milliseconds_max_silence": -1}, "milliseconds_max_silence=-1"),
    ("fraction", {"milliseconds_initial_silence": 1.5}, "milliseconds_initial_silence=1.5"),
    ("dtmf", {"dtmf_elim": "yes"}, "dtmf_elim='yes'"),
    ("cipher", {"cipher": "secret"}, "cipher=str is no cipher"),
    ("unknown", {"bitrate": 3}, "bitrate is no parameter"),
    ("sink", {"sink": object()}, "no sink"),
    ("sink name", {"sink": "nowhere"}, "nowhere"),
    ("sink class", {"sink": Remembering}, "Remembering is a class"),
    ("mid_call", {"mid_call": "no"}, "mid_call='no' must be True or False"),
    ("endless", {"max_bytes": 10**400}, "max_bytes="),
    ("leaves", {"filename": "../x"}, "leaves the recordings directory"),
    ("leaves deep", {"filename": "a/../../x"}, "leaves the recordings directory"),
    ("kept sink", {"filename": "../x", "sink": Remembering()}, "leaves the recordings directory"),
    ("absolute", {"filename": "/etc/x"}, "relative"),
    ("empty", {"filename": ""}, "must be a name"),
    ("blank", {"filename": " "}, "must be a name"),
    ("none", {"filename": None}, "must be a name"),
    ("line end", {"filename": "x\r\nAction: Originate"}, "control character"),
    ("suffix", {"filename": "x.mp3"}, "mp3"),
    ("field", {"filename": "{nobody}"}, "{nobody}"),
    ("hidden", {"filename": ".x"}, "dot"),
    ("long", {"filename": "x" * 300}, "longer"),
]


async def test_bad_arguments_are_refused_before_anything_is_sent(scene: Scene) -> None:
    async def handler(call: Any) -> list[str]:
        faults = []
        for label, change, text in BAD:
            for method in (call.WholeCallRecorder.start, call.WholeCallRecorder.record):
                try:
                    await method(**{"filename": "bad", **change})
                    faults.append(f"{label}: was taken")
                except Error as exc:
                    if text not in str(exc) or not isinstance(exc, BadArgument):
                        faults.append(f"{label}: {exc!r}")
        for seconds in (-1, "1", True, float("nan"), float("inf")):
            with pytest.raises(BadArgument, match="seconds_timeout"):
                await call.WholeCallRecorder.wait_until_finished(seconds)
        for seconds in (0, -1, "1", float("nan"), float("inf")):
            with pytest.raises(BadArgument, match="seconds_timeout"):
                await call.WholeCallRecorder.record("bad", seconds_timeout=seconds)
        return faults

    before = _files(scene)
    async with scene.asterisk.ami() as ami:
        call = await place(scene, handler)
        assert await call.done() == []
        assert not [e for e in ami.events if e["Event"].startswith("MixMonitor") and e["Uniqueid"] == call.uniqueid]
    assert _files(scene) == before
    assert await scene.recorder.remembered(("pbx", call.uniqueid, "")) is None
    assert not [e.name for e in scene.app.parts.registry if e.name.startswith("object:")]


def _files(scene: Scene) -> set[Path]:
    return {p for folder in (scene.directory, scene.spool) for p in folder.rglob("*")}


# -- names


async def test_file_names(scene: Scene) -> None:
    async def handler(call: Any) -> list[str]:
        paths = []
        for name in (
            "names/{caller}/{uniqueid}",
            "names/{date:%Y}",
            "names/{extension}.WAV",
            "names/ü ö",
            Path("names/ü ö"),
        ):
            await call.WholeCallRecorder.start(name)
            paths.append(call.WholeCallRecorder.recording.file_path)
            await call.WholeCallRecorder.stop()
        return [str(Path(p).relative_to(scene.directory.resolve())) for p in paths]

    call = await place(scene, handler, caller_id='"../../x" <../55>')
    by_caller, by_date, by_exten, plain, again = await call.done()
    assert by_caller == f"names/_.._55/{call.uniqueid}.wav" or ".." not in by_caller.split("/")
    assert by_caller.endswith(f"/{call.uniqueid}.wav")
    assert by_date.startswith("names/20")
    assert by_exten.startswith("names/")
    assert plain == "names/ü ö.wav"
    assert again.startswith("names/ü ö-rec-")
    told = await call.told(5)
    assert [t.extra.get("renamed") for t in told] == [None, None, None, None, True]
