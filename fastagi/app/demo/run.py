"""Runs the demo, from an empty folder to a webhook that has arrived, and ends everything that it started."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from fastagi.app import logs
from fastagi.app.app import App
from fastagi.app.demo import conversation
from fastagi.app.demo.hearing import LevelMonitor, how_to_listen, listen
from fastagi.app.demo.receiver import Received, Receiver
from fastagi.domain.asterisk_versions import MAJORS
from fastagi.domain.recording import Recording
from fastagi.domain.states import State
from fastagi.domain.timestamps import rfc3339
from fastagi.errors import AsteriskError, Error
from fastagi.settings import LogSettings, Settings
from fastagi.store.queries import catalogue
from fastagi.testing import AsteriskServer
from fastagi.testing.packages import own_major
from fastagi.testing.ports import free_port

ASTERISK = 22
"""Major version that is fetched when the machine has no Asterisk of its own."""

UP_SECONDS = 30.0
CONFIG = "fastagi.toml"

CALL_SECONDS = 90.0
"""The call lasts 8 s; a loaded machine may need several times that."""

TELL_SECONDS = 10.0
"""Seconds between progress messages while a step takes long."""


class Progress(Protocol):
    """Receives the progress of the demo."""

    def doing(self, text: str) -> None:
        """Note that a step begins, or goes on."""

    def done(self, text: str) -> None:
        """Note that a step is done."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of the demo."""

    file: Path
    folder: Path
    recording: Recording
    hearing: LevelMonitor
    share_heard: float
    webhook: Received
    asterisk: str
    seconds: float

    @property
    def intact(self) -> bool:
        """Return whether the file is as the webhook describes it, and the signatures fit."""
        told = self.webhook.body.get("extra", {}).get("sha256")
        return told == self.hearing.sha256 and self.webhook.signature and self.webhook.standard

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "file": str(self.file),
            "state": self.recording.state.value,
            "cause": self.recording.cause.value,
            "webhook": self.webhook.body,
            "signature_valid": self.webhook.signature and self.webhook.standard,
            "webhook_id": self.webhook.webhook_id,
            "recording_id": self.recording.id,
            "audio": {k: v for k, v in asdict(self.hearing).items() if k not in ("bytes", "sha256")},
            "bytes": self.hearing.bytes,
            "sha256": self.hearing.sha256,
            "share_heard": round(self.share_heard, 3),
            "listen": how_to_listen(self.file),
            "folder": str(self.folder),
            "config": str(self.folder / CONFIG),
            "asterisk": self.asterisk,
            "started_at": rfc3339(self.recording.started_at),
            "seconds": round(self.seconds, 1),
        }


async def run(folder: Path, progress: Progress) -> Outcome:
    """Run the demo.

    :param folder: keeps the recording, the server's log and its ledger; made if need be
    :raises AsteriskError: no Asterisk could be had, or it did not start
    :raises Error: no recording, or no webhook, in time
    :raises OSError: the folder cannot be written
    """
    began = time.monotonic()
    folder = _made(folder)
    name = time.strftime("demo-%Y%m%d-%H%M%S", time.localtime())
    async with AsyncExitStack() as stack:
        log_file = stack.enter_context((folder / "server.log").open("a", encoding="utf-8"))
        logs.configure(LogSettings(level="info", json=True), log_file)
        major = await _asterisk(progress)
        asterisk = AsteriskServer(major, dialplan=conversation.dialplan(name), agi_port=free_port())
        progress.doing("Asterisk is starting")
        await stack.enter_async_context(asterisk)
        said = await asyncio.to_thread(conversation.prompts, asterisk.sounds)
        progress.done(f"Asterisk {asterisk.version} is up")
        receiver = await stack.enter_async_context(Receiver())
        app = App(_settings(asterisk, receiver, folder))
        await app.start()
        stack.push_async_callback(app.stop, 10.0)
        await _wait_up(app)
        progress.done(
            f"the server listens at agi://127.0.0.1:{asterisk.agi_port}, the webhook receiver at {receiver.url}"
        )
        recording, received = await _call(app, asterisk, receiver, progress)
    # nothing runs any more from here on
    file = Path(recording.file_path)
    hearing = await asyncio.to_thread(listen, file)
    share = await asyncio.to_thread(conversation.share_heard, file, said)
    return Outcome(file, folder, recording, hearing, share, received, asterisk.version, time.monotonic() - began)


def _made(folder: Path) -> Path:
    """Make the folder, with settings for the commands that read what the demo leaves (`fastagi recordings …`)."""
    folder = folder.absolute()
    (folder / "recordings").mkdir(parents=True, exist_ok=True)
    for left in folder.glob("ledger.db*"):  # left by a demo that was broken off: its calls have no owner any more
        left.unlink()
    (folder / CONFIG).write_text(
        "# For looking at the demo's recordings. It names no Asterisk: to serve, begin with deploy/fastagi.toml.\n"
        f"[recordings]\ndirectory = {json.dumps(str(folder / 'recordings'))}\n"
        f'[store]\nurl = {json.dumps("sqlite:///" + str(folder / "ledger.db"))}\nnode = "demo"\n'
    )
    return folder


