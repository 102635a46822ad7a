"""Migrates on the connection that `fastagi.store.migrate` hands over, inside its transaction. Run by alembic."""

from alembic import context

from fastagi.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter a column in place
)
with context.begin_transaction():
    context.run_migrations()
