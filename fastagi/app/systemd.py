"""Tells systemd when the server serves, lives, and stops (sd_notify(3)). Does nothing without systemd.

``Type=notify`` makes `systemctl start` wait until dialplans can call; ``WatchdogSec=`` restarts a server whose event
loop hangs.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping


class Systemd:
    """The connection of one process to its service manager.

    :param environ: NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; the process's own when None
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        given = os.environ if environ is None else environ
        address = given.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._task: asyncio.Task[None] | None = None
        self.watchdog_seconds = 0.0
        """Seconds within which systemd expects a sign of life; 0 for none."""
        usec, pid = given.get("WATCHDOG_USEC", ""), given.get("WATCHDOG_PID", "")
        if usec.isdigit() and pid in ("", str(os.getpid())):
            self.watchdog_seconds = int(usec) / 1e6

    def tell(self, state: str) -> None:
        """Send ``READY=1`` or the like. A service manager that does not listen is not an error."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as line:
                line.connect(self._address)
                line.send(state.encode())
        except OSError:
            pass

    def serving(self) -> None:
        """Report readiness and begin to send signs of life, as often as systemd expects."""
        self.tell("READY=1")
        if self._address and self.watchdog_seconds:
            self._task = asyncio.get_running_loop().create_task(self._live(), name="systemd watchdog")

    async def _live(self) -> None:
        while True:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_seconds / 3)

    def stopping(self) -> None:
        """Report the drain; signs of life go on until `close`."""
        self.tell("STOPPING=1")

    def close(self) -> None:
        """End the signs of life. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
