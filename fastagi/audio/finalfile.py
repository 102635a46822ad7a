"""Writing of a finished file: complete and synced in its place, or not there at all.

A finished file is written under a temporary name beside its own (`.<name>.fastagi-tmp`), synced and renamed; then the
folder is synced. Audio to be encrypted is first written to a file without any name, which the kernel removes when the
process ends: clear audio never has a name in the recordings directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from fastagi.audio.encoder import NO_ROOM
from fastagi.audio.plan import FileCipher, Permit
from fastagi.errors import AudioError, DiskFull
from fastagi.exposed_files import open_file

TEMPORARY_SUFFIX = ".fastagi-tmp"

STALE_SECONDS = 5.0
"""Age in seconds at which a permit is asked for again: this process may have slept, and been taken for dead."""

_FICLONE = 0x40049409
_COPY_STEP = 1 << 20


def temporary_name(target: Path) -> Path:
    """Return the name under which `target` is written.

    The name is always the same, so that a retry replaces the remains of a crash.
    """
    return target.with_name(f".{target.name}{TEMPORARY_SUFFIX}")


def is_temporary(name: str) -> bool:
    """Tell whether a file name (without folder) is temporary: a sweep may delete such a file while no render runs."""
    return name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)


class FinalFile:
    """Finished file while it is being made. Leaving the block without `commit` leaves nothing behind.

    :param target: path of the file; an empty reservation there gives it its permissions
    :param permit: tells whether this server may write the file; called before anything is touched, and before the
        file gets its name
    :raises AudioError: the folder cannot be written to, or the permit says no; :raises DiskFull: no room
    """

    def __init__(self, target: str, cipher: FileCipher | None = None, permit: Permit | None = None) -> None:
        self._target = Path(target)
        self._permit = permit
        self._check_permit()
        self._temporary = temporary_name(self._target)
        self._cipher = cipher
        self._plain: BinaryIO | None = None
        self._renamed = False
        try:
            self._file: BinaryIO = os.fdopen(_fresh(self._temporary), "r+b", buffering=0)
        except OSError as exc:
            raise self._fault(exc) from None
        try:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(self._file.fileno(), os.lstat(self._target).st_mode & 0o777)
            if cipher is not None:
                self._plain = tempfile.TemporaryFile(  # noqa: SIM115 - lives as long as this object
                    buffering=0, dir=self._target.parent, prefix=f".{self._target.name}", suffix=TEMPORARY_SUFFIX
                )
        except OSError as exc:
            self._discard()
            raise self._fault(exc) from None

    @property
    def file(self) -> BinaryIO:
        """File that takes the clear, encoded audio."""
        return self._file if self._plain is None else self._plain

    def restart(self) -> None:
        """Empty the file, to write it once more."""
        for file in (self._file, self._plain):
            if file is not None:
                file.seek(0)
                file.truncate()

    def take(self, path: str) -> None:
        """Copy the content of `path`; file systems that can share blocks are asked to."""
        source = -1
        try:
            source = open_file(path)
            try:
                fcntl.ioctl(self._file.fileno(), _FICLONE, source)
            except OSError:
                at, size = 0, os.fstat(source).st_size
                while at < size:
                    sent = os.sendfile(self._file.fileno(), source, at, min(_COPY_STEP, size - at))
                    if sent == 0:
                        raise AudioError(f"{path}: became shorter while it was copied") from None
                    at += sent
        except OSError as exc:
            raise self._fault(exc) from None
        finally:
            if source >= 0:
                os.close(source)

    def seal(self) -> int:
        """Encrypt the written audio, if there is a cipher.

        :returns: bytes of the file as it will be on disk
        """
        try:
            if self._cipher is not None and self._plain is not None:
                self._plain.seek(0)
                self._file.seek(0)
                self._file.truncate()
                self._cipher.encrypt(self._plain, self._file)
            return os.fstat(self._file.fileno()).st_size
        except OSError as exc:
            raise self._fault(exc) from None

    def commit(self) -> str:
        """Sync the file, rename it into place and sync the folder. The file then survives a power cut.

        :returns: SHA-256 of the file, hexadecimal
        """
        try:
            self._file.seek(0)
            digest = hashlib.file_digest(self._file, "sha256").hexdigest()  # type: ignore[arg-type]
            os.fsync(self._file.fileno())
            if not self._is_unreplaced():
                raise AudioError(f"{self._target}: is being finished by another server")
            self._check_permit()
            os.replace(self._temporary, self._target)
            self._renamed = True
            sync_folder(self._target.parent)
        except OSError as exc:
            raise self._fault(exc) from None
        return digest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._discard()

    def _discard(self) -> None:
        left = not self._renamed and self._is_unreplaced()
        self._file.close()
        if self._plain is not None:
            self._plain.close()
        if left:
            self._temporary.unlink(missing_ok=True)

    def _check_permit(self) -> None:
        """Ask the permit again if it is stale.

        :raises AudioError: another server has the recording now
        """
        while self._permit is not None:
            asked = time.monotonic()
            if not self._permit():
                raise AudioError(f"{self._target}: is another server's to finish")
            if time.monotonic() - asked < STALE_SECONDS:
                return

    def _is_unreplaced(self) -> bool:
        """Tell whether the temporary name still leads to this file.

        A server that took this process for dead has put its own file there.
        """
        try:
            return os.path.samestat(os.lstat(self._temporary), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def _fault(self, exc: OSError) -> AudioError:
        if exc.errno in NO_ROOM:
            return DiskFull(f"{self._target}: no room for the finished file ({exc.strerror}); the raw file is kept")
        return AudioError(f"{self._target}: cannot be written: {exc.strerror}")


def _fresh(path: Path) -> int:
    """Create an empty file under that name and return its descriptor.

    A file that was there is replaced, not emptied: a process that was taken for dead, or a worker that outlived its
    server, may still have it open and write to it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o666)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, 0o666)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
