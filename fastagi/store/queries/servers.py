"""Which servers share this ledger, and which of them have gone silent.

On PostgreSQL the database's clock is used for heartbeats: the clocks of two servers may differ by more than the limit.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from fastagi.store.schema import delivery, recording
from fastagi.store.schema import server as table

SILENT_SECONDS = 15.0
"""A server that missed so much is dead: taken over within 20 s. A loop that was blocked so long shows up as an outcome
that the ledger refuses."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server. `silent_seconds` is how long its last heartbeat is ago."""

    node: str
    started_at: float
    heartbeat_at: float
    version: str
    sinks: tuple[str, ...]
    silent_seconds: float


def ledger_now(conn: sa.Connection, now: float) -> float:
    """The time that all servers agree on: PostgreSQL's own, or `now` where there is one server only."""
    if conn.dialect.name != "postgresql":
        return now
    return float(conn.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())::float8")).scalar_one())


def heartbeat(
    conn: sa.Connection, node: str, now: float, *, started_at: float, version: str = "", sinks: Iterable[str] = ()
) -> None:
    """Says that `node` lives and which sinks it can deliver to."""
    values = {
        "heartbeat_at": ledger_now(conn, now),
        "started_at": started_at,
        "version": version,
        "sinks": sorted(sinks),
    }
    done = conn.execute(sa.update(table).where(table.c.node == node).values(**values)).rowcount
    if not done:
        conn.execute(sa.insert(table), {"node": node, **values})


def servers(conn: sa.Connection, now: float) -> list[Server]:
    """All servers there ever were on this ledger and that did not say goodbye."""
    at = ledger_now(conn, now)
    return [
        Server(
            row.node, row.started_at, row.heartbeat_at, row.version, tuple(row.sinks), max(0.0, at - row.heartbeat_at)
        )
        for row in conn.execute(sa.select(table).order_by(table.c.node))
    ]


def sinks_served(conn: sa.Connection, now: float, silent_seconds: float) -> set[str]:
    """Names of the sinks that servers have which live; empty when none does.

    :param silent_seconds: who is silent for longer is dead. Not so on SQLite: its one server speaks seldom, and what
        it said counts until its goodbye
    """
    alone = conn.dialect.name == "sqlite"
    return {name for s in servers(conn, now) if alone or s.silent_seconds <= silent_seconds for name in s.sinks}


def dead_nodes(conn: sa.Connection, now: float, silent_seconds: float) -> list[str]:
    """Nodes without a heartbeat for longer than that."""
    return [s.node for s in servers(conn, now) if s.silent_seconds > silent_seconds]


def goodbye(conn: sa.Connection, nodes: Collection[str]) -> None:
    """Forgets servers that stopped, or whose work was taken over."""
    conn.execute(sa.delete(table).where(table.c.node.in_(list(nodes))))


def only_one(conn: sa.Connection, node: str, *, again: bool = False) -> int:
    """Makes everything in an SQLite ledger this server's: no other can run on it, so another name is one that this
    machine had before (a container's changes with each new one). Costs a look where the name is the same.

    :param again: look through the rows though the name is the same
    :returns: recordings that bore another name
    """
    mark = zlib.crc32(node.encode()) - (1 << 31) or 1  # 0 is what a new database has
    if conn.exec_driver_sql("PRAGMA user_version").scalar_one() == mark and not again:
        return 0
    found = conn.execute(sa.update(recording).where(recording.c.node != node).values(node=node)).rowcount
    conn.execute(sa.update(delivery).where(delivery.c.home != node).values(home=node))
    conn.execute(sa.delete(table).where(table.c.node != node))
    conn.exec_driver_sql(f"PRAGMA user_version = {mark}")
    return found
