"""Moves the ledger of a stopped server from SQLite to PostgreSQL. Called by `fastagi.cli`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fastagi.errors import StoreError
from fastagi.store import open_store
from fastagi.store.ledger import Store
from fastagi.store.schema import metadata
from fastagi.store.sqlite import SqliteStore

CHUNK = 1000
"""Rows in memory at once, some MB."""


def _tables() -> list[sa.Table]:
    # not copied: which servers live is true for the moment only, and those of the source have stopped
    return [table for table in metadata.sorted_tables if table.name != "server"]


async def copy_ledger(
    source: Path, target_url: str, *, node: str, progress: Callable[[str, int], None] | None = None
) -> dict[str, int]:
    """Copy every table of the SQLite ledger `source` into the empty ledger at `target_url`.

    The source is locked meanwhile and not changed. Recordings keep their node, so the PostgreSQL server needs the node
    name of the SQLite one. An interrupted copy leaves part of it in the target: drop that database and start again.

    :param progress: called with the table and the rows copied so far
    :returns: rows by table, counted again in the target
    :raises StoreError: a server runs on the source, it is not there, the target is not empty, or the counts differ
    """
    if not await asyncio.to_thread(source.is_file):
        raise StoreError(f"{source}: there is no such ledger")
    old = SqliteStore(source, node=node)
    new = open_store(target_url, node=node)
    await old.start()
    try:
        await new.start()
        try:
            return await _copy(old, new, progress or (lambda table, rows: None))
        finally:
            await new.stop()
    finally:
        await old.stop()


async def _copy(old: Store, new: Store, progress: Callable[[str, int], None]) -> dict[str, int]:
    for table in _tables():
        if await new.run(_count, table):
            raise StoreError(f"{new.shown}: table {table.name} is not empty: copy into a fresh database")
    counts: dict[str, int] = {}
    for table in _tables():
        done = 0
        last: tuple[Any, ...] | None = None
        while rows := await old.read(_chunk, table, last):
            await new.run(_insert, table, rows)
            last = tuple(rows[-1][column.name] for column in table.primary_key.columns)
            done += len(rows)
            progress(table.name, done)
        there = await old.read(_count, table)
        counts[table.name] = await new.run(_count, table)
        if not counts[table.name] == there == done:
            raise StoreError(f"table {table.name}: {there} rows here, {counts[table.name]} there")
    await new.run(_continue_numbers)
    return counts


def _count(conn: sa.Connection, table: sa.Table) -> int:
    return int(conn.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def _chunk(conn: sa.Connection, table: sa.Table, last: tuple[Any, ...] | None) -> list[dict[str, Any]]:
    key = list(table.primary_key.columns)
    statement = sa.select(table).order_by(*key).limit(CHUNK)
    if last is not None:
        statement = statement.where(sa.tuple_(*key) > sa.tuple_(*(sa.literal(v) for v in last)))
    return [dict(row) for row in conn.execute(statement).mappings()]


def _insert(conn: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    conn.execute(sa.insert(table), rows)


def _numbered() -> Iterator[sa.Column[Any]]:
    for table in _tables():
        for column in table.primary_key.columns:
            if column.autoincrement is True:
                yield column


def _continue_numbers(conn: sa.Connection) -> None:
    """Set PostgreSQL's sequences behind the numbers that the copied rows brought along."""
    for column in _numbered():
        conn.execute(
            sa.text("SELECT setval(pg_get_serial_sequence(:t, :c), :n)"),
            {
                "t": f'"{column.table.name}"' if isinstance(column.table, sa.Table) else "",
                "c": column.name,
                "n": max(1, int(conn.execute(sa.select(sa.func.coalesce(sa.func.max(column), 0))).scalar_one())),
            },
        )
