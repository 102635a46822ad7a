"""The command `fastagi`: parses, calls `fastagi.app`, prints. Exit codes: 0 done, 1 failed, 2 misused.

A command is a module of this package; what several share is in `exits` (errors), `configuration` (which settings) and
`output` (tables and JSON). Data goes to standard output, everything else to standard error.
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
