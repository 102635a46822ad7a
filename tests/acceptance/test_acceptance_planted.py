"""A server that is not root, and a spool into which another user has put what would serve him."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from fastagi.domain.ids import new_id
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.states import Cause, Phase
from fastagi.store.queries import recordings
from fastagi.testing.ports import free_port
from fastagi.testing.scripted_ami import ScriptedAmi
from fastagi.testing.server_settings import write_settings
from fastagi.testing.sound import save, speech_samples
from support.cli_process import Serving, command, environment

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a server as another user")

SERVER, ASTERISK = 12001, 12002
"""User ids that no account needs."""

RUNNER = Path(__file__).parents[1] / "support" / "other_user.py"
TOKEN = "viewer-0123456789abcdef"


class Machine:
    """Folders as the unit and HARDENING.md have them: two users, the spool Asterisk's, the rest the server's."""

    def __init__(self, folder: Path) -> None:
        self.spool, self.directory, self.private = folder / "spool", folder / "recordings", folder / "lib"
        self.config, self.http = folder / "fastagi.toml", free_port()
        for made, user, mode in (
            (self.spool, ASTERISK, 0o2770),
            (self.directory, SERVER, 0o2750),
            (self.private, SERVER, 0o700),
        ):
            made.mkdir()
            os.chown(made, user, ASTERISK)
            made.chmod(mode)

    def settings(self, ami: ScriptedAmi) -> None:
        token = {"name": "one", "token": TOKEN, "role": "viewer"}
        pbx = {"name": "pbx", "port": ami.port, "username": ami.user, "secret": ami.secret, "spool": str(self.spool)}
        recorded = {"directory": str(self.directory), "adopt": True, "retention_days": 1, "min_free_mb": 0}
        data = {
            "agi": {"port": free_port()},
            "recordings": recorded,
            "store": {"url": f"sqlite:///{self.private}/ledger.db", "node": "one"},
            "http": {"port": self.http, "tokens": [token]},
            "asterisk": [pbx],
        }
        write_settings(self.config, data)
        self.config.chmod(0o644)

    def own(self, name: str, content: bytes = b"") -> Path:
        """A file of the server's that nobody else may read."""
        path = self.private / name
        path.write_bytes(content) if content else save(path, speech_samples(1.0, 3))
        os.chown(path, SERVER, SERVER)
        path.chmod(0o600)
        return path

    def put(self, path: Path) -> Path:
        """Asterisk's user has made it, two hours ago."""
        os.lchown(path, ASTERISK, ASTERISK)
        then = time.time() - 7200
        os.utime(path, (then, then), follow_symlinks=False)
        return path

    def link(self, name: str, target: Path) -> Path:
        path = self.spool / name
        path.symlink_to(target)
        return self.put(path)

    def row(self, **fields: object) -> Recording:
        at = time.time() - 7200
        recording_id = new_id("rec", at, os.urandom(10))
        raw = Segment(str(self.spool / f"{recording_id}.wav"), uniqueid=f"{at:.3f}", started_at=at)
        row = Recording(recording_id, "one", "pbx", "SIP/a-1", f"{at:.3f}", recording_id, "", pieces=(raw,))
        return replace(row, requested_at=at, started_at=at, ended_at=at + 2, **fields)  # type: ignore[arg-type]

    def side(self, row: Recording) -> Path:
        path = self.spool / f"{row.id}.journal"
        path.write_text(json.dumps({"at": time.time(), "recording": recordings.to_row(row)}))
        return self.put(path)


async def as_server(*args: str) -> asyncio.subprocess.Process:
    """`fastagi ARGS` as the server's user, who is in Asterisk's group."""
    groups = f"{SERVER},{ASTERISK}"
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(RUNNER),
        str(SERVER),
        groups,
        *args,
        env=environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )


@pytest.fixture
def machine() -> Iterator[Machine]:
    folder = Path(tempfile.mkdtemp(prefix="fastagi-planted-"))  # pytest's own lets no other user in
    folder.chmod(0o755)
    yield Machine(folder)
    shutil.rmtree(folder)


@pytest.fixture
async def ami(machine: Machine) -> AsyncIterator[ScriptedAmi]:
    async with ScriptedAmi(spool=machine.spool) as made:
        machine.settings(made)
        yield made


async def served(machine: Machine) -> list[dict[str, object]]:
    url = f"http://127.0.0.1:{machine.http}/api/v1/recordings"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(headers=headers) as client, client.get(url) as answer:
        found: list[dict[str, object]] = (await answer.json())["recordings"]
        return found


async def test_planted_files_serve_nobody(machine: Machine, ami: ScriptedAmi) -> None:
    """Rows and links of Asterisk's user: what is read, written, moved and deleted is the server's to say."""
    key = machine.own("master.key")
    key.unlink()
    secret, other = machine.own("secret.txt", b"not yours"), machine.own("other.wav")
    before = {path: path.read_bytes() for path in (secret, other)}
    finished = {"phase": Phase.FINISHED, "cause": Cause.HANGUP, "sha256": "0" * 64, "bytes": 9}
    planted = [
        machine.side(machine.row(file_path=str(secret), finished_at=time.time(), **finished)),  # to be served
        machine.side(machine.row(file_path=str(other), finished_at=1.0, **finished)),  # to be deleted
        machine.side(machine.row(file_path=str(secret), phase=Phase.CLOSING, cause=Cause.HANGUP)),  # to be overwritten
    ]
    linked = [
        machine.link(f"{machine.row().id}.wav", other),
        machine.link("x.wav", other),
        machine.link(f"{machine.row().id}.journal-tmp", secret),
        machine.link(f"{machine.row().id}.journal", secret),
    ]
    good = machine.put(save(machine.spool / f"{machine.row().id}.wav", speech_samples(2.0, 3)))
    good.chmod(0o640)
    server = Serving(await as_server("serve", "--config", str(machine.config)))
    try:
        await server.until(lambda: server.logged("recording_finished"))
        assert [line["recording_id"] for line in server.logged("orphan_adopted")] == [good.stem]
        assert len(server.logged("side_file_refused")) == len(planted) + 1
        assert [row["id"] for row in await served(machine)] == [good.stem]
    finally:
        await server.end(signal.SIGTERM)
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in machine.private.iterdir()} >= {"master.key", "ledger.db", "secret.txt", "other.wav"}
    aside = {path.name for path in (machine.spool / "set-aside").iterdir()}
    assert {path.name for path in planted} <= aside
    assert all(os.path.islink(path) for path in linked[:2])
    assert not good.exists(), "what is right is recorded as ever"
    assert (machine.directory / ".side-files").stat().st_mode & 0o777 == 0o700


async def test_root_doctor_overwrites_no_link(machine: Machine, ami: ScriptedAmi) -> None:
    """An operator runs it as root, and the spool has a link under the probe's name of before."""
    secret = machine.own("secret.txt", b"not yours")
    machine.link("fastagi-doctor.conf", secret)
    done = await command("doctor", "--config", str(machine.config), "--json")
    assert done.code in (0, 1)
    assert secret.read_bytes() == b"not yours"
    assert secret.stat().st_mode & 0o777 == 0o600
