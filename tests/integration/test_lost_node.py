"""Two servers on one PostgreSQL and one spool, beside a real Asterisk: one dies or sleeps, the other relieves it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lost_scene import DIALPLAN, Receiver, Serving, until, watched_calls
from postgres_server import PostgresServer, postgres_server  # noqa: F401

from fastagi.store import open_store
from fastagi.store.units import deliveries, recordings
from fastagi.testing import AsteriskServer

RELIEF_SECONDS = 30.0


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
            for name in ("doomed", "heir")
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
            assert (row.node, row.phase.value) == ("heir", "active"), "it goes on being recorded"
            if by is signal.SIGSTOP:
                os.kill(one.pid, signal.SIGCONT)  # it believes that it has them still
            await until(lambda: {done.uniqueid, ends.uniqueid} <= receiver.uniqueids(), 60, "delivered by the other")
            await until(lambda: calls.up == 0 and len(receiver.ids()) == 3, 60)
            told = receiver.told(stays.uniqueid)[0]
            assert (told["extra"]["cause"], told["extra"]["node"]) == ("HANGUP", "heir")
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
