"""A manager connection in memory: what the client writes is read as actions and answered at once. No socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastagi.ami import Manager

Row = dict[str, str]


class Peer(asyncio.Transport):
    """Asterisk's side of connections that follow each other.

    :ivar actions: what came; :ivar script: action name (lower case) -> text to answer, or None for silence
    :ivar booted: whether FullyBooted follows a login; :ivar refuse_connect: raised by the next connections
    """

    def __init__(self) -> None:
        super().__init__()
        self.actions: list[Row] = []
        self.script: dict[str, Callable[[Row], str | None]] = {}
        self.booted = True
        self.refuse_connect: list[Exception] = []
        self.connections = 0
        self.asked: list[tuple[Any, ...]] = []
        self.channels: list[Row] = []
        self._protocol: Any = None
        self._open = False

    async def connect(self, factory: Callable[[], Any], host: str, port: int, ssl: Any = None) -> Any:
        """Stand in for `loop.create_connection`."""
        self.asked.append((host, port, ssl))
        if self.refuse_connect:
            raise self.refuse_connect.pop(0)
        self._protocol, self._open = factory(), True
        self.connections += 1
        self._protocol.connection_made(self)
        self.say("Asterisk Call Manager/9.0.0\r\n")
        return self, self._protocol

    def say(self, text: str) -> None:
        """Have the client read that."""
        data = text.encode()
        buffer = self._protocol.get_buffer(len(data))
        buffer[: len(data)] = data
        self._protocol.buffer_updated(len(data))

    def event(self, name: str, **headers: str) -> None:
        """Have the client read an event."""
        lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        self.say(f"Event: {name}\r\nPrivilege: call,all\r\n{lines}\r\n")

    def lose(self, exc: Exception | None = None) -> None:
        """Cut the connection."""
        if self._open:
            self._open = False
            self._protocol.connection_lost(exc)

    def named(self, name: str) -> list[Row]:
        """The actions of that name."""
        return [row for row in self.actions if row["Action"] == name]

    # -- asyncio.Transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.7", 5038) if name == "peername" else default

    def write(self, data: Any) -> None:
        for text in bytes(data).decode().split("\r\n\r\n"):
            if text:
                row = dict(line.split(": ", 1) for line in text.split("\r\n") if ": " in line)
                self.actions.append(row)
                asyncio.get_running_loop().call_soon(self._answer, row)

    def close(self) -> None:
        asyncio.get_running_loop().call_soon(self.lose)

    def abort(self) -> None:
        self.close()

    def _answer(self, row: Row) -> None:
        if not self._open:
            return
        name = row["Action"].lower()
        action_id = f"ActionID: {row['ActionID']}\r\n"
        script = self.script.get(name)
        if script is not None:
            text = script(row)
            if text is not None:
                first, _, rest = text.partition("\r\n")
                self.say(text if "ActionID" in text else f"{first}\r\n{action_id}{rest}")
            return
        if name == "coresettings":
            more = "AsteriskVersion: 22.1.0\r\nSystemName: box\r\n"
            self.say(f"Response: Success\r\n{action_id}{more}\r\n")
        elif name == "coreshowchannels":
            self.say(f"Response: Success\r\n{action_id}EventList: start\r\nMessage: Channels will follow\r\n\r\n")
            for channel in self.channels:
                lines = "".join(f"{key}: {value}\r\n" for key, value in channel.items())
                self.say(f"Event: CoreShowChannel\r\n{action_id}{lines}\r\n")
            self.say(f"Event: CoreShowChannelsComplete\r\n{action_id}EventList: Complete\r\n\r\n")
        else:
            self.say(f"Response: Success\r\n{action_id}Message: ok\r\nPing: Pong\r\n\r\n")
            if name == "login" and self.booted:
                self.event("FullyBooted")


def manager(peer: Peer, **config: Any) -> tuple[Manager, list[float]]:
    """A manager that connects to that peer, and the waits between its attempts, which take no time."""
    waits: list[float] = []

    async def passing(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) > 20:
            await asyncio.Event().wait()
        await asyncio.sleep(0)

    defaults: dict[str, Any] = {"random": lambda: 0.5, "sleep": passing, "boot_seconds": 0.05}
    made = Manager(username="u", secret="s", **{**defaults, **config})
    asyncio.get_running_loop().create_connection = peer.connect  # type: ignore[method-assign, assignment]
    return made, waits
