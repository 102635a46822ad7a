"""sd_notify(3): ready, alive, stopping; and the guide names every command and option there is."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from fastagi.app.systemd import Systemd
from fastagi.cli import cli


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


async def _heard(manager: socket.socket, count: int) -> list[bytes]:
    async with asyncio.timeout(10):
        return [await asyncio.get_running_loop().sock_recv(manager, 100) for _ in range(count)]


async def test_ready_alive_stopping(manager: socket.socket) -> None:
    systemd = Systemd(
        {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "150000", "WATCHDOG_PID": str(os.getpid())}
    )
    systemd.serving()
    assert await _heard(manager, 4) == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    systemd.stopping()
    while (word := (await _heard(manager, 1))[0]) != b"STOPPING=1":
        assert word == b"WATCHDOG=1"
    assert await _heard(manager, 1) == [b"WATCHDOG=1"], "a drain is no hang"
    systemd.close()
    systemd.close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": "/nowhere/notify", "WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "@nobody-listens-there"},
    ],
)
async def test_nobody_listens(environ: dict[str, str]) -> None:
    systemd = Systemd(environ)
    systemd.serving()
    await asyncio.sleep(0)
    systemd.stopping()
    systemd.close()


async def test_watchdog_of_other_process_is_ignored(manager: socket.socket) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"})
    assert systemd.watchdog_seconds == 0
    systemd.serving()
    systemd.tell("STATUS=end")
    assert await _heard(manager, 2) == [b"READY=1", b"STATUS=end"]


def test_guide_lists_every_command_and_option() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "guide" / "commands.md").read_text()
    missing = []

    def walk(command: object, path: tuple[str, ...]) -> None:
        children = getattr(command, "commands", None)
        for name, child in (children or {}).items():
            walk(child, (*path, name))
        if children is None:
            if not re.search(rf"`(fastagi )?({' '.join(path)}|{path[-1]})\b", guide):
                missing.append(" ".join(path))
            for param in command.params:  # type: ignore[attr-defined]
                names = [o for o in param.opts if o != "--help"]
                if names and param.param_type_name == "option" and not any(n in guide for n in names):
                    missing.append(f"{' '.join(path)} {names}")

    walk(typer.main.get_command(cli), ())
    assert missing == []
