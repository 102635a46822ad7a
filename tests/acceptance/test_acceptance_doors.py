"""The open ports of `fastagi serve` (uvloop) under more connections than there is room for."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from fastagi.testing import AsteriskServer
from support.cli_process import environment, port_of, serving_alone, write_lone_settings, write_settings

HALF = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Half"
AGI = b"agi_network: yes\nagi_network_script: fastagi/ping\nagi_channel: T/%d\nagi_uniqueid: 1.%d\n\n"


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """This process has the other ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard > 0 else 8192, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Peers:
    """Connections that are held."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.readers: list[asyncio.StreamReader] = []

    async def open(self, port: int, count: int, data: bytes) -> None:
        for n in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data % (n, n) if b"%d" in data else data)
            self.readers.append(reader)
            self.writers.append(writer)

    async def close(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self.writers), return_exceptions=True)


@pytest_asyncio.fixture
async def peers() -> AsyncIterator[Peers]:
    made = Peers()
    yield made
    await made.close()


async def get(port: int, path: str) -> tuple[int, bytes, bytes]:
    """Status, header block and body; this connection is one among the many."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
    return int(head.split()[1]), head, body


async def first_line(reader: asyncio.StreamReader) -> bytes:
    """Read also what came before the connection was reset: Asterisk reads it, a StreamReader hides it."""
    try:
        return await reader.readline()
    except ConnectionError:
        return bytes(reader._buffer)  # type: ignore[attr-defined]


async def first_command(port: int) -> bytes:
    """Return the first line that a new AGI session is sent."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(AGI % (0, 0))
            return await reader.readline()
        finally:
            writer.close()


@pytest.mark.parametrize("data", [b"", HALF], ids=["silent", "half_sent"])
async def test_idle_connections_leave_room(tmp_path: Path, peers: Peers, data: bytes) -> None:
    """1,100 HTTP connections without a request held every descriptor, and the next call was lost in silence."""
    config = write_lone_settings(tmp_path)
    async with serving_alone(config, 1024) as serving:
        http, agi = port_of(config, "http"), port_of(config, "agi")
        await peers.open(http, 1100, data)
        assert (await get(http, "/healthz"))[0] == 200
        assert (await first_command(agi)).startswith(b"VERBOSE")
        await serving.until(lambda: sum(r.at_eof() for r in peers.readers) >= 1000)


async def test_sessions_beyond_the_room_fail(tmp_path: Path, peers: Peers) -> None:
    """1,010 sessions under 1,024 descriptors: each is served or told that it failed, none is closed without a word."""
    config = write_lone_settings(tmp_path)
    async with serving_alone(config, 1024) as serving:
        (lowered,) = serving.logged("max_sessions_lowered")
        http, agi = port_of(config, "http"), port_of(config, "agi")
        await peers.open(agi, 1010, AGI)
        async with asyncio.timeout(20):
            said = [await first_line(reader) for reader in peers.readers]
        served = [line for line in said if line.startswith(b"VERBOSE")]
        refused = [n for n, line in enumerate(said) if line.startswith(b'SET VARIABLE "RECORDING_ERROR"')]
        assert len(served) == lowered["max_sessions"]
        assert len(served) + len(refused) == 1010
        assert await peers.readers[refused[0]].readline() == b"failure\n"
        _, _, body = await get(http, "/readyz")
        assert [warning["what"] for warning in json.loads(body)["warnings"]] == ["descriptors"]


async def test_impossible_max_sessions_is_refused(tmp_path: Path) -> None:
    config = write_lone_settings(tmp_path, agi="max_sessions = 5000")
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", 'ulimit -n 1024; exec "$0" -m fastagi serve --config "$1"', sys.executable, str(config),
        env=environment(), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    assert process.returncode == 2
    line = err.decode().strip().splitlines()[-1]
    assert "agi.max_sessions = 5000" in line
    assert "LimitNOFILE=" in line


@pytest.mark.asterisk
async def test_a_real_call_beside_idle_connections(asterisk22: AsteriskServer, tmp_path: Path, peers: Peers) -> None:
    """Such a call got AGISTATUS=SUCCESS, no RECORDING_STATE and no line in the log."""
    config = write_settings(asterisk22, tmp_path)
    async with serving_alone(config, 1024) as server:
        await server.until(lambda: server.logged("asterisk_in_step"))
        await peers.open(port_of(config, "http"), 1100, HALF)
        line = f"agi://127.0.0.1:{port_of(config, 'agi')}/record/start"
        call = await asterisk22.originate("Local/tone@fastagi-testing/n", application="AGI", data=line)
        await server.until(lambda: server.logged("recording_started"))
        assert server.logged("recording_started")[0]["uniqueid"] == call.uniqueid
