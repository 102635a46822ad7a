"""/healthz and /readyz: what a probe is told, and that it is true."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from fastagi.agi.descriptors import RESERVE
from fastagi.errors import StoreDown
from fastagi.web import disks
from support.web_harness import WebScene, web_scene


async def test_complete_server_is_ready(tmp_path: Path) -> None:
    """A server that has all it needs is healthy and ready."""
    async with web_scene(tmp_path) as scene:
        assert await scene.get("/healthz") == (200, {"healthy": True})
        status, body = await scene.get("/readyz")
        assert (status, body["ready"], body["problems"]) == (200, True, [])
        folders = {tmp_path, tmp_path / "spool", tmp_path / "recordings"}
        assert set(body["checked"]) == {"asterisk pbx", "store", "descriptors", *(f"disk {f}" for f in folders)}


async def test_lost_asterisk_is_not_ready(tmp_path: Path) -> None:
    """An Asterisk that comes back makes the server ready again."""
    async with web_scene(tmp_path) as scene:
        scene.ami.refusing = True
        scene.ami.drop()
        await scene.until(lambda: not scene.parts.pbxs["pbx"].up)
        status, body = await scene.get("/readyz")
        assert status == 503
        (problem,) = body["problems"]
        assert problem["what"] == "asterisk pbx"
        assert problem["problem"]
        assert "doctor" in problem["do"]
        assert (await scene.get("/healthz"))[0] == 200, "a restart would not bring Asterisk back"
        scene.ami.refusing = False
        await scene.until(lambda: scene.parts.pbxs["pbx"].up)
        assert (await scene.get("/readyz"))[0] == 200


async def test_unlisted_channels_are_not_ready(tmp_path: Path) -> None:
    """A connection whose channels are not listed yet is not ready."""
    async with web_scene(tmp_path) as scene:
        scene.parts.pbxs["pbx"].synced = False
        status, body = await scene.get("/readyz")
        assert (status, body["problems"][0]["what"]) == (503, "asterisk pbx")
        assert "not listed" in body["problems"][0]["problem"]


async def test_full_disk_is_named(tmp_path: Path) -> None:
    """The problem says how much is free and how much is needed."""
    async with web_scene(tmp_path, recordings={"min_free_mb": 2_000_000_000}) as scene:
        status, body = await scene.get("/readyz")
        assert status == 503
        found = {p["what"] for p in body["problems"]}
        assert found == {f"disk {f}" for f in (tmp_path, tmp_path / "spool", tmp_path / "recordings")}
        assert all("min_free_mb is 2000000000" in p["problem"] for p in body["problems"])


async def test_missing_spool_is_named_with_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spool that is not there is named with what to do."""
    monkeypatch.setattr(disks, "FRESH_SECONDS", 0.0)
    async with web_scene(tmp_path) as scene:
        assert (await scene.get("/readyz"))[0] == 200
        scene.spool.rmdir()
        status, body = await scene.get("/readyz")
        assert (status, [p["what"] for p in body["problems"]]) == (503, [f"disk {scene.spool}"])
        assert "create it" in body["problems"][0]["do"]


