"""A stop takes every step, whatever became of the one before."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import structlog

from fastagi import App, RecordingMetadata
from fastagi.settings import Settings


def made(folder: Path) -> App:
    return App(
        Settings.model_validate(
            {
                "agi": {"port": 0},
                "http": {"enabled": False},
                "recordings": {"directory": str(folder)},
                "store": {"url": f"sqlite:///{folder}/ledger.db"},
            }
        )
    )


class Closing:
    """A sink whose plain `aclose` raises."""

    closed = 0

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        """Takes it."""

    def aclose(self) -> None:
        self.closed += 1
        raise RuntimeError("broken pipe")


async def raising(*args: Any) -> None:
    raise OSError("no")


async def test_a_step_that_raises_keeps_no_other_from_being_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, sink = made(tmp_path), Closing()
    app.sink("mine", sink)
    await app.start()
    parts, courier_stop = app.parts, app.parts.courier.stop
    monkeypatch.setattr(parts.recorder, "drain", raising)
    monkeypatch.setattr(parts.courier, "stop", raising)
    with structlog.testing.capture_logs() as lines:
        await app.stop(1)
    await courier_stop(0)
    said = {line["event"]: line for line in lines}
    assert [line["step"] for line in lines if line["event"] == "stop_failed"] == ["recordings", "deliveries"]
    assert said["sink_not_closed"]["error"] == "RuntimeError: broken pipe"
    assert "stopped" in said
    assert sink.closed == 1
    again = made(tmp_path)  # the ledger was let go
    await again.start()
    await again.stop(1)


async def test_a_stop_that_is_cancelled_lets_the_ledger_go_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, begun = made(tmp_path), asyncio.Event()
    await app.start()

    async def waiting(seconds: float) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(app.parts.recorder, "drain", waiting)
    stopping = asyncio.create_task(app.stop(20))
    await begun.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    again = made(tmp_path)
    await again.start()
    await again.stop(1)
