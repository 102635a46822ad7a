"""Messages to systemd (sd_notify(3)): ready, alive, stopping."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastagi.app.systemd import Systemd


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
async def test_missing_manager_is_no_error(environ: dict[str, str]) -> None:
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
