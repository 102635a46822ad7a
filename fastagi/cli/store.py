"""`fastagi store …`: the ledger itself."""

from __future__ import annotations

from typing import Annotated

import typer

from fastagi.app.keyfile import key_file
from fastagi.cli.configuration import Config, settings_for
from fastagi.cli.output import AsJson, console, print_json, show_table
from fastagi.cli.running import run
from fastagi.errors import BadArgument
from fastagi.store.copy import copy_ledger
from fastagi.store.sqlite import path_of

store = typer.Typer(no_args_is_help=True, help="Move the ledger to another database.")


@store.callback()
def _store() -> None:
    """A group, though it has one command."""


@store.command(short_help="SQLite to PostgreSQL.")
def move(
    target: Annotated[
        str, typer.Option("--to", metavar="URL", help="postgresql://user:password@host/database, empty.")
    ],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Copy the ledger from SQLite into an empty PostgreSQL database. Stop the server before.

    The SQLite file stays as it is. Afterwards set store.url, and store.node and recordings.key_file as shown.
    """
    settings = settings_for(config)
    if not settings.store.url.startswith("sqlite:///"):
        raise BadArgument("store.url: only a SQLite ledger can be moved")
    if not target.startswith(("postgresql://", "postgres://", "postgresql+asyncpg://")):
        raise BadArgument("--to: write postgresql://user:password@host/database")
    err = console(stderr=True)
    with err.status("copying …") as status:
        counts = run(
            copy_ledger(
                path_of(settings.store.url),
                target,
                node=settings.store.node,
                progress=lambda table, rows: status.update(f"{table}: {rows} rows …"),
            )
        )
    master = str(key_file(settings))
    if as_json:
        print_json({"node": settings.store.node, "key_file": master, "rows": counts})
        return
    show_table(("table", "rows"), counts.items(), right=("rows",))
    err.print(
        f"Copied and counted. Now set store.url to the new address, store.node = {settings.store.node!r}, and "
        f"recordings.key_file = {master!r}: the master key stays where it is."
    )
