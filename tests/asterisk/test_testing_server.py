"""The real Asterisk that the other tests stand on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastagi.errors import ActionRefused, AsteriskError
from fastagi.testing import AsteriskServer
from fastagi.testing.ports import free_port

pytestmark = pytest.mark.asterisk


async def until(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


async def test_is_what_was_asked_for_and_logs_no_complaint(asterisk: AsteriskServer) -> None:
    assert asterisk.version.split(".")[0] == str(asterisk.major)
    assert f"Asterisk {asterisk.version}" in await asterisk.cli("core show version")
    assert (asterisk.sounds / "en").is_dir()
    assert "MixMonitor" in await asterisk.cli("core show applications like MixMonitor")


async def test_starts_without_a_complaint() -> None:
    for version in (22, 16):
        async with AsteriskServer(version) as server:
            assert server.complaints() == []


async def test_originate_gives_both_uniqueids(asterisk: AsteriskServer) -> None:
    made = await asterisk.originate("Local/nothing@fastagi-testing/n", variables={"__COLOUR": "red"})
    async with asterisk.ami() as ami:
        rows = {row["Uniqueid"]: row for row in await ami.listing("CoreShowChannels")}
        assert rows[made.uniqueid]["Channel"].endswith(";1")
        assert rows[made.other_uniqueid]["Channel"].endswith(";2")
        assert await ami.getvar("COLOUR", rows[made.other_uniqueid]["Channel"]) == "red"
        await ami.action("Hangup", Channel=rows[made.uniqueid]["Channel"])
        await ami.wait_event("Hangup", lambda e: e["Uniqueid"] == made.other_uniqueid)


async def test_originate_says_when_nobody_answers(asterisk: AsteriskServer) -> None:
    with pytest.raises(ActionRefused, match="was not answered"):
        await asterisk.originate("Local/no-such@fastagi-testing/n")


async def test_dialplan_files_are_included_unchanged_and_know_the_server(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.conf"
    snippet.write_text("[mine]\nexten => s,1,Set(GLOBAL(SEEN)=${FASTAGI})\n same => n,Answer()\n same => n,Wait(60)\n")
    text = "[other]\nexten => s,1,NoOp()\n"
    async with AsteriskServer(22, dialplan=[snippet, text], system_name="pbx1", spool=tmp_path / "monitor") as server:
        made = await server.originate("Local/s@mine/n")
        assert made.uniqueid.startswith("pbx1-")
        async with server.ami() as ami:
            assert await ami.getvar("SEEN") == f"agi://127.0.0.1:{server.agi_port}"
            await ami.action("MixMonitor", Channel=made.channel, File="in/there.wav")
        assert "NoOp" in await server.cli("dialplan show other")
        await until((tmp_path / "monitor" / "in" / "there.wav").exists)


async def test_restart_keeps_folder_and_ports() -> None:
    async with AsteriskServer(22) as server:
        before, ports, folder = server.pid, (server.ami_port, server.sip_port), server.folder
        (server.spool / "left.wav").write_bytes(b"x")
        await server.restart()
        assert server.pid not in (None, before)
        assert ((server.ami_port, server.sip_port), server.folder) == (ports, folder)
        assert (server.spool / "left.wav").exists()
        await server.kill()
        assert not server.running
        assert folder.is_dir()
        await server.start()
        assert "0 active channels" in await server.cli("core show channels")
    assert not folder.exists()


async def test_two_versions_side_by_side(asterisk22: AsteriskServer, asterisk16: AsteriskServer) -> None:
    versions = await asyncio.gather(*(s.cli("core show version") for s in (asterisk22, asterisk16)))
    assert [v.split()[1].split(".")[0] for v in versions] == ["22", "16"]


def test_used_from_another_loop_than_the_one_that_started_it() -> None:
    server = AsteriskServer(22)
    asyncio.run(server.start())
    try:
        assert "active channels" in asyncio.run(server.cli("core show channels"))
    finally:
        asyncio.run(server.close())


def test_no_orphan_when_its_owner_is_killed(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from fastagi.testing import AsteriskServer\n"
        "async def main():\n"
        "    server = AsteriskServer(22)\n"
        "    await server.start()\n"
        "    print(server.pid, server.folder, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner:
        pid, folder = owner.stdout.readline().split()
        assert alive(int(pid))
        os.kill(owner.pid, signal.SIGKILL)
    asyncio.run(until(lambda: not alive(int(pid))))
    asyncio.run(until(lambda: not Path(folder).exists()))


async def test_a_broken_configuration_is_one_line_with_its_reason() -> None:
    with pytest.raises(AsteriskError, match=r"Asterisk 22\.\S+ (ended|did not boot)"):
        async with AsteriskServer(22, extra_files={"modules.conf": "[modules]\nrequire = no_such_module.so\n"}):
            pass


async def test_cli_on_a_stopped_one_says_so() -> None:
    async with AsteriskServer(22, agi_port=free_port()) as server:
        await server.stop()
        with pytest.raises(AsteriskError, match="core show uptime"):
            await server.cli("core show uptime")
