"""The owner of a file, in words: a file of the server that it may not use is a fault with a remedy, not an errno."""

from __future__ import annotations

import os
import pwd
from os import PathLike


def user_name(uid: int | None = None) -> str:
    """The name of a user, or the number of one that has none; without `uid` that of this process."""
    uid = os.geteuid() if uid is None else uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def denied(path: str | PathLike[str], exc: OSError) -> str:
    """One line for a file of the server's own that could not be used: whose it is, and what makes it right."""
    text = fault(path, exc)
    return f"{text}: {remedy(path)}" if isinstance(exc, PermissionError) else text


def fault(path: str | PathLike[str], exc: OSError) -> str:
    """`denied` without what makes it right."""
    text = f"{os.fspath(path)}: {exc.strerror or exc}"
    return f"{text}: {_whose(path)}this runs as {user_name()}" if isinstance(exc, PermissionError) else text


def remedy(path: str | PathLike[str]) -> str:
    """The command that gives the file to this process's user, and the one that does it for all of them."""
    me = user_name()
    there, folder = _nearest(path), os.path.dirname(os.path.abspath(path))
    words = f"chown {me}: {there}" if os.path.lexists(folder) else f"install -d -o {me} -m 0700 {folder}"
    return f"{words}, or as root: fastagi doctor --user {me} --fix"


def inherit_owner(fd: int, folder: str | PathLike[str]) -> None:
    """Hand what root makes for a server to the server's user: the owner of the folder.

    A command run as root (`fastagi store rekey`, a `serve` by hand) would else leave files that the server may not use.
    """
    if os.geteuid() != 0:
        return
    home, found = os.stat(folder), os.fstat(fd)
    if found.st_uid == 0 and home.st_uid != 0 and found.st_nlink == 1:
        os.fchown(fd, home.st_uid, home.st_gid)


def _whose(path: str | PathLike[str]) -> str:
    there = _nearest(path)
    try:
        owner = user_name(os.stat(there).st_uid)
    except OSError:
        return ""
    return f"{there} belongs to {owner}, "


def _nearest(path: str | PathLike[str]) -> str:
    """The file, or the folder in which it would have to be made."""
    there = os.path.abspath(path)
    while not os.path.lexists(there) and there != os.path.dirname(there):
        there = os.path.dirname(there)
    return there
