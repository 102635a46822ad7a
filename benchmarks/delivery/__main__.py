"""Deliveries per second and CPU per delivery, on SQLite and on PostgreSQL, side by side.

    python -m benchmarks.delivery [--deliveries 5000] [--postgres postgresql://…] [--json]

Per database: `--deliveries` finished recordings are written and delivered to a sink that does nothing, `--at-once` of
them at a time, then the same against 10,000 deliveries that wait for a sink that is down. Shown: recordings finished
and delivered per second, CPU of this process per delivery (all its threads; PostgreSQL's own CPU is not in it), fsyncs
where they can be counted, and the time from commit to the sink's call. The floor beside them is plain `sqlite3` on one
connection doing the same statements' work: claim and settle in one transaction each 50.

Compare ratios of one run, not figures of two: a shared machine changes by a factor of two within minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog

from fastagi.delivery.opening import open_dispatcher
from fastagi.delivery.registry import SinkRegistry
from fastagi.delivery.worker import DeliveryWorker
from fastagi.domain.recording import Recording
from fastagi.domain.states import Event
from fastagi.errors import SinkError
from fastagi.store import Store, open_store
from fastagi.store.queries import recordings
from fastagi.store.sqlite import SqliteStore


class Nothing:
    """A sink that takes everything at once and notes when."""

    needs_file = False

    def __init__(self) -> None:
        self.called: dict[str, float] = {}

    async def on_recording_complete(self, metadata: Any) -> None:
        self.called[metadata.extra["recording_id"]] = time.perf_counter()


class Down:
    needs_file = False

    async def on_recording_complete(self, metadata: Any) -> None:
        raise SinkError("connection refused")


def recording(n: int) -> Recording:
    return Recording(f"rec-{n:07}", "bench", "pbx", "SIP/a", f"1.{n}", f"call-{n}", f"/rec/{n}.wav", requested_at=1.0)


def write(conn: sa.Connection, courier: DeliveryWorker, first: int, count: int, sink: str) -> None:
    """Finished recordings, written as far as the last step."""
    for n in range(first, first + count):
        item = recording(n)
        recordings.insert(conn, item)
        for event in (Event.STARTED, Event.HUNG_UP, Event.CLOSED):
            recordings.advance(conn, item.id, event, at=1.0)


def finish(conn: sa.Connection, courier: DeliveryWorker, n: int, sink: str) -> None:
    _, made = recordings.finish(conn, f"rec-{n:07}", at=time.time(), sinks=(sink,))
    courier.enqueue(conn, made)


async def measure(url: str, deliveries: int, at_once: int) -> dict[str, float]:
    store = open_store(url, node="bench")
    await store.start()
    registry, sink = SinkRegistry(), Nothing()
    registry.register("nothing", sink, concurrency=at_once)
    registry.register("down", Down())
    courier = DeliveryWorker(store, open_dispatcher(store, clock=time.time), registry)
    await courier.start()
    figures: dict[str, float] = {}
    for label, waiting in (("", 0), ("_beside_10000", 10_000)):
        base = 1_000_000 if waiting else 0
        for first in range(base + 100_000, base + 100_000 + waiting, 500):
            await store.run(write, courier, first, min(500, waiting), "down")
            await store.run(_finish_many, courier, first, min(500, waiting), "down")
        for first in range(base, base + deliveries, 500):
            await store.run(write, courier, first, min(500, base + deliveries - first), "nothing")
        figures |= {k + label: v for k, v in (await _drain(store, courier, sink, base, deliveries, at_once)).items()}
    await courier.stop(2.0)
    await store.stop()
    return figures


def _finish_many(conn: sa.Connection, courier: DeliveryWorker, first: int, count: int, sink: str) -> None:
    for n in range(first, first + count):
        finish(conn, courier, n, sink)


async def _drain(
    store: Store, courier: DeliveryWorker, sink: Nothing, base: int, deliveries: int, at_once: int
) -> dict[str, float]:
    room = asyncio.Semaphore(at_once)
    committed: dict[str, float] = {}
    done = courier.stats()["delivered"] + deliveries

    async def one(n: int) -> None:
        async with room:
            await store.run(finish, courier, n, "nothing")
            committed[f"rec-{n:07}"] = time.perf_counter()

    commits = store.commits if isinstance(store, SqliteStore) else 0
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(one(n) for n in range(base, base + deliveries)))
    while courier.stats()["delivered"] < done:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    figures = {"per_second": deliveries / wall, "cpu_ms": cpu / deliveries * 1000}
    if isinstance(store, SqliteStore):
        figures["commits_per_delivery"] = (store.commits - commits) / deliveries
    # one at a time: how long an idle system takes
    idle = []
    for n in range(base + 90_000, base + 90_050):
        await store.run(write, courier, n, 1, "nothing")
        await one(n)
        name = f"rec-{n:07}"
        while name not in sink.called:  # noqa: ASYNC110
            await asyncio.sleep(0.0005)
        idle.append(max(0.0, sink.called[name] - committed[name]))
    idle.sort()
    figures["commit_to_sink_ms_p50"] = idle[len(idle) // 2] * 1000
    figures["commit_to_sink_ms_p95"] = idle[int(len(idle) * 0.95)] * 1000
    return figures


def floor(folder: Path, deliveries: int) -> dict[str, float]:
    """Plain sqlite3: insert, claim, settle and note a delivery; four statements, 50 deliveries per transaction."""
    db = sqlite3.connect(folder / "floor.db", isolation_level=None)
    db.execute("pragma journal_mode = wal")
    db.execute("pragma synchronous = full")
    db.execute("create table d (id text primary key, status text, fence integer, next_at real)")
    db.execute("create table a (id text, n integer, at real, primary key (id, n))")
    cpu, wall = time.process_time(), time.perf_counter()
    for first in range(0, deliveries, 50):
        for step in range(3):
            db.execute("begin immediate")
            for n in range(first, first + 50):
                if step == 0:
                    db.execute("insert into d values (?, 'waiting', 0, 0)", (str(n),))
                elif step == 1:
                    db.execute("update d set status = 'running', fence = fence + 1 where id = ?", (str(n),))
                else:
                    db.execute("update d set status = 'delivered' where id = ? and fence = 1", (str(n),))
                    db.execute("insert into a values (?, 1, 0)", (str(n),))
            db.execute("commit")
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    db.close()
    return {"per_second": deliveries / wall, "cpu_ms": cpu / deliveries * 1000}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=5000)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--postgres", help="URL of an empty database; without it one is started where possible")
    parser.add_argument("--no-postgres", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results["sqlite3 alone"] = floor(folder, arguments.deliveries)
        results["SQLite"] = asyncio.run(
            measure(f"sqlite:///{folder}/bench.db", arguments.deliveries, arguments.at_once)
        )
        if not arguments.no_postgres:
            server = None
            url = arguments.postgres
            if not url:
                sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
                from support.postgres_server import PostgresServer

                server = PostgresServer()
                server.start()
                url = server.create_database()
            try:
                results["PostgreSQL"] = asyncio.run(measure(url, arguments.deliveries, arguments.at_once))
            finally:
                if server is not None:
                    server.close()
    if arguments.json:
        print(json.dumps(results, indent=1))
        return 0
    names = list(dict.fromkeys(figure for figures in results.values() for figure in figures))
    print(f"{'':34}" + "".join(f"{label:>16}" for label in results))
    for figure in names:
        cells = (f"{results[label][figure]:16.3g}" if figure in results[label] else f"{'':>16}" for label in results)
        print(f"{figure:34}" + "".join(cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
