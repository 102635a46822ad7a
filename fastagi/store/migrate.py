"""Migrates a database to `fastagi.store.schema`; the steps are in `migrations/versions`."""

from __future__ import annotations

import threading
from pathlib import Path

import sqlalchemy as sa

from fastagi.errors import StoreDown, StoreError
from fastagi.store.schema import HEAD, metadata

_SCRIPTS = Path(__file__).with_name("migrations")

ADVISORY_LOCK = 0x66617374616769
"""PostgreSQL: two servers that start at once migrate one after the other."""

WAIT_SECONDS = 60.0
"""Seconds that another migration of this process is waited for; one takes less than a second."""

_one_at_a_time = threading.Lock()  # alembic keeps its context in module globals


class MigrationUnderWay(StoreDown):
    """Another database is being migrated by this process, and only one at a time can be."""


def revision(conn: sa.Connection) -> str | None:
    """Return the migration that the database is at; None for an empty one.

    :raises StoreError: the tables have the ledger's names, but belong to another program
    """
    inspector = sa.inspect(conn)
    if inspector.has_table("alembic_version"):
        return conn.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    taken = sorted(set(inspector.get_table_names()) & set(metadata.tables))
    if taken:
        raise StoreError(
            f"the database has a table {taken[0]!r} that is not fastagi's: give fastagi a database of its own"
        )
    return None


def migrate(conn: sa.Connection) -> bool:
    """Upgrade inside the transaction that `conn` is in: all steps or none.

    :returns: whether there was anything to do
    :raises StoreError: the database is newer than this program, or no ledger
    :raises MigrationUnderWay: wait and try again; on PostgreSQL raised at once, because waiting here could block the
        loop that the other migration needs
    """
    if conn.dialect.name == "postgresql":
        conn.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
    current = revision(conn)
    if current == HEAD:
        return False
    # imported here: alembic costs 0.2 s, and almost every start needs none of it
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    if current is not None and current not in {
        s.revision for s in ScriptDirectory.from_config(config).walk_revisions()
    }:
        raise StoreError(
            f"the database was written by a newer fastagi (schema {current}, this one knows {HEAD}): upgrade"
        )
    if not _one_at_a_time.acquire(timeout=0 if conn.dialect.name == "postgresql" else WAIT_SECONDS):
        raise MigrationUnderWay("another database is being migrated by this process")
    try:
        config.attributes["connection"] = conn
        command.upgrade(config, HEAD)
    finally:
        _one_at_a_time.release()
    return True
