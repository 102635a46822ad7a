"""The server as a process on uvloop, among hostile peers: what it costs, and that the others do not notice."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio

from fastagi.agi import AgiServer, Channel
from fastagi.agi.codec import Parser
from fastagi.agi.session import Session

SERVER = """
import asyncio, uvloop
from fastagi.agi import AgiServer

async def handle(call):
    await call.answer()
    await call.set_variable("MINE", call.params["id"])
    if await call.get_variable("MINE") == call.params["id"]:
        await call.verbose("mine " + call.params["id"])

async def main():
    server = AgiServer(handle, port=0, header_seconds=2, idle_seconds=2, max_sessions=3000)
    await server.start()
    print(server.port, flush=True)
    stop = asyncio.Event()
    import signal
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(5)

uvloop.run(main())
"""

SECONDS = 60.0


@dataclass
class Running:
    process: asyncio.subprocess.Process
    port: int
    log: Path

    def resident_megabytes(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    log = tmp_path / "log"
    with log.open("w") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVER, stdout=asyncio.subprocess.PIPE, stderr=output
        )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    reading = asyncio.create_task(process.stdout.read())  # its log: a full pipe would block it
    try:
        yield Running(process, port, log)
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SECONDS):
            assert await process.wait() == 0
            logged = (await reading).decode()
        assert "Traceback" not in log.read_text() + logged


async def good(port: int, number: int, pause: float = 0.0) -> str:
    """A whole session as Asterisk has it; what it says with VERBOSE."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"agi_network: yes\nagi_network_script: x?id={number}\nagi_uniqueid: {number}.1\n\n".encode())
    said = value = ""
    async with asyncio.timeout(SECONDS):
        while line := (await reader.readline()).decode():
            if pause:
                await asyncio.sleep(pause)
            if line.startswith("SET"):
                value = line.split('"')[3]
            if line.startswith("VERBOSE"):
                said = line.split('"')[1]
            writer.write(f"200 result=1 ({value})\n".encode() if line.startswith("GET") else b"200 result=1\n")
    writer.close()
    await writer.wait_closed()
    return said


async def hostile(port: int, said: bytes, *, hold: bool = False, reset: bool = False) -> None:
    """Connect, say it, and go, or stay until thrown out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(SECONDS):
            writer.write(said)
            await writer.drain()
            if hold:
                await reader.read()
    except ConnectionError:
        pass
    finally:
        link = writer.get_extra_info("socket")
        if reset and link.fileno() >= 0:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


START = b"agi_network: yes\nagi_network_script: x?id=0\nagi_uniqueid: 0.1\n\n"

ATTACKS: list[tuple[bytes, bool]] = [
    (b"agi_network: yes\nagi_x: " + b"A" * 4_000_000, True),
    (b"agi_arg_1: vvvvvvvvvvvvvvvvvvvv\n" * 100_000, True),
    (START + b"A" * 4_000_000, True),
    (START + b"200 result=1 (" + b"A\n" * 2_000_000, True),
    (START + b"520-Usage\n" + b"A\n" * 2_000_000, True),
    (START + b"200 result=0\n" * 300_000, True),
    (START + b"HANGUP\n" * 500_000, True),
    (START + b"100 Trying\n" * 300_000, True),
    (b"GET / HTTP/1.1\r\n\r\n", True),
    (b"\xff\x00" * 500 + b"\n\n", True),
    (b"", False),
    (b"agi_netw", False),
    (START[:-1], False),
    (START, False),
    (START + b"200 res", False),
    (b"agi_network: yes\n", True),
    (START, True),
]


async def test_hostile_peers_are_closed_and_nobody_else_notices(running: Running) -> None:
    assert await good(running.port, 1) == "mine 1"
    before = running.resident_megabytes()
    calls = [asyncio.create_task(good(running.port, n, pause=0.1)) for n in range(50)]
    attacks = [
        asyncio.create_task(hostile(running.port, said, hold=hold, reset=bool(n % 2)))
        for n in range(3)
        for said, hold in ATTACKS
    ]
    assert await asyncio.gather(*calls) == [f"mine {n}" for n in range(50)]
    await asyncio.gather(*attacks)
    assert running.resident_megabytes() - before < 40
    spent = running.cpu_seconds()
    await asyncio.sleep(1)
    assert running.cpu_seconds() - spent < 0.3, "nothing is left that turns"
    assert await good(running.port, 2) == "mine 2"


async def test_many_sessions_at_once(running: Running) -> None:
    said = await asyncio.gather(*(good(running.port, n, pause=0.05) for n in range(400)))
    assert said == [f"mine {n}" for n in range(400)]


def _sessions() -> list[object]:
    return [x for x in gc.get_objects() if type(x) in (Session, Channel, Parser)]


async def test_a_session_leaves_nothing_for_the_collector() -> None:
    """Cycles would wait in memory for a full collection, which stops all calls."""

    async def handler(call: Channel) -> None:
        await call.answer()
        if (await call.get_variable("MINE")) != "never":
            await call.verbose("x")

    server = AgiServer(handler, port=0)
    await server.start()
    await good(server.port, 0)
    gc.collect()
    older = {id(x): x for x in _sessions()}  # of other tests in this process; held, so that no id comes again
    gc.disable()
    try:
        for number in range(20):
            await good(server.port, number)
        for _ in range(100):  # the last session's task ends just after its peer does
            left = [type(x).__name__ for x in _sessions() if id(x) not in older]
            if not left:
                break
            await asyncio.sleep(0.02)
        assert left == []
    finally:
        gc.enable()
        await server.stop(0)
