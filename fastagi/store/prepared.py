"""Statements that run for every call, compiled once.

For each run SQLAlchemy looks a statement up and builds a context and a result, which costs ten times what SQLite does
with it. Here a statement is compiled once, with the conversion of each value, and SQLite is called directly. On
PostgreSQL, where the round trip costs more than either, SQLAlchemy runs it as any other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

Convert = Callable[[Any], Any]

_SQLITE = sqlite.dialect(paramstyle="named")


class Prepared:
    """One statement of SQLAlchemy Core.

    :param columns: the columns given to an INSERT; empty for a statement that names its own
    :param elsewhere: the statement for PostgreSQL, where that differs
    """

    def __init__(
        self,
        statement: sa.Select[Any] | sa.Insert | sa.Update,
        columns: Iterable[str] = (),
        *,
        elsewhere: sa.Insert | None = None,
    ) -> None:
        self._statement = statement if elsewhere is None else elsewhere
        compiled = statement.compile(dialect=_SQLITE, column_keys=list(columns) or None)
        self._sql = str(compiled)
        self._fixed: dict[str, Any] = {}
        self._into: list[tuple[str, Convert]] = []
        for bind, name in compiled.bind_names.items():
            convert = bind.type.dialect_impl(_SQLITE).bind_processor(_SQLITE)
            if not bind.required:
                self._fixed[name] = bind.value if convert is None else convert(bind.value)
            elif convert is not None:
                self._into.append((name, convert))
        self._names: tuple[str, ...] = ()
        self._out: list[tuple[str, Convert]] = []
        for column in statement.exported_columns:
            convert = column.type.dialect_impl(_SQLITE).result_processor(_SQLITE, None)
            self._names += (column.name,)
            if convert is not None:
                self._out.append((column.name, convert))

    def first(self, conn: sa.Connection, values: Mapping[str, Any]) -> Mapping[Any, Any] | None:
        """Run the statement and return its first row by column name, or None."""
        if conn.dialect.name != "sqlite":
            return conn.execute(self._statement, values).mappings().first()
        rows = self._execute(conn, values).fetchall()  # fetch all rows: an UPDATE is done when its last row is fetched
        if not rows:
            return None
        row = dict(zip(self._names, rows[0], strict=True))
        for name, convert in self._out:
            row[name] = convert(row[name])
        return row

    def run(self, conn: sa.Connection, values: Mapping[str, Any]) -> int:
        """Run the statement and return how many rows it wrote."""
        if conn.dialect.name != "sqlite":
            return conn.execute(self._statement, values).rowcount
        return self._execute(conn, values).rowcount

    def _execute(self, conn: sa.Connection, values: Mapping[str, Any]) -> sqlite3.Cursor:
        given = {**self._fixed, **values}
        for name, convert in self._into:
            given[name] = convert(given[name])
        if not conn.in_transaction():
            conn.begin()  # as SQLAlchemy would
        raw: sqlite3.Connection = conn.connection.dbapi_connection  # type: ignore[assignment]
        try:
            return raw.execute(self._sql, given)
        except sqlite3.Error as exc:
            raise sa.exc.DBAPIError.instance(self._sql, None, exc, sqlite3.Error, dialect=_SQLITE) from exc
