"""Which settings a command uses: `--config`, else FASTAGI_CONFIG, else /etc/fastagi/fastagi.toml, else none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fastagi.app import logs
from fastagi.settings import CONFIG_VARIABLE, Settings, discover, load

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
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config.absolute())
    settings = load(discover())
    logs.configure(settings.log, quiet=quiet_logs)
    return settings
