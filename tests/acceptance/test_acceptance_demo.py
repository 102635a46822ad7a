"""`fastagi demo`: a recording, its webhook, and nothing left running: well, broken off, and failed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
import soundfile

from support.cli_process import command, start

pytestmark = pytest.mark.asterisk

MARK = "DEMO_TEST_MARK"


def _running(mark: str) -> list[str]:
    """Command lines of processes that carry the mark in their environment."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in environ.read_bytes():
                found.append((environ.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


async def test_demo_records_delivers_and_leaves_nothing(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = await command(
        "demo", "--json", cwd=tmp_path, env={MARK: tmp_path.name, "TMPDIR": str(temporary)}, seconds=110
    )
    assert done.code == 0, done.err
    assert _running(tmp_path.name) == []
    assert list(temporary.iterdir()) == []

    shown = done.json
    assert isinstance(shown, dict)
    assert (shown["state"], shown["cause"]) == ("IDLE", "HANGUP")
    file = Path(shown["file"])
    assert file.is_relative_to(tmp_path / "demo-out")
    with soundfile.SoundFile(file) as opened:
        assert (opened.subtype, opened.samplerate, opened.channels) == ("ALAW", 8000, 1)
        assert opened.frames / 8000 == pytest.approx(shown["audio"]["seconds"], abs=0.01)
        assert 5 < opened.frames / 8000 < 45
    assert -40 < shown["audio"]["rms_dbfs"] < -5
    assert shown["share_heard"] > 0.8, "what was said is what was recorded"
    webhook = shown["webhook"]
    assert list(webhook) == ["session_id", "name", "file_path", "duration_seconds", "format", "extra"]
    assert webhook["file_path"] == str(file)
    assert webhook["extra"]["sha256"] == shown["sha256"]
    assert shown["signature_valid"] is True
    assert str(file) in shown["listen"]
    # progress was told while it worked, on the other stream
    for told in ("Asterisk 22", "is being recorded", "the webhook has arrived"):
        assert told in done.err
    # everything that was logged is in the folder, as JSON lines
    lines = [json.loads(line) for line in (tmp_path / "demo-out" / "server.log").read_text().splitlines()]
    assert "recording_finished" in {line["event"] for line in lines}


async def test_broken_off_in_mid_call_leaves_nothing(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    env = {MARK: tmp_path.name, "TMPDIR": str(temporary)}
    process = await start("demo", "--json", "--folder", str(tmp_path / "out"), env=env, start_new_session=True)
    assert process.stderr is not None
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while b"is being recorded" not in (line := await process.stderr.readline()):
            assert line, "ended before there was a recording"
        assert any("asterisk.conf" in line for line in _running(tmp_path.name)), "the mark finds the demo's Asterisk"
        process.send_signal(signal.SIGINT)
        rest = await process.stderr.read()
        assert await process.stdout.read() == b"", "no half object"
        assert await process.wait() == 130
    assert b"Traceback" not in rest
    assert _running(tmp_path.name) == []
    assert list(temporary.iterdir()) == []


async def test_without_an_asterisk_it_says_what_to_do(tmp_path: Path) -> None:
    env = {MARK: tmp_path.name, "FASTAGI_CACHE": str(tmp_path / "cache"), "PATH": str(tmp_path)}
    done = await command("demo", "--json", cwd=tmp_path, env=env)
    assert done.code == 1
    assert done.out == ""
    assert "apt-get install mmdebstrap" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    assert _running(tmp_path.name) == []


async def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = await command("demo", "--folder", str(tmp_path / "file" / "out"))
    assert done.code == 1
    assert "Not a directory" in done.err
    assert "Traceback" not in done.err


async def test_fetch_that_is_broken_off_stops_what_it_started(tmp_path: Path) -> None:
    """A stand-in for mmdebstrap that never ends: the demo takes it along."""
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    env = {
        MARK: tmp_path.name,
        "FASTAGI_CACHE": str(tmp_path / "cache"),
        "PATH": f"{program.parent}:{os.path.dirname(subprocess.check_output(['which', 'sleep'], text=True).strip())}",
    }
    process = await start("demo", "--folder", str(tmp_path / "out"), env=env)
    async with asyncio.timeout(60):
        while not any("sleep 600" in line for line in _running(tmp_path.name)):
            assert process.returncode is None
            await asyncio.sleep(0.05)
        process.terminate()
        assert await process.wait() == 143
    assert _running(tmp_path.name) == []
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.is_dir()] == [], "no half-unpacked tree stays"
