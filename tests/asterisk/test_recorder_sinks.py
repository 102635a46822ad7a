"""The seed "recording-sink", line by line, with calls on a real Asterisk."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog.testing
from aiohttp import web

import fastagi
from fastagi import (
    App,
    Cause,
    CompositeSink,
    Error,
    Hangup,
    LocalFileSink,
    RecordingMetadata,
    RecordingSink,
    State,
    WebhookSink,
)
from fastagi.testing import AsteriskServer
from fastagi.testing.ports import free_port
from fastagi.testing.server_settings import settings_for
from support.recorder_calls import of_call, on_call, place, route_for
from support.recorder_harness import Scene, recording_scene

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(asterisk22: AsteriskServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with recording_scene(asterisk22, tmp_path_factory.mktemp("sinks")) as scene:
        yield scene


class Keeping:
    """A sink by its method alone, no subclass."""

    def __init__(self) -> None:
        self.got: list[RecordingMetadata] = []

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        self.got.append(metadata)


class Priority(RecordingSink):
    """A sink by subclass."""

    def __init__(self) -> None:
        self.got: list[RecordingMetadata] = []

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        self.got.append(metadata)


class Receiver:
    """A webhook's other end."""

    def __init__(self, *statuses: int) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self._statuses = list(statuses)
        self.url = ""

    async def __aenter__(self) -> Receiver:
        app = web.Application()
        app.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{port}/hook"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.requests.append((dict(request.headers), await request.read()))
        return web.Response(status=self._statuses.pop(0) if self._statuses else 204)


# -- record_start and record_stop


