"""All commands in one place."""

from __future__ import annotations

from typing import Annotated

import typer

from fastagi.cli.calls import calls
from fastagi.cli.deliveries import deliveries
from fastagi.cli.demo import demo
from fastagi.cli.doctor import doctor
from fastagi.cli.exits import Commands
from fastagi.cli.recordings import recordings
from fastagi.cli.secret import secret
from fastagi.cli.serve import serve
from fastagi.cli.store import store

cli = typer.Typer(
    name="fastagi",
    cls=Commands,
    help="The call recorder for Asterisk.",
    epilog="Exit codes: 0 done, 1 failed, 2 misused.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

cli.command(short_help="Run the server until SIGTERM.")(serve)
cli.command(short_help="Prove the settings against the live system.")(doctor)
cli.command(short_help="Record and deliver a real call on a real Asterisk.")(demo)
cli.command(short_help="Make a signing secret for a webhook.")(secret)
cli.add_typer(recordings, name="recordings")
cli.add_typer(deliveries, name="deliveries")
cli.add_typer(calls, name="calls")
cli.add_typer(store, name="store")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"fastagi {version('fastagi-recorder')}")
        except PackageNotFoundError:
            typer.echo("fastagi (not installed)")
        raise typer.Exit


@cli.callback()
def _root(
    shown: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass
