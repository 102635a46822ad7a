"""Every example runs as its first lines say: `fastagi serve --app`, and a call to it on a real Asterisk."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pyrage
import pytest
import soundfile
from aiohttp import web

from fastagi.testing import AsteriskServer
from fastagi.testing.ports import free_port
from fastagi.testing.server_settings import settings_data, write_settings

ROOT = Path(__file__).parents[2]

DIALPLAN = """
[example]
exten => s,1,AGI(${ROUTE})
 same => n,Set(DONE=yes)
 same => n,Wait(60)
[queued]
exten => s,1,Answer()
 same => n,Queue(waiting)
"""


@pytest.fixture(scope="module")
def pbx() -> Iterator[AsteriskServer]:
    server = AsteriskServer(
        22, dialplan=DIALPLAN, extra_files={"queues.conf": "[general]\n[waiting]\njoinempty = yes\n"}
    )
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, server.start()).result()
        try:
            yield server
        finally:
            thread.submit(asyncio.run, server.close()).result()


class Served:
    """An example's app, served by the command, and calls to it."""

    def __init__(self, pbx: AsteriskServer, folder: Path) -> None:
        self.pbx = pbx
        self.folder = folder
        self.port = free_port()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    async def call(self, route: str, variable: str, far_end: str = "tone") -> str:
        """Call the route and wait until it is done: what it left in that channel variable."""
        async with self.pbx.ami() as ami:
            call = await self.pbx.originate(
                f"Local/{far_end}@fastagi-testing/n",
                context="example",
                variables={"ROUTE": f"agi://127.0.0.1:{self.port}/{route}"},
            )
            deadline = time.monotonic() + 30
            while not await ami.getvar("DONE", call.channel):
                assert time.monotonic() < deadline, self.log()[-3000:]
                await asyncio.sleep(0.05)
            value = await ami.getvar(variable, call.channel)
            await ami.action("Hangup", Channel=call.channel)
            return value

    async def until(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 20
        while not (found := condition()):
            assert time.monotonic() < deadline, self.log()[-3000:]
            await asyncio.sleep(0.05)
        return found

    async def file(self) -> Path:
        """Its one finished recording."""
        folder = self.folder / "recordings"
        found: list[Path] = await self.until(lambda: [p for p in folder.rglob("*.wav") if p.stat().st_size > 44])
        return found[0]


@asynccontextmanager
async def served(pbx: AsteriskServer, folder: Path, name: str, **environ: str) -> AsyncIterator[Served]:
    scene = Served(pbx, folder)
    write_settings(folder / "fastagi.toml", settings_data(pbx, folder, agi={"port": scene.port}))
    command = [
        Path(sys.executable).with_name("fastagi"),
        "serve",
        "--config",
        folder / "fastagi.toml",
        "--app",
        f"examples.{name}:app",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environ}, stdout=log, stderr=log)
    try:
        await scene.until(lambda: process.poll() is not None or "asterisk_in_step" in scene.log())
        assert process.poll() is None, scene.log()
        yield scene
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, scene.log()


async def test_survey(pbx: AsteriskServer, tmp_path: Path) -> None:
    async with served(pbx, tmp_path, "survey") as scene:
        assert await scene.call("survey", "SURVEY", far_end="nothing") == "answered"
        assert soundfile.info(await scene.file()).duration < 10


async def test_blocking_script(pbx: AsteriskServer, tmp_path: Path) -> None:
    async with served(pbx, tmp_path, "blocking_script") as scene:
        assert await scene.call("legacy", "DIGITS_SAID") == "42"
        assert soundfile.info(await scene.file()).subtype == "PCM_16"


async def test_card_payment(pbx: AsteriskServer, tmp_path: Path) -> None:
    async with served(pbx, tmp_path, "card_payment") as scene:
        began = time.monotonic()
        assert await scene.call("pay", "DONE") == "yes"
        took = time.monotonic() - began
        assert took > 5, "the caller had five seconds for a number"
        assert 0 < soundfile.info(await scene.file()).duration < took - 4.5


