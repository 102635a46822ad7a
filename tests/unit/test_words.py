"""Plain words: docstrings begin with a verb or the thing itself, and a test's name states one behaviour.

A package is added to `PACKAGES` once its docstrings are plain, a folder to `TESTS` once its test names are.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = (
    *("audio", "cipher", "agi", "ami", "testing", "domain", "errors.py"),
    *("store", "web", "cli", "app", "handlers", "delivery", "runtime", "settings.py", "variables.py"),
)
TESTS = (
    *("audio", "cipher", "agi", "ami", "testing", "domain"),
    *("store", "web", "cli", "app", "delivery", "../web"),
)

MOST_WORDS = 6

PRONOUNS = frozenset(
    {
        "it",
        "its",
        "they",
        "them",
        "their",
        "theirs",
        "he",
        "his",
        "she",
        "her",
        "those",
        "these",
        "this",
        "that",
        "whose",
        "who",
        "whom",
        "whoever",
        "what",
        "whatever",
        "where",
        "when",
        "which",
        "why",
        "nobody",
        "somebody",
        "anybody",
        "everybody",
        "ours",
        "mine",
        "yours",
        "of",
        "is",
        "are",
        "was",
        "were",
        "does",
        "did",
    }
)
"""First words that leave a docstring without a subject, or make it a question."""


def _docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring, those after an assignment included."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in node.body:
                match statement:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        yield statement.lineno, text


def _opens_badly(text: str) -> bool:
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    return first.startswith(":") or first.strip("`.,;:'").lower().removesuffix("'s") in PRONOUNS


def _files(folder: Path, name: str) -> list[Path]:
    found = [folder / name] if name.endswith(".py") else sorted((folder / name).rglob("*.py"))
    assert found, f"{folder / name}: nothing to look at"
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_open_with_their_subject(package: str) -> None:
    """A reader must understand a docstring without another file: a pronoun or a question first has no noun."""
    bad = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in _files(ROOT / "fastagi", package)
        for line, text in _docstrings(path)
        if _opens_badly(text)
    ]
    assert not bad, "begin with a verb or the thing itself:\n" + "\n".join(bad)


@pytest.mark.parametrize("folder", TESTS)
def test_names_have_six_words(folder: str) -> None:
    """A name states the behaviour; its reason belongs in the test's docstring."""
    bad = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"
        for path in _files(ROOT / "tests" / "unit", folder)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and len(node.name.removeprefix("test_").split("_")) > MOST_WORDS
    ]
    assert not bad, f"at most {MOST_WORDS} words after test_, the reason in the docstring:\n" + "\n".join(bad)


@pytest.mark.parametrize("text", ["It, ended now.", "Whose it is.", "Is it loaded?", ":raises Error: no", "`It` is"])
def test_subjectless_openings_are_found(text: str) -> None:
    assert _opens_badly(text)


@pytest.mark.parametrize("text", ["Return it.", "Item of a list.", "", "The caller's number."])
def test_plain_openings_pass(text: str) -> None:
    assert not _opens_badly(text)
