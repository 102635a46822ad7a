"""Two servers on one PostgreSQL and one spool, killed and ended in turns under calls; every call is accounted for.

The calls ask both servers, so that a recording is often begun by one and finished by the other, which takes it over.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fastagi.store import Store, open_store
from fastagi.store.schema import delivery, recording
from fastagi.testing import AsteriskServer
from support.crash_harness import DIALPLAN, Calls, Receiver, Serving, account, until, watched_calls
from support.postgres_server import PostgresServer

SHORTEST, LONGEST = 3.0, 45.0
"""Seconds a call lasts: some end between two faults, some live through many."""

SERVES_SECONDS = 120.0
"""For a start on a busy machine."""


class Pair:
    """Two servers as `account` sees them: one ledger, one spool, one directory."""

    def __init__(self, servers: list[Serving], rows: list[dict[str, Any]]) -> None:
        self.spool, self.directory = servers[0].spool, servers[0].directory
        self._rows = rows

    def recordings(self) -> list[dict[str, Any]]:
        return self._rows


async def pair(folder: Path, faults: int, at_once: int, seed: int, version: int) -> dict[str, Any]:
    """Kill or end one of the two so many times while `at_once` calls are up; the figures.

    :raises AssertionError: a call was lost
    """
    database = PostgresServer()
    try:
        database.start()
        url = database.create_database()
        ledger = open_store(url, node="books")
        async with (
            AsteriskServer(version, dialplan=DIALPLAN) as asterisk,
            Receiver() as receiver,
            watched_calls(asterisk) as calls,
        ):
            servers = [_server(asterisk, folder, name, url, receiver.url) for name in ("one", "other")]
            try:
                return await _under_calls(servers, calls, receiver, ledger, faults, at_once, random.Random(seed))
            finally:
                for server in servers:
                    await server.close()
                await ledger.stop()
    finally:
        database.close()


async def _under_calls(
    servers: list[Serving],
    calls: Calls,
    receiver: Receiver,
    ledger: Store,
    faults: int,
    at_once: int,
    moments: random.Random,
) -> dict[str, Any]:
    for server in servers:
        await server.start(SERVES_SECONDS)
    await ledger.start()
    begun = time.monotonic()
    harm = asyncio.create_task(_harm(servers, faults, moments))
    most = await _keep_up(calls, servers, harm, at_once, moments)
    done = await harm
    for server in servers:
        await until(server.answers, SERVES_SECONDS, "both serve")
    await until(lambda: calls.up == 0, 300, "all calls are over")
    await until(lambda: _settled(ledger), 300, "all is finished and delivered")
    rows = await ledger.read(_recordings)
    figures = account(calls.made, Pair(servers, rows), receiver)  # type: ignore[arg-type]
    return {
        **done,
        "nodes": len({row["node"] for row in rows}),
        "taken_over": sum(len(server.events("recording_taken_over")) for server in servers),
        "calls_at_once": most,
        "seconds": round(time.monotonic() - begun),
        **figures,
    }


def _server(asterisk: AsteriskServer, folder: Path, name: str, url: str, sink: str) -> Serving:
    return Serving(
        asterisk,
        folder / name,
        sink=sink,
        store={"url": url, "node": name},
        recordings={
            "directory": str(folder / "recordings"), "shared": True, "key_file": str(folder / "master.key")
        },
        asterisk={"spool": str(folder / "spool")},
    )  # fmt: skip


async def _harm(servers: list[Serving], faults: int, moments: random.Random) -> dict[str, int]:
    """Kill or end one of the servers, and start it again after a while: sometimes after the other took over."""
    done = {"kills": 0, "stops": 0}
    for number in range(faults):
        server = servers[number % 2]
        await until(server.answers, SERVES_SECONDS, "it serves again")
        await asyncio.sleep(moments.uniform(0.0, 4.0))
        assert server.running, f"the server ended by itself:\n{server.tail()}"
        if number % 3 == 2:
            assert await server.end(signal.SIGTERM) == 0, server.tail()
            done["stops"] += 1
        else:
            await server.kill()
            done["kills"] += 1
        await asyncio.sleep(moments.choice((0.0, 1.0, 20.0)))  # 15 s of silence are a dead server
        server.launch()
    return done


async def _keep_up(
    calls: Calls, servers: list[Serving], harm: asyncio.Task[Any], at_once: int, moments: random.Random
) -> int:
    """Have so many calls up until the faults are over; the most there were."""
    most = 0
    while not harm.done():
        if calls.up < at_once:
            await calls.one(moments.choice(servers), moments.uniform(SHORTEST, LONGEST))
            most = max(most, calls.up)
        await asyncio.sleep(0.05)
    return most


async def _settled(ledger: Store) -> bool:
    return await ledger.read(_unsettled) == 0


def _unsettled(conn: sa.Connection) -> int:
    still = recording.c.phase.not_in(("finished", "failed"))
    open_rows = conn.execute(sa.select(sa.func.count()).select_from(recording).where(still)).scalar_one()
    waiting = sa.select(sa.func.count()).select_from(delivery).where(delivery.c.status != "delivered")
    return int(open_rows) + int(conn.execute(waiting).scalar_one())


def _recordings(conn: sa.Connection) -> list[dict[str, Any]]:
    rows = conn.execute(sa.select(recording).order_by(recording.c.id)).mappings()
    return [{**row, "facts": json.dumps(row["facts"])} for row in rows]
