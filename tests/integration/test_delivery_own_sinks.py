"""A sink of one's own that blocks, in a whole server on uvloop: it holds itself and nobody else."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop

from fastagi import RecordingMetadata
from support.web_harness import web_scene

STUCK_SECONDS = 90.0
"""Longer than everything here waits for."""


class Blocking:
    """Async, and blocks its thread, as `requests.post` or `time.sleep` in an async function do."""

    needs_file = False

    def __init__(self) -> None:
        self.entered, self.gate = threading.Event(), threading.Event()
        self.closed = False

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        self.entered.set()
        until = time.monotonic() + STUCK_SECONDS
        while not self.gate.is_set() and time.monotonic() < until:
            time.sleep(0.02)  # noqa: ASYNC251  (that is the fault)

    async def aclose(self) -> None:
        self.closed = True


class Quick:
    needs_file = False

    def __init__(self) -> None:
        self.got: list[str] = []

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        self.got.append(metadata.name)


@pytest.mark.parametrize("brought", ["registered", "unregistered"])
def test_a_blocking_sink_holds_nobody(tmp_path: Path, brought: str) -> None:
    """`time.sleep(30)` in an async sink held HTTP, the other sinks and every call."""
    blocking, quick = Blocking(), Quick()

    async def scenario() -> list[Any]:
        with structlog.testing.capture_logs() as lines:
            async with web_scene(tmp_path) as scene:
                scene.app.sink("quick", quick, default=True)
                if brought == "registered":
                    scene.app.sink("sticky", blocking, default=True)
                else:
                    scene.parts.sink_names.add_default(scene.parts.sink_names.names(blocking))
                await scene.recorded("calls/one")
                await scene.until(blocking.entered.is_set)
                began = time.monotonic()
                assert (await scene.get("/healthz"))[0] == 200
                await scene.recorded("calls/two")
                await scene.until(lambda: len(quick.got) == 2)
                assert [m.name for m in scene.sink.got] == ["calls/one", "calls/two"], "App(recording_sink=...)"
                assert (await scene.get("/readyz"))[0] == 200
                assert time.monotonic() - began < STUCK_SECONDS / 3
                label = "sticky" if brought == "registered" else "object"

                async def counted() -> bool:
                    return await scene.metric("fastagi_sink_blocked_total", sink=label) == 1

                await scene.until(counted)
                began = time.monotonic()
                await scene.app.stop(1)
                assert time.monotonic() - began < STUCK_SECONDS / 2, "a stuck sink holds no stop"
        return lines

    try:
        lines = uvloop.run(asyncio.wait_for(scenario(), STUCK_SECONDS))
    finally:
        blocking.gate.set()
    said = {line["event"]: line for line in lines}
    assert "Blocking.on_recording_complete" in said["sink_blocks"]["at"]
    assert "test_delivery_own_sinks.py" in said["sink_blocks"]["at"]
    assert said["sink_blocks"]["sink"] == ("sticky" if brought == "registered" else "object:Blocking")
    assert "sink_left_behind" in said
    assert "event_loop_held" not in said


def test_a_sink_that_stays_is_named(tmp_path: Path) -> None:
    """One that has a client of the main loop runs there: `/readyz`, and `fastagi doctor` after it, say so."""

    class Clients(Quick):
        def __init__(self) -> None:
            super().__init__()
            self.session = asyncio.get_running_loop().create_future()
            self.thread = 0

        async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
            await super().on_recording_complete(metadata)
            self.thread = threading.get_ident()

    async def scenario() -> None:
        async with web_scene(tmp_path) as scene:
            sink = Clients()
            scene.app.sink("crm", sink, default=True)
            await scene.recorded()
            await scene.until(lambda: sink.got)
            assert sink.thread == threading.get_ident()
            _, body = await scene.get("/readyz")
            [warning] = body["warnings"]
            assert warning["what"] == "sink crm"
            assert "attribute session (Future)" in warning["problem"]

    uvloop.run(scenario())
