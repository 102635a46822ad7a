"""Migrations: they give the schema, run by themselves, and refuse what is not ours."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import fastagi.store.migrate as migrate_module
from fastagi.domain.states import OPEN
from fastagi.errors import StoreError
from fastagi.store import open_store
from fastagi.store.schema import HEAD, OPEN_PHASES_SQL, metadata


def differences(conn: sa.Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(conn, opts={"compare_type": True}), metadata))


async def test_the_migrations_make_the_schema(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/a.db", node="one")
    await store.start()
    assert await store.run(differences) == []
    assert await store.run(migrate_module.revision) == HEAD
    await store.migrate()
    await store.stop()


async def test_a_ledger_of_0001_gets_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds stays."""
    path = tmp_path / "a.db"
    store = open_store(f"sqlite:///{path}", node="one")
    with monkeypatch.context() as before:
        before.setattr(migrate_module, "HEAD", "0001")
        await store.start()
        await store.stop()
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute("select version_num from alembic_version").fetchall() == [("0001",)]
        db.execute("insert into server (node, started_at, heartbeat_at, sinks) values ('other', 1, 1, '[]')")
    await store.start()
    assert await store.run(differences) == []
    assert await store.run(migrate_module.revision) == HEAD
    assert await store.read(lambda conn: conn.exec_driver_sql("select node from server").all()) != []
    await store.stop()


def test_head_is_the_newest_script() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate_module.__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_partial_index_names_open_phases() -> None:
    assert sorted(OPEN_PHASES_SQL.split("'")[1::2]) == sorted(OPEN)


async def test_open_phases_use_their_index(tmp_path: Path) -> None:
    """The open phases are looked up by their index."""
    from fastagi.store.queries import recordings

    store = open_store(f"sqlite:///{tmp_path}/a.db", node="one")
    await store.start()

    def plan(conn: sa.Connection) -> str:
        text = str(recordings._OPEN_ON_NODE.compile(conn.engine))
        return str(conn.exec_driver_sql("explain query plan " + text, {"node": "one"}).all())

    assert "ix_recording_open" in await store.run(plan)
    await store.stop()


async def test_newer_database_is_refused(tmp_path: Path) -> None:
    """A database of a newer version is refused in one line."""
    path = tmp_path / "a.db"
    store = open_store(f"sqlite:///{path}", node="one")
    await store.start()
    await store.stop()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(StoreError, match=r"^[^\n]*newer fastagi \(schema 9999[^\n]*$"):
        await store.start()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("update alembic_version set version_num = ?", (HEAD,))
    await store.start()  # its lock was dropped
    await store.stop()


async def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("create table call (number text)")
    store = open_store(f"sqlite:///{path}", node="one")
    with pytest.raises(StoreError, match="'call' that is not fastagi's"):
        await store.start()
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute("select name from sqlite_master").fetchall() == [("call",)]


async def test_failed_migration_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that fails leaves the database as it was."""
    from alembic import op

    def full(*args: object, **kwargs: object) -> None:
        raise sa.exc.OperationalError("create index", {}, Exception("disk is full"))

    path = tmp_path / "a.db"
    store = open_store(f"sqlite:///{path}", node="one")
    with monkeypatch.context() as patch:
        patch.setattr(op, "create_index", full)
        with pytest.raises(StoreError, match="disk is full"):
            await store.start()
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute("select count(*) from sqlite_master").fetchone() == (0,)
    await store.start()
    await store.stop()
