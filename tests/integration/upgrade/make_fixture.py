"""Makes what lies beside this file: ledger, side files and spool of a killed server of an earlier version.

    git archive 5bf7a40 | tar -x -C /tmp/before
    PYTHONPATH=/tmp/before python tests/integration/upgrade/make_fixture.py tests/integration/upgrade

Run with the earlier version's own code, once; `test_upgrade` starts today's server on the outcome. The server has a
scripted Asterisk and a webhook that takes nothing. Only doors that stay as they are are used: settings, UserEvents, the
ledger's file. At the end the process is gone without a word, as by SIGKILL.

| recording     | when the server dies                                                               |
|---------------|------------------------------------------------------------------------------------|
| `done`        | finished, its delivery waits                                                       |
| `running`     | active                                                                             |
| `paused`      | paused, to go on by itself later                                                   |
| `resumed`     | active again after a pause (two raw files), and its caller is muted                |
| `ledger-away` | active; hung up while the ledger was locked: that it has ended is in a side file   |
| `aside`       | begun while the ledger was locked: known from its side file alone                  |
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np

from fastagi import App
from fastagi.settings import Settings
from fastagi.testing import fake_calls
from fastagi.testing.fake_calls import FakeChannel, Pcm, pcm
from fastagi.testing.ports import free_port
from fastagi.testing.scripted_ami import ScriptedAmi

AUDIO_SECONDS = 2.5
"""A raw file grows in steps of two seconds."""


TONE_HZ = 500
"""Of sixteen samples that repeat: the files are small once they are compressed."""


def tone(seed: int) -> Pcm:
    """Twenty seconds of one tone."""
    return pcm(0.3 * np.sin(2 * np.pi * TONE_HZ * np.arange(160_000) / 8000))


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until it is true. :raises TimeoutError: it never was"""
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        await asyncio.sleep(0.05)


def settings(folder: Path, ami: ScriptedAmi) -> Settings:
    """Settings of the server: a folder of its own, and a receiver that does not listen."""
    pbx = {"name": "pbx", "port": ami.port, "username": ami.user, "secret": ami.secret, "spool": folder / "spool"}
    return Settings.model_validate(
        {
            "agi": {"port": free_port()},
            "recordings": {"directory": str(folder / "recordings"), "min_free_mb": 0},
            "store": {"url": f"sqlite:///{folder}/ledger.db", "node": "one"},
            "http": {"enabled": False},
            "asterisk": [pbx],
            "sinks": [{"name": "crm", "type": "webhook", "url": f"http://127.0.0.1:{free_port()}/"}],
        }
    )


class Scene:
    """A server and its calls.

    :param folder: spool, recordings and ledger are in it
    """

    def __init__(self, folder: Path, ami: ScriptedAmi) -> None:
        self.folder, self.ami = folder, ami
        self.ledger = sqlite3.connect(folder / "ledger.db", isolation_level=None)

    def command(self, channel: FakeChannel, command: str, **more: str) -> None:
        """Command a recording by UserEvent."""
        self.ami.event("UserEvent", UserEvent="FastAGIRecord", Command=command, Channel=channel.name, **more)

    def phases(self) -> dict[str, str]:
        """Phases by name, as the ledger has them."""
        return dict(self.ledger.execute("SELECT name, phase FROM recording"))

    def side_files(self) -> dict[str, str]:
        """Phases by name, as the side files have them."""
        rows = [json.loads(path.read_text())["recording"] for path in (self.folder / "spool").glob("*.journal")]
        return {row["name"]: row["phase"] for row in rows}

    def record(self, number: int, name: str) -> FakeChannel:
        """A call comes in and is recorded."""
        channel = self.ami.call(f"PJSIP/far-{number:08d}", uniqueid=f"1.{number}", caller=f"0221555{number:03d}")
        self.command(channel, "start", filename=name, dtmf_elim="no")
        return channel

    async def play(self) -> None:
        """Bring all recordings where they are to be."""
        names = ["done", "running", "paused", "resumed", "ledger-away"]
        calls = {name: self.record(number, name) for number, name in enumerate(names, 1)}
        await until(lambda: list(self.phases().values()) == ["active"] * 5, "all run")
        await asyncio.sleep(AUDIO_SECONDS)
        self.command(calls["paused"], "pause", seconds="3600")
        self.command(calls["resumed"], "pause")
        self.ami.hangup(calls["done"])
        await until(lambda: list(self.phases().values()).count("paused") == 2, "two are paused")
        await until(lambda: self.phases()["done"] == "finished", "one is finished")
        self.command(calls["resumed"], "resume")
        await until(lambda: self.phases()["resumed"] == "active", "it is recorded again")
        self.command(calls["resumed"], "mute", direction="received")
        await asyncio.sleep(AUDIO_SECONDS)
        self.ledger.execute("BEGIN EXCLUSIVE")  # from here on the ledger takes nothing
        self.ami.hangup(calls["ledger-away"])
        self.record(6, "aside")
        await until(lambda: self.side_files() == {"ledger-away": "finished", "aside": "active"}, "side files")
        await asyncio.sleep(AUDIO_SECONDS)

    def save(self, out: Path) -> None:
        """Write the ledger as SQL, and the files; the folder's name becomes ``/FOLDER``."""
        shutil.rmtree(out / "files", ignore_errors=True)
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            if "ledger.db" in path.name or path.suffix in (".lock", ".key"):
                continue
            to = out / "files" / path.relative_to(self.folder)
            to.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".journal":
                to.write_text(path.read_text().replace(str(self.folder), "/FOLDER"))
            else:
                shutil.copyfile(path, to)
        sql = "\n".join(self.ledger.iterdump()).replace(str(self.folder), "/FOLDER")
        (out / "ledger.sql").write_text(sql + "\n")
        (out / "made-at").write_text(f"{time.time():.3f}\n")


async def main(out: Path) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("spool", "recordings"):
            (folder / part).mkdir()
        async with ScriptedAmi(spool=folder / "spool") as ami:
            app = App(settings(folder, ami))
            await app.start()
            scene = Scene(folder, ami)
            await until(lambda: all(pbx.up for pbx in app.parts.pbxs.values()), "the Asterisk is in step")
            await scene.play()
            scene.save(out)
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)


if __name__ == "__main__":
    with mock.patch.object(fake_calls, "_voice", tone):
        asyncio.run(main(Path(sys.argv[1])))
