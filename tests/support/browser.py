"""Drive a real Chromium without a window, over its own protocol, for tests of the console.

async with browser(tmp_path) as chromium:
    page = await chromium.open("http://127.0.0.1:8080/")
    await page.until("document.title == 'fastagi'")
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

START_SECONDS = 60.0


class Page:
    """One tab.

    :ivar faults: what the browser complained of: errors, refused contents, exceptions
    :ivar asked: every URL that the page asked for
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.faults: list[str] = []
        self.asked: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            elif told["method"] == "Network.requestWillBeSent":
                self.asked.append(told["params"]["request"]["url"])
            elif told["method"] == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
                self.faults.append(told["params"]["entry"]["text"])
            elif told["method"] == "Runtime.exceptionThrown":
                self.faults.append(json.dumps(told["params"]["exceptionDetails"]))

    async def tell(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(20):
            told = await answer
        assert "error" not in told, told
        result: dict[str, Any] = told["result"]
        return result

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        told = await self.tell("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, script: str, seconds: float = 20.0) -> None:
        """Wait until that expression is true."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not await self.run(script):
            assert loop.time() < deadline, (
                f"not so within {seconds} s: {script}\n{await self.run('document.body.innerText')}"
            )
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._socket.close()


class Chromium:
    """A running browser."""

    def __init__(self, port: int, client: aiohttp.ClientSession) -> None:
        self._port = port
        self._client = client
        self._pages: list[Page] = []

    async def open(self, url: str) -> Page:
        """A new tab with that page."""
        async with self._client.put(f"http://127.0.0.1:{self._port}/json/new?about:blank") as response:
            told = await response.json(content_type=None)
        page = Page(await self._client.ws_connect(told["webSocketDebuggerUrl"], max_msg_size=0))
        self._pages.append(page)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.tell(f"{domain}.enable")
        await page.tell("Page.navigate", url=url)
        await page.until("document.readyState == 'complete' && location.href != 'about:blank'")
        return page

    async def close(self) -> None:
        for page in self._pages:
            await page.close()


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Chromium]:
    """Chromium with a profile of its own in `folder`."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "chromium is missing: make system"
    profile = folder / "profile"
    profile.mkdir()
    process = await asyncio.create_subprocess_exec(
        program,
        "--headless=new",
        "--no-sandbox",  # tests may run as root, and open only pages of their own
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--mute-audio",
        "--autoplay-policy=no-user-gesture-required",
        f"--user-data-dir={profile}",
        "--remote-debugging-port=0",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        told = profile / "DevToolsActivePort"
        async with asyncio.timeout(START_SECONDS):
            while not (told.exists() and len(told.read_text().splitlines()) == 2):
                assert process.returncode is None, f"chromium ended with {process.returncode}"
                await asyncio.sleep(0.05)
        async with aiohttp.ClientSession() as client:
            chromium = Chromium(int(told.read_text().splitlines()[0]), client)
            try:
                yield chromium
            finally:
                await chromium.close()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
