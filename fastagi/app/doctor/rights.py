"""Checks this process's rights on the files that a recording needs. It must run as the user that serves.

Covers the ledger's files, the master key, every folder under the recordings directory and those of the last recordings.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from fastagi.app.doctor.finding import Change, Finding, Fix, Reporter
from fastagi.cipher import MasterKey
from fastagi.errors import CipherError
from fastagi.ownership import fault, remedy, user_name

LOOK_SECONDS = 10.0
MOST_FOLDERS = 50_000
"""A directory with more folders is looked at in part."""

SHOWN = 3
"""Most paths that one finding names."""

ASIDE = ("lost+found",)
"""Made by the file system. Names that begin with a dot are no recording's either (`domain.naming`)."""


def files_of_ledger(path: Path) -> tuple[Path, ...]:
    """Return the files of an SQLite ledger; each may be missing."""
    return (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", ".lock")))


def ledger_files(path: Path) -> Iterator[Finding]:
    """Yield the ledger's files that this user may not read and write. Blocking."""
    say = Reporter("store")
    for file in files_of_ledger(path):
        try:
            link = os.O_NOFOLLOW if file.suffix == ".lock" else 0
            os.close(os.open(file, os.O_RDWR | link | os.O_NONBLOCK | os.O_CLOEXEC))
        except FileNotFoundError:
            continue
        except PermissionError as exc:
            yield say.fail("writable", fault(file, exc), remedy(file), give(file))
        except OSError as exc:
            yield say.fail("writable", f"{file}: {exc.strerror}", f"look what {file} is: it must be a plain file")


def master_key(path: Path) -> Finding:
    """Check that this user can use the key, and no other can read it. Blocking; no file is made."""
    say = Reporter("key")
    closed = Fix(Change.MODE, str(path), mode=0o600)
    try:
        found = path.stat()
    except FileNotFoundError:
        there = path.parent
        while not there.exists() and there != there.parent:
            there = there.parent
        if os.access(there, os.W_OK | os.X_OK, effective_ids=True):
            return say.ok("master key", f"{path} is made at the first start")
        make = Fix(Change.MAKE, str(path.parent), user=user_name(), mode=0o700)
        return say.fail("master key", f"{path}: {user_name()} may not write into {there}", str(make), make)
    except OSError as exc:
        return say.fail("master key", fault(path, exc), remedy(path))
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o007:
        text = f"{path} has mode {mode:04o}: everybody here can read it"
        return say.fail("master key", text, f"chmod 600 {path}", closed)
    try:
        path.open("rb").close()
        MasterKey.load_or_create(path)
    except OSError as exc:
        return say.fail("master key", fault(path, exc), remedy(path), give(path))
    except CipherError as exc:
        return say.fail("master key", str(exc), "put the backup of it back: keys of recordings need exactly this one")
    if mode & 0o070:
        return say.warn("master key", f"{path} has mode {mode:04o}: its group can read it", f"chmod 600 {path}", closed)
    return say.ok("master key", f"{path}, mode {mode:04o}")


def folders(directory: Path) -> Iterator[Finding]:
    """Yield the folders under the directory that this user may not use. Blocking."""
    unusable, complete = _unusable(_tree(directory))
    if unusable:
        yield _no_use(unusable)
    if not complete:
        yield Reporter("recordings").warn(
            "folders",
            f"{directory}: not all of its folders could be looked at within {LOOK_SECONDS:g} s",
            "the last by name were looked at first; a directory with fewer folders is looked at whole",
        )


def _no_use(unusable: dict[Path, int]) -> Finding:
    me = user_name()
    shown = ", ".join(f"{path} ({user_name(uid)}'s)" for path, uid in list(unusable.items())[:SHOWN])
    more = f" and {len(unusable) - SHOWN} more" if len(unusable) > SHOWN else ""
    return Reporter("recordings").fail(
        "folders",
        f"{me} may not write into {shown}{more}: every call whose recording goes there fails",
        f"chown {me}: {' '.join(map(str, list(unusable)[:SHOWN]))}, or as root: fastagi doctor --user {me} --fix",
        *(give(path) for path in unusable),
    )


def of_recordings(directory: Path, paths: Iterable[str]) -> Iterator[Finding]:
    """Check the folders and the files of recordings, by their paths in the ledger. Blocking."""
    me, say = user_name(), Reporter("recordings")
    files = [Path(path) for path in paths if path]
    outside = {path.parent for path in files if directory not in path.parents}
    unusable, _ = _unusable(folder for folder in outside if folder.is_dir())
    if unusable:
        shown = ", ".join(map(str, list(unusable)[:SHOWN]))
        yield say.warn(
            "folders",
            f"{me} may not write into {shown}, where the last recordings are",
            f"chown {me}: {shown}: they can be neither delivered nor deleted",
        )
    closed = [path for path in files if path.is_file() and not os.access(path, os.R_OK, effective_ids=True)]
    if closed:
        yield say.warn(
            "files",
            f"{me} may not read {len(closed)} of the last recordings, {closed[0]} among them: they cannot be delivered",
            f"chown {me}: {closed[0]}, or as root: fastagi doctor --user {me} --fix",
            *(give(path) for path in closed),
        )


def give(path: Path) -> Fix:
    """Return the fix that gives the path to this process's user."""
    return Fix(Change.OWN, str(path), user=user_name())


def _tree(top: Path) -> Iterator[Path]:
    """Yield all folders below the top. Linked ones are left out: no recording is written outside of the directory."""
    left = [top]
    while left:
        folder = left.pop()
        try:
            with os.scandir(folder) as entries:
                inner = [
                    Path(entry.path)
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                    and not entry.name.startswith(".")
                    and entry.name not in ASIDE
                ]
        except OSError:
            continue  # yielded before: the caller reports that it cannot be used
        yield from inner
        left += sorted(inner)  # the last one is next: the newest date folders first


def _unusable(found: Iterable[Path]) -> tuple[dict[Path, int], bool]:
    """Return the folders that this user may not read and write, with their owners; and whether all were seen."""
    unusable: dict[Path, int] = {}
    deadline = time.monotonic() + LOOK_SECONDS
    for count, folder in enumerate(found):
        if count >= MOST_FOLDERS or time.monotonic() > deadline:
            return unusable, False
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            try:
                unusable[folder] = folder.stat().st_uid
            except OSError:
                continue  # it was removed meanwhile
    return unusable, True
