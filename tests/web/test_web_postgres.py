"""The same on PostgreSQL, where another server shares the ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from test_web_events import follow

from fastagi.store import open_store
from fastagi.store.queries import recordings
from fastagi.web import events
from support.delivery_harness import recording
from support.postgres_server import PostgresServer, postgres_server, postgres_url  # noqa: F401
from support.web_harness import web_scene

pytestmark = pytest.mark.postgres


async def test_shared_ledger_serves_all_routes(
    postgres_url: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Recordings, metrics and events on a shared ledger."""
    monkeypatch.setattr(events, "POLL_SECONDS", 0.2)
    async with web_scene(tmp_path, store={"url": postgres_url}) as scene:
        assert (await scene.get("/readyz"))[0] == 200
        async with follow(scene) as stream:
            mine = await scene.recorded("calls/mine")
            await scene.until(lambda: stream.got and stream.got[-1][1]["event"] == "delivered")
            assert {d["recording_id"] for _, d in stream.got} == {mine}
            other = open_store(postgres_url, node="there")
            await other.start()
            try:
                await other.run(recordings.insert, recording(1, node="there"))
            finally:
                await other.stop()
            await scene.until(lambda: stream.got[-1][1]["recording_id"] == "rec-000001")
            assert len(stream.numbers) == len(set(stream.numbers)), "nothing comes twice"
        status, body = await scene.get("/api/v1/recordings?search=CALLS/MINE", role="viewer")
        assert (status, [r["id"] for r in body["recordings"]]) == (200, [mine])
        status, body, _ = await scene.request("POST", "/api/v1/recordings/rec-000001/stop", role="operator")
        assert (status, "there" in body["error"]) == (409, True)
        assert await scene.metric("fastagi_deliveries_total", sink="recording_sink", outcome="delivered") == 1
        assert await scene.metric("fastagi_store_up") == 1


async def test_lost_database_is_named(
    postgres_server: PostgresServer,  # noqa: F811
    postgres_url: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    """A database that comes back makes the server ready again."""
    async with web_scene(tmp_path, store={"url": postgres_url}) as scene:
        await asyncio.to_thread(postgres_server.stop)
        try:
            status, body = await scene.get("/readyz")
            assert (status, [p["what"] for p in body["problems"]]) == (503, ["store"])
            status, body = await scene.get("/api/v1/recordings", role="viewer")
            assert (status, set(body)) == (503, {"error"})
            assert (await scene.get("/healthz"))[0] == 200
        finally:
            await asyncio.to_thread(postgres_server.start)
        await scene.until(lambda: _ready(scene), 60)


async def _ready(scene: object) -> bool:
    status, _ = await scene.get("/readyz")  # type: ignore[attr-defined]
    return bool(status == 200)
