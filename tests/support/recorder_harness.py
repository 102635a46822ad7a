"""A whole recorder on a real Asterisk for one test or one module: an App with a sink that remembers, and calls to it.

async with recording_scene(asterisk22, tmp_path) as scene:
    @scene.app.route("mine")
    async def mine(call): ...
    await scene.call("mine")
    (metadata,) = await scene.delivered(1)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastagi import App, RecordingMetadata
from fastagi.settings import Settings
from fastagi.testing import AsteriskServer
from fastagi.testing.asterisk import Originated
from fastagi.testing.server_settings import settings_for
from support.crash_harness import until


class Remembering:
    """A sink that keeps what it was told."""

    def __init__(self) -> None:
        self.got: list[RecordingMetadata] = []

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        self.got.append(metadata)


class Scene:
    """An App that serves calls of `asterisk`.

    :ivar sink: the app's default sink
    :ivar directory: finished files
    """

    def __init__(self, asterisk: AsteriskServer, folder: Path, settings: Settings) -> None:
        self.asterisk = asterisk
        self.folder = folder
        self.settings = settings
        self.directory = settings.recordings.directory
        self.spool = settings.asterisk[0].spool
        self.sink = Remembering()
        self.app = App(settings, recording_sink=self.sink)

    @property
    def recorder(self) -> Any:
        return self.app.parts.recorder

    @property
    def port(self) -> int:
        return self.settings.agi.port

    def url(self, route: str) -> str:
        return f"agi://127.0.0.1:{self.port}/{route}"

    async def start(self) -> None:
        await self.app.start()
        await self.until(lambda: all(p.up for p in self.app.parts.pbxs.values()), 20)

    async def restart(self) -> None:
        """Stop the app in order and start another one on the same ledger; its routes are gone."""
        await self.app.stop(5)
        self.app = App(self.settings, recording_sink=self.sink)
        await self.start()

    async def call(
        self,
        route: str,
        *args: str,
        far_end: str = "Local/tone@fastagi-testing/n",
        variables: Mapping[str, str] | None = None,
        wait: bool = True,
        caller_id: str = "",
    ) -> Originated:
        """Call `far_end`; once it answers, its channel runs ``AGI(agi://here/route,args...)`` and then ends."""
        data = ",".join((self.url(route), *args))
        return await self.asterisk.originate(
            far_end, application="AGI", data=data, variables=variables, wait=wait, caller_id=caller_id
        )

    async def hangup(self, call: Originated) -> None:
        """Hang its channel up, as a caller does."""
        await self.asterisk.cli(f"channel request hangup {call.channel}")

    async def delivered(self, count: int, seconds: float = 30.0) -> list[RecordingMetadata]:
        """What the sink got, once it got at least so many."""
        await self.until(lambda: len(self.sink.got) >= count, seconds)
        return self.sink.got

    async def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> None:
        """Wait until it is true (or awaits to true).

        :raises AssertionError: it never was
        """
        await until(condition, seconds)


@asynccontextmanager
async def recording_scene(
    asterisk: AsteriskServer, folder: Path, /, **sections: dict[str, Any]
) -> AsyncIterator[Scene]:
    """A started scene; stopped at the end, and every channel of it hung up."""
    scene = Scene(asterisk, folder, settings_for(asterisk, folder, **sections))
    await scene.start()
    try:
        yield scene
    finally:
        await asterisk.cli("channel request hangup all")
        await scene.app.stop(10)
