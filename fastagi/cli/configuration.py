"""Which settings a command uses: `--config`, else FASTAGI_CONFIG, else /etc/fastagi/fastagi.toml, else none; and which
ledger they name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastagi.cli.output import console

if TYPE_CHECKING:
    from fastagi.settings import Settings
    from fastagi.store.offline import OfflineLedger

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Settings, TOML. Else $FASTAGI_CONFIG, else /etc/fastagi/fastagi.toml where it is.",
        show_default=False,
    ),
]
"""The option `--config` of every command that has settings."""


def settings_for(config: Path | None, *, quiet_logs: bool = True) -> Settings:
    """The settings, with logging set up by them. What is loaded later in this process finds the same file.

    :param config: `--config`
    :raises ConfigError: every fault, one per line
    """
    from fastagi.app import logs
    from fastagi.settings import CONFIG_FILE, CONFIG_VARIABLE, discover, load

    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config.absolute())
    found = discover()
    settings = load(found)
    logs.configure(settings.log, quiet=quiet_logs)
    if found is None and quiet_logs:  # a server says it in its log
        console(stderr=True).print(
            f"no settings file (--config, ${CONFIG_VARIABLE}, {CONFIG_FILE}): every setting has its default",
            style="dim",
        )
    return settings


def ledger_of(settings: Settings) -> OfflineLedger:
    """``async with ledger_of(settings) as ledger``: a look into the ledger beside the server that has it."""
    from fastagi.store.offline import OfflineLedger

    return OfflineLedger(settings.store.url)
