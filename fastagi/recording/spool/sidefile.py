"""A recording's row as a small file beside its raw file: what a restart reads when the ledger never learned of it.

Only the file's form is here; when one is written and when it is read is `journal`'s. Blocking.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fastagi.domain.recording import Recording
from fastagi.recording.spool import files
from fastagi.store.units import recordings as units

SUFFIX = ".journal"
TEMPORARY_SUFFIX = ".journal-tmp"

LARGEST_BYTES = 1 << 20
"""A row has some kB; a megabyte is none of ours."""

WrappedKey = tuple[str, bytes]
"""(scheme, key wrapped by the master key)."""


@dataclass(frozen=True, slots=True)
class Side:
    """What a side file holds.

    :param at: when it was written, unix seconds
    :param key: of an encrypted recording whose key the ledger does not have yet
    """

    recording: Recording
    at: float
    key: WrappedKey | None = None


def write(folder: Path, side: Side) -> Path:
    """Write it whole or not at all, synced, readable by its owner only: it says who called whom.

    :raises OSError: no room, no folder, no right
    """
    path = folder / (side.recording.id + SUFFIX)
    temporary = path.with_suffix(TEMPORARY_SUFFIX)
    text = {"at": side.at, "recording": units.to_row(side.recording)}
    if side.key is not None:
        text["key"] = [side.key[0], base64.b64encode(side.key[1]).decode()]
    with open(temporary, "w", opener=_private) as file:
        json.dump(text, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    files.sync(folder)
    return path


def find(folders: Iterable[Path]) -> list[Path]:
    """The side files of these folders, oldest recording first. A folder that cannot be read has none."""
    found: list[Path] = []
    for folder in dict.fromkeys(folders):
        try:
            with os.scandir(folder) as entries:
                found += [Path(e.path) for e in entries if e.name.startswith("rec-") and e.name.endswith(SUFFIX)]
        except OSError:
            continue
    return sorted(found, key=lambda path: path.name)


def read(path: Path) -> Side:
    """What it holds.

    :raises ValueError: it is no side file; :raises OSError: it cannot be read
    """
    with open(path, "rb", opener=_no_link) as file:
        text = file.read(LARGEST_BYTES + 1)
    try:
        content = json.loads(text)
        key = content.get("key")
        side = Side(
            units.from_row(content["recording"]),
            float(content["at"]),
            (str(key[0]), base64.b64decode(key[1], validate=True)) if key else None,
        )
    except Exception as exc:
        raise ValueError(f"{path}: no side file: {type(exc).__name__}: {exc}") from None
    if path.name != side.recording.id + SUFFIX:
        raise ValueError(f"{path}: is of {side.recording.id}")
    return side


def put_aside(path: Path, reason: str) -> Path:
    """Keep one that cannot be used, where an operator finds it."""
    return files.set_aside((str(path),), reason)[0]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
