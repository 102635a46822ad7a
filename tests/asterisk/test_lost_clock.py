"""The machine's clock is set under a running server: recordings do not notice, and nothing waits for ever."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastagi.testing import AsteriskServer
from support.crash_harness import DIALPLAN, Receiver, Serving, until, watched_calls
from support.machine_clock import MachineClock

DAY = 86_400


@pytest.fixture
async def clocked_calls() -> AsyncIterator[AsteriskServer]:
    async with AsteriskServer(22, dialplan=DIALPLAN) as asterisk:
        yield asterisk


@pytest.mark.parametrize("jump", [DAY, -DAY], ids=["ahead", "back"])
async def test_the_machines_clock_is_set(clocked_calls: AsteriskServer, tmp_path: Path, jump: int) -> None:
    clock = MachineClock(tmp_path)
    async with Receiver() as receiver, watched_calls(clocked_calls) as calls:
        server = Serving(clocked_calls, tmp_path, sink=receiver.url, environ=clock.environ)
        try:
            await server.start()
            receiver.down = True
            waits = await calls.one(server, 1.0)
            through = await calls.one(server, 6.0)
            silent = await calls.one(server, 30.0, more="&milliseconds_max_silence=2500")  # the caller hears a tone
            await until(lambda: receiver.refused, what="a delivery that waits")
            await until(lambda: len(server.recordings()) == 3)
            began = time.monotonic()
            clock.set_ahead(jump)
            await until(lambda: through.ended_at, 20)
            await clocked_calls.cli("channel request hangup all")
            await until(lambda: all(r["phase"] == "finished" for r in server.recordings()), 20)
            taken = await until_told(server, "clock_taken_over")
            assert taken == pytest.approx(jump, abs=2)
            receiver.down = False
            await until(
                lambda: receiver.uniqueids() >= {waits.uniqueid, through.uniqueid}, 60, "what waited is delivered"
            )
            assert time.monotonic() - began < 60
            rows = {r["uniqueid"]: r for r in server.recordings()}
            lasted = {u: r["ended_at"] - r["started_at"] for u, r in rows.items()}
            assert lasted[through.uniqueid] == pytest.approx(6.0, abs=1.5)
            assert [rows[c.uniqueid]["cause"] for c in (waits, through, silent)] == ["HANGUP"] * 3
            after = await calls.one(server, 1.0)
            await until(lambda: after.uniqueid in receiver.uniqueids(), 30)
            newest = max(server.recordings(), key=lambda r: r["id"] if jump > 0 else -r["started_at"])
            assert newest["started_at"] == pytest.approx(time.time() + jump, abs=30)
            assert not server.rows("select * from delivery where status in ('dead', 'parked')")
            assert {len(ids) for ids in receiver.ids().values()} == {1}
        finally:
            await server.close()


async def until_told(server: Serving, event: str) -> float:
    """`by_seconds` of that line of its log."""
    await until(lambda: server.events(event), 20, event)
    return float(server.events(event)[0]["by_seconds"])


async def test_a_server_that_starts_behind_its_ledger_brings_deliveries_forward(
    clocked_calls: AsteriskServer, tmp_path: Path
) -> None:
    """It was stopped while its clock was a day ahead."""
    clock = MachineClock(tmp_path)
    clock.set_ahead(DAY)
    async with Receiver() as receiver, watched_calls(clocked_calls) as calls:
        server = Serving(clocked_calls, tmp_path, sink=receiver.url, environ=clock.environ)
        try:
            receiver.down = True
            await server.start()
            call = await calls.one(server, 1.0)
            await until(lambda: receiver.refused)
            await server.end()
            clock.set_ahead(0)
            receiver.down = False
            await server.start()
            await until(lambda: call.uniqueid in receiver.uniqueids(), 20)
            assert server.events("deliveries_brought_forward")
        finally:
            await server.close()
