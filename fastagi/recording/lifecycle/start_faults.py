"""The reasons why recordings could not be started, where the next ones would fail, too: for `/readyz`.

A fault counts until its cause is gone or a recording starts. What one caller alone can bring about (a name that is too
long, or is a file's) is none.
"""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastagi.recording.asterisk import raw_files

_RIGHTS = {errno.EACCES, errno.EPERM, errno.EROFS}
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOTCONN}

BESIDE_SECONDS = 60.0
"""A folder in which starts fail while others succeed elsewhere is told of so long after the last one that failed."""

UNSEEN_SECONDS = 300.0
"""What cannot be looked at again (a disk's error, Asterisk's side) is told of so long: calls may be kept away by it."""

UNOPENED = 3
"""Raw files in a row that Asterisk did not open: one or two may have been calls that were just over."""

MOST = 20
"""Folders that are remembered; names come from calls."""


@dataclass(frozen=True, slots=True)
class StartFault:
    """One reason. It tells no name below `where`: a caller's number may be in it, and everybody may read this.

    :param where: recordings directory or spool; :param problem: what was seen; :param do: what to do
    """

    where: str
    problem: str
    do: str


@dataclass(slots=True)
class _Failed:
    problem: str
    lasting: bool
    at: float
    count: int = 1


class StartFaults:
    """The reasons why the last starts failed.

    :param directory: of the finished files
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._clock = clock
        self._folders: dict[str, _Failed] = {}
        self._spools: dict[str, _Failed] = {}
        self._started_at = float("-inf")

    def unwritten(self, relative: str, exc: OSError) -> None:
        """The finished file's name could not be taken.

        :param relative: the name, below the directory
        """
        if exc.errno in _RIGHTS | _DISK:
            folder = os.path.dirname(os.path.join(self._directory, relative))
            self._note(self._folders, folder, _Failed(exc.strerror or str(exc), exc.errno in _RIGHTS, self._clock()))

    def unopened(self, spool: Path) -> None:
        """Asterisk said that it records, and opened no file there."""
        before = self._spools.get(str(spool))
        count = before.count + 1 if before is not None else 1
        self._note(self._spools, str(spool), _Failed("", False, self._clock(), count))

    def _note(self, among: dict[str, _Failed], where: str, failed: _Failed) -> None:
        among.pop(where, None)
        among[where] = failed
        while len(among) > MOST:
            del among[next(iter(among))]

    def succeeded(self, file_path: str, spool: Path) -> None:
        """A recording has started."""
        self._started_at = self._clock()
        self._folders.pop(os.path.dirname(file_path), None)
        self._spools.pop(str(spool), None)

    def current(self) -> list[StartFault]:
        """Return the faults whose cause is still there. Looks at the folders: blocking."""
        now = self._clock()
        problems: list[str] = []
        found: list[StartFault] = []
        for folder, failed in list(self._folders.items()):
            problem = raw_files.folder_fault(self._directory, folder) if failed.lasting else failed.problem
            if problem and self._counts(failed, now):
                problems.append(problem)
            else:
                self._folders.pop(folder, None)
        for problem, count in Counter(problems).items():
            folders = "a folder" if count == 1 else f"{count} folders"
            do = "fastagi doctor names it and its owner; as root, fastagi doctor --fix gives it to the server's user"
            found.append(
                StartFault(str(self._directory), f"no recording can be started in {folders} there: {problem}", do)
            )
        for spool, failed in list(self._spools.items()):
            if not self._counts(failed, now):
                self._spools.pop(spool, None)
            elif failed.count >= UNOPENED:
                problem = f"Asterisk opened none of the last {failed.count} raw files there"
                found.append(
                    StartFault(spool, problem, "fastagi doctor has Asterisk write a file there, and says why not")
                )
        return found

    def _counts(self, failed: _Failed, now: float) -> bool:
        age = now - failed.at
        if self._started_at > failed.at:
            return age < BESIDE_SECONDS
        return failed.lasting or age < UNSEEN_SECONDS
