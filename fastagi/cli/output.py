"""Prints data: JSON on standard output for programs, tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

AsJson = Annotated[bool, typer.Option("--json", help="One JSON value on standard output.")]
"""The option `--json` of every command that prints data."""

STYLES = {
    "ok": "green", "IDLE": "green", "delivered": "green", "recorded": "green",
    "RECORDING": "cyan", "waiting": "cyan", "running": "cyan",
    "warn": "yellow", "parked": "yellow", "deleted": "yellow", "encrypted": "yellow",
    "fail": "bold red", "ERROR": "bold red", "dead": "bold red", "missing": "bold red", "changed": "bold red",
}  # fmt: skip
"""Words that are coloured when they stand alone in a column."""


def console(*, stderr: bool = False) -> Console:
    """Return a console for standard output or error, which never breaks paths and ids over two lines."""
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print JSON, indented on a terminal and plain for programs; UTF-8 in both cases."""
    typer.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False, default=str))


def styled(value: object) -> Text:
    """Return a table cell: control characters removed, known words coloured."""
    text = "" if value is None else str(value)
    return Text("".join(c if c.isprintable() else " " for c in text), style=STYLES.get(text, ""))


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = (), empty: str = ""
) -> None:
    """Print columns; the last one may run over. An empty table prints `empty` on standard error.

    Output to a pipe is separated by tabs, for cut and awk.

    :param right: columns of numbers
    """
    cells = [[styled(cell) for cell in row] for row in rows]
    if not cells and empty:
        console(stderr=True).print(empty, style="dim")
        return
    if not sys.stdout.isatty():
        for row in [[Text(name) for name in columns], *cells]:
            typer.echo("\t".join(cell.plain for cell in row))
        return
    out = console()
    widths = [max(len(name), *(row[n].cell_len for row in cells), 0) for n, name in enumerate(columns)]
    for row in [[Text(name, style="bold") for name in columns], *cells]:
        line = Text()
        for n, (cell, width) in enumerate(zip(row, widths, strict=True)):
            gap = " " * (width - cell.cell_len)
            if columns[n] in right:
                line.append(gap)
                line.append_text(cell)
            else:
                line.append_text(cell)
                line.append(gap if n < len(columns) - 1 else "")
            line.append("  " if n < len(columns) - 1 else "")
        out.print(line)


def show_pairs(rows: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one pair a line."""
    rows = list(rows)
    width = max((len(name) for name, _ in rows), default=0)
    out = console()
    for name, value in rows:
        out.print(Text.assemble((f"{name:{width}}", "bold"), "  ", value if isinstance(value, Text) else styled(value)))


def outline(value: Any, depth: int = 2) -> str:
    """Return JSON for people: one line per key down to `depth`, deeper values on their key's line."""
    if depth <= 0 or not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False, default=str)
    lines = []
    for key, item in value.items():
        text = outline(item, depth - 1) if isinstance(item, dict) else json.dumps(item, ensure_ascii=False, default=str)
        lines.append(f"{json.dumps(key)}: " + text.replace("\n", "\n  "))
    return "{\n  " + ",\n  ".join(lines) + "\n}"


def words(value: Any) -> str:
    """Return the content of an object or list on one line, without JSON's punctuation and without false values."""
    if isinstance(value, dict):
        told = {k: v for k, v in value.items() if v is not None and v is not False and v not in ("", [], {})}
        return ", ".join(
            str(k).replace("_", " ") + ("" if v is True else f": {words(v)}" if isinstance(v, dict) else f" {words(v)}")
            for k, v in told.items()
        )
    if isinstance(value, list | tuple):
        return ", ".join(f"[{words(v)}]" if isinstance(v, list | tuple) else words(v) for v in value)
    return "…" if value is None else str(value)


def when(seconds: float | None) -> str:
    """Format unix seconds in this machine's time zone."""
    return "" if seconds is None else datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def length(seconds: float | None) -> str:
    """Format a duration: ``4:05``, ``1:02:03``."""
    if seconds is None:
        return ""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def size(count: int | None) -> str:
    """Format a size: ``1.4 MB``."""
    if count is None:
        return ""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
    return ""