async def test_the_sink_is_dormant_until_stop_and_told_once(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        name = await call.record_start("calls/{caller}")
        await asyncio.sleep(0.3)
        before = len(of_call(scene, call.uniqueid))
        state = call.WholeCallRecorder.state()
        return name, before, state, await call.record_stop(), await call.record_stop()

    call = await place(scene, handler, caller_id="4711")
    assert await call.done() == ("calls/4711", 0, State.RECORDING, "calls/4711", None)
    (told,) = await call.told()
    assert isinstance(told, RecordingMetadata)
    assert (told.session_id, told.name, told.format) == (call.uniqueid, "calls/4711", "wav")
    assert told.file_path == str(scene.directory.resolve() / "calls" / "4711.wav")
    assert 0.2 < told.duration_seconds < 10


async def test_a_recording_without_a_name_gets_one(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        return await call.record_start(), await call.record_stop()

    call = await place(scene, handler)
    name, stopped = await call.done()
    (told,) = await call.told()
    assert name == stopped == told.name == told.extra["recording_id"]


async def test_formats_of_record_start(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        await call.record_start("as-ulaw", "ulaw")
        await call.record_stop()
        await call.record_start("as-flac", fmt="flac")
        await call.record_stop()
        await call.record_start("as-gsm", fmt="gsm")
        await call.exec("Wait", 1)
        await call.record_stop()
        with pytest.raises(Error, match="fmt='g729'"):
            await call.record_start("as-g729", "g729")

    call = await place(scene, handler)
    await call.done()
    ulaw, flac, gsm = await call.told(3)
    assert (gsm.format, gsm.extra["file_format"], Path(gsm.file_path).name) == ("gsm", "gsm", "as-gsm.gsm")
    assert gsm.extra["bytes"] >= 33 * 10
    assert gsm.extra["bytes"] % 33 == 0  # frames as Asterisk writes them
    assert (ulaw.format, ulaw.extra["file_format"], Path(ulaw.file_path).name) == ("wav", "ulaw", "as-ulaw.wav")
    assert (flac.format, flac.extra["file_format"], Path(flac.file_path).name) == ("flac", "flac", "as-flac.flac")


async def test_wav_is_wav_whatever_the_default_codec(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    defaults = {"file_format": "mp3"}
    async with recording_scene(asterisk22, tmp_path, recordings={"defaults": defaults}) as scene:

        async def handler(call: Any) -> Any:
            await call.record_start("one.wav", "wav")
            await call.record_stop()
            await call.record_start("two", "wav", file_format="mp3")
            await call.record_stop()

        call = await place(scene, handler)
        await call.done()
        assert [(t.format, t.extra["file_format"]) for t in await call.told(2)] == [("wav", "alaw"), ("mp3", "mp3")]


async def test_a_second_start_raises_and_two_stops_are_one(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        name = await call.record_start("twice")
        with pytest.raises(Error, match="recorded already"):
            await call.record_start("twice")
        return name, await asyncio.gather(*(call.record_stop() for _ in range(5)))

    call = await place(scene, handler)
    assert await call.done() == ("twice", ["twice"] * 5)
    await call.told()
    await asyncio.sleep(0.3)
    assert len(of_call(scene, call.uniqueid)) == 1


async def test_two_starts_at_once_make_one_recording(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        made = await asyncio.gather(*(call.record_start(f"race{n}") for n in range(5)), return_exceptions=True)
        await call.record_stop()
        return made

    call = await place(scene, handler)
    made = await call.done()
    assert sorted(type(m).__name__ for m in made) == ["Error"] * 4 + ["str"]
    await call.told()
    assert len(list(scene.directory.glob("race*"))) == 1


async def test_stop_after_a_hangup_gives_the_name(scene: Scene) -> None:
    """The stop that completes the recording gives its name; afterwards there is none to stop, hung up or not."""

    async def handler(call: Any) -> Any:
        name = await call.record_start("hung-up")
        await call.hangup()
        await scene.until(lambda: call.hung_up)
        stopped = await call.record_stop()
        return name, stopped, await call.record_stop()

    call = await place(scene, handler)
    assert await call.done() == ("hung-up", "hung-up", None)
    await call.told()
    assert len(of_call(scene, call.uniqueid)) == 1


async def test_late_second_stop_gives_none(scene: Scene) -> None:
    """The name of a recording that was completed before came back once the call had hung up."""

    async def handler(call: Any) -> Any:
        stopped = [await call.record_start("completed"), await call.record_stop()]
        await call.hangup()
        await scene.until(lambda: call.hung_up)
        return [*stopped, await call.record_stop()]

    assert await on_call(scene, handler) == ["completed", "completed", None]


async def test_a_hangup_in_mid_recording_tells_the_sink(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        await call.record_start("forgotten")

    call = await place(scene, handler)
    (told,) = await call.told()
    assert (told.name, told.extra["cause"]) == ("forgotten", "HANGUP")


async def test_the_same_from_a_blocking_handler(scene: Scene) -> None:
    def handler(call: Any) -> Any:
        name = call.record_start("blocking", sink=sink)
        return name, call.record_stop()

    sink = Keeping()
    assert await on_call(scene, handler) == ("blocking", "blocking")
    await scene.until(lambda: sink.got)


# -- which sink


@pytest.mark.parametrize("kind", [Keeping, Priority])
async def test_a_calls_own_sink_takes_the_place_of_the_apps(scene: Scene, kind: Any) -> None:
    sink = kind()

    async def handler(call: Any) -> Any:
        await call.answer()
        await call.record_start(sink=sink)  # overrides the app default
        return await call.record_stop()

    call = await place(scene, handler)
    name = await call.done()
    await scene.until(lambda: sink.got)
    assert [m.name for m in sink.got] == [name]
    assert of_call(scene, call.uniqueid) == []
    # held only until it was told
    await scene.until(lambda: not [e.name for e in scene.app.parts.registry if e.name.startswith("object:")])


async def test_each_child_of_a_composite_is_told_once_though_its_sister_fails(scene: Scene) -> None:
    class Failing(Keeping):
        async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
            await super().on_recording_complete(metadata)
            if len(self.got) < 2:
                raise RuntimeError("not today")

    first, failing, last = Keeping(), Failing(), Keeping()

    async def handler(call: Any) -> Any:
        await call.record_start("composite", sink=CompositeSink(first, CompositeSink(failing, LocalFileSink()), last))
        return await call.record_stop()

    await on_call(scene, handler)
    await scene.until(lambda: len(failing.got) >= 2, 60)
    assert (len(first.got), len(last.got)) == (1, 1)
    assert failing.got[0] == failing.got[1] == first.got[0]


async def test_a_slow_sink_holds_neither_the_call_nor_another_sink(scene: Scene) -> None:
    class Slow(Keeping):
        async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
            await release.wait()
            await super().on_recording_complete(metadata)

    release, slow, quick = asyncio.Event(), Slow(), Keeping()

    async def handler(call: Any) -> Any:
        await call.record_start("slow", sink=CompositeSink(slow, quick))
        await call.record_stop()
        await call.record_start("next")  # the call goes on, and can be recorded again
        return await call.record_stop()

    assert await on_call(scene, handler) == "next"
    await scene.until(lambda: quick.got)
    assert slow.got == []
    release.set()
    await scene.until(lambda: slow.got)


async def test_a_local_file_sink_says_so_and_no_more(scene: Scene) -> None:
    assert LocalFileSink().base_dir == Path("/var/spool/asterisk/recording")

    async def handler(call: Any) -> Any:
        await call.record_start("local", sink=LocalFileSink(scene.directory))
        return await call.record_stop()

    with structlog.testing.capture_logs() as logs:
        await on_call(scene, handler)
        await scene.until(lambda: any(e["event"] == "recording_kept" and "local" in e["file_path"] for e in logs))


# -- what sinks are told

KEYS = [
    "recording_id", "state", "cause", "channel", "caller", "called", "started_at", "ended_at", "audio_seconds",
    "bytes", "sha256", "file_format", "rate", "mode", "encryption", "paused", "segments", "node",
]  # fmt: skip


async def test_the_metadata(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        await call.record_start("meta/ü")
        await asyncio.sleep(0.3)
        await call.record_stop()
        return call.channel, call.extension

    begin = time.time()
    call = await place(scene, handler, caller_id='"Jürgen" <4711>')
    channel, extension = await call.done()
    (told,) = await call.told()
    assert list(told.to_dict()) == ["session_id", "name", "file_path", "duration_seconds", "format", "extra"]
    assert [k for k in KEYS if k not in told.extra] == []
    extra = told.extra
    content = Path(told.file_path).read_bytes()  # noqa: ASYNC240
    assert (extra["bytes"], extra["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert (extra["channel"], extra["caller"], extra["called"]) == (channel, "4711", extension)
    assert (extra["state"], extra["cause"], extra["encryption"]) == ("IDLE", "ABORTED", None)
    assert (extra["file_format"], extra["rate"], extra["mode"]) == ("alaw", 8000, "mixed")
    for name in ("started_at", "ended_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", extra[name])
        assert extra[name] >= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(begin - 1))
    assert extra["node"] == scene.settings.store.node
    assert extra["segments"][0][0] == channel
    assert json.loads(told.to_json()) == told.to_dict()


async def test_the_system_name_is_in_front_of_the_session_id(tmp_path: Path) -> None:
    async with AsteriskServer(22, system_name="pbx-b") as pbx, recording_scene(pbx, tmp_path) as scene:

        async def handler(call: Any) -> Any:
            await call.record_start()
            return await call.record_stop()

        call = await place(scene, handler)
        await call.done()
        (told,) = await scene.delivered(1)
        assert told.session_id == call.uniqueid
        assert told.session_id.startswith("pbx-b-")
        assert told.session_id.count("pbx-b") == 1


# -- webhooks


async def test_a_webhook_is_signed_and_tried_again(scene: Scene) -> None:
    async with Receiver(503) as receiver:
        sink = WebhookSink(receiver.url, signing_secret="please-rotate-me")

        async def handler(call: Any) -> Any:
            await call.record_start("hooked", sink=sink)
            return await call.record_stop()

        call = await place(scene, handler)
        await call.done()
        await scene.until(lambda: len(receiver.requests) >= 2, 60)
        await sink.aclose()
    (first, body), (second, again) = receiver.requests[:2]
    assert body == again
    payload = json.loads(body)
    assert list(payload) == ["session_id", "name", "file_path", "duration_seconds", "format", "extra"]
    assert (payload["session_id"], payload["name"], payload["extra"]["state"]) == (call.uniqueid, "hooked", "IDLE")
    assert first["Content-Type"] == "application/json"
    expected = hmac.new(b"please-rotate-me", body, hashlib.sha256).hexdigest()
    assert first["X-Voxtra-Signature"] == second["X-Voxtra-Signature"] == expected
    assert first["webhook-id"] == second["webhook-id"]
    assert first["webhook-signature"].startswith("v1,")


async def test_the_signature_vector(scene: Scene) -> None:
    metadata = RecordingMetadata("ch-1", "né", "/var/spool/asterisk/recording/né.wav", 42.3)
    async with Receiver() as receiver:
        sink = WebhookSink(receiver.url, signing_secret="please-rotate-me")
        plain = WebhookSink(receiver.url)
        await sink.on_recording_complete(metadata)
        await plain.on_recording_complete(metadata)
        await sink.aclose()
        await plain.aclose()
    (headers, body), (unsigned, _) = receiver.requests
    assert body == (
        rb'{"session_id":"ch-1","name":"n\u00e9","file_path":"/var/spool/asterisk/recording/n\u00e9.wav",'
        rb'"duration_seconds":42.3,"format":"wav","extra":{}}'
    )
    assert headers["X-Voxtra-Signature"] == "b8aacd3513ef392c0724996daa8b815491270489a6f7bab433d0eea15603930f"
    assert "X-Voxtra-Signature" not in unsigned


# -- the seed's wiring


async def test_the_seeds_wiring_runs_as_it_stands(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    my_sink = Keeping()
    settings = settings_for(asterisk22, tmp_path)
    app = App(settings, recording_sink=my_sink)
    priority = Priority()
    PrioritySink = lambda: priority  # noqa: E731
    told = asyncio.Event()

    @app.default()
    async def handle(call: Any) -> None:
        await call.answer()
        await call.record_start(sink=PrioritySink())  # overrides the app default
        await call.record_stop()
        await call.record_start()
        await call.record_stop()
        told.set()

    await app.start()
    try:
        await asterisk22.originate(
            "Local/tone@fastagi-testing/n", application="AGI", data=f"agi://127.0.0.1:{settings.agi.port}/whatever"
        )
        await asyncio.wait_for(told.wait(), 30)
    finally:
        await app.stop(5)  # what is to be delivered is
    assert (len(priority.got), len(my_sink.got)) == (1, 1)
    for name in ("RecordingSink", "RecordingMetadata", "LocalFileSink", "WebhookSink", "CompositeSink"):
        assert getattr(fastagi, name) is getattr(fastagi.recording, name)


async def test_a_handlers_own_clean_up_after_a_hangup_is_not_what_ended_it(scene: Scene) -> None:
    async def handler(call: Any) -> None:
        await call.record_start("cleaned/{uniqueid}")
        try:
            await call.exec("Wait", 60)
        finally:
            await call.record_stop()

    call = await place(scene, handler)
    await scene.until(lambda: scene.recorder.last(("pbx", call.uniqueid, "")))
    await scene.until(lambda: scene.recorder.last(("pbx", call.uniqueid, "")).phase == "active")
    await scene.hangup(call.placed)
    (told,) = await call.told()
    assert told.extra["cause"] == "HANGUP"
    assert told.name == f"cleaned/{call.uniqueid}", "fields are filled in"


async def test_a_stop_on_a_dead_channel_is_no_abort(scene: Scene) -> None:
    """A handler of its own for extension h, or a hangup handler: that session is never told HANGUP."""

    async def cleaner(call: Any) -> Any:
        with pytest.raises(Hangup):
            await call.WholeCallRecorder.stop()
        return call.hung_up, await call.record_stop(), call.WholeCallRecorder.cause()

    async def handler(call: Any) -> None:
        await call.set_variable("CHANNEL(hangup_handler_push)", "recorder-dead,s,1")
        await call.record_start("dead/{uniqueid}")

    route, cleaned = route_for(scene, cleaner)
    await scene.asterisk.cli(f"dialplan add extension s,1,AGI,{scene.url(route)} into recorder-dead")
    call = await place(scene, handler)
    assert await asyncio.wait_for(cleaned, 20) == (False, f"dead/{call.uniqueid}", Cause.HANGUP)
    (told,) = await call.told()
    assert told.extra["cause"] == "HANGUP"


async def test_names_that_are_none_are_refused_before_anything_is_sent(scene: Scene) -> None:
    async def handler(call: Any) -> list[str]:
        said = []
        for refused in (
            lambda: call.record_start(5),
            lambda: call.record_start(None),
            lambda: call.WholeCallRecorder.start("x", cipher=fastagi.AesGcmCipher(b"short")),
        ):
            with pytest.raises(Error) as caught:
                await refused()
            said.append(str(caught.value))
        return said

    said = await on_call(scene, handler)
    assert [text.split()[0] for text in said[:2]] == ["name=5", "name=None"]
