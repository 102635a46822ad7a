"""The journal as server-sent events: in order, without gap, and bounded whoever reads slowly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fastagi.errors import StoreDown
from fastagi.store.queries import journal, recordings
from fastagi.web import events, ledger_reads, server
from support.delivery_harness import finish, recording
from support.web_harness import TOKENS, WebScene, web_scene


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tells of what these tests write into the ledger themselves."""
    monkeypatch.setattr(events, "POLL_SECONDS", 0.1)


class Stream:
    """One client. `got` is what came: (id, data), and ("reset", {})."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.got: list[tuple[str, Any]] = []
        self.pings = 0
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        number, kind = "", ""
        async for line in self.response.content:
            text = line.decode().rstrip("\n")
            if text.startswith(":"):
                self.pings += 1
            elif text.startswith("id: "):
                number = text[4:]
            elif text.startswith("event: "):
                kind = text[7:]
            elif text.startswith("data: "):
                self.got.append((kind or number, json.loads(text[6:])))
                kind = ""

    @property
    def numbers(self) -> list[int]:
        return [int(number) for number, _ in self.got if number.isdigit()]


@asynccontextmanager
async def follow(scene: WebScene, **headers: str) -> AsyncIterator[Stream]:
    headers["Authorization"] = f"Bearer {TOKENS['viewer']}"
    async with scene.client.get(scene.url("/api/v1/events"), headers=headers) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        assert await response.content.readline() == b"retry: 3000\n"
        stream = Stream(response)
        try:
            yield stream
        finally:
            stream.task.cancel()
            await asyncio.gather(stream.task, return_exceptions=True)


async def test_events_arrive_live_and_after_break(tmp_path: Path) -> None:
    """A recording's events come as they happen, and again after a break."""
    async with web_scene(tmp_path) as scene:
        async with follow(scene) as stream:
            recording_id = await scene.recorded()
            await scene.until(lambda: stream.got and stream.got[-1][1]["event"] == "delivered")
            mine = [(d["event"], d["to_phase"]) for _, d in stream.got if d["recording_id"] == recording_id]
        assert mine == [
            ("requested", "requested"), ("started", "active"), ("hung_up", "closing"), ("closed", "finishing"),
            ("finished", "finished"), ("delivered", None),
        ]  # fmt: skip
        assert stream.numbers == sorted(set(stream.numbers))
        assert stream.got[-1][1]["recording"]["sha256"]
        break_after = stream.numbers[1]
        async with follow(scene, **{"Last-Event-ID": str(break_after)}) as again:
            await scene.until(lambda: again.numbers == stream.numbers[2:])
            other = await scene.recorded("calls/two")
            await scene.until(lambda: again.got[-1][1]["event"] == "delivered")
            assert {d["recording_id"] for _, d in again.got[4:]} == {other}
            assert again.numbers == sorted(set(again.numbers)), "the break's events and the live ones meet seamlessly"


async def test_events_during_replay_come_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that happens while missed ones are sent comes once."""
    async with web_scene(tmp_path, up=False) as scene:
        hub, real = scene.parts.http._events, events.Events._replay
        await finish(scene.parts.store, None, 1, sinks=())

        async def meanwhile(self: events.Events, response: Any, since: int, newest: int) -> None:
            await finish(scene.parts.store, None, 2, sinks=())
            await scene.until(lambda: hub._count == 5)
            await real(self, response, since, newest)

        monkeypatch.setattr(events.Events, "_replay", meanwhile)
        async with follow(scene, **{"Last-Event-ID": "2"}) as stream:
            await scene.until(lambda: len(stream.got) >= 8)
            await finish(scene.parts.store, None, 3, sinks=())
            await scene.until(lambda: stream.numbers[-1] == 15)
            assert stream.numbers == list(range(3, 16))


async def test_nobody_follows_nobody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PING_SECONDS", 600.0)
    async with web_scene(tmp_path) as scene:
        hub = scene.parts.http._events
        async with follow(scene):
            await scene.until(lambda: hub._clients == 1)
        await scene.until(lambda: hub._clients == 0)
        await scene.until(lambda: hub._reader.done(), 5)


async def test_many_clients_cost_one_read(tmp_path: Path) -> None:
    """Many clients get the same events and cost one read."""
    async with web_scene(tmp_path) as scene:
        reads, real = 0, scene.parts.store.read

        async def counted(unit: Any, *args: Any, **more: Any) -> Any:
            nonlocal reads
            reads += unit is ledger_reads._entries_after
            return await real(unit, *args, **more)

        scene.parts.store.read = counted
        streams = []
        async with asyncio.TaskGroup() as group:
            done = asyncio.Event()

            async def one() -> None:
                async with follow(scene) as stream:
                    streams.append(stream)
                    await done.wait()

            for _ in range(20):
                group.create_task(one())
            await scene.until(lambda: len(streams) == 20)
            await scene.recorded()
            await scene.until(lambda: all(s.got and s.got[-1][1]["event"] == "delivered" for s in streams))
            done.set()
        assert len({tuple(s.numbers) for s in streams}) == 1
        assert reads < 40, "20 clients would have read 20 times each"


async def test_slow_client_is_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that fell behind the ring is told to begin again."""
    async with web_scene(tmp_path, up=False) as scene:
        hub = scene.parts.http._events
        hub._ring = type(hub._ring)(maxlen=5)
        holding, go = asyncio.Event(), asyncio.Event()
        real = events._write

        async def held(response: Any, texts: Any) -> None:
            if holding.is_set():
                await go.wait()
            await real(response, texts)

        monkeypatch.setattr(events, "_write", held)
        async with follow(scene) as stream:
            await finish(scene.parts.store, None, 1, sinks=())
            await scene.until(lambda: len(stream.got) == 5)
            holding.set()
            for n in range(2, 6):
                await finish(scene.parts.store, None, n, sinks=())
            await scene.until(lambda: hub._count == 25)
            holding.clear()
            go.set()
            await scene.until(lambda: [k for k, _ in stream.got if k == "reset"])
            await finish(scene.parts.store, None, 6, sinks=())
            await scene.until(lambda: stream.got[-1][0].isdigit() and stream.got[-1][1]["recording_id"] == "rec-000006")
            assert len(hub._ring) == 5