async def test_silent_ledger_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that does not answer is named."""
    async with web_scene(tmp_path) as scene:
        store = scene.parts.store
        well = store._well
        monkeypatch.setattr(store, "_well", lambda: None)  # a write that was under way changes nothing
        store._ill(StoreDown("the disk is full"))
        status, body = await scene.get("/readyz")
        assert (status, [p["what"] for p in body["problems"]]) == (503, ["store"])
        assert "the disk is full" in body["problems"][0]["problem"]
        well()

        async def gone(*args: object) -> None:
            raise StoreDown("the file has vanished")

        monkeypatch.setattr(store, "read", gone)
        status, body = await scene.get("/readyz")
        assert (status, body["problems"][0]["problem"]) == (503, "the file has vanished")
        monkeypatch.undo()
        assert (await scene.get("/readyz"))[0] == 200


async def test_dead_lasting_task_is_unhealthy(tmp_path: Path) -> None:
    """A lasting task that died is no longer healthy."""

    async def dies() -> None:
        raise ValueError("never thought of that")

    async with web_scene(tmp_path) as scene:
        scene.parts.recorder.parts.context.tasks.keep(dies(), "the watch")
        await scene.until(lambda: scene.parts.recorder.parts.context.tasks.died)
        status, body = await scene.get("/healthz")
        assert status == 503
        assert body["dead"] == ["the watch: never thought of that"]


async def test_dead_short_task_is_counted(tmp_path: Path) -> None:
    """A short task that died is counted, and no reason for a restart."""

    async def dies() -> None:
        raise ValueError("a single recording")

    async with web_scene(tmp_path) as scene:
        scene.parts.recorder.parts.context.tasks.spawn(dies(), "finish rec-1")
        await scene.until(lambda: scene.parts.recorder.parts.context.tasks.died)
        assert (await scene.get("/healthz"))[0] == 200
        assert await scene.metric("fastagi_tasks_died_total") == 1


async def test_dead_mount_holds_no_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead mount holds one thread and no probe."""
    monkeypatch.setattr(disks, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(disks, "PATIENCE_SECONDS", 0.1)
    back, measured = threading.Event(), []

    def hangs(folder: Path) -> disks.Held:
        measured.append(folder)
        back.wait(30)
        return disks.Held()

    async with web_scene(tmp_path) as scene:
        monkeypatch.setattr(disks, "_held", hangs)
        try:
            answers = await asyncio.gather(*(scene.get("/readyz") for _ in range(5)))
            assert {status for status, _ in answers} == {503}
            assert [p["what"] for p in answers[0][1]["problems"]] == ["disk"]
            text = await scene.metrics()
            assert "fastagi_disk_free_bytes" not in text
            assert text["fastagi_scrape_faults_total"][(("what", "disk"),)] >= 1
            assert len(measured) == 1, "nothing is begun beside a measurement that hangs"
            assert scene.parts.http._disks._thread._queue.qsize() == 0, "and nothing waits behind it"
        finally:
            back.set()
        await scene.until(lambda: _ready(scene))


async def _ready(scene: WebScene) -> bool:
    return (await scene.get("/readyz"))[0] == 200


async def test_without_http_nothing_listens(tmp_path: Path) -> None:
    from fastagi import App
    from support.web_harness import web_settings

    app = App(web_settings(1, "x", tmp_path, http={"enabled": False}))
    await app.start()
    try:
        assert app.parts.http is None
    finally:
        await app.stop(1)


async def test_taken_port_names_the_setting(tmp_path: Path) -> None:
    """A taken port is one line that names the setting."""
    from fastagi import App
    from fastagi.errors import ConfigError
    from support.web_harness import web_settings

    async with web_scene(tmp_path, up=False) as scene:
        other = tmp_path / "other"
        other.mkdir()
        second = App(web_settings(1, "x", other, http={"port": scene.port}))
        with pytest.raises(ConfigError, match=r"http: cannot listen on 127\.0\.0\.1:\d+: .*\[http\] host and port"):
            await second.start()


async def test_a_huge_search_leaves_it_ready(tmp_path: Path) -> None:
    """Whoever searches through everything holds up neither probes nor the recorder."""

    def endless(conn: sa.Connection, *args: object, **how: object) -> object:
        return conn.execute(
            sa.text("with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n")
        ).scalar()

    async with web_scene(tmp_path) as scene:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fastagi.store.connection_threads.Searcher.seconds", 3.0)
            patch.setattr("fastagi.store.queries.catalogue.page", endless)
            searching = asyncio.create_task(scene.get("/api/v1/recordings?caller=1", role="viewer"))
            await asyncio.sleep(0.3)
            for _ in range(3):
                assert (await scene.get("/readyz"))[0] == 200
            job = await scene.record(scene.ami.call())
            assert job.recording.state == "RECORDING"
            assert not searching.done()
            status, body = await searching
        assert status == 503
        assert "broken off after 3 s" in str(body)


async def test_refused_for_want_of_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls were lost while /readyz was green."""
    async with web_scene(tmp_path) as scene:
        descriptors = scene.parts.descriptors
        monkeypatch.setattr(descriptors, "limit", RESERVE)  # every connection has one of the last
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.parts.agi.port)
        said = await reader.readline()
        assert said.startswith(b'SET VARIABLE "RECORDING_ERROR" "fastagi refused this call: nearly all ')
        assert await reader.readline() == b"failure\n"
        writer.close()
        monkeypatch.setattr(descriptors, "limit", 100_000)
        status, body = await scene.get("/readyz")
        assert (status, [p["what"] for p in body["problems"]]) == (503, ["descriptors"])
        assert await scene.metric("fastagi_descriptors_refused_total", door="agi") == 1
