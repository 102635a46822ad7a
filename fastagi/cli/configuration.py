"""Finds a command's settings and the ledger that they name.

The settings file is `--config`, else FASTAGI_CONFIG, else /etc/fastagi/fastagi.toml, else none.
"""

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
    """Load the settings and set up logging by them. Settings loaded later in this process come from the same file.

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
    if found is None and quiet_logs:  # a server logs the file's path instead
        console(stderr=True).print(
            f"no settings file (--config, ${CONFIG_VARIABLE}, {CONFIG_FILE}): every setting has its default",
            style="dim",
        )
    return settings


def ledger_of(settings: Settings) -> OfflineLedger:
    """Open the ledger beside the server that has it: ``async with ledger_of(settings) as ledger``."""
    from fastagi.store.offline import OfflineLedger

    return OfflineLedger(settings.store.url)
