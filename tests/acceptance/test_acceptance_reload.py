"""SIGHUP to `fastagi serve`: what is taken over, what is named, and what a mistake does."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import aiohttp

from support.cli_process import port_of, serving_alone, write_lone_settings

OLD, NEW = "the-old-token-0123", "the-new-token-0123"


def token(text: str) -> str:
    return f'tokens = [{{name = "ops", token = "{text}", role = "viewer"}}]'


async def status(config: Path, bearer: str) -> int:
    url = f"http://127.0.0.1:{port_of(config, 'http')}/api/v1/recordings"
    headers = {"Authorization": f"Bearer {bearer}"}
    async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as response:
        return response.status


async def test_hangup_reloads_the_settings(tmp_path: Path) -> None:
    """SIGHUP ended the server without draining."""
    config = write_lone_settings(tmp_path, http=token(OLD))
    async with serving_alone(config) as server:
        assert (await status(config, OLD), await status(config, NEW)) == (200, 401)

        more = '[log]\nlevel = "warning"\n[[sinks]]\nname = "crm"\ntype = "webhook"\nurl = "http://127.0.0.1:9/"'
        write_lone_settings(tmp_path, more, http=token(NEW), agi="max_sessions = 50")
        server.process.send_signal(signal.SIGHUP)
        await server.until(lambda: server.logged("settings_need_restart"))
        assert server.logged("settings_need_restart")[0]["keys"] == ["agi.max_sessions"]
        assert not server.logged("settings_reloaded"), "information, and the level is warning now"
        assert (await status(config, OLD), await status(config, NEW)) == (401, 200)

        write_lone_settings(tmp_path, http=token(OLD), agi="max_sessions = -1")
        server.process.send_signal(signal.SIGHUP)
        await server.until(lambda: server.logged("settings_not_reloaded"))
        (refused,) = server.logged("settings_not_reloaded")
        assert "agi.max_sessions = -1" in refused["error"]
        assert await status(config, NEW) == 200

        write_lone_settings(tmp_path, http=token(OLD))
        server.process.send_signal(signal.SIGHUP)
        await server.until(lambda: server.logged("settings_reloaded"))
        assert server.logged("settings_reloaded")[0]["taken"] == ["http.tokens", "sinks", "log.level"]
        assert await status(config, OLD) == 200
        assert await server.end() == 0


async def test_hangup_ends_no_drain(tmp_path: Path) -> None:
    config = write_lone_settings(tmp_path)
    async with serving_alone(config) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(config, "agi"))
        writer.write(b"agi_network: yes\nagi_network_script: fastagi/ping\nagi_channel: T/1\nagi_uniqueid: 1.1\n\n")
        await reader.readline()
        server.process.send_signal(signal.SIGTERM)
        await server.until(lambda: server.logged("stopping"))
        server.process.send_signal(signal.SIGHUP)
        writer.write(b"200 result=0\n")  # the session that it waits for ends
        assert await server.end(signal.SIGHUP) == 0
        assert server.logged("stopped")
        writer.close()


async def test_reload_without_a_file(tmp_path: Path) -> None:
    """A program that gave its settings itself has nothing to read again, and goes on."""
    config = write_lone_settings(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\nfrom fastagi import App\nfrom fastagi.settings import load\n"
        f"app = App(load(Path({json.dumps(str(config))})))\n"
    )
    async with serving_alone(config, app="mine:app") as server:
        server.process.send_signal(signal.SIGHUP)
        await server.until(lambda: server.logged("settings_not_reloaded"))
        assert "no file to read again" in server.logged("settings_not_reloaded")[0]["error"]
        assert await server.end() == 0
