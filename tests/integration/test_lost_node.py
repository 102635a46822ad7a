"""Two servers on one PostgreSQL and one spool, beside a real Asterisk: one dies or sleeps, the other relieves it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastagi.cipher import AesGcmCipher
from fastagi.store import open_store
from fastagi.store.queries import deliveries, recordings
from fastagi.testing import AsteriskServer
from support.crash_harness import DIALPLAN, Receiver, Serving, until, watched_calls
from support.finished_files import below
from support.postgres_server import PostgresServer, postgres_server  # noqa: F401

RELIEF_SECONDS = 30.0

SERVER = Path(__file__).parents[1] / "support" / "crash_server.py"


@pytest.fixture
async def recorded_calls() -> AsyncIterator[AsteriskServer]:
    async with AsteriskServer(22, dialplan=DIALPLAN) as asterisk:
        yield asterisk


@pytest.mark.postgres
async def test_a_server_that_is_killed_or_asleep_is_relieved(
    recorded_calls: AsteriskServer,
    postgres_server: PostgresServer,  # noqa: F811
    tmp_path: Path,
) -> None:
    await asyncio.gather(
        *(
            _relieved(recorded_calls, postgres_server.create_database(), tmp_path / by.name, by)
            for by in (signal.SIGKILL, signal.SIGSTOP)
        )
    )


async def _relieved(asterisk: AsteriskServer, url: str, folder: Path, by: signal.Signals) -> None:
    shared = {"directory": str(folder / "recordings"), "shared": True}
    spool = {"spool": str(folder / "spool")}
    ledger = open_store(url, node="test")
    async with Receiver() as receiver, watched_calls(asterisk) as calls:
        one, other = (
            Serving(
                asterisk,
                folder / name,
                sink=receiver.url,
                store={"url": url, "node": name},
                recordings=shared,
                asterisk=spool,
            )
            for name in ("doomed", "successor")
        )
        try:
            await one.start()
            await other.start()
            await ledger.start()
            receiver.down = True
            done = await calls.one(one, 1.0)
            ends = await calls.one(one, 6.0)
            stays = await calls.one(one, 32.0)
            await until(lambda: len(one.events("recording_started")) == 3)
            await until(lambda: len(one.events("recording_finished")) == 1 and receiver.refused > 0)
            os.kill(one.pid, by)
            receiver.down = False
            begun = time.monotonic()

            async def relieved() -> bool:
                return await ledger.read(recordings.open_recordings, "doomed") == []

            await until(relieved, 60, "its recordings are the other's")
            assert time.monotonic() - begun < RELIEF_SECONDS, "one is dead after 15 s"
            (row,) = await ledger.read(recordings.find, stays.uniqueid)
            assert (row.node, row.phase.value) == ("successor", "active"), "it goes on being recorded"
            if by is signal.SIGSTOP:
                os.kill(one.pid, signal.SIGCONT)  # it believes that it has them still
            await until(lambda: {done.uniqueid, ends.uniqueid} <= receiver.uniqueids(), 60, "delivered by the other")
            await until(lambda: calls.up == 0 and len(receiver.ids()) == 3, 60)
            told = receiver.told(stays.uniqueid)[0]
            assert (told["extra"]["cause"], told["extra"]["node"]) == ("HANGUP", "successor")
            assert told["extra"]["audio_seconds"] == pytest.approx(stays.hold, abs=2.0)
            assert all(len(ids) == 1 for ids in receiver.ids().values())
            for recording_id in receiver.ids():

                async def outcome_is_written(recording_id: str = recording_id) -> bool:  # he is told a moment before
                    made = await ledger.read(deliveries.of_recording, recording_id)
                    return [d.status.value for d in made] == ["delivered"]

                await until(outcome_is_written)
            await until(lambda: not list((folder / "spool").glob("rec-*")))
            if by is signal.SIGSTOP:
                assert one.running
                assert one.events("recording_taken_over"), "it was refused, and let go"
                assert not one.events("task_died")
        finally:
            await one.close()
            await other.close()
            await ledger.stop()


@pytest.mark.postgres
async def test_a_server_that_wakes_up_does_not_replace_what_its_heir_has_finished(
    recorded_calls: AsteriskServer,
    postgres_server: PostgresServer,  # noqa: F811
    tmp_path: Path,
) -> None:
    """It slept in the middle of making a file of its own, which is encrypted: no two are alike."""
    url = postgres_server.create_database()
    cipher = AesGcmCipher(bytes(range(32)))
    shared = {"directory": str(tmp_path / "recordings"), "shared": True, "key_file": str(tmp_path / "master.key")}
    spool = {"spool": str(tmp_path / "spool")}
    ledger = open_store(url, node="test")
    async with Receiver() as receiver, watched_calls(recorded_calls) as calls:
        one, other = (
            Serving(
                recorded_calls,
                tmp_path / name,
                sink=receiver.url,
                script=SERVER,
                store={"url": url, "node": name},
                recordings=shared,
                asterisk=spool,
            )
            for name in ("asleep", "successor")
        )
        one.environ |= {"LOST_AT": "sleep:make", "LOST_CIPHER": cipher.to_secret().decode()}
        other.environ |= {"LOST_AT": "sleep:remove"}
        try:
            await one.start()
            await other.start()
            await ledger.start()
            call = await calls.one(one, 2.0)
            await until(lambda: stopped(one.pid), 30, "it is asleep")
            await until(lambda: stopped(other.pid), 60, "the other has finished it, and not removed Asterisk's files")
            (row,) = await ledger.read(recordings.find, call.uniqueid)
            finished = await asyncio.to_thread(Path(row.file_path).read_bytes)
            assert hashlib.sha256(finished).hexdigest() == row.sha256
            os.kill(one.pid, signal.SIGCONT)
            await until(lambda: one.events("recording_taken_over"), 30, "it is refused, and lets go")
            assert await asyncio.to_thread(Path(row.file_path).read_bytes) == finished
            os.kill(other.pid, signal.SIGCONT)
            await until(lambda: not list((tmp_path / "spool").glob("rec-*")))
            assert await ledger.read(recordings.find, call.uniqueid) == [row]
            assert [p for p in below(tmp_path / "recordings") if p.is_file()] == [Path(row.file_path)]
            assert not one.events("task_died")
            await until(lambda: row.id in receiver.ids())
            assert len(receiver.ids()[row.id]) == 1
        finally:
            await one.close()
            await other.close()
            await ledger.stop()


def stopped(pid: int) -> bool:
    """Is that process held by SIGSTOP?"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