async def _asterisk(progress: Progress) -> int:
    """Return the major version to use. Once this returns it is on this machine.

    :raises AsteriskError: it cannot be fetched
    """
    own = await asyncio.to_thread(own_major)
    if own is not None and own in MAJORS:
        return own
    progress.doing(f"looking for Asterisk {ASTERISK}; the first time it is fetched from Debian, 60 MB")
    await _fetch(ASTERISK, progress)
    return ASTERISK


FETCH = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # SIGINT may be ignored: a shell's background jobs inherit that
from fastagi.testing.packages import find_asterisk
print(find_asterisk(int(sys.argv[1])).version)
"""


async def _fetch(major: int, progress: Progress) -> None:
    """Fetch in a process of its own, because a fetch in a thread could not be broken off."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FETCH, str(major),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    talk = asyncio.create_task(process.communicate())
    began = time.monotonic()
    try:
        while not talk.done():
            await asyncio.wait({talk}, timeout=TELL_SECONDS)
            if not talk.done():
                progress.doing(f"still fetching Asterisk {major}, {time.monotonic() - began:.0f} s so far")
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGTERM)  # the process removes what it has unpacked so far
            try:
                async with asyncio.timeout(30.0):
                    await asyncio.shield(talk)
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
                await talk
    _, complaint = talk.result()
    if process.returncode:
        lines = [line for line in complaint.decode("utf-8", "replace").splitlines() if line.strip()]
        text = lines[-1].partition("AsteriskError: ")[2] if lines else ""
        raise AsteriskError(text or (lines[-1] if lines else f"fetching Asterisk {major} failed"))


def _settings(asterisk: AsteriskServer, receiver: Receiver, folder: Path) -> Settings:
    """Return the settings of the demo's server: neither the environment nor a settings file of this machine counts."""
    return Settings.model_validate(
        {
            "agi": {"port": asterisk.agi_port},
            "asterisk": [
                {
                    "name": "demo",
                    "port": asterisk.ami_port,
                    "username": asterisk.ami_user,
                    "secret": asterisk.ami_secret,
                    "spool": str(asterisk.spool),
                }
            ],
            "recordings": {"directory": str(folder / "recordings")},
            "store": {"url": f"sqlite:///{folder / 'ledger.db'}", "node": "demo"},
            "http": {"enabled": False},
            "sinks": [
                {"name": "demo-webhook", "type": "webhook", "url": receiver.url, "signing_secret": receiver.secret}
            ],
        }
    )


async def _wait_up(app: App) -> None:
    pbxs = app.parts.pbxs.values()
    deadline = time.monotonic() + UP_SECONDS
    while not all(pbx.up for pbx in pbxs):
        if time.monotonic() > deadline:
            why = next((pbx.manager.last_error for pbx in pbxs if pbx.manager is not None), "")
            raise AsteriskError(f"no manager connection to the demo's Asterisk: {why}")
        await asyncio.sleep(0.02)


async def _call(
    app: App, asterisk: AsteriskServer, receiver: Receiver, progress: Progress
) -> tuple[Recording, Received]:
    progress.doing("the call is being made")
    call = await asterisk.originate(
        f"Local/callee@{conversation.CONTEXT}/n", context=conversation.CONTEXT, caller_id='"Demo" <5550100>'
    )
    arriving = asyncio.create_task(receiver.next())
    deadline = time.monotonic() + CALL_SECONDS
    told = ""
    try:
        while True:
            rows, _ = await app.parts.store.read(catalogue.page, catalogue.RecordingFilter(uniqueid=call.uniqueid))
            recording = rows[0] if rows else None
            if recording is not None and recording.phase.value != told:
                told = recording.phase.value
                _tell(recording, progress)
            if recording is not None and recording.state is State.ERROR:
                raise Error(f"the recording failed: {recording.error}")
            if arriving.done() and recording is not None and recording.state is State.IDLE:
                progress.done("the webhook has arrived")
                return recording, arriving.result()
            if time.monotonic() > deadline:
                raise Error(_why_not(asterisk, recording))
            await asyncio.wait({arriving}, timeout=0.1)
            if arriving.done():
                await asyncio.sleep(0.05)
    finally:
        arriving.cancel()


def _tell(recording: Recording, progress: Progress) -> None:
    match recording.phase.value:
        case "active":
            progress.done(f"the call is up and is being recorded ({recording.id})")
            progress.doing("two people talk")
        case "stopping" | "closing" | "finishing":
            progress.doing("the call is over; the file is being finished")
        case "finished":
            progress.done(f"the recording is finished: {recording.file_path}")


def _why_not(asterisk: AsteriskServer, recording: Recording | None) -> str:
    if recording is None:
        words = "; ".join(asterisk.complaints()[-3:])
        return f"no recording began within {CALL_SECONDS:.0f} s" + (f"; Asterisk says: {words}" if words else "")
    return f"no webhook within {CALL_SECONDS:.0f} s; the recording is {recording.phase.value}: {recording.file_path}"


def own_folder() -> Path:
    """Return the default folder of a demo's results: ``demo-out`` here, or a new temporary folder when that cannot be
    made.
    """
    here = Path.cwd()
    if os.access(here, os.W_OK):
        return here / "demo-out"
    return Path(tempfile.mkdtemp(prefix="fastagi-demo-"))
