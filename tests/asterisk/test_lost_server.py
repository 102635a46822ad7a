"""The server's own side on a real Asterisk: its ledger gone or locked, SIGTERM under load, a second server."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastagi.testing import AsteriskServer
from support.crash_harness import DIALPLAN, Receiver, Serving, account, until, watched_calls


@pytest.fixture
async def recorded_calls() -> AsyncIterator[AsteriskServer]:
    async with AsteriskServer(22, dialplan=DIALPLAN) as asterisk:
        yield asterisk


async def test_a_ledger_that_is_gone_when_the_server_is_killed_loses_nothing(
    recorded_calls: AsteriskServer, tmp_path: Path
) -> None:
    here, gone = tmp_path / "store", tmp_path / "gone"
    here.mkdir()
    async with Receiver() as receiver, watched_calls(recorded_calls) as calls:
        store = {"url": f"sqlite:///{here}/ledger.db", "node": "one"}
        server = Serving(recorded_calls, tmp_path, sink=receiver.url, store=store)
        sides = server.directory / ".side-files"
        try:
            await server.start()
            before = await calls.one(server, 3.0)
            await until(lambda: [r["phase"] for r in server.recordings()] == ["active"])
            here.rename(gone)
            during = await calls.one(server, 2.5)
            across = await calls.one(server, 14.0)
            await until(lambda: len(server.events("recording_started")) == 3, what="recorded without a ledger")
            await until(lambda: len(server.events("recording_finished")) == 2, what="finished without a ledger")
            assert len(list(sides.glob("*.journal"))) == 3
            assert receiver.got == []
            await server.kill()
            gone.rename(here)
            assert [r["phase"] for r in server.recordings()] == ["active"], "that is all the ledger knows"
            await server.start()
            assert list(sides.glob("*.journal")) == []
            assert len(server.recordings()) == 3
            await until(lambda: calls.up == 0 and not server.unsettled(), 60)
            assert {before.uniqueid, during.uniqueid, across.uniqueid} == set(calls.made)
            figures = account(calls.made, server, receiver)
            assert figures["latest_start_seconds"] < 10
        finally:
            await server.close()


async def test_a_ledger_that_is_locked_holds_no_call(recorded_calls: AsteriskServer, tmp_path: Path) -> None:
    async with Receiver() as receiver, watched_calls(recorded_calls) as calls:
        server = Serving(recorded_calls, tmp_path, sink=receiver.url)
        try:
            await server.start()
            before = await calls.one(server, 3.0)
            await until(lambda: [r["phase"] for r in server.recordings()] == ["active"])
            with contextlib.closing(sqlite3.connect(server.database, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                await calls.one(server, 2.0)
                await until(lambda: len(server.events("recording_started")) == 2, what="recorded though it is locked")
                await until(lambda: calls.up == 0)
                await until(lambda: len(server.events("recording_finished")) == 2, what="finished though it is locked")
                assert [r["phase"] for r in server.recordings()] == ["active"]
                assert server.events("ledger_unreachable")
                other.execute("ROLLBACK")
            await until(lambda: not server.unsettled() and len(receiver.ids()) == 2, 40, "all of it is put in")
            assert before.uniqueid in {body["extra"]["uniqueid"] for _, body in receiver.got}
            await until(lambda: not list(server.spool.glob("rec-*")), what="what was kept meanwhile is swept")
            figures = account(calls.made, server, receiver)
            assert figures["latest_start_seconds"] < 12
        finally:
            await server.close()


async def test_sigterm_under_load_drains_and_a_second_server_is_refused(
    recorded_calls: AsteriskServer, tmp_path: Path
) -> None:
    async with Receiver() as receiver, watched_calls(recorded_calls) as calls:
        server = Serving(recorded_calls, tmp_path, sink=receiver.url)
        try:
            await server.start()
            for n in range(12):
                await calls.one(server, 2.0 if n % 3 else 12.0)
            await until(lambda: len(server.events("recording_started")) == 12)
            second = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "fastagi", "serve", "--config", str(server.config)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            said = [line for line in second.stderr.splitlines() if not line.startswith("{")]
            assert second.returncode in (1, 2)
            assert len(said) == 1, said
            assert "one server per SQLite store" in said[0]
            begun = time.monotonic()
            assert await server.end() == 0
            assert time.monotonic() - begun < 40
            assert not server.events("drain_ran_out")
            open_now = [r for r in server.recordings() if r["phase"] not in ("finished", "failed")]
            assert all(r["phase"] == "active" for r in open_now), "endings that had begun are finished"
            assert len(open_now) >= 4
            await server.start()
            await until(lambda: calls.up == 0 and not server.unsettled(), 60)
            figures = account(calls.made, server, receiver)
            assert figures["told_twice"] == 0
            assert figures["failed_starts"] == 0
        finally:
            await server.close()


async def test_what_somebody_stopped_while_the_server_was_away_ended_then(
    recorded_calls: AsteriskServer, tmp_path: Path
) -> None:
    async with Receiver() as receiver, watched_calls(recorded_calls) as calls:
        server = Serving(recorded_calls, tmp_path, sink=receiver.url)
        try:
            await server.start()
            call = await calls.one(server, 30.0)
            await until(lambda: [r["phase"] for r in server.recordings()] == ["active"])
            await asyncio.sleep(1.0)
            await server.kill()
            channel = next(r["channel"] for r in server.recordings())
            assert (await calls.ami.action("StopMixMonitor", Channel=channel))["Response"] == "Success"
            stopped = time.time()
            await asyncio.sleep(4.0)
            await server.start()
            await until(lambda: receiver.told(call.uniqueid), 30, "it is delivered")
            (row,) = server.recordings()
            assert (row["cause"], call.ended_at) == ("ABORTED", None), "the call goes on"
            assert abs(row["ended_at"] - stopped) < 1.0
            (told,) = receiver.told(call.uniqueid)
            assert abs(told["duration_seconds"] - row["audio_seconds"]) < 1.5
        finally:
            await server.close()
