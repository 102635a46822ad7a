"""A ledger with recordings and their files, and the commands run on it in this process."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from fastagi.app import logs
from fastagi.cipher import Cipher, MasterKey
from fastagi.cli import cli
from fastagi.domain.delivery import Outcome, judge
from fastagi.domain.ids import new_id
from fastagi.domain.recording import Recording
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Cause, Event
from fastagi.store import Store, open_store
from fastagi.store.queries import deliveries, keys, recordings

NOON = 1_795_262_400.0
"""2026-11-21 12:00 UTC, a Saturday."""


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands set up logging and name their settings file for the whole process."""
    for name in [n for n in os.environ if n.startswith("FASTAGI_") and n != "FASTAGI_CACHE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FASTAGI_CONFIG", "/nowhere/fastagi.toml")
    monkeypatch.setenv("TZ", "UTC")
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in logs.QUIET}
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


@dataclass(frozen=True)
class Said:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Desk:
    """A folder with settings, ledger and recordings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "fastagi.toml"
        self.directory = folder / "recordings"
        self.directory.mkdir()
        self.url = f"sqlite:///{folder}/ledger.db"
        self.noon = NOON
        self._calls = itertools.count(1)
        self.config.write_text(
            f'[recordings]\ndirectory = "{self.directory}"\n[store]\nurl = "{self.url}"\nnode = "test"\n'
        )

    def __call__(self, *arguments: str) -> Said:
        """Run ``fastagi ARGUMENTS --config …``."""
        done = CliRunner().invoke(cli, [*arguments, "--config", str(self.config)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Said(done.exit_code, done.stdout, done.stderr)

    def write(self, work: Callable[[Store], Any]) -> Any:
        """Use the ledger as its server does."""

        async def main() -> Any:
            store = open_store(self.url, node="test")
            await store.start()
            try:
                return await work(store)
            finally:
                await store.stop()

        return asyncio.run(main())

    def recording(
        self,
        name: str = "a",
        *,
        at: float = NOON,
        caller: str = "0221555",
        sinks: tuple[str, ...] = ("crm",),
        cipher: Cipher | None = None,
        cause: Cause = Cause.HANGUP,
        audio: bytes = b"RIFF some audio",
    ) -> Recording:
        """A finished one with its file, and its deliveries waiting."""
        path = self.directory / f"{name}.wav"
        path.write_bytes(audio)
        if cipher is not None:
            clear = self.folder / "clear"
            path.rename(clear)
            cipher.encrypt_file(clear, path)
            clear.unlink()
        begun = Recording(
            id=new_id("rec", at, os.urandom(10)),
            node="test",
            asterisk="pbx",
            channel=f"PJSIP/{name}-1",
            uniqueid=f"{at:.0f}.{next(self._calls)}",
            name=name,
            file_path=str(path),
            caller=caller,
            called="100",
            sinks=sinks,
            requested_at=at,
            spec=RecordingSpec(encryption=cipher.scheme if cipher is not None else ""),
        )
        facts = {
            "audio_seconds": 65.0,
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }

        async def work(store: Store) -> Recording:
            await store.run(recordings.insert, begun)
            if cipher is not None:
                master = MasterKey.load_or_create(self.folder / "master.key")
                wrapped = master.wrap(cipher.to_secret(), begun.id.encode())
                await store.run(keys.put, begun.id, cipher.scheme, wrapped)
            await store.run(recordings.advance, begun.id, Event.STARTED, at, {"started_at": at})
            ended = {"ended_at": at + 65, "cause": cause}
            await store.run(recordings.advance, begun.id, Event.HUNG_UP, at + 65, ended)
            await store.run(recordings.advance, begun.id, Event.CLOSED, at + 65)
            after, _ = await store.run(recordings.finish, begun.id, at + 66, facts, sinks)
            return after

        done: Recording = self.write(work)
        return done

    def failed(self, name: str = "broken") -> Recording:
        """One that could not be started."""
        begun = replace(
            Recording(
                id=new_id("rec", NOON, os.urandom(10)), node="test", asterisk="pbx", channel="PJSIP/x-1",
                uniqueid="9.9", name=name, file_path=str(self.directory / f"{name}.wav"), requested_at=NOON,
            )
        )  # fmt: skip

        async def work(store: Store) -> Recording:
            await store.run(recordings.insert, begun)
            change = {"cause": Cause.ERROR, "error": "Asterisk could not open /spool/x.wav"}
            return await store.run(recordings.advance, begun.id, Event.FAILED, NOON, change)

        done: Recording = self.write(work)
        return done

    def settled(self, recording: Recording, *, ok: bool) -> str:
        """Its first delivery has been tried; the delivery's id."""

        async def work(store: Store) -> str:
            (delivery, *_) = await store.read(deliveries.of_recording, recording.id)
            claimed = await store.run(deliveries.claim, delivery.id, NOON + 100)
            assert claimed is not None
            outcome = Outcome(True) if ok else Outcome(False, "answered 410: gone", retry=False)
            verdict = judge(outcome, attempts=1, first_at=NOON + 100, now=NOON + 100, jitter=0.5)
            await store.run(deliveries.settle, delivery.id, claimed.fence, verdict, outcome, NOON + 100, 0.5)
            return delivery.id

        done: str = self.write(work)
        return done


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)
