"""Read code, command lines and configuration out of the documents, so that tests can try them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md")), *sorted((ROOT / "deploy").glob("*.md"))]

_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4,}\S.*\n(?:^\s*\n(?= {4}))?)+", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of a page.

    :param where: page and line, for messages
    :param language: of a fenced block, "" without one
    """

    where: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    """Every fenced or indented block of README, guide and deployment notes, and of the dialplan files' comments."""
    for page in PAGES:
        yield from _blocks(page.relative_to(ROOT), page.read_text())
    for file in sorted((ROOT / "dialplan").glob("*.conf")):
        comments = [re.sub(r"^; ?", "", x) if x.startswith(";") else "" for x in file.read_text().splitlines(True)]
        yield from _blocks(file.relative_to(ROOT), "".join(x if x.endswith("\n") else x + "\n" for x in comments))


def _blocks(page: Path, text: str) -> Iterator[Block]:
    def where(offset: int) -> str:
        return f"{page}:{text.count(chr(10), 0, offset) + 1}"

    for found in _FENCED.finditer(text):
        yield Block(where(found.start()), found[2], textwrap.dedent(found[3]))
    rest = _FENCED.sub(lambda found: "\n" * found[0].count("\n"), text)
    for found in _INDENTED.finditer(rest):
        yield Block(where(found.start()), "", textwrap.dedent(found[0]))


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """(page and line, arguments after ``fastagi``) of every command line in a block or between backquotes."""
    for page in PAGES:
        for number, line in enumerate(page.read_text().splitlines(), 1):
            shown = re.findall(r"`(?:sudo -u fastagi )?fastagi ([a-z-][^`]*)`", line)
            whole = re.match(r"^ *(?:sudo -u \w+ )?(?:/\S+/)?fastagi ([a-z][^#&|]*)", line)
            for text in [*shown, *([whole[1]] if whole and "`" not in whole[1] else [])]:
                yield f"{page.relative_to(ROOT)}:{number}", [word.strip("[]") for word in shlex.split(text)]
