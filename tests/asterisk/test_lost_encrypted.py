"""`kill -9` around an encryption, then a restart, on a real Asterisk: the file is whole, and nothing clear is left."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pyrage
import pytest
import soundfile

from fastagi.cipher import AesCbcCipher, AesGcmCipher, AgeCipher, Cipher
from fastagi.testing import AsteriskServer
from support.crash_harness import DIALPLAN, Calls, Receiver, Serving, until, watched_calls
from support.finished_files import below

SERVER = Path(__file__).parents[1] / "support" / "crash_server.py"

KEY = bytes(range(40, 72))
IV = bytes(range(100, 116))
IDENTITY = pyrage.x25519.Identity.generate()

CIPHERS: dict[str, Cipher] = {
    "aes-cbc": AesCbcCipher(KEY, IV),
    "aes-gcm": AesGcmCipher(KEY),
    "age": AgeCipher(str(IDENTITY.to_public())),
}

SEAMS = ["encrypt:1", "rename:1", "unremoved:1"]


@pytest.fixture
async def recorded_calls() -> AsyncIterator[AsteriskServer]:
    async with AsteriskServer(22, dialplan=DIALPLAN) as asterisk:
        yield asterisk


def everything(folder: Path) -> dict[Path, bytes]:
    """All that lies in it: spool, recordings, ledger, log."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def the_key_is_nowhere(folder: Path) -> None:
    """:raises AssertionError: it is in some file, in one of the forms in which a key is written"""
    forms = [KEY, KEY.hex().encode(), KEY.hex().upper().encode(), base64.b64encode(KEY), base64.urlsafe_b64encode(KEY)]
    for path, content in everything(folder).items():
        assert not any(form in content for form in forms), f"{path} has the key"


def opened(name: str, path: Path, to: Path) -> Path:
    """The clear file, somewhere else."""
    clear = to / f"{path.stem}-clear.wav"
    if name == "age":
        clear.write_bytes(pyrage.decrypt(path.read_bytes(), [IDENTITY]))
    else:
        CIPHERS[name].decrypt_file(path, clear)
    return clear


def said(clear: Path, seconds: float) -> None:
    """:raises AssertionError: it is not so long, or not the far end's tone of 1004 Hz from its beginning to its end"""
    sound, rate = soundfile.read(clear)
    assert len(sound) / rate == pytest.approx(seconds, abs=0.01)
    for part in np.array_split(sound[rate // 2 :], 3):
        spectrum = np.abs(np.fft.rfft(part))
        assert np.argmax(spectrum) * rate / len(part) == pytest.approx(1004, abs=8)


async def crashed(server: Serving, calls: Calls, name: str, seam: str) -> None:
    """A call whose server dies at `seam` and is started again, with nothing but its files."""
    server.environ |= {"LOST_AT": seam, "LOST_CIPHER": CIPHERS[name].to_secret().decode()}
    await server.start()
    call = await calls.one(server, 2.6)
    assert await server.wait() == -9, f"it was not at {seam}:\n{server.tail()}"
    the_key_is_nowhere(server.folder)
    (kept,) = server.rows("select * from recording_key")
    assert kept["scheme"] == CIPHERS[name].scheme, "wrapped, it is journalled with the intent"
    server.environ.clear()
    await server.start()
    await until(lambda: call.ended_at is not None, 30, "the call is over")
    await until(lambda: not server.unsettled(), 30, "it is finished and delivered")
    await until(lambda: not list(server.spool.glob("rec-*")), 15, "Asterisk's clear files are gone")


async def proved(server: Serving, receiver: Receiver, name: str) -> None:
    """:raises AssertionError: clear sound is left, or the encrypted file is not what was said"""
    (row,) = server.recordings()
    assert (row["phase"], row["cause"]) == ("finished", "HANGUP")
    path = Path(row["file_path"])
    elsewhere = server.folder.with_name(server.folder.name + "-opened")
    elsewhere.mkdir()
    clear = opened(name, path, elsewhere)
    said(clear, row["audio_seconds"])
    assert row["audio_seconds"] > 1.5
    samples = clear.read_bytes()
    for kept, content in everything(server.folder).items():
        assert b"RIFF" not in content, f"{kept} is clear"
        assert samples[4000:4200] not in content, f"{kept} has clear sound"
    assert [p for p in below(server.directory) if p.is_file()] == [path], "nothing temporary is left"
    the_key_is_nowhere(server.folder)
    assert len(receiver.ids()[row["id"]]) == 1


async def test_a_kill_around_the_encryption_leaves_it_whole_and_nothing_clear(
    recorded_calls: AsteriskServer, tmp_path: Path
) -> None:
    lanes = asyncio.Semaphore(5)

    async def one(calls: Calls, name: str, seam: str) -> None:
        server = Serving(
            recorded_calls, tmp_path / f"{name}-{seam.replace(':', '-')}", sink=receiver.url, script=SERVER
        )
        async with lanes:
            try:
                await crashed(server, calls, name, seam)
                await proved(server, receiver, name)
            except AssertionError as exc:
                raise AssertionError(f"{name} {seam}: {exc}") from None
            finally:
                await server.close()

    async with Receiver() as receiver, watched_calls(recorded_calls) as calls, asyncio.TaskGroup() as group:
        for name in CIPHERS:
            for seam in SEAMS:
                group.create_task(one(calls, name, seam))
        group.create_task(one(calls, "aes-gcm", "write:1"))


async def test_a_key_that_the_ledger_could_not_take_survives_wrapped(
    recorded_calls: AsteriskServer, tmp_path: Path
) -> None:
    here, gone = tmp_path / "store", tmp_path / "gone"
    here.mkdir()
    async with Receiver() as receiver, watched_calls(recorded_calls) as calls:
        store = {"url": f"sqlite:///{here}/ledger.db", "node": "one"}
        keys = {"key_file": str(tmp_path / "master.key")}
        server = Serving(recorded_calls, tmp_path, sink=receiver.url, script=SERVER, store=store, recordings=keys)
        server.environ["LOST_CIPHER"] = CIPHERS["aes-gcm"].to_secret().decode()
        sides = server.directory / ".side-files"
        try:
            await server.start()
            here.rename(gone)
            call = await calls.one(server, 3.0)
            await until(lambda: list(sides.glob("*.journal")), what="it is journalled in a side file")
            await until(lambda: len(server.events("recording_started")) == 1)
            (side,) = sides.glob("*.journal")
            assert len(json.loads(side.read_text().partition("\n")[2])["key"]) == 2
            await server.kill()
            the_key_is_nowhere(tmp_path)
            gone.rename(here)
            server.environ.clear()
            await server.start()
            await until(lambda: call.ended_at is not None and not server.unsettled(), 30)
            await until(lambda: not list(server.spool.glob("rec-*")), 15)
            server.folder = here  # what a test opens lies elsewhere
            (row,) = server.recordings()
            said(opened("aes-gcm", Path(row["file_path"]), gone.parent), row["audio_seconds"])
        finally:
            await server.close()
