"""Interface of every cipher, on open files and on paths.

Ciphers are applied to finished recordings: a clear file in, an encrypted one out, streaming, with the name unchanged
(the scheme is in the recording's metadata). A key is never in a repr, a log line or an error.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from fastagi.errors import CipherError

STEP = 1 << 18
"""Bytes per step: 256 kB keep the GIL for less than a millisecond."""

TEMPORARY_SUFFIX = ".fastagi-tmp"
"""Suffix of unfinished files, the same as in `fastagi.audio.finalfile`: one sweep finds both."""

KEY_SIZES = (16, 24, 32)


class Cipher(ABC):
    """Cipher with its key. `scheme` is its name in metadata."""

    suffix = ""
    """Suffix added to the file's name: none. The name given when the recording began stays true."""

    @property
    @abstractmethod
    def scheme(self) -> str:
        """Name for the metadata, such as ``aes-256-gcm``."""

    @abstractmethod
    def encrypt(self, source: BinaryIO, target: BinaryIO) -> None:
        """Encrypt the rest of `source` into `target`.

        :raises CipherError: the cipher failed; :raises OSError: reading or writing failed
        """

    @abstractmethod
    def plaintext_budget(self, max_bytes: int) -> int:
        """Return the most plain bytes whose encryption has at most `max_bytes`; negative when no file fits."""

    @abstractmethod
    def clear_size(self, path: str | PathLike[str]) -> int:
        """Return the size of the clear file inside an encrypted one.

        :raises CipherError: the file is not of this scheme, or not of this key
        """

    @abstractmethod
    def decrypt_from(self, path: str | PathLike[str], start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the clear bytes from offset `start`, at most `length`, in blocks.

        :raises CipherError: wrong key, damaged or cut file (raised when the place is reached)
        """

    @abstractmethod
    def to_secret(self) -> bytes:
        """Return the key and all else that `from_secret` needs to make this cipher again. Store it wrapped only."""

    def encrypt_file(self, source: str | PathLike[str], target: str | PathLike[str]) -> None:
        """Encrypt a file. Afterwards `target` is complete and synced, or not there.

        :raises CipherError: a file cannot be read or written, or the cipher failed
        """
        with _opened(source) as clear, _Replacing(target) as out:
            self.encrypt(clear, out.file)
            out.commit()

    def decrypt_file(self, source: str | PathLike[str], target: str | PathLike[str]) -> None:
        """Decrypt a file. Afterwards `target` is complete and synced, or not there: no unverified audio is left behind.

        :raises CipherError: wrong key, damaged or cut file, or a file cannot be read or written
        """
        with _Replacing(target) as out:
            for block in self.decrypt_from(source):
                out.file.write(block)
            out.commit()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.scheme}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(f"{self!r} is not to be pickled: its key would travel in the clear")


def key_bytes(name: str, value: object, sizes: tuple[int, ...]) -> bytes:
    """Return `value` as bytes of one of the sizes.

    :raises CipherError: another type or size; the text does not tell the content
    """
    wanted = ", ".join(str(size) for size in sizes[:-1]) + (" or " if len(sizes) > 1 else "") + str(sizes[-1])
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise CipherError(f"{name} must be bytes, {wanted} of them, not {type(value).__name__}")
    data = bytes(value)
    if len(data) not in sizes:
        raise CipherError(f"{name} must have {wanted} bytes, not {len(data)}")
    return data


def read_exactly(file: BinaryIO, count: int) -> bytes:
    """Read `count` bytes, fewer only at the end of the file (an unbuffered file may give less at a time)."""
    data = file.read(count) or b""
    while 0 < len(data) < count:
        more = file.read(count - len(data))
        if not more:
            break
        data += more
    return data


def write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write all of `data` (an unbuffered file may take less at a time)."""
    done = file.write(data)
    while done < len(data):
        done += file.write(data[done:])


def _opened(path: str | PathLike[str]) -> BinaryIO:
    try:
        return open(path, "rb", buffering=0)
    except OSError as exc:
        raise CipherError(f"{os.fspath(path)}: {exc.strerror}") from None


open_encrypted_file = _opened


class _Replacing:
    """File that takes its name only when it is complete."""

    def __init__(self, target: str | PathLike[str]) -> None:
        self._target = Path(target)
        self._temporary = self._target.with_name(f".{self._target.name}{TEMPORARY_SUFFIX}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self.file: BinaryIO = os.fdopen(os.open(self._temporary, flags, 0o600), "wb")
        except OSError as exc:
            raise CipherError(f"{self._target}: cannot be written: {exc.strerror}") from None

    def commit(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        os.replace(self._temporary, self._target)
        folder = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def __enter__(self) -> _Replacing:
        return self

    def __exit__(self, kind: object, exc: object, traceback: object) -> None:
        fault: OSError | None = exc if isinstance(exc, OSError) else None
        try:
            self.file.close()
        except OSError as late:  # a full disk is reported once more when the buffer is flushed
            fault = fault or late
        self._temporary.unlink(missing_ok=True)
        if fault is not None:
            full = fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            text = "no room" if full else fault.strerror
            raise CipherError(f"{self._target}: cannot be written: {text}") from None
