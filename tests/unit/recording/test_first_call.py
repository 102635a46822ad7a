"""The first call may come while the server is still starting: its port is open a moment before `start` returns."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastagi import App, State
from fastagi.agi import AgiServer
from fastagi.recording.call import CallChannel
from fastagi.settings import Settings
from fastagi.testing.scripted_agi import ScriptedAgi


async def test_a_call_that_comes_as_soon_as_the_port_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(
        Settings.model_validate(
            {
                "agi": {"port": 0},
                "http": {"enabled": False},
                "recordings": {"directory": str(tmp_path / "recordings")},
                "store": {"url": f"sqlite:///{tmp_path}/ledger.db"},
            }
        )
    )

    @app.route("hello")
    async def hello(call: CallChannel) -> None:
        assert call.WholeCallRecorder.state() is State.IDLE
        await call.set_variable("SAID", "hello")

    start = AgiServer.start
    calls: list[ScriptedAgi] = []

    async def start_and_call(server: AgiServer[CallChannel]) -> None:
        await start(server)
        async with ScriptedAgi(server.port, script="hello") as call:
            await call.serve()
            calls.append(call)

    monkeypatch.setattr(AgiServer, "start", start_and_call)
    await app.start()
    await app.stop()
    assert [call.variables for call in calls] == [{"SAID": "hello"}]
