"""The interface of a store, the same for both databases.

`Store.run` takes a unit of work (`fastagi.store.queries`) and runs it in one transaction. The databases are in `sqlite`
and `postgres`; `fastagi.store.open_store` chooses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from fastagi.store.write_latency import WriteLatency
from fastagi.variables import hide_in_query

P = ParamSpec("P")
T = TypeVar("T")

SEARCH_SECONDS = 10.0
"""Seconds after which a search is interrupted: a person who searches waits no longer."""

_HOOKS = "fastagi.after_commit"


class Store(ABC):
    """The ledger. One per process; opened by `start`, closed by `stop`.

    :param node: this server's name in the ledger
    :ivar shown: the database's address without a password, for messages
    :ivar healthy: False from a failed write until the next good one
    :ivar last_error: one line about the last failure; empty while healthy
    :ivar pace: latency of the store's writes
    :ivar side_by_side: how many writes the database carries out at once
    :ivar alone: no other server can be on this ledger
    """

    side_by_side = 1
    alone = False

    def __init__(self, node: str, shown: str) -> None:
        self.node = node
        self.shown = shown
        self.pace = WriteLatency()
        self.healthy = False
        self.last_error = "not started"

    @abstractmethod
    async def start(self) -> None:
        """Open the database, take its lock and migrate it to this version's schema.

        :raises StoreError: another server has it, it is newer than this program, or it is no ledger
        :raises StoreDown: it cannot be reached now
        """

    @abstractmethod
    async def stop(self) -> None:
        """Finish the waiting writes, then close. Idempotent."""

    @abstractmethod
    async def migrate(self) -> None:
        """Migrate the database to this version's schema; `start` has done so. Idempotent."""

    @abstractmethod
    async def run(self, unit: Callable[Concatenate[sa.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `unit(connection, *args)` in a transaction and return once that is durable.

        Cancelling the caller does not undo the write. A unit may be run twice, with nothing of the first run left.

        :raises StoreDown: locked, full, gone or too busy: nothing was written, try again. (When the connection to
            PostgreSQL broke during the commit, the outcome is unknown: the state table or the fence shows it on the
            next try.)
        :raises StoreError: the database refused the unit; an exception of the unit itself passes unchanged
        """

    @abstractmethod
    async def read(self, unit: Callable[Concatenate[sa.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit that only reads, beside the writes. It sees everything that `run` has returned for.

        :raises StoreDown: it took too long, or the database cannot be read now
        """

    @abstractmethod
    async def search(self, unit: Callable[Concatenate[sa.Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a reading unit that may take long, such as a search or a list. Searches hold up no `read`, however many
        there are; each is interrupted after `SEARCH_SECONDS`.

        :raises StoreDown: it took too long, or the database cannot be read now
        """

    def _well(self) -> None:
        self.healthy, self.last_error = True, ""

    def _ill(self, error: Exception) -> None:
        self.healthy, self.last_error = False, str(error)


def shown_address(url: sa.URL) -> str:
    """Return a PostgreSQL address for messages: a password is hidden wherever it stands."""
    return hide_in_query(url.set(drivername="postgresql").render_as_string(hide_password=True))


def after_commit(conn: sa.Connection, callback: Callable[[], None]) -> None:
    """Have `callback` called on the event loop once the transaction that `conn` is in has been committed.

    A rollback discards the callback. The callback must not wait and must not raise.
    """
    hooks(conn).append(callback)


def hooks(conn: sa.Connection) -> list[Callable[[], None]]:
    """Return the callbacks registered since the last commit. For the stores themselves."""
    found: list[Callable[[], None]] = conn.info.setdefault(_HOOKS, [])
    return found


def take_hooks(conn: sa.Connection) -> list[Callable[[], None]]:
    """Return the callbacks registered since the last commit and forget them."""
    found: list[Callable[[], None]] = conn.info.pop(_HOOKS, [])
    return found
