"""Two servers on one ledger, connected to the same Asterisk: both hear a command and see a MixMonitor, one acts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fastagi import App
from fastagi.store.queries import catalogue
from fastagi.testing import AsteriskServer
from fastagi.testing.server_settings import settings_for
from support.crash_harness import until
from support.postgres_server import PostgresServer, postgres_server  # noqa: F401
from support.recorder_harness import Remembering

ANNOUNCED = "FastAGIRecording"


@pytest.mark.postgres
async def test_one_of_two_servers_beside_an_asterisk_carries_a_command_out_and_adopts(
    asterisk22: AsteriskServer,
    postgres_server: PostgresServer,  # noqa: F811
    tmp_path: Path,
) -> None:
    url = postgres_server.create_database()
    shared = {"directory": str(tmp_path / "recordings"), "shared": True, "adopt": True}
    apps, sinks = [], []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        store = {"url": url, "node": name}
        pbx = {"spool": str(tmp_path / "spool")}
        settings = settings_for(asterisk22, tmp_path / name, store=store, recordings=shared, asterisk=pbx)
        sinks.append(Remembering())
        apps.append(App(settings, recording_sink=sinks[-1]))
    one, _ = apps
    for folder in ("spool", "theirs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder).chmod(0o777)
    async with asterisk22.ami() as ami:

        def announced(change: str) -> list[str]:
            return [e["RecordingID"] for e in ami.events if e.get("UserEvent") == ANNOUNCED and e["Change"] == change]

        def refusals() -> list[str]:
            return [
                e.get("Error", "")
                for e in ami.events
                if e.get("UserEvent") == ANNOUNCED and e["Change"] in ("refused", "failed")
            ]

        async def command(name: str, channel: str) -> None:
            await ami.action("UserEvent", UserEvent="FastAGIRecord", Command=name, Channel=channel)

        try:
            for app in apps:
                await app.start()
            await until(lambda: all(pbx.up for app in apps for pbx in app.parts.pbxs.values()))
            call = await asterisk22.originate("Local/tone@fastagi-testing/n")
            await command("start", call.channel)
            await until(lambda: announced("started"))
            await command("pause", call.channel)
            await until(lambda: announced("paused"))
            await command("stop", call.channel)
            await until(lambda: announced("finished"))
            await ami.action("MixMonitor", Channel=call.channel, File=str(tmp_path / "theirs" / "mix.wav"))
            await until(lambda: announced("adopted"))
            await asyncio.sleep(2.5)  # the looks of the slower one are over
            await ami.action("Hangup", Channel=call.channel)
            await until(lambda: len(announced("finished")) == 2)
            await until(lambda: sum(len(sink.got) for sink in sinks) == 2)
            found, _ = await one.parts.store.read(catalogue.page, catalogue.RecordingFilter(), limit=10)
            assert [(r.adopted, r.cause.value) for r in found] == [(True, "HANGUP"), (False, "ABORTED")]
            assert refusals() == [], "the other one keeps still"
            await command("stop", "Local/nobody")
            await until(refusals)
        finally:
            for app in apps:
                await app.stop(5)
