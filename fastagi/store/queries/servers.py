"""The servers that share this ledger, and which of them have gone silent.

On PostgreSQL heartbeats use the database's clock: the clocks of two servers may differ by more than the limit.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from fastagi.store.schema import delivery, recording
from fastagi.store.schema import server as table

SILENT_SECONDS = 15.0
"""Seconds without a heartbeat after which a server counts as dead; its work is taken over within 20 s. The ledger
refuses the outcomes of a server whose loop was only blocked for so long.
"""


@dataclass(frozen=True, slots=True)
class Server:
    """One server. `silent_seconds` is the age of its last heartbeat."""

    node: str
    started_at: float
    heartbeat_at: float
    version: str
    sinks: tuple[str, ...]
    silent_seconds: float


def ledger_now(conn: sa.Connection, now: float) -> float:
    """Return the time that all servers agree on: PostgreSQL's own, or `now` when there is one server only."""
    if conn.dialect.name != "postgresql":
        return now
    return float(conn.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())::float8")).scalar_one())


def heartbeat(
    conn: sa.Connection, node: str, now: float, *, started_at: float, version: str = "", sinks: Iterable[str] = ()
) -> None:
    """Write that `node` lives and which sinks it can deliver to."""
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
    """Return all servers that ever used this ledger and did not say goodbye."""
    at = ledger_now(conn, now)
    return [
        Server(
            row.node, row.started_at, row.heartbeat_at, row.version, tuple(row.sinks), max(0.0, at - row.heartbeat_at)
        )
        for row in conn.execute(sa.select(table).order_by(table.c.node))
    ]


def sinks_served(conn: sa.Connection, now: float, silent_seconds: float) -> set[str]:
    """Return the names of the sinks that living servers have; empty when there are none.

    :param silent_seconds: a server that is silent for longer counts as dead. On SQLite the limit does not apply: its
        one server beats seldom and counts until its goodbye
    """
    alone = conn.dialect.name == "sqlite"
    return {name for s in servers(conn, now) if alone or s.silent_seconds <= silent_seconds for name in s.sinks}


def goodbye(conn: sa.Connection, nodes: Collection[str]) -> None:
    """Delete servers that stopped, or whose work was taken over."""
    conn.execute(sa.delete(table).where(table.c.node.in_(list(nodes))))


def only_one(conn: sa.Connection, node: str, *, again: bool = False) -> int:
    """Give everything in an SQLite ledger to this server. No other server can run on it, so another name is a former
    one of this machine (a container's changes with each new one). Cheap when the name is the same.

    :param again: check the rows though the name is the same
    :returns: number of recordings that had another name
    """
    mark = zlib.crc32(node.encode()) - (1 << 31) or 1  # a new database has 0
    if conn.exec_driver_sql("PRAGMA user_version").scalar_one() == mark and not again:
        return 0
    found = conn.execute(sa.update(recording).where(recording.c.node != node).values(node=node)).rowcount
    conn.execute(sa.update(delivery).where(delivery.c.home != node).values(home=node))
    conn.execute(sa.delete(table).where(table.c.node != node))
    conn.exec_driver_sql(f"PRAGMA user_version = {mark}")
    return found
