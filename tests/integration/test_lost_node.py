"""Two servers on one PostgreSQL and one spool, beside a real Asterisk: one is killed, the other relieves it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lost_scene import DIALPLAN, Receiver, Serving, until, watched_calls
from postgres_server import PostgresServer, postgres_server, postgres_url  # noqa: F401

from fastagi.store import open_store
from fastagi.store.units import deliveries, recordings
from fastagi.testing import AsteriskServer

RELIEF_SECONDS = 30.0


@pytest.fixture
async def recorded_calls() -> AsyncIterator[AsteriskServer]:
    async with AsteriskServer(22, dialplan=DIALPLAN) as asterisk:
        yield asterisk


@pytest.mark.postgres
async def test_a_killed_server_is_relieved_of_its_recordings_and_deliveries(
    recorded_calls: AsteriskServer,
    postgres_url: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    shared = {"directory": str(tmp_path / "recordings"), "shared": True}
    spool = {"spool": str(tmp_path / "spool")}
    ledger = open_store(postgres_url, node="test")

    async def everything() -> list[tuple[str, str, str]]:
        page = await ledger.read(recordings.open_recordings, "doomed")
        return [(r.id, r.node, r.phase.value) for r in page]

    async with Receiver() as receiver, watched_calls(recorded_calls) as calls:
        one, other = (
            Serving(
                recorded_calls,
                tmp_path / name,
                sink=receiver.url,
                store={"url": postgres_url, "node": name},
                recordings=shared,
                asterisk=spool,
            )
            for name in ("doomed", "heir")
        )
        try:
            await one.start()
            await other.start()
            receiver.down = True
            done = await calls.one(one, 1.0)
            ends = await calls.one(one, 6.0)
            stays = await calls.one(one, 27.0)
            await until(lambda: len(one.events("recording_started")) == 3)
            await until(lambda: len(one.events("recording_finished")) == 1 and receiver.refused > 0)
            await one.kill()
            receiver.down = False
            killed = time.monotonic()
            await ledger.start()
            await until(lambda: len(receiver.ids()) >= 2, 60, "what had ended is finished and delivered")
            relieved = time.monotonic() - killed
            assert relieved < RELIEF_SECONDS, "one is dead after 15 s"
            assert {b["extra"]["uniqueid"] for _, b in receiver.got} == {done.uniqueid, ends.uniqueid}
            assert await everything() == [], "none is the dead one's any more"
            (left,) = await ledger.read(recordings.open_recordings, "heir")
            assert (left.uniqueid, left.phase.value) == (stays.uniqueid, "active")
            await until(lambda: calls.up == 0 and len(receiver.ids()) == 3, 60)
            told = receiver.told(stays.uniqueid)[0]
            assert (told["extra"]["cause"], told["extra"]["node"]) == ("HANGUP", "heir")
            assert stays.ended_at is not None
            assert told["extra"]["audio_seconds"] == pytest.approx(stays.hold, abs=2.0)
            assert all(len(ids) == 1 for ids in receiver.ids().values())
            for recording_id in receiver.ids():
                made = await ledger.read(deliveries.of_recording, recording_id)
                assert [d.status.value for d in made] == ["delivered"]
            await until(lambda: not list((tmp_path / "spool").glob("rec-*")))
        finally:
            await one.close()
            await other.close()
            await ledger.stop()