async def test_encrypted(pbx: AsteriskServer, tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    recipient = str(identity.to_public())
    async with served(pbx, tmp_path, "encrypted", AGE_RECIPIENT=recipient) as scene:
        call = await pbx.originate(
            "Local/tone@fastagi-testing/n", application="AGI", data=f"agi://127.0.0.1:{scene.port}/confidential"
        )
        await scene.until(lambda: "recording_started" in scene.log())
        await asyncio.sleep(1)
        await pbx.cli(f"channel request hangup {call.channel}")
        clear = pyrage.decrypt((await scene.file()).read_bytes(), [identity])
        assert clear[:4] == b"RIFF"


async def test_own_sink(pbx: AsteriskServer, tmp_path: Path) -> None:
    listed = tmp_path / "list.jsonl"
    async with served(pbx, tmp_path, "own_sink", RECORDINGS_LIST=str(listed)) as scene:
        assert await scene.call("record/start", "RECORDING_STATE") == "RECORDING"
        await scene.until(listed.exists)
        assert json.loads(listed.read_text())["file"] == str(await scene.file())


async def test_the_readmes_program_of_ones_own(pbx: AsteriskServer, tmp_path: Path) -> None:
    """`App(settings, recording_sink=...)` in a loop of the user's: served, delivered, and stopped by Ctrl-C."""
    (program,) = (
        block
        for block in re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
        if "recording_sink=" in block
    )
    (secret,) = re.findall(r'^secret = "(.+?)"', program, re.MULTILINE)
    got: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def receive(request: web.Request) -> web.Response:
        got.put_nowait((request.headers["X-Voxtra-Signature"], await request.read()))
        return web.Response(status=204)

    receiver = web.Application()
    receiver.router.add_post("/recordings", receive)
    runner = web.AppRunner(receiver)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port := free_port())
    await site.start()
    scene = Served(pbx, tmp_path)
    write_settings(tmp_path / "fastagi.toml", settings_data(pbx, tmp_path, agi={"port": scene.port}))
    (tmp_path / "mine.py").write_text(program.replace("https://crm.example.com", f"http://127.0.0.1:{port}"))
    with (tmp_path / "log").open("w") as log:
        # who runs the tests in the background has had Ctrl-C ignored, and so would this
        command = ["env", "--default-signal=INT", sys.executable, "mine.py"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        await scene.until(lambda: process.poll() is not None or "asterisk_in_step" in scene.log())
        await scene.call("whatever", "DONE")
        async with asyncio.timeout(20):
            signature, body = await got.get()
        assert signature == hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        told = json.loads(body)
        assert told["name"].startswith("calls/")
        assert Path(told["file_path"]).is_file()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        await runner.cleanup()
    assert "stopped" in scene.log()


async def test_queue_events(pbx: AsteriskServer, tmp_path: Path) -> None:
    async with served(pbx, tmp_path, "queue_events") as scene:
        waiting = [await pbx.originate("Local/s@queued/n") for _ in range(2)]
        try:
            deadline = time.monotonic() + 15
            while await scene.call("queue-length?queue=waiting", "WAITING") != "2":
                assert time.monotonic() < deadline, scene.log()
        finally:
            for call in waiting:
                await pbx.cli(f"channel request hangup {call.channel}")


async def test_webhook_receiver() -> None:
    port = free_port()
    command = [sys.executable, ROOT / "examples/webhook_receiver.py", str(port), "a-secret"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    body = b'{"file_path":"/x.wav"}'
    good = hmac.new(b"a-secret", body, hashlib.sha256).hexdigest()
    try:
        async with aiohttp.ClientSession() as client:

            async def post(signature: str) -> int:
                headers = {"X-Voxtra-Signature": signature, "webhook-id": "one"}
                url = f"http://127.0.0.1:{port}/recordings"
                for _ in range(200):
                    try:
                        async with client.post(url, data=body, headers=headers) as answer:
                            return answer.status
                    except aiohttp.ClientConnectorError:
                        await asyncio.sleep(0.05)
                raise AssertionError("the receiver does not listen")

            assert [await post("wrong"), await post(good), await post(good)] == [401, 204, 204]
    finally:
        process.terminate()
        said = process.communicate(timeout=20)[0]
    assert said.count("/x.wav") == 1
