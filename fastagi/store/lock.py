"""One server per SQLite ledger: a lock that the kernel drops when its process dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from fastagi.errors import StoreError
from fastagi.ownership import denied, inherit_owner


class ProcessLock:
    """An exclusive `flock` on a file beside the database. The file names the holder and stays behind, unlocked."""

    def __init__(self, path: Path, holder: str) -> None:
        self.path = path
        self._holder = holder
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock now; never waits.

        :raises StoreError: another process has it (the error names it), or the file cannot be made
        """
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as exc:
            raise StoreError(denied(self.path, exc)) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.pread(fd, 300, 0).decode("utf-8", "replace").strip() or "another process"
            os.close(fd)
            raise StoreError(f"{self.path}: {who} uses this store; one server per SQLite store") from None
        except OSError as exc:
            os.close(fd)
            raise StoreError(f"{self.path}: cannot be locked: {exc.strerror}") from None
        inherit_owner(fd, self.path.parent)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{self._holder}, process {os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Drop the lock. Idempotent. The file stays: removing it would let two servers lock two files of one name."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None
