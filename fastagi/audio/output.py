"""Targets of encoded bytes: a buffered file for libsndfile's callbacks, and a file that only counts.

libsndfile calls `write`, `seek` and `tell` from C. An exception there would be printed and swallowed by cffi, so both
classes keep the first one (`failure`), answer as if nothing had been written, and `encoder` raises it afterwards.
"""

from __future__ import annotations

import io
import os

_BUFFER = 1 << 18
"""Bytes buffered before a write: libsndfile writes 8 kB at a time, and a render may use 5 MB of memory."""


class _Position:
    """State of both targets: libsndfile's position, the farthest position so far, and the first failure."""

    def __init__(self) -> None:
        self._base = 0
        self._pos = 0
        self._size = 0
        self.failure: OSError | None = None

    def reserve(self, count: int) -> None:
        """Keep bytes at the front that libsndfile must not see, for a header; before anything is written."""
        self._base = count

    @property
    def size(self) -> int:
        """Bytes of the file, with those still buffered."""
        return self._base + self._size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._pos, io.SEEK_END: self._size}[whence]
        self._pos = max(0, start + offset)
        return self._pos

    def tell(self) -> int:
        return self._pos

    def readinto(self, _buffer: object) -> int:
        return 0


class Output(_Position):
    """A write-only, seekable file on a descriptor.

    :param fd: open for writing at its beginning; stays open
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._buffer = bytearray()
        self._at = 0  # file position of the buffer's first byte

    def write(self, data: bytes) -> int:
        if self.failure is not None:
            return 0
        start = self._pos - self._at
        if not 0 <= start <= len(self._buffer):
            if not self.flush():
                return 0
            self._at, start = self._pos, 0
        self._buffer[start : start + len(data)] = data  # a short file's header is put right before anything is written
        self._pos += len(data)
        self._size = max(self._size, self._pos)
        if len(self._buffer) >= _BUFFER and not self.flush():
            return 0
        return len(data)

    def flush(self) -> bool:
        """Hand the buffer to the kernel. Return False when a write failed, now or before."""
        if self.failure is not None:
            return False
        view = memoryview(self._buffer)
        done = 0
        try:
            while done < len(view):
                done += os.pwrite(self._fd, view[done:], self._base + self._at + done)
        except OSError as exc:
            self.failure = exc.with_traceback(None)  # a traceback would keep the callers' frames and files alive
            return False
        finally:
            view.release()
        self._at += len(self._buffer)
        self._buffer.clear()
        return True

    def patch(self, offset: int, data: bytes) -> None:
        """Overwrite bytes at an absolute offset: `base` is not added."""
        if not self.flush():
            return
        try:
            os.pwrite(self._fd, data, offset)
        except OSError as exc:
            self.failure = exc.with_traceback(None)


class Counter(_Position):
    """Count the size that a file would have, and keep no bytes."""

    def write(self, data: bytes) -> int:
        self._pos += len(data)
        self._size = max(self._size, self._pos)
        return len(data)

    def flush(self) -> bool:
        return True

    def patch(self, offset: int, data: bytes) -> None:
        """Do nothing: no bytes are kept that could be overwritten."""
