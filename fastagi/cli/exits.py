"""The end of a command: every error of `fastagi.errors` is a line and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from fastagi.errors import BadArgument, ConfigError, FastAGIError

FAILED = 1
MISUSED = 2
INTERRUPTED = 130
"""128 + SIGINT, as in shells."""


def complain(text: str) -> None:
    """Print each line of `text` on standard error."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for line in text.splitlines() or [""]:
        console.print(Text.assemble(("fastagi: ", "bold red"), "".join(c if c.isprintable() else " " for c in line)))


class Commands(TyperGroup):
    """The root of all commands; turns errors into exit codes."""

    def invoke(self, ctx: Any) -> Any:  # click's Context: typer brings a click of its own, or uses the installed one
        try:
            return super().invoke(ctx)
        except (ConfigError, BadArgument) as exc:
            complain(str(exc))
            raise typer.Exit(MISUSED) from None
        except FastAGIError as exc:
            complain(str(exc) or type(exc).__name__)
            raise typer.Exit(FAILED) from None
        except UnicodeEncodeError as exc:
            if not any(c in exc.object for c in _halves(sys.argv)):
                raise
            complain("an argument is not UTF-8: write it as the terminal's UTF-8 text")
            raise typer.Exit(MISUSED) from None
        except BrokenPipeError:  # the reader closed the pipe: `fastagi recordings list | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FAILED) from None
        except OSError as exc:
            complain(f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc))
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(INTERRUPTED) from None


def _halves(arguments: list[str]) -> set[str]:
    """Return the characters that stand for bytes of the command line that are no UTF-8."""
    return {c for argument in arguments for c in argument if "\ud800" <= c <= "\udfff"}
