"""List the files of a recordings directory, without the folder of the side files."""

from __future__ import annotations

from pathlib import Path

SIDE_FILES = ".side-files"


def in_directory(directory: Path) -> list[Path]:
    """Files and folders right in it."""
    return [path for path in directory.iterdir() if path.name != SIDE_FILES]


def below(directory: Path) -> list[Path]:
    """All files and folders below it."""
    return [path for path in directory.rglob("*") if SIDE_FILES not in path.parts]
