"""Opens a ledger beside the server that has it: takes no lock, migrates nothing, starts nothing.

For commands. SQLite in WAL mode allows readers and a short write beside its server, which looks every 2 s for changes
by other processes. PostgreSQL allows both anyway.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from fastagi.errors import StoreDamaged, StoreDown, StoreError
from fastagi.store.connection_threads import DATABASE, one_line
from fastagi.store.erasing import take_erased, truncate_log
from fastagi.store.ledger import shown_address
from fastagi.store.migrate import revision
from fastagi.store.schema import HEAD
from fastagi.store.sqlite import BUSY_SECONDS, path_of

P = ParamSpec("P")
T = TypeVar("T")

CONNECT_SECONDS = 5.0

TRUNCATE_TRIES = 20
"""Tries, a twentieth of a second apart. When all fail, a running server truncates the log later; without a server the
last process that closes the ledger does.
"""


class OfflineLedger:
    """``async with OfflineLedger(url) as ledger: await ledger.read(unit, ...)``.

    :param url: as `open_store` takes it
    :param any_schema: also open a ledger of another version; then only `revision` is of use
    :ivar shown: its address, without a password
    """

    def __init__(self, url: str, *, any_schema: bool = False) -> None:
        self._url = url
        self._any = any_schema
        self._engine: Any = None
        self._path: Path | None = None
        if url.startswith("sqlite:///"):
            self._path = path_of(url)
            self.shown = str(self._path)
        else:
            try:
                parsed = sa.make_url(url)
            except sa.exc.ArgumentError:
                raise StoreError("store.url is no PostgreSQL URL: postgresql://user:password@host/database") from None
            self.shown = shown_address(parsed)

    async def __aenter__(self) -> Self:
        """Open the ledger.

        :raises StoreError: there is no ledger, or another version's
        :raises StoreDown: it cannot be reached
        """
        if self._path is not None:
            if not await asyncio.to_thread(self._path.is_file):
                raise StoreError(f"{self.shown}: there is no ledger: the server makes it at its first start")
            if not await asyncio.to_thread(os.access, self._path, os.R_OK | os.W_OK):
                raise StoreError(f"{self.shown}: this user may not read and write it: run it as the server's user")
            self._engine = sa.create_engine("sqlite://", creator=self._raw, poolclass=NullPool, paramstyle="named")
            sa.event.listen(self._engine, "begin", lambda conn: conn.exec_driver_sql("BEGIN"))
        else:
            try:
                from sqlalchemy.ext.asyncio import create_async_engine

                url = sa.make_url(self._url).set(drivername="postgresql+asyncpg")
                limits = {"timeout": CONNECT_SECONDS, "command_timeout": 60}
                self._engine = create_async_engine(url, poolclass=NullPool, connect_args=limits)
            except ImportError:
                raise StoreError("PostgreSQL needs an extra: pip install 'fastagi-recorder[postgres]'") from None
        if not self._any:
            found = await self.read(revision)
            if found != HEAD:
                raise StoreError(
                    f"{self.shown}: the ledger has schema {found or 'none'}, this fastagi knows {HEAD}: "
                    "start this version's server once, or use the version that wrote it"
                )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._engine is not None and self._path is None:
            await self._engine.dispose()

    async def read(self, unit: Callable[Concatenate[sa.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit and write nothing."""
        return await self._run(False, unit, args, kwargs)

    async def run(self, unit: Callable[Concatenate[sa.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit in a transaction."""
        return await self._run(True, unit, args, kwargs)

    async def _run(self, writes: bool, unit: Callable[..., T], args: Any, kwargs: Any) -> T:
        try:
            if self._path is not None:
                return await asyncio.to_thread(self._in_sqlite, writes, unit, args, kwargs)
            async with self._engine.connect() as conn:
                value: T = await conn.run_sync(unit, *args, **kwargs)
                await (conn.commit() if writes else conn.rollback())
                return value
        except (*DATABASE, OSError, TimeoutError) as exc:
            if isinstance(damaged := one_line(exc, self.shown), StoreDamaged):
                raise damaged from None
            raise StoreDown(self._line(exc)) from None
        except Exception as exc:
            if type(exc).__module__.startswith("asyncpg"):  # the extra may not be installed
                raise StoreDown(self._line(exc)) from None
            raise

    def _in_sqlite(self, writes: bool, unit: Callable[..., T], args: Any, kwargs: Any) -> T:
        with self._engine.connect() as conn:
            if not writes:
                conn.exec_driver_sql("PRAGMA query_only = ON")
                conn.rollback()
            value = unit(conn, *args, **kwargs)
            if writes:
                conn.commit()
                if take_erased(conn):
                    _truncate(conn)
            else:
                conn.rollback()
            return value

    def _raw(self) -> sqlite3.Connection:
        assert self._path is not None
        # rw, though most commands only read: a reader in WAL mode needs the index file beside the ledger
        raw = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            raw.execute("PRAGMA synchronous = FULL")
            raw.execute("PRAGMA foreign_keys = ON")
            raw.execute("PRAGMA secure_delete = ON")  # as the server's own connections have it
        except BaseException:  # a damaged file
            raw.close()
            raise
        return raw

    def _line(self, exc: BaseException) -> str:
        text = " ".join(str(getattr(exc, "orig", None) or exc).split())[:300] or type(exc).__name__
        return f"{self.shown}: {text}"


def _truncate(conn: sa.Connection) -> None:
    for _ in range(TRUNCATE_TRIES):
        if truncate_log(conn):
            return
        time.sleep(0.05)
