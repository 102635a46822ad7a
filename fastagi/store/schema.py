"""The ledger's tables, defined once for SQLite and PostgreSQL.

Only the shape is here. `fastagi.store.queries` decides what is written when, and `fastagi.store.migrations` brings a
database to this shape. Times are unix seconds (float, UTC) everywhere. A change here needs a migration and a new
`HEAD`; a test compares the two.
"""

from __future__ import annotations

import sqlalchemy as sa

HEAD = "0002"
"""The newest migration. A database at this revision is not migrated, which saves alembic's start-up time."""

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

JSON = sa.JSON
"""`json` on PostgreSQL, not `jsonb`: keys keep their order, so a webhook's body is the same on each attempt."""
Serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""SQLite numbers rows by itself only in a column that is exactly INTEGER."""

Text = sa.Text
Time = sa.Double


def _text(name: str, *, index: bool = False) -> sa.Column[str]:
    return sa.Column(name, Text, nullable=False, server_default="", index=index)


recording = sa.Table(
    "recording",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("node", Text, nullable=False),
    sa.Column("asterisk", Text, nullable=False),
    _text("system"),
    _text("channel", index=True),
    _text("uniqueid", index=True),
    _text("linkedid", index=True),
    _text("recorder"),
    _text("name"),
    _text("file_path"),
    sa.Column("phase", Text, nullable=False),
    sa.Column("cause", Text, nullable=False),
    sa.Column("state", Text, nullable=False),
    _text("error"),
    _text("caller", index=True),
    _text("called", index=True),
    _text("file_format"),
    sa.Column("requested_at", Time, nullable=False, index=True),
    sa.Column("started_at", Time, index=True),
    sa.Column("ended_at", Time),
    sa.Column("finished_at", Time),
    sa.Column("audio_seconds", Time),
    sa.Column("bytes", sa.BigInteger),
    _text("sha256"),
    sa.Column("adopted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("legal_hold", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("deleted_at", Time),
    sa.Column("updated_at", Time, nullable=False),
    sa.Column("spec", JSON, nullable=False),
    sa.Column("pieces", JSON, nullable=False),
    sa.Column("pauses", JSON, nullable=False),
    sa.Column("sinks", JSON, nullable=False),
    sa.Column("facts", JSON, nullable=False),
)

OPEN_PHASES_SQL = "phase IN ('requested', 'active', 'paused', 'stopping', 'closing', 'finishing')"
"""`domain.states.OPEN` as SQL: few rows among millions of finished ones, which a restart picks up."""

sa.Index(
    "ix_recording_open",
    recording.c.node,
    recording.c.phase,
    sqlite_where=sa.text(OPEN_PHASES_SQL),
    postgresql_where=sa.text(OPEN_PHASES_SQL),
)
sa.Index("ix_recording_file_path", recording.c.file_path)

journal = sa.Table(
    "journal",
    metadata,
    sa.Column("seq", Serial, primary_key=True, autoincrement=True),
    sa.Column("recording_id", Text, nullable=False, index=True),
    sa.Column("at", Time, nullable=False),
    sa.Column("event", Text, nullable=False),
    _text("from_phase"),
    _text("to_phase"),
    sa.Column("detail", JSON, nullable=False),
    sqlite_autoincrement=True,  # a number is never given twice, so "everything after seq" is safe to ask
)

delivery = sa.Table(
    "delivery",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("recording_id", Text, nullable=False),
    sa.Column("sink", Text, nullable=False),
    sa.Column("call_key", Text, nullable=False),  # deliveries of one call to one sink keep their order
    sa.Column("home", Text, nullable=False),  # the node whose disk has the file
    sa.Column("status", Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
    sa.Column("held_by", Text, nullable=False, server_default=""),  # the node that runs the delivery now
    sa.Column("next_at", Time, nullable=False),
    sa.Column("created_at", Time, nullable=False),
    sa.Column("first_at", Time),
    sa.Column("done_at", Time),
    _text("last_error"),
    sa.UniqueConstraint("recording_id", "sink"),
    sa.Index("ix_delivery_status_next_at", "status", "next_at"),
    sa.Index("ix_delivery_order", "sink", "call_key", "id"),
)
sa.Index(
    "ix_delivery_due",
    delivery.c.sink,
    delivery.c.next_at,
    sqlite_where=sa.text("status = 'waiting'"),
    postgresql_where=sa.text("status = 'waiting'"),
)

attempt = sa.Table(
    "attempt",
    metadata,
    sa.Column("delivery_id", Text, primary_key=True),
    sa.Column("n", sa.Integer, primary_key=True),
    sa.Column("at", Time, nullable=False),
    sa.Column("seconds", Time, nullable=False),
    sa.Column("ok", sa.Boolean, nullable=False),
    _text("error"),
)

call = sa.Table(
    "call",
    metadata,
    sa.Column("id", Serial, primary_key=True, autoincrement=True),
    sa.Column("asterisk", Text, nullable=False),
    sa.Column("uniqueid", Text, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0"),  # when that Asterisk started, unix seconds
    _text("linkedid", index=True),
    _text("channel"),
    _text("context"),
    _text("caller"),
    _text("called"),
    sa.Column("answered_at", Time, nullable=False, index=True),
    sa.Column("ended_at", Time),
    sa.Column("required", sa.Boolean, nullable=False, server_default=sa.false()),
    _text("recording_id"),
    _text("verdict"),
    _text("reason"),
    sa.UniqueConstraint("asterisk", "uniqueid", "epoch"),
)

recording_key = sa.Table(
    "recording_key",
    metadata,
    sa.Column("recording_id", Text, primary_key=True),
    sa.Column("scheme", Text, nullable=False),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
)

sink_hold = sa.Table(
    "sink_hold",
    metadata,
    sa.Column("sink", Text, primary_key=True),
    sa.Column("held_since", Time),  # unset until its receiver has refused enough to hold the sink
    _text("error"),
    sa.Column("deliveries", JSON, nullable=False),  # ids of the deliveries that were refused in a row
)

server = sa.Table(
    "server",
    metadata,
    sa.Column("node", Text, primary_key=True),
    sa.Column("started_at", Time, nullable=False),
    sa.Column("heartbeat_at", Time, nullable=False),
    _text("version"),
    # names of the sinks that the server can deliver to: a sink that no server has is parked
    sa.Column("sinks", JSON, nullable=False),
)
