"""Bytes of a dialplan that are no UTF-8, in each argument of a start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fastagi.testing.fake_calls import FakeChannel
from support.web_harness import WebScene, web_scene

ODD = ([b"filename=Jos\xe9"], [b"filename={caller}\xed\xa0\x80"], [b"recorder=\xff"], [b"sink=\xff"], [b"\xff=1"])


async def start(scene: WebScene, call: FakeChannel, script: bytes, arguments: list[bytes]) -> bytes:
    """Play a session as Asterisk would, and return every command."""
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.parts.agi.port)
    header = [
        b"agi_network: yes", b"agi_network_script: " + script, b"agi_channel: " + call.name.encode(),
        b"agi_uniqueid: " + call.uniqueid.encode(), b"agi_calleridname: Jos\xe9",
        *(b"agi_arg_%d: %s" % (n, argument) for n, argument in enumerate(arguments, 1)),
    ]  # fmt: skip
    writer.write(b"\n".join(header) + b"\n\n")
    said = b""
    async with asyncio.timeout(20):
        while line := await reader.readline():
            said += line
            writer.write(b"200 result=1 (6)\n")
    writer.close()
    return said


@pytest.mark.parametrize("arguments", ODD, ids=ascii)
async def test_odd_bytes_break_no_session(tmp_path: Path, arguments: list[bytes]) -> None:
    async with web_scene(tmp_path) as scene:
        call = scene.ami.call()
        await scene.until(lambda: scene.parts.pbxs["pbx"].channels.get(call.uniqueid))
        said = await start(scene, call, b"record/start", arguments)
        assert b"RECORDING_ERROR" in said
        assert scene.parts.agi.tally.failed == 0


async def test_odd_bytes_in_a_query(tmp_path: Path) -> None:
    async with web_scene(tmp_path) as scene:
        call = scene.ami.call()
        await scene.until(lambda: scene.parts.pbxs["pbx"].channels.get(call.uniqueid))
        said = await start(scene, call, b"record/start?filename=%ED%A0%80", [])
        assert b"RECORDING_ERROR" in said
        assert scene.parts.agi.tally.failed == 0
