"""The ledger: which recordings were requested, their outcome, and which deliveries are due. It is the only source of
truth.

`open_store` gives a `Store`; the units of work that it runs are in `fastagi.store.queries`.
"""

from __future__ import annotations

from fastagi.errors import StoreError
from fastagi.store.ledger import Store, after_commit

__all__ = ["Store", "after_commit", "open_store"]


def open_store(url: str, *, node: str) -> Store:
    """Return the store that `url` names. The database is opened by the store's `start`, not here.

    :param url: ``sqlite:////absolute/path.db``, or ``postgresql://user:password@host/database``
    :param node: this server's name in the ledger
    :raises StoreError: the URL is neither of these, or the `postgres` extra is not installed
    """
    if url.startswith("sqlite:///"):
        from fastagi.store.sqlite import SqliteStore, path_of

        return SqliteStore(path_of(url), node=node)
    if url.startswith(("postgresql://", "postgres://", "postgresql+asyncpg://")):
        try:
            from fastagi.store.postgres import PostgresStore
        except ImportError:
            raise StoreError("PostgreSQL needs an extra: pip install 'fastagi-recorder[postgres]'") from None
        return PostgresStore(url, node=node)
    raise StoreError(f"store.url={url.split('://')[0]!r}…: must start with sqlite:/// or postgresql://")
