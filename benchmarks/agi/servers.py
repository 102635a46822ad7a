"""The servers that are compared: `python -m benchmarks.agi.servers NAME LOOP`, prints its port, serves until killed.

floor       asyncio.Protocol, a task per session, a future per command: the least that an `await`ing handler can cost.
fastagi     ours, with its limits, time-outs and parsing.
panoramisk  its `fast_agi.Application`.

All send the same five commands.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from typing import Any

COMMANDS = ("ANSWER", 'SET VARIABLE "A" "b"', 'GET VARIABLE "B"', 'STREAM FILE "hello-world" "" 0', 'VERBOSE "done" 1')


class Floor(asyncio.Protocol):
    """No limits, no hangup, no errors: a header block, then five commands and their replies."""

    __slots__ = ("buffer", "env", "future", "loop", "task", "transport")

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.buffer = b""
        self.env: dict[str, str] | None = None
        self.future: asyncio.Future[str] | None = None

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.env is None:
            if self.buffer.endswith(b"\n\n"):
                self.env = dict([line.split(": ", 1) for line in self.buffer[:-2].decode().split("\n")])
                self.buffer = b""
                self.task = self.loop.create_task(self.handle())
        elif self.buffer.endswith(b"\n") and self.future is not None:
            line, self.buffer = self.buffer[:-1].decode(), b""
            self.future.set_result(line)

    async def command(self, line: str) -> str:
        self.future = self.loop.create_future()
        self.transport.write(line.encode() + b"\n")
        reply = await self.future
        return reply.partition("result=")[2]

    async def handle(self) -> None:
        for line in COMMANDS:
            await self.command(line)
        self.transport.close()


async def floor() -> int:
    server = await asyncio.get_running_loop().create_server(Floor, "127.0.0.1", 0, backlog=4096)
    keep.append(server)
    return int(server.sockets[0].getsockname()[1])


async def fastagi() -> int:
    from fastagi.agi import AgiServer, Channel

    async def handle(call: Channel) -> None:
        await call.answer()
        await call.set_variable("A", "b")
        await call.get_variable("B")
        await call.stream_file("hello-world")
        await call.verbose("done")

    server = AgiServer(handle, port=0, max_sessions=100_000)
    await server.start()
    keep.append(server)
    return server.port


async def panoramisk() -> int:
    from panoramisk import fast_agi

    async def handle(request: Any) -> None:
        for line in COMMANDS:
            await request.send_command(line)

    application = fast_agi.Application(loop=asyncio.get_running_loop())
    # add_route() wraps what it does not take for a coroutine function with asyncio.coroutine, which is gone since 3.11.
    application._route["bench"] = handle
    server = await asyncio.start_server(application.handler, "127.0.0.1", 0, backlog=4096)
    keep.append(server)
    return int(server.sockets[0].getsockname()[1])


keep: list[object] = []
SERVERS = {"floor": floor, "fastagi": fastagi, "panoramisk": panoramisk}


async def main(name: str) -> None:
    print(await SERVERS[name](), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    logging.disable()  # panoramisk logs a traceback for each peer that goes away
    with contextlib.suppress(KeyboardInterrupt):
        if sys.argv[2] == "uvloop":
            import uvloop

            uvloop.run(main(sys.argv[1]))
        else:
            asyncio.run(main(sys.argv[1]))
