"""The command `fastagi`: parses, calls `fastagi.app`, prints. Exit codes: 0 done, 1 failed, 2 misused.

A command is a module of this package. Several share `exits` (errors), `configuration` (the settings in use) and
`output` (tables and JSON). Data goes to standard output, everything else to standard error.

Most of a command's start time goes into imports: SQLAlchemy, pydantic, aiohttp, numpy. So modules here import at their
top only packages for parsing, printing and naming things (typer, rich, `fastagi.domain`, `fastagi.errors`, and packages
whose ``__init__`` is light, see `fastagi.exports`). A command imports its heavy packages in its function, and neither
``--help``, ``--version`` nor another command waits for them. A test checks what each has imported.
"""

from __future__ import annotations

import io
import sys

from fastagi.cli.commands import cli

__all__ = ["cli", "main"]


def main() -> None:
    """Run the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without the arrow character shows a question mark
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")
    cli()
