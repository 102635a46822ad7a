"""What the scripted peers do wrong on purpose. What they do right is in tests/asterisk/test_testing_contract.py."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastagi.testing import AmiSession, ScriptedAgi, ScriptedAmi
from fastagi.testing.sound import load, rms


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[ScriptedAmi]:
    async with ScriptedAmi(spool=tmp_path, speed=20.0) as fake:
        yield fake


def session(fake: ScriptedAmi, **more: object) -> AmiSession:
    return AmiSession(fake.host, fake.port, fake.user, fake.secret, **more)


async def until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        await asyncio.sleep(0.01)


async def test_filters_are_posix_expressions(fake: ScriptedAmi) -> None:
    async with session(fake) as ami:
        await ami.action("Filter", Operation="Add", Filter="^Event: (New[^[:space:]]*)[[:space:]]")
        fake.event("Hangup", Uniqueid="1.1")
        fake.event("Newstate", Uniqueid="1.1")
        assert (await ami.wait_event("Newstate", timeout=5))["Uniqueid"] == "1.1"
        assert not [e for e in ami.events if e["Event"] == "Hangup"]


async def test_muted_reads_but_never_answers(fake: ScriptedAmi) -> None:
    async with session(fake, timeout=0.3) as ami:
        fake.muted = True
        with pytest.raises(TimeoutError):
            await ami.action("Ping")
        await fake.wait_action("Ping")
        fake.muted = False
        assert (await ami.action("Ping"))["Ping"] == "Pong"


async def test_drop_keeps_the_port(fake: ScriptedAmi) -> None:
    async with session(fake) as ami:
        fake.drop()
        with pytest.raises(ConnectionError):
            await ami.wait_event("Never")
    async with session(fake):
        assert fake.connections == 2


async def test_refusing_and_denying(fake: ScriptedAmi) -> None:
    fake.refusing = True
    with pytest.raises((ConnectionError, TimeoutError)):
        await session(fake, timeout=2.0).connect()
    fake.refusing, fake.denying = False, True
    with pytest.raises(PermissionError):
        await session(fake).connect()


async def test_split_sends_byte_by_byte(fake: ScriptedAmi) -> None:
    fake.split = 1
    pieces: list[bytes] = []
    reader, writer = await asyncio.open_connection(fake.host, fake.port)
    writer.write(f"Action: Login\r\nUsername: {fake.user}\r\nSecret: {fake.secret}\r\n\r\n".encode())
    while not b"".join(pieces).endswith(b"Fully Booted\r\n\r\n"):
        pieces.append(await asyncio.wait_for(reader.read(65536), 10))
    writer.close()
    assert len(pieces) > 10
    assert b"Authentication accepted" in b"".join(pieces)


async def test_scripted_answers_replace_built_in_ones(fake: ScriptedAmi) -> None:
    async with session(fake, timeout=0.3) as ami:
        fake.script["MixMonitor"] = lambda row: {"Response": "Error", "Message": f"no {row['File']}"}
        assert (await ami.action("MixMonitor", Channel="x", File="y"))["Message"] == "no y"
        fake.script["Ping"] = lambda row: None
        with pytest.raises(TimeoutError):
            await ami.action("Ping")


async def test_nothing_is_answered_before_a_login(fake: ScriptedAmi) -> None:
    reader, writer = await asyncio.open_connection(fake.host, fake.port)
    writer.write(b"Action: CoreShowChannels\r\n\r\n")
    assert b"Asterisk Call Manager" in await reader.readline()
    assert await reader.readline() == b"Response: Error\r\n"
    assert await reader.readline() == b"Message: Permission denied\r\n"
    writer.close()


async def test_restart_takes_the_same_port(fake: ScriptedAmi) -> None:
    port = fake.port
    await fake.stop()
    with pytest.raises(OSError):
        await session(fake).connect()
    await fake.start()
    assert fake.port == port
    async with session(fake) as ami:
        assert (await ami.action("Ping"))["Response"] == "Success"


async def test_recordings_grow_in_steps(fake: ScriptedAmi, tmp_path: Path) -> None:
    """A stop leaves them open."""
    async with session(fake) as ami:
        channel = fake.call()
        await ami.action("MixMonitor", Channel=channel.name, File="a.wav")
        path = tmp_path / "a.wav"
        seen: set[int] = set()

        def grown() -> bool:
            seen.add(path.stat().st_size)
            return path.stat().st_size > 3 * 32768

        await until(grown)
        assert all((size - 44) % 32768 == 0 for size in seen)
    await fake.stop()
    assert struct.unpack("<I", path.read_bytes()[40:44]) == (0,)


async def test_channel_without_audio_leaves_44_bytes(fake: ScriptedAmi, tmp_path: Path) -> None:
    async with session(fake) as ami:
        channel = fake.call()
        channel.received = channel.sent = None
        await ami.action("MixMonitor", Channel=channel.name, File="still.wav")
        other = fake.call()
        await ami.action("MixMonitor", Channel=other.name, File="lively.wav")
        await until(lambda: (tmp_path / "lively.wav").stat().st_size > 44)
        fake.hangup(channel)
        fake.hangup(other)
        await until(lambda: struct.unpack("<I", (tmp_path / "lively.wav").read_bytes()[40:44])[0] > 0)
        assert (tmp_path / "still.wav").stat().st_size == 44
        assert rms(load(tmp_path / "lively.wav")) > 0.01


class Server:
    """A FastAGI server that asks what it is told to and notes what it hears."""

    def __init__(self, *commands: str) -> None:
        self.commands, self.heard, self.ended = commands, [], asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (line := await reader.readline()) not in (b"\n", b""):
                self.heard.append(line)
            for command in self.commands:
                writer.write(f"{command}\n".encode())
                self.heard.append(await reader.readline())
        finally:
            self.heard.append(await reader.read())
            self.ended.set()
            writer.close()


async def test_agi_bytewise_and_hangup_in_reply() -> None:
    asked = Server("VERBOSE hello", "EXEC Wait 1", "STREAM FILE x")
    server = await asyncio.start_server(asked, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    rules = {"^verbose": "200 result=1", "^exec": b"HANGUP\n", "^stream": lambda command: f"510 {command}"}
    async with ScriptedAgi(port, script="x", rules=rules, env={"callerid": None}, bytewise=True) as call:
        await call.start()
        assert await call.wait_command("STREAM") == "STREAM FILE x"
        await until(lambda: asked.heard[-1].startswith(b"510"))
    await asyncio.wait_for(asked.ended.wait(), 10)
    assert b"agi_network_script: x\n" in asked.heard
    assert not any(line.startswith(b"agi_callerid:") for line in asked.heard)
    assert asked.heard[-4:-1] == [b"200 result=1\n", b"HANGUP\n", b"510 STREAM FILE x\n"]
    server.close()


async def test_agi_half_a_header_and_gone() -> None:
    asked = Server()
    server = await asyncio.start_server(asked, "127.0.0.1", 0)
    async with ScriptedAgi(server.sockets[0].getsockname()[1]) as call:
        await call.send(call.header[:40])
    await asyncio.wait_for(asked.ended.wait(), 10)
    assert b"".join(asked.heard) == call.header[:40]
    server.close()
