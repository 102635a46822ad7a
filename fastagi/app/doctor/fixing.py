"""Carries out the remedies that are safe: makes the server's own directories, gives its own files to its user.

The fixes come from a process with the rights of the serving user, and from a ledger that it may write. They are checked
here as if that user wanted to own `/etc/shadow`. Only the files that the settings name, and what root owns below the
recordings directory, are touched. No link is followed that another user made, and no file with a second name is
changed.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from fastagi.app.doctor.finding import Change, Fix
from fastagi.app.doctor.rights import files_of_ledger
from fastagi.app.keyfile import key_file
from fastagi.exposed_files import folder_of, open_file, open_folder
from fastagi.ownership import user_name
from fastagi.settings import Settings, discover
from fastagi.store.sqlite import path_of


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a fix.

    :param why_not: empty when it was carried out
    """

    fix: Fix
    why_not: str = ""


class Fixer:
    """Decides by the settings which files are the server's own, and changes only those."""

    def __init__(self, settings: Settings) -> None:
        url = settings.store.url
        ledger = path_of(url) if url.startswith("sqlite:///") else None
        key = key_file(settings)
        self._files = {str(path) for path in (*(files_of_ledger(ledger) if ledger else ()), key)}
        self._homes = {str(path.parent) for path in ((ledger, key) if ledger else (key,))}
        self._key = str(key)
        self._directory = str(settings.recordings.directory)
        self._side_folder = str(settings.recordings.side_folder)
        self._spools = {str(section.spool) for section in settings.asterisk}

    def carry_out(self, fix: Fix) -> Done:
        """Carry out a fix, or say why not. Blocking; never raises `OSError`."""
        why_not = _untrusted()
        if not why_not:
            try:
                why_not = self._carry_out(fix)
            except OSError as exc:
                why_not = f"{exc.strerror or exc}"
                if os.geteuid() != 0 and isinstance(exc, PermissionError):
                    why_not += f": as root: fastagi doctor --user {user_name()} --fix"
        return Done(fix, why_not)

    def _carry_out(self, fix: Fix) -> str:
        match fix.change:
            case Change.MODE:
                return self._close(fix)
            case Change.MAKE:
                return self._make(fix)
            case Change.OWN:
                return self._give(fix)

    def _close(self, fix: Fix) -> str:
        if (fix.path, fix.mode) not in ((self._key, 0o600), (self._side_folder, 0o700)):
            return "is neither the master key nor the folder of the side files"
        with _opened(open_file(fix.path) if fix.path == self._key else open_folder(fix.path)) as fd:
            os.fchmod(fd, fix.mode)
        return ""

    def _make(self, fix: Fix) -> str:
        if fix.path not in {self._directory, *self._homes, *self._spools}:
            return "is no directory of the settings"
        try:
            user = pwd.getpwnam(fix.user)
        except KeyError:
            return f"there is no user {fix.user}"
        parent = os.path.dirname(fix.path)
        with contextlib.suppress(FileExistsError):
            os.makedirs(parent, mode=0o755)
        with folder_of(fix.path) as (folder, name):
            os.mkdir(name, 0o700, dir_fd=folder)
        with _opened(open_folder(fix.path)) as fd:
            if os.fstat(fd).st_uid != os.geteuid() or os.listdir(fd):
                return "another directory was put there meanwhile"
            os.fchown(fd, user.pw_uid, user.pw_gid)
            os.fchmod(fd, fix.mode)
        return ""

    def _give(self, fix: Fix) -> str:
        try:
            user = pwd.getpwnam(fix.user)
        except KeyError:
            return f"there is no user {fix.user}"
        if fix.path in self._files:
            with _opened(open_file(fix.path)) as fd:
                return _given(fd, user)
        home = fix.path in self._homes and fix.path != self._directory
        if not home and not self._is_below(fix.path):
            return "is not the server's own"
        is_folder = stat.S_ISDIR(os.lstat(fix.path).st_mode)
        with _opened(open_folder(fix.path) if is_folder else open_file(fix.path)) as fd:
            owner = os.fstat(fd).st_uid
            if owner != 0:
                return f"belongs to {user_name(owner)}: it may not be the server's own"
            if home and (other := self._foreign(fd, fix.path)):
                return f"has {other} in it, which is not fastagi's: give the ledger a folder of its own"
            return _given(fd, user)

    def _is_below(self, path: str) -> bool:
        """Return whether the real path is the recordings directory, the folder of side files, or below one."""
        real = os.path.realpath(path)
        tops = [os.path.realpath(top) for top in (self._directory, self._side_folder)]
        return any(os.path.commonpath([top, real]) == top for top in tops)

    def _foreign(self, fd: int, folder: str) -> str:
        """Return a file in a folder that belongs to neither the ledger nor the key; empty when there is none."""
        own = {os.path.basename(path) for path in self._files if os.path.dirname(path) == folder}
        return next((name for name in sorted(os.listdir(fd)) if not name.startswith((*own, "fastagi"))), "")


def _given(fd: int, user: pwd.struct_passwd) -> str:
    # a group that an operator has chosen (listeners, by the directory's setgid bit) stays
    os.fchown(fd, user.pw_uid, user.pw_gid if os.fstat(fd).st_gid == 0 else -1)
    return ""


@contextlib.contextmanager
def _opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _untrusted() -> str:
    """Return why the settings file cannot be trusted; empty when it can."""
    file = discover()
    for path in () if file is None else (file, file.absolute().parent):
        try:
            found = os.stat(path)
        except OSError:
            continue
        others = 0o022 if found.st_gid != 0 else 0o002
        if found.st_uid not in (0, os.geteuid()) or (found.st_mode & others and not found.st_mode & stat.S_ISVTX):
            return f"{path} may be written by others than {user_name()}: nothing is changed on its word"
    return ""
