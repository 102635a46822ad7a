"""The raw files of fastagi in a spool, by recording, with what their names and headers tell. Blocking.

Reads only. What follows from it is the sweep's to decide.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fastagi.audio import inspect, is_temporary
from fastagi.domain.recording import Segment
from fastagi.errors import AudioError
from fastagi.recording.asterisk import raw_files

MOST_ENTRIES = 50_000
"""Names looked at in one spool in one round; a spool that holds more has another trouble."""

_NAME = re.compile(r"^(rec-[0-9a-hjkmnp-tv-z]{26})(-secret)?(?:-(\d{1,4}))?(?:-(rx|tx|in|out))?\.(wav|wav16)$")
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"

DRAFT_SUFFIX = ".journal-tmp"
"""Ends the name of a spill file that an earlier version was still writing into the spool when it died."""


@dataclass(slots=True)
class RawFileSet:
    """All raw files of one recording.

    :param files: by (number of the piece, role: mixed, received or sent)
    :param last_write: of any of them, unix seconds; :param bytes: of all
    :param secret: they were to be encrypted
    """

    id: str
    folder: Path
    files: dict[tuple[int, str], Path] = field(default_factory=dict)
    last_write: float = 0.0
    bytes: int = 0
    secret: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(str(self.files[key]) for key in sorted(self.files))

    @property
    def wideband(self) -> bool:
        return any(path.suffix == ".wav16" for path in self.files.values())

    @property
    def requested_at(self) -> float:
        """Time of the request, unix seconds to the millisecond, as the recording's id says."""
        value = 0
        for letter in self.id[4:]:
            value = value << 5 | _ALPHABET.index(letter)
        return (value >> 80) / 1000

    def complete(self) -> bool:
        """Return whether Asterisk has closed all of the files, as far as their headers tell."""
        return all(_complete(path) for path in self.files.values())

    def seconds(self) -> float:
        """Audio in the longest file of the last piece; 0 where none can be read."""
        last = max(number for number, _ in self.files)
        return max((_seconds(path) for (number, _), path in self.files.items() if number == last), default=0.0)

    def fault(self) -> str:
        """Return why nothing can be made of the files; empty when something can."""
        faults = []
        for path in self.files.values():
            try:
                inspect(path)
                return ""
            except AudioError as exc:
                faults.append(str(exc))
        return "; ".join(faults)

    def pieces(self, uniqueid: str) -> tuple[Segment, ...]:
        """As the recording's row would have named them; when each began follows from when it ended and its length."""
        found = []
        for number in sorted({number for number, _ in self.files}):
            paths = {role: path for (n, role), path in self.files.items() if n == number}
            ended = max(_written(path) for path in paths.values())
            began = ended - max(_seconds(path) for path in paths.values())
            names = {role: str(path) for role, path in paths.items()}
            found.append(
                Segment(
                    names.get("mixed", ""),
                    names.get("received", ""),
                    names.get("sent", ""),
                    uniqueid=uniqueid,
                    started_at=began if number else self.requested_at,
                )
            )
        return tuple(found)


_ROLES = {None: "mixed", "rx": "received", "in": "received", "tx": "sent", "out": "sent"}


def listing(folder: Path) -> dict[str, RawFileSet]:
    """Our raw files in a spool, by recording id. Foreign names are not ours to look at.

    :raises OSError: the folder cannot be read
    """
    found: dict[str, RawFileSet] = {}
    with raw_files.listed(folder) as entries:
        for count, entry in enumerate(entries):
            if count >= MOST_ENTRIES:
                break
            match = _NAME.match(entry.name)
            if match is None:
                continue
            try:
                stat = entry.stat(follow_symlinks=False)
                if not entry.is_file(follow_symlinks=False):
                    continue
            except OSError:
                continue  # it went meanwhile
            raw = found.setdefault(match[1], RawFileSet(match[1], folder))
            raw.files[int(match[3] or 0), _ROLES[match[4]]] = folder / entry.name
            raw.secret = raw.secret or match[2] is not None
            raw.last_write = max(raw.last_write, stat.st_mtime)
            raw.bytes += stat.st_size
    return found


def remove_drafts(folder: Path, age_seconds: float) -> list[Path]:
    """Remove side files that a crash left half written; which. They say who called whom, and were never needed."""
    removed = []
    with raw_files.listed(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("rec-") or not entry.name.endswith(DRAFT_SUFFIX):
                continue
            with contextlib.suppress(OSError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > age_seconds:
                    raw_files.remove((str(folder / entry.name),))
                    removed.append(folder / entry.name)
    return removed


def set_aside_count(folder: Path, name: str) -> int:
    """Files in its `set-aside` folder, the reasons not counted."""
    try:
        with raw_files.listed(folder / name) as entries:
            return sum(not entry.name.endswith(".reason") for entry in entries)
    except OSError:
        return 0


def temporaries(folder: Path, age_seconds: float) -> Iterator[Path | None]:
    """Leftovers of broken-off finishings below `folder` that nobody has written to for so long.

    Endless walks are avoided by the caller: between two finds it yields None for every file looked at.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            yield path if is_temporary(name) and time.time() - _written(path) > age_seconds else None


def _complete(path: Path) -> bool:
    try:
        return inspect(path).complete
    except AudioError:
        return False


def _seconds(path: Path) -> float:
    try:
        return inspect(path).seconds
    except AudioError:
        return 0.0


def _written(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()