@pytest.mark.parametrize("header", ["999999", "1"])
async def test_stale_client_is_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str) -> None:
    """A client that missed too much, or comes from another ledger, is told to begin again."""
    monkeypatch.setattr(events, "MOST_MISSED", 3)
    async with web_scene(tmp_path, up=False) as scene:
        await finish(scene.parts.store, None, 1, sinks=())
        async with follow(scene, **{"Last-Event-ID": header}) as stream:
            await scene.until(lambda: stream.got == [("reset", {})])


async def test_wrong_event_id_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong Last-Event-ID and a client too many are refused."""
    monkeypatch.setattr(events, "MOST_CLIENTS", 1)
    async with web_scene(tmp_path, up=False) as scene:
        for wrong in ("-1", "x", "9" * 40):
            status, body = await scene.get("/api/v1/events", role="viewer", headers={"Last-Event-ID": wrong})
            assert (status, "Last-Event-ID" in body["error"]) == (400, True)
        async with follow(scene):
            status, body = await scene.get("/api/v1/events", role="viewer")
            assert (status, "1 clients" in body["error"]) == (503, True)


async def test_late_commits_are_not_missed(tmp_path: Path) -> None:
    """PostgreSQL gives numbers before it commits: 7 may be seen after 8."""
    async with web_scene(tmp_path, up=False) as scene:
        hub = scene.parts.http._events
        hub._overlap = events.OVERLAP
        hidden = {2}
        real = journal.after

        def late(conn: Any, seq: int, limit: int = 500) -> Any:
            return [e for e in real(conn, seq, limit) if e.seq not in hidden]

        journal.after = late
        try:
            async with follow(scene) as stream:
                await finish(scene.parts.store, None, 1, sinks=())
                await scene.until(lambda: stream.numbers == [1, 3, 4, 5])
                hidden.clear()
                await scene.until(lambda: stream.numbers == [1, 3, 4, 5, 2])
                await finish(scene.parts.store, None, 2, sinks=())
                await scene.until(lambda: len(stream.numbers) == 10)
                assert stream.numbers[5:] == [6, 7, 8, 9, 10], "and nothing comes twice"
        finally:
            journal.after = real


async def test_comments_keep_idle_stream_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PING_SECONDS", 0.05)
    async with web_scene(tmp_path, up=False) as scene, follow(scene) as stream:
        await scene.until(lambda: stream.pings >= 3)
        assert stream.got == []


async def test_ledger_outage_ends_no_stream(tmp_path: Path) -> None:
    """A ledger that is down for a while ends no stream."""
    async with web_scene(tmp_path, up=False) as scene, follow(scene) as stream:
        store, real, failed = scene.parts.store, scene.parts.store.read, 0

        async def down(unit: Any, *args: Any, **more: Any) -> Any:
            nonlocal failed
            failed += 1
            raise StoreDown("locked")

        store.read = down
        await store.run(recordings.insert, recording(1))
        scene.parts.http._events._wake.set()
        await scene.until(lambda: failed)
        store.read = real
        await scene.until(lambda: stream.numbers == [1])


async def test_stopping_ends_the_streams_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DRAIN_SECONDS", 30.0)
    async with web_scene(tmp_path, up=False) as scene, follow(scene) as stream:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await scene.parts.http.stop()
        assert loop.time() - started < 15, "DRAIN_SECONDS are for answers, not for streams"
        await scene.until(lambda: stream.task.done())
