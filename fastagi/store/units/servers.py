"""Which servers share this ledger, and which of them have gone silent.

On PostgreSQL the database's clock is used for heartbeats: the clocks of two servers may differ by more than the limit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from fastagi.store.schema import server as table


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


def dead_nodes(conn: sa.Connection, now: float, silent_seconds: float) -> list[str]:
    """Nodes without a heartbeat for longer than that."""
    return [s.node for s in servers(conn, now) if s.silent_seconds > silent_seconds]


def goodbye(conn: sa.Connection, nodes: Collection[str]) -> None:
    """Forgets servers that stopped, or whose work was taken over."""
    conn.execute(sa.delete(table).where(table.c.node.in_(list(nodes))))
