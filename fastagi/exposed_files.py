"""Files in folders that somebody else may write to: a spool, where Asterisk's user can replace any name by a link.

Every function follows a link on the way to a folder only where root or the server's own user made it, never follows one
in place of a file, and takes a file only if it is a regular one with one name. The file is opened once; whatever is
asked of it afterwards is asked of that descriptor. All functions block and raise `OSError`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

MOST_LINKS = 40
"""Links followed on one way to a folder, as the kernel has it."""

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_file(path: str | PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Open a regular file that has one name only.

    :param flags: `O_RDONLY` or `O_RDWR`
    :returns: a descriptor, for the caller to close
    :raises OSError: it is not there, may not be opened, is a link or no regular file, or has another name as well
    """
    name = os.fspath(path)
    with folder_of(name) as (folder, last):
        try:
            fd = os.open(last, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise PermissionError(errno.ELOOP, "is a link: somebody has put it there", name) from None
            raise OSError(exc.errno, exc.strerror, name) from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise PermissionError(errno.EPERM, "is no regular file: somebody has put it there", name)
        if found.st_nlink > 1:
            raise PermissionError(errno.EMLINK, "has another name as well (a hard link): remove one of them", name)
    except BaseException:
        os.close(fd)
        raise
    return fd


def create_file(path: str | PathLike[str], mode: int = 0o600) -> int:
    """Create a file under a name that nobody has, open for reading and writing.

    :raises FileExistsError: something has that name, be it a link
    """
    name = os.fspath(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with folder_of(name) as (folder, last):
        return os.open(last, flags, mode, dir_fd=folder)


def remove_file(path: str | PathLike[str]) -> bool:
    """Remove a name; whether it was there. Of a link it is the link that goes."""
    try:
        with folder_of(path) as (folder, last):
            os.unlink(last, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def open_folder(path: str | PathLike[str]) -> int:
    """Open a folder, for `os.scandir`, `os.fsync` and as `dir_fd`; the caller closes it.

    :raises PermissionError: a link leads there that neither root nor the server's user has made
    """
    reached = _walk(os.fspath(path))
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=reached)
    finally:
        os.close(reached)


@contextmanager
def folder_of(path: str | PathLike[str]) -> Iterator[tuple[int, str]]:
    """(descriptor of the folder that a path is in, last part of the path). The descriptor serves as `dir_fd` only.

    :raises PermissionError: a link leads there that neither root nor the server's user has made
    """
    name = os.fspath(path)
    before, _, last = name.rpartition("/")
    if last in ("", ".", ".."):
        raise OSError(errno.EINVAL, "names no file", name)
    folder = _walk(before + "/" if before or name.startswith("/") else ".")
    try:
        yield folder, last
    finally:
        os.close(folder)


def _walk(path: str) -> int:
    """A descriptor (`O_PATH`) of that folder, reached part by part."""
    trusted = {0, os.geteuid()}
    left = _parts(path)
    folder = os.open("/" if path.startswith("/") else ".", _FOLDER)
    links = 0
    try:
        while left:
            part = left.pop()
            try:
                step = os.open(part, _FOLDER, dir_fd=folder)
            except NotADirectoryError:
                links += 1
                target = _target(folder, part, trusted, path)
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                left += _parts(target)
                if not target.startswith("/"):
                    continue
                step = os.open("/", _FOLDER)
            os.close(folder)
            folder = step
    except OSError as exc:
        os.close(folder)
        if exc.filename == path:
            raise
        raise OSError(exc.errno, exc.strerror, path) from None
    return folder


def _parts(path: str) -> list[str]:
    """Runtime of a path, the last one first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _target(folder: int, part: str, trusted: set[int], path: str) -> str:
    """Return the target of a link in that folder."""
    link = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = os.fstat(link)
        if not stat.S_ISLNK(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        if found.st_uid not in trusted:
            raise PermissionError(
                errno.EPERM, f"{part!r} on the way is a link of another user: chown -h root, if it is right", path
            )
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)
