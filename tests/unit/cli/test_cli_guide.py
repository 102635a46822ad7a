"""The guide lists every command and option."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

from fastagi.cli import cli


def test_guide_lists_every_command_and_option() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "guide" / "commands.md").read_text()
    missing = []

    def walk(command: object, path: tuple[str, ...]) -> None:
        children = getattr(command, "commands", None)
        for name, child in (children or {}).items():
            walk(child, (*path, name))
        if children is None:
            if not re.search(rf"`(fastagi )?({' '.join(path)}|{path[-1]})\b", guide):
                missing.append(" ".join(path))
            for param in command.params:  # type: ignore[attr-defined]
                names = [o for o in param.opts if o != "--help"]
                if names and param.param_type_name == "option" and not any(n in guide for n in names):
                    missing.append(f"{' '.join(path)} {names}")

    walk(typer.main.get_command(cli), ())
    assert missing == []
