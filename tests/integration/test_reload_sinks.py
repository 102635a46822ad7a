"""Sinks, tokens and required contexts that a reload brings, changes and takes away, with recordings of an Asterisk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fastagi.domain.delivery import DeliveryStatus
from fastagi.errors import ConfigError
from fastagi.settings import Settings
from fastagi.store.queries import deliveries
from support.postgres_server import postgres_server, postgres_url  # noqa: F401
from support.web_harness import WebScene, web_scene


class Receiver:
    """A receiver of webhooks that counts, and answers with `status`."""

    def __init__(self) -> None:
        self.url = ""
        self.got = 0
        self.status = 200

    async def take(self, request: web.Request) -> web.Response:
        self.got += 1
        return web.Response(status=self.status)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield made
    await runner.cleanup()


def changed(scene: WebScene, **sections: Any) -> Settings:
    """The settings in force, with other sections."""
    data = scene.app.settings.model_dump(by_alias=True)
    for name, section in sections.items():
        data[name] = {**data[name], **section} if isinstance(section, dict) else section
    return Settings.model_validate(data)


def webhook(name: str, url: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "webhook", "url": url, **more}


async def waiting(scene: WebScene, sink: str) -> list[DeliveryStatus]:
    depths = await scene.parts.store.read(deliveries.depths, scene.parts.recorder._clock())
    return [depth.status for depth in depths if depth.sink == sink]


async def test_sinks_come_change_and_go(tmp_path: Path) -> None:
    async with receiver() as first, receiver() as second, web_scene(tmp_path) as scene:
        done = await scene.app.reload(changed(scene, sinks=[webhook("one", first.url)]))
        assert (done.taken, done.restart) == (("sinks",), ())
        await scene.recorded("calls/a")
        await scene.until(lambda: first.got == 1 and len(scene.sink.got) == 1)

        first.status = 500  # it waits, and goes where the sink leads then
        await scene.recorded("calls/b")
        await scene.until(lambda: first.got >= 2)
        await scene.app.reload(changed(scene, sinks=[webhook("one", second.url, concurrency=2)]))
        await scene.until(lambda: second.got == 1)

        second.status = 500
        await scene.recorded("calls/c")
        await scene.until(lambda: second.got >= 2)
        await scene.app.reload(changed(scene, sinks=[]))
        assert "one" not in scene.parts.registry

        async def parked() -> bool:
            return await waiting(scene, "one") == [DeliveryStatus.PARKED]

        await scene.until(parked)
        await scene.recorded("calls/d")
        await scene.until(lambda: len(scene.sink.got) == 4)
        assert await waiting(scene, "one") == [DeliveryStatus.PARKED], "only the one from before"

        second.status = 200
        await scene.app.reload(changed(scene, sinks=[webhook("one", second.url, default=False)]))
        got = second.got
        await scene.until(lambda: second.got == got + 1)
        assert scene.parts.sink_names.defaults == ("recording_sink",)


async def test_a_mistake_changes_nothing(tmp_path: Path) -> None:
    async with receiver() as first, web_scene(tmp_path) as scene:
        await scene.app.reload(changed(scene, sinks=[webhook("one", first.url)]))
        kept = scene.parts.registry.get("one")
        for wrong in (webhook("two", "gopher://x"), webhook("recording_sink", first.url)):
            with pytest.raises(ConfigError, match=wrong["name"]):
                await scene.app.reload(changed(scene, sinks=[wrong], http={"tokens": []}))
            assert scene.parts.registry.get("one") is kept
            assert (await scene.get("/api/v1/recordings", role="viewer"))[0] == 200


async def test_unchanged_sinks_stay(tmp_path: Path) -> None:
    async with receiver() as first, web_scene(tmp_path) as scene:
        await scene.app.reload(changed(scene, sinks=[webhook("one", first.url)]))
        kept = scene.parts.registry.get("one")
        done = await scene.app.reload(changed(scene, sinks=[webhook("one", first.url)], agi={"threads": 5}))
        assert (done.taken, done.restart) == ((), ("agi.threads",))
        assert scene.parts.registry.get("one") is kept


async def test_secrets_in_files_are_read_again(tmp_path: Path) -> None:
    """The settings are the same, and the file that they name holds another secret."""
    secret = tmp_path / "secret"
    secret.write_text("before-before-before")
    async with receiver() as first, web_scene(tmp_path) as scene:
        section = webhook("one", first.url, signing_secret_file=str(secret))
        await scene.app.reload(changed(scene, sinks=[section]))
        before = scene.parts.registry.get("one").sink.headers(b"x", "dlv-1")["X-Voxtra-Signature"]
        secret.write_text("after-after-after")
        await scene.app.reload(changed(scene, sinks=[section]))
        assert scene.parts.registry.get("one").sink.headers(b"x", "dlv-1")["X-Voxtra-Signature"] != before


async def test_required_contexts_are_followed(tmp_path: Path) -> None:
    """Calls that were up before are held against their recordings, too."""
    async with web_scene(tmp_path) as scene:
        scene.ami.call()
        await scene.until(lambda: len(scene.parts.pbxs["pbx"].channels))
        completeness = scene.parts.recorder.parts.completeness
        assert completeness.open == 0
        done = await scene.app.reload(changed(scene, recordings={"required": ["*"]}))
        assert done.taken == ("recordings.required",)
        assert completeness.open == 1
        await scene.app.reload(changed(scene, recordings={"required": []}))
        scene.ami.call()
        await scene.until(lambda: len(scene.parts.pbxs["pbx"].channels) == 2)
        assert completeness.open == 1


@pytest.mark.postgres
async def test_a_changed_sink_on_postgresql(postgres_url: str, tmp_path: Path) -> None:  # noqa: F811
    """PgQueuer serves a queue under the same name again."""
    async with receiver() as first, receiver() as second, web_scene(tmp_path, store={"url": postgres_url}) as scene:
        await scene.app.reload(changed(scene, sinks=[webhook("one", first.url)]))
        await scene.recorded("calls/a")
        await scene.until(lambda: first.got == 1)
        await scene.app.reload(changed(scene, sinks=[webhook("one", second.url)]))
        await scene.recorded("calls/b")
        await scene.until(lambda: second.got == 1)
        assert first.got == 1
