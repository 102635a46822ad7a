"""Chooses the dispatcher of a store."""

from __future__ import annotations

from collections.abc import Callable

from fastagi.delivery.dispatch import Dispatcher
from fastagi.store import Store


def open_dispatcher(store: Store, *, clock: Callable[[], float]) -> Dispatcher:
    """Return the dispatcher for a store: in this process for SQLite, PgQueuer for PostgreSQL.

    :param clock: unix seconds
    """
    from fastagi.store.sqlite import SqliteStore

    if isinstance(store, SqliteStore):
        from fastagi.delivery.inprocess import InProcessDispatcher

        return InProcessDispatcher(store, clock=clock)
    from fastagi.delivery.pgqueuer_dispatch import PgQueuerDispatcher
    from fastagi.store.postgres import PostgresStore

    if not isinstance(store, PostgresStore):
        raise TypeError(f"no dispatcher for {type(store).__name__}")
    return PgQueuerDispatcher(store, clock=clock)
