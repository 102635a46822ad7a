"""An App in its user's hands: started again with other settings and in another event loop, handlers with decorators."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from fastagi import App, Error
from fastagi.testing import AsteriskServer
from fastagi.testing.server_settings import settings_for
from support.recorder_harness import Remembering, recording_scene


async def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_an_app_is_started_again_with_other_settings_and_in_another_loop(
    asterisk22: AsteriskServer, asterisk16: AsteriskServer, tmp_path: Path
) -> None:
    sink, seen = Remembering(), []
    app = App(recording_sink=sink)

    @app.route("again")
    async def again(call: Any) -> None:
        await call.WholeCallRecorder.record("again", seconds_timeout=0.3)
        await call.exec("UserEvent", "FastAGIRecord", "Command: start", f"Channel: {call.channel}", "Filename: asked")
        await until(lambda: call.WholeCallRecorder.recording.name == "asked")
        await call.exec("Wait", "0.2")

    async def once(asterisk: AsteriskServer, folder: Path) -> None:
        settings = settings_for(asterisk, folder)
        app.configure(settings)
        if not seen:
            app.ami().register_event("Hangup", lambda manager, event: seen.append(event.Uniqueid))
        await app.start()
        try:
            with pytest.raises(Error, match="started already"):
                await app.start()
            with pytest.raises(Error, match="is started"):
                app.configure(settings)
            await app.ami().wait_up(20)
            told = len(sink.got)
            call = await asterisk.originate(
                "Local/tone@fastagi-testing/n", application="AGI", data=f"agi://127.0.0.1:{settings.agi.port}/again"
            )
            await until(lambda: len(sink.got) == told + 2)
            await until(lambda: seen.count(call.uniqueid) == 1)
        finally:
            await app.stop(5)

    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    with structlog.testing.capture_logs() as logs:
        for asterisk, folder in ((asterisk22, folders[0]), (asterisk16, folders[1]), (asterisk22, folders[0])):
            asyncio.run(once(asterisk, folder))
    assert [m.name for m in sink.got] == ["again", "asked"] * 3
    assert [entry for entry in logs if entry["log_level"] in ("warning", "error", "critical")] == []


async def test_a_decorated_async_handler_is_awaited(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    """Its wrapper is a plain def; one that does not even say what it wraps fails loudly, not by doing nothing."""

    def decorated(handler: Any) -> Any:
        @functools.wraps(handler)
        def wrapper(call: Any) -> Any:
            return handler(call)

        return wrapper

    async with recording_scene(asterisk22, tmp_path) as scene:
        done = asyncio.Event()

        async def handler(call: Any) -> None:
            assert await call.get_variable("NOBODY") is None
            done.set()

        scene.app.route("decorated")(decorated(handler))
        scene.app.route("disguised")(lambda call: handler(call))
        await scene.call("decorated")
        await asyncio.wait_for(done.wait(), 20)
        with structlog.testing.capture_logs() as logs:
            await scene.call("disguised")
            await scene.until(lambda: [e for e in logs if e["event"] == "agi_handler_failed"])
        (failed,) = [e for e in logs if e["event"] == "agi_handler_failed"]
        assert "is not async, and gave a coroutine: write async def" in failed["error"]
