"""Today's server on what a killed server of an earlier version left: `upgrade/make_fixture.py` says how it was made."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import soundfile
import sqlalchemy as sa

from fastagi import App
from fastagi.domain.recording import Recording
from fastagi.settings import Settings
from fastagi.store.queries import catalogue, deliveries, journal
from fastagi.testing.ports import free_port
from fastagi.testing.scripted_ami import ScriptedAmi
from support.crash_harness import Receiver, until

FIXTURE = Path(__file__).parent / "upgrade"

NAMES = ["aside", "done", "ledger-away", "paused", "resumed", "running"]

UNIX_TIME = re.compile(r"\b1\.\d{15,}e\+09\b|\b1\d{9}\.\d+\b")


class Left:
    """The folder of the killed server, as if it had been killed a minute ago."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made_at = float((FIXTURE / "made-at").read_text())
        self.later = time.time() - 60 - self.made_at
        shutil.copytree(FIXTURE / "files", folder, dirs_exist_ok=True)
        for path in (folder / "spool").iterdir():
            if path.suffix == ".journal":
                path.write_text(self.placed(path.read_text()))
            os.utime(path, (self.made_at + self.later,) * 2)
        with closing(sqlite3.connect(folder / "ledger.db")) as ledger:
            ledger.executescript(self.placed((FIXTURE / "ledger.sql").read_text()))

    def placed(self, text: str) -> str:
        """The text with this folder and with times that are not long ago: no delivery is given up for its age."""
        moved = UNIX_TIME.sub(lambda found: f"{float(found[0]) + self.later:.6f}", text)
        return moved.replace("/FOLDER", str(self.folder))


def all_rows(conn: sa.Connection) -> list[Recording]:
    """Every recording of the ledger."""
    return catalogue.page(conn)[0]


def settings(folder: Path, ami: ScriptedAmi, sink: str) -> Settings:
    pbx = {"name": "pbx", "port": ami.port, "username": ami.user, "secret": ami.secret, "spool": folder / "spool"}
    return Settings.model_validate(
        {
            "agi": {"port": free_port()},
            "recordings": {"directory": str(folder / "recordings"), "min_free_mb": 0},
            "store": {"url": f"sqlite:///{folder}/ledger.db", "node": "one"},
            "http": {"enabled": False},
            "asterisk": [pbx],
            "sinks": [{"name": "crm", "type": "webhook", "url": sink}],
        }
    )


async def test_upgrade_delivers_everything(tmp_path: Path) -> None:
    """Ledger, side files and spool of the version before: each recording is finished, with caller and sinks, once."""
    left = Left(tmp_path)
    async with ScriptedAmi(spool=tmp_path / "spool") as ami, Receiver() as receiver:
        app = App(settings(tmp_path, ami, receiver.url))
        await app.start()
        try:
            store = app.parts.store
            await until(lambda: len(receiver.ids()) == len(NAMES), 30, f"{receiver.ids()}")
            rows = sorted(await store.read(all_rows), key=lambda row: row.name)
            lines = {row.name: [e.event for e in await store.read(journal.history, row.id)] for row in rows}
            made = {row.name: await store.read(deliveries.of_recording, row.id) for row in rows}
        finally:
            await app.stop(5)
    assert [row.name for row in rows] == NAMES
    _whole(rows)
    assert {name: [d.status.value for d in found] for name, found in made.items()} == {
        name: ["delivered"] for name in NAMES
    }
    told = {body["name"]: body["extra"] for _, body in receiver.got}
    assert {name: extra["caller"] for name, extra in told.items()} == {row.name: row.caller for row in rows}
    assert all(len(ids) == 1 for ids in receiver.ids().values())
    assert lines["resumed"][:5] == ["requested", "started", "paused", "piece", "resumed"]
    (resumed,) = (row for row in rows if row.name == "resumed")
    assert [piece.reason for piece in resumed.pieces] == ["", "pause"]
    assert "muted" in told["resumed"]
    assert [path for path in (left.folder / "spool").iterdir() if path.suffix in (".journal", ".wav")] == []
    assert not (left.folder / "spool" / "set-aside").exists()


def _whole(rows: list[Recording]) -> None:
    callers = {"done": 1, "running": 2, "paused": 3, "resumed": 4, "ledger-away": 5, "aside": 6}
    for row in rows:
        assert row.finished, (row.name, row.phase, row.error)
        assert row.caller == f"0221555{callers[row.name]:03d}"
        assert row.sinks == ("crm",)
        assert row.cause.value == "HANGUP"
        assert soundfile.info(row.file_path).duration > (1.9 if row.name == "aside" else 2.4)
        assert row.ended_at is not None
        assert row.ended_at < time.time() - 50
