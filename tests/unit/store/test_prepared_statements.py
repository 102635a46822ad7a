"""A statement worked out once says on SQLite what SQLAlchemy would say."""

from __future__ import annotations

import sqlite3

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from fastagi.store.prepared import Prepared

thing = sa.Table(
    "thing",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, server_default="nobody"),
    sa.Column("good", sa.Boolean, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("at", sa.Double),
)


@pytest.fixture
def conn():
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(":memory:", isolation_level=None)

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=StaticPool, paramstyle="named")
    sa.event.listen(engine, "begin", lambda conn: conn.exec_driver_sql("BEGIN"))
    with engine.connect() as conn:
        thing.metadata.create_all(conn)
        conn.commit()
        yield conn
    engine.dispose()


INSERT = Prepared(sa.insert(thing).inline(), ["id", "good", "facts", "at"])
GET = Prepared(sa.select(thing).where(thing.c.id == sa.bindparam("id")))
RENAME = Prepared(
    sa.update(thing)
    .where(thing.c.id == sa.bindparam("_id"), thing.c.name == "nobody")
    .values(name=sa.bindparam("name"))
    .returning(thing.c.name, thing.c.facts)
)
ROW = {"id": 1, "good": True, "facts": {"é": [1, None, 0.5]}, "at": 7}


def test_values_match_sqlalchemy(conn):
    """Values come out as SQLAlchemy gives them."""
    assert INSERT.run(conn, ROW) == 1
    found = GET.first(conn, {"id": 1})
    assert found == {**ROW, "name": "nobody", "at": 7.0}
    assert found["good"] is True
    assert found == dict(conn.execute(sa.select(thing)).mappings().one())


def test_nothing_found_is_none(conn):
    assert GET.first(conn, {"id": 9}) is None


def test_returning_gives_guarded_row(conn):
    """RETURNING gives the row, and a fixed value guards it."""
    INSERT.run(conn, ROW)
    assert RENAME.first(conn, {"_id": 1, "name": "x"}) == {"name": "x", "facts": ROW["facts"]}
    assert RENAME.first(conn, {"_id": 1, "name": "y"}) is None
    assert GET.first(conn, {"id": 1})["name"] == "x"


def test_transaction_begins_like_sqlalchemy(conn):
    INSERT.run(conn, ROW)
    assert conn.in_transaction()
    conn.rollback()
    assert GET.first(conn, {"id": 1}) is None


def test_the_databases_errors_are_sqlalchemys(conn):
    INSERT.run(conn, ROW)
    with pytest.raises(sa.exc.IntegrityError) as caught:
        INSERT.run(conn, ROW)
    assert caught.value.orig.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
    with pytest.raises(sa.exc.DBAPIError):
        INSERT.run(conn, {**ROW, "id": object()})


def test_missing_value_is_an_error(conn):
    with pytest.raises((sa.exc.DBAPIError, KeyError)):
        INSERT.run(conn, {"id": 1})
