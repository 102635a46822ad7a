"""`fastagi store …`: backs up, moves and re-keys the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastagi.cli.configuration import Config, settings_for
from fastagi.cli.output import AsJson, console, print_json, show_table
from fastagi.cli.running import run
from fastagi.errors import BadArgument

store = typer.Typer(
    no_args_is_help=True, help="Back the ledger up, move it to another database, change the master key."
)


@store.command(short_help="A whole copy beside a running server.")
def backup(
    target: Annotated[Path, typer.Option("--to", metavar="FILE", help="The copy; must not be there yet.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Copy the SQLite ledger into one file, checked and readable for its owner alone, while the server goes on.

    The master key is not in it: keep that in another backup. A PostgreSQL ledger is backed up with pg_dump.
    """
    from fastagi.app.keyfile import key_file
    from fastagi.store.backup import back_up
    from fastagi.store.sqlite import path_of

    settings = settings_for(config)
    if not settings.store.url.startswith("sqlite:///"):
        raise BadArgument("store.url: is PostgreSQL: use pg_dump")
    err = console(stderr=True)
    with err.status("copying …") as status:
        size = back_up(
            path_of(settings.store.url), target, progress=lambda percent: status.update(f"{percent} % copied …")
        )
    master = str(key_file(settings))
    if as_json:
        print_json({"file": str(target), "bytes": size, "key_file": master})
        return
    err.print(f"{target}: {size:,} bytes, checked. The master key is not in it: {master}")


@store.command(short_help="A new master key.")
def rekey(config: Config = None, as_json: AsJson = False) -> None:
    """Make a new master key and wrap the key of every encrypted recording with it. Stop the server before.

    Recordings are not touched. The old master key stays beside the new one: backups of the ledger from before need it.
    """
    from fastagi.app.rekeying import rekey as renew

    settings = settings_for(config)
    done = run(renew(settings))
    if as_json:
        print_json({"keys": done.count, "key_file": str(done.current), "old_key_file": str(done.old)})
        return
    console(stderr=True).print(
        f"{done.count} keys are wrapped with the new master key {done.current}. The old one is {done.old}: backups of "
        "the ledger from before need it. Several servers on one ledger need the same key file."
    )


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
    from fastagi.app.keyfile import key_file
    from fastagi.store.copy import copy_ledger
    from fastagi.store.sqlite import path_of

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
