"""Run the command `fastagi` as a process of its own, as operators, systemd and scripts do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import tomllib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastagi.testing import AsteriskServer
from fastagi.testing.ports import free_port


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON value and nothing else."""
        return json.loads(self.out)


def environment(**more: str) -> dict[str, str]:
    """This process's, without settings of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FASTAGI_") or k in ("FASTAGI_CACHE",)}
    return {**kept, "COLUMNS": "200", **more}


async def start(
    *args: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    python: str = sys.executable,
    **options: Any,
) -> asyncio.subprocess.Process:
    """``python -m fastagi ARGS``, not waited for."""
    return await asyncio.create_subprocess_exec(
        python,
        "-m",
        "fastagi",
        *args,
        cwd=cwd,
        env=environment(**(env or {})),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
        preexec_fn=_heed_interrupts,
        **options,
    )


def _heed_interrupts() -> None:
    """A shell's background jobs, this test run perhaps, ignore SIGINT, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def command(
    *args: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    seconds: float = 60.0,
    **options: Any,
) -> Done:
    """The same, waited for."""
    process = await start(*args, cwd=cwd, env=env, **options)
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


class Serving:
    """A `fastagi serve` that runs; its log lines as they came."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.raw = ""
        self.lines: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.raw += line.decode()
            self.lines.append(json.loads(line))

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    async def until(self, condition: Callable[[], Any], seconds: float = 30.0) -> None:
        """:raises AssertionError: not so in time; with the log"""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not so within {seconds} s; log: {self.raw}"
            if self._reading.done():
                self._reading.result()  # what was no JSON line
                assert condition(), f"ended with {self.process.returncode}; log: {self.raw}"
            await asyncio.sleep(0.02)

    async def end(self, by: signal.Signals = signal.SIGTERM, seconds: float = 40.0) -> int:
        """Signal it and wait."""
        if self.process.returncode is None:
            self.process.send_signal(by)
        try:
            async with asyncio.timeout(seconds):
                code = await self.process.wait()
        finally:
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
        await self._reading
        return code


@asynccontextmanager
async def serving(
    *args: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[Serving]:
    """A server in step with its Asterisk; killed at the end if need be."""
    server = Serving(await start("serve", *args, cwd=cwd, env=env, **options))
    try:
        await server.until(lambda: server.logged("asterisk_in_step"))
        yield server
    finally:
        await server.end(signal.SIGKILL)


def write_settings(asterisk: AsteriskServer, folder: Path, more: str = "", **pbx: str) -> Path:
    """A settings file for that Asterisk; everything it names is below `folder`.

    :param more: TOML that is added at the end
    :param pbx: keys of [[asterisk]] that differ
    """
    for name in ("spool", "recordings"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(0o777)
    section = {
        "name": "pbx",
        "username": asterisk.ami_user,
        "secret": asterisk.ami_secret,
        "spool": str(folder / "spool"),
        **pbx,
    }
    lines = [
        f"[agi]\nport = {free_port()}",
        f"[[asterisk]]\nport = {asterisk.ami_port}",
        *(f"{key} = {json.dumps(value)}" for key, value in section.items()),
        f'[recordings]\ndirectory = "{folder / "recordings"}"',
        f'[store]\nurl = "sqlite:///{folder / "ledger.db"}"\nnode = "test"',
        f"[http]\nport = {free_port()}",
        more,
    ]
    path = folder / "fastagi.toml"
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o600)
    return path


def write_lone_settings(folder: Path, more: str = "", *, agi: str = "", http: str = "") -> Path:
    """A settings file without an Asterisk, of the same ports each time; everything it names is below `folder`.

    :param more: TOML that is added at the end; :param agi: lines for [agi]; :param http: the same for [http]
    """
    path = folder / "fastagi.toml"
    ports = [port_of(path, section) if path.exists() else free_port() for section in ("agi", "http")]
    path.write_text(
        f"[agi]\nport = {ports[0]}\n{agi}\n[http]\nport = {ports[1]}\n{http}\n"
        f'[recordings]\ndirectory = "{folder}/recordings"\nmin_free_mb = 0\n'
        f'[store]\nurl = "sqlite:///{folder}/ledger.db"\n{more}\n'
    )
    return path


def port_of(config: Path, section: str) -> int:
    """The port that a settings file names."""
    return int(tomllib.loads(config.read_text())[section]["port"])


@asynccontextmanager
async def serving_alone(config: Path, descriptors: int | None = None, app: str = "") -> AsyncIterator[Serving]:
    """A server without an Asterisk; killed at the end if need be.

    :param descriptors: how many it may have, and no more
    :param app: an App that has its own settings, instead of `config`; beside that file
    """
    limit = f"ulimit -n {descriptors}; " if descriptors else ""
    line = f'{limit}exec "$0" -m fastagi serve ' + (f"--app {app}" if app else '--config "$1"')
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        line,
        sys.executable,
        str(config),
        env=environment(),
        stdin=nothing,
        stderr=pipe,
        limit=1 << 20,
        cwd=config.parent,
    )
    server = Serving(process)
    try:
        await server.until(lambda: server.logged("serving"))
        yield server
    finally:
        await server.end(signal.SIGKILL)
