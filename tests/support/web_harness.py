"""A whole App with its HTTP server beside a scripted Asterisk, for tests of health, metrics and the API.

async with web_scene(tmp_path) as scene:
    call = scene.ami.call()
    job = await scene.record(call)
    status, body = await scene.get("/readyz")
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from fastagi import App, RecordingMetadata
from fastagi.domain.spec import RecordingSpec
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.starting import Request
from fastagi.runtime.steady_clock import SteadyClock
from fastagi.settings import Settings
from fastagi.testing import ScriptedAmi
from fastagi.testing.fake_calls import FakeChannel

TOKENS = {role: f"{role}-0123456789abcdef" for role in ("viewer", "operator", "admin")}


class Flaky:
    """A sink that does as it is told: `fault` is raised where it is set."""

    needs_file = False

    def __init__(self) -> None:
        self.got: list[RecordingMetadata] = []
        self.fault: Exception | None = None

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        if self.fault is not None:
            raise self.fault
        self.got.append(metadata)


class WebScene:
    """An App, its Asterisk and a client.

    :ivar ami: the played manager; its calls can be recorded
    :ivar sink: registered as ``crm``, the default sink
    """

    def __init__(self, ami: ScriptedAmi, folder: Path, settings: Settings, clock: SteadyClock | None = None) -> None:
        self.ami = ami
        self.folder = folder
        self.spool = settings.asterisk[0].spool
        self.directory = settings.recordings.directory
        self.sink = Flaky()
        self.app = App(settings, recording_sink=self.sink, clock=clock)
        self.client: aiohttp.ClientSession

    @property
    def parts(self) -> Any:
        return self.app.parts

    @property
    def port(self) -> int:
        http = self.parts.http
        assert http is not None
        return int(http.port)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def request(
        self, method: str, path: str, *, role: str = "", token: str = "", **more: Any
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        """Status, body (JSON decoded, text as it is, else bytes) and the response."""
        headers = dict(more.pop("headers", {}))
        if role or token:
            headers["Authorization"] = f"Bearer {token or TOKENS[role]}"
        async with self.client.request(method, self.url(path), headers=headers, **more) as response:
            data = await response.read()
            kind = response.content_type
            body: Any = data
            if kind == "application/json":
                body = json.loads(data) if data else None
            elif kind.startswith("text/"):
                body = data.decode()
            return response.status, body, response

    async def get(self, path: str, *, role: str = "", **more: Any) -> tuple[int, Any]:
        status, body, _ = await self.request("GET", path, role=role, **more)
        return status, body

    async def metrics(self) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """Samples by name, then by their labels."""
        status, text = await self.get("/metrics")
        assert status == 200
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return found

    async def metric(self, name: str, **labels: str) -> float:
        """One sample; 0 where there is none."""
        return (await self.metrics()).get(name, {}).get(tuple(sorted(labels.items())), 0.0)

    async def record(self, call: FakeChannel, name: str = "calls/one", **spec: Any) -> ActiveRecording:
        """Start recording that call, as a route would."""
        cipher = spec.pop("cipher", None)
        encryption = cipher.scheme if cipher is not None else ""
        request = Request(
            pbx=self.parts.pbxs["pbx"],
            channel=call.name,
            uniqueid=call.uniqueid,
            filename=name,
            spec=RecordingSpec(**{"dtmf_elim": False, **spec}, encryption=encryption),
            caller=call.caller,
            called=call.exten,
            cipher=cipher,
            sinks=self.parts.sink_names.names(None),
        )
        await self.until(lambda: self.parts.pbxs["pbx"].channels.get(call.uniqueid))
        return await self.parts.recorder.start(request)

    async def recorded(self, name: str = "calls/one", **spec: Any) -> str:
        """A call that was recorded, hung up and finished; the recording's id."""
        call = self.ami.call()
        job = await self.record(call, name, **spec)
        assert job.recording.error == ""
        await self.until(lambda: self.grown() > 0)
        self.ami.hangup(call)
        assert await job.wait(20)
        return job.id

    def grown(self) -> int:
        """Bytes of sound in the smallest raw file."""
        return min((f.stat().st_size - 44 for f in self.spool.glob("*.wav")), default=0)

    async def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            assert time.monotonic() < deadline, f"not so within {seconds} s"
            await asyncio.sleep(0.02)


def web_settings(ami_port: int, secret: str, folder: Path, **sections: Any) -> Settings:
    """Settings of that server, everything below `folder`; three tokens, one of each role."""
    for made in (folder / "spool", folder / "recordings"):
        made.mkdir(exist_ok=True)
    data: dict[str, Any] = {
        "agi": {"port": 0},
        "recordings": {"directory": str(folder / "recordings"), "min_free_mb": 0},
        "store": {"url": f"sqlite:///{folder}/ledger.db", "node": "here"},
        "http": {
            "port": 0,
            "tokens": [{"name": f"the-{role}", "token": token, "role": role} for role, token in TOKENS.items()],
        },
    }
    for name, section in sections.items():
        data[name] = {**data.get(name, {}), **section}
    data["asterisk"] = [
        {"name": "pbx", "port": ami_port, "username": "fastagi", "secret": secret, "spool": str(folder / "spool")}
    ]
    return Settings.model_validate(data)


@asynccontextmanager
async def web_scene(
    folder: Path, *, up: bool = True, speed: float = 20.0, clock: SteadyClock | None = None, **sections: Any
) -> AsyncIterator[WebScene]:
    """A started scene.

    :param up: wait for the manager connection
    :param clock: the App's
    :param sections: settings that differ, as in the TOML file
    """
    async with ScriptedAmi(spool=folder / "spool", speed=speed) as ami:
        scene = WebScene(ami, folder, web_settings(ami.port, ami.secret, folder, **sections), clock)
        if not up:
            ami.refusing = True
        await scene.app.start()
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as client:
                scene.client = client
                if up:
                    await scene.until(lambda: scene.parts.pbxs["pbx"].up)
                yield scene
        finally:
            await scene.app.stop(5)
