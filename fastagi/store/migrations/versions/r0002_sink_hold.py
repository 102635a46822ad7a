"""Sinks that are held."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "sink_hold",
        sa.Column("sink", sa.Text(), nullable=False),
        sa.Column("held_since", sa.Double(), nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("deliveries", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("sink", name="pk_sink_hold"),
    )
