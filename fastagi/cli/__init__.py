"""The command `fastagi`: parses, calls `fastagi.app`, prints. Exit codes: 0 done, 1 failed, 2 misused.

A command is a module of this package; what several share is in `exits` (errors), `configuration` (which settings) and
`output` (tables and JSON). Data goes to standard output, everything else to standard error.

Most of a command's start is what it works with: SQLAlchemy, pydantic, aiohttp, numpy. So modules here import at their
top only what parses, prints and names things (typer, rich, `fastagi.domain`, `fastagi.errors`, and packages whose
``__init__`` is light, see `fastagi.exports`); a command imports what it works with in its function, and neither
``--help``, ``--version`` nor another command waits for it. A test looks at what each has imported.
"""

from __future__ import annotations

import io
import sys

from fastagi.cli.commands import cli

__all__ = ["cli", "main"]


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without our arrow shows a question mark
            stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")
    cli()
