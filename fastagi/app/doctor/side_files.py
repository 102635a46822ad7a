"""Checks the folder of the side files: only the server's user may use it."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from fastagi.app.doctor.finding import Change, Finding, Findings, Fix, Reporter
from fastagi.app.doctor.rights import give
from fastagi.app.keyfile import key_file
from fastagi.ownership import fault, remedy, user_name
from fastagi.settings import Settings


async def examine(settings: Settings) -> Findings:
    """Yield the findings about `[recordings] side_files`."""
    yield await asyncio.to_thread(_folder, settings.recordings.side_folder, key_file(settings))


def _folder(path: Path, key: Path) -> Finding:
    say = Reporter("side files")
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        # a fault of the directory is reported where the directory is checked
        return say.ok("folder", f"{path} is made when it is needed")
    except OSError as exc:
        return say.fail("folder", fault(path, exc), remedy(path))
    user = _server_user(key)
    if not stat.S_ISDIR(found.st_mode):
        return say.fail("folder", f"{path} is no directory", "move it away: the server makes one")
    if found.st_uid != user:
        text = f"{path} belongs to {user_name(found.st_uid)}, not to the server's user {user_name(user)}"
        own = (give(path),) if os.geteuid() == user else ()
        return say.fail("folder", f"{text}: rows that wait for the ledger would be lost", remedy(path), *own)
    mode, closed = stat.S_IMODE(found.st_mode), Fix(Change.MODE, str(path), mode=0o700)
    if mode & 0o077:
        return say.fail("folder", f"{path} has mode {mode:04o}: others may look into it", f"chmod 700 {path}", closed)
    others = [entry for entry in path.iterdir() if entry.lstat().st_uid != user]
    if others:
        whose = user_name(others[0].lstat().st_uid)
        text = f"{len(others)} files in {path} are not {user_name(user)}'s, {others[0].name} ({whose}'s) among them"
        given = tuple(map(give, others)) if os.geteuid() == user else ()
        return say.fail("folder", f"{text}: they are refused", remedy(others[0]), *given)
    return say.ok("folder", f"{path}, mode {mode:04o}")


def _server_user(key: Path) -> int:
    """Return the folder's expected owner: this process's user, or, for root, the owner of the master key."""
    if os.geteuid() == 0:
        try:
            return os.stat(key).st_uid
        except OSError:
            return 0
    return os.geteuid()
