"""Asterisk's part of a FastAGI connection, played line by line over a real socket."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from fastagi.agi import AgiServer, Channel

SECONDS = 20.0
"""Longest wait for what must happen; a test that reaches it has failed."""


def header(script: str = "test", *args: str, **more: str) -> bytes:
    env = {
        "agi_network": "yes",
        "agi_network_script": script,
        "agi_request": f"agi://127.0.0.1/{script}",
        "agi_channel": "PJSIP/trunk-00000001",
        "agi_language": "en",
        "agi_uniqueid": "1700000000.1",
        "agi_callerid": "+4420",
        "agi_calleridname": "unknown",
        "agi_context": "from-trunk",
        "agi_extension": "2000",
        **more,
        **{f"agi_arg_{n}": arg for n, arg in enumerate(args, 1)},
    }
    return "".join(f"{k}: {v}\n" for k, v in env.items()).encode() + b"\n"


class Peer:
    """One connection to a server under test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def line(self) -> str:
        """The next command, '' at the end."""
        async with asyncio.timeout(SECONDS):
            return (await self.reader.readline()).decode("utf-8", "surrogateescape").rstrip("\n")

    async def answer(self, reply: str = "200 result=0") -> str:
        """Read a command and answer it; the command."""
        command = await self.line()
        await self.send(reply.encode() + b"\n")
        return command

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        async with asyncio.timeout(SECONDS):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b"<reset>"

    async def silent(self, seconds: float = 0.05) -> bool:
        """Nothing comes for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self.reader.readexactly(1)
        except TimeoutError:
            return True
        return False

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass

    def reset(self) -> None:
        """As a crash of the peer's machine would."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Stage:
    """A server whose handler is the test's, and peers of it."""

    def __init__(self) -> None:
        self.servers: list[AgiServer] = []
        self.peers: list[Peer] = []
        self.results: asyncio.Queue[Any] = asyncio.Queue()

    async def serve(self, handler: Callable[[Channel], Awaitable[object]], **settings: Any) -> AgiServer:
        async def recorded(call: Channel) -> None:
            try:
                result: object = await handler(call)
            except BaseException as exc:
                self.results.put_nowait(exc)
                raise
            self.results.put_nowait(result)

        server = AgiServer(recorded, port=0, **settings)
        await server.start()
        self.servers.append(server)
        return server

    async def connect(self, server: AgiServer) -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", server.port))
        self.peers.append(peer)
        return peer

    async def call(self, server: AgiServer, *args: str, **more: str) -> Peer:
        peer = await self.connect(server)
        await peer.send(header(*args, **more))
        return peer

    async def result(self) -> Any:
        """What a handler returned or raised."""
        async with asyncio.timeout(SECONDS):
            return await self.results.get()

    async def talk(self, handler: Callable[[Channel], Awaitable[object]], *replies: str, **settings: Any) -> list[str]:
        """Answer a handler's commands with these replies; the commands. The handler's result is next in `results`."""
        peer = await self.call(await self.serve(handler, **settings))
        commands = [await peer.answer(reply) for reply in replies]
        assert await peer.rest() in (b"", b"failure\n")
        return commands


async def until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait for a condition that no event announces."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is the code under test, which knows no event
            await asyncio.sleep(0.005)


@pytest_asyncio.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    for peer in made.peers:
        await peer.close()
    for server in made.servers:
        await server.stop(0)
        assert server.sessions == 0, "a session was left behind"


@pytest.fixture(name="header")
def header_fixture() -> Callable[..., bytes]:
    return header


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Awaitable[None]]:
    return until
