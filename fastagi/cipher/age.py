"""Encryption with age (age-encryption.org) for public keys: only a private key opens the file; this server has none.

pyrage (extra `age`) holds the GIL while it encrypts, 300 ms for a two-hour recording. So it runs in a process of its
own (`age_worker`), with a time limit. The clear file is handed over as an open descriptor and never has a name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import BinaryIO, NoReturn

from fastagi.cipher.base import Cipher
from fastagi.errors import CipherError

MOST_RECIPIENTS = 64

_WORKER = Path(__file__).with_name("age_worker.py")
_STARTING_SECONDS = 60.0
_SLOWEST_BYTES_PER_SECOND = 1_000_000
"""Speed below which the worker counts as hung; 455 MB/s were measured."""

_CHUNK = 1 << 16
_TAG = 16
_NO_ROOM_EXIT = 28  # errno ENOSPC, passed on as the worker's exit code


class AgeCipher(Cipher):
    """age for one or more recipients.

    :param recipients: public keys, ``age1...`` or ``ssh-ed25519 ...`` or ``ssh-rsa ...``
    :raises CipherError: no recipient, a recipient that is no public key, or the extra is not installed
    """

    def __init__(self, recipients: Iterable[str] | str) -> None:
        if not isinstance(recipients, Iterable):
            raise CipherError(f"recipients: there must be public keys, not {type(recipients).__name__}")
        found = [recipients] if isinstance(recipients, str) else list(recipients)
        if not 0 < len(found) <= MOST_RECIPIENTS:
            raise CipherError(f"recipients: there must be 1 to {MOST_RECIPIENTS} public keys, not {len(found)}")
        self._recipients = tuple(_checked(recipient) for recipient in found)

    @property
    def scheme(self) -> str:
        return "age"

    @property
    def recipients(self) -> tuple[str, ...]:
        """Public keys of the recipients; not a secret."""
        return self._recipients

    def encrypt(self, source: BinaryIO, target: BinaryIO) -> None:
        target.flush()
        size = os.fstat(source.fileno()).st_size
        os.lseek(source.fileno(), source.tell(), os.SEEK_SET)
        try:
            done = subprocess.run(
                [sys.executable, "-P", str(_WORKER), *self._recipients],
                stdin=source.fileno(),
                stdout=target.fileno(),
                stderr=subprocess.PIPE,
                timeout=_STARTING_SECONDS + size / _SLOWEST_BYTES_PER_SECOND,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CipherError("age: encrypting took too long and was stopped") from None
        if done.returncode == _NO_ROOM_EXIT:
            raise OSError(_NO_ROOM_EXIT, os.strerror(_NO_ROOM_EXIT))
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise CipherError(f"age: {lines[-1] if lines else f'the worker ended with {done.returncode}'}")

    def plaintext_budget(self, max_bytes: int) -> int:
        # header: a version line (22), a stanza per recipient (X25519: 98 bytes, SSH keys by their size), one random
        # stanza that age puts in to keep readers tolerant (300 at most), the MAC line (48) and the nonce (16)
        header = 22 + 300 + 48 + 16
        for recipient in self._recipients:
            header += 98 if recipient.startswith("age1") and len(recipient) < 80 else 200 + 2 * len(recipient)
        room = max_bytes - header
        chunks = max(1, -(-room // (_CHUNK + _TAG)))
        return room - chunks * _TAG

    def clear_size(self, path: str | PathLike[str]) -> int:
        self._cannot(path)

    def decrypt_from(self, path: str | PathLike[str], start: int = 0, length: int | None = None) -> Iterator[bytes]:
        self._cannot(path)

    def to_secret(self) -> bytes:
        return json.dumps({"cipher": "age", "recipients": list(self._recipients)}).encode("utf-8")

    def _cannot(self, path: str | PathLike[str]) -> NoReturn:
        raise CipherError(
            f"{os.fspath(path)}: only a recipient's private key opens it: age -d -i KEY {Path(path).name}"
        )


def _checked(recipient: object) -> str:
    if not isinstance(recipient, str) or not recipient.strip() or any(c in recipient for c in "\r\n\0"):
        raise CipherError("recipients: a public key is one line of text, age1... or ssh-...")
    text = recipient.strip()
    try:
        import pyrage
    except ImportError:
        raise CipherError("age needs the extra: pip install 'fastagi-recorder[age]'") from None
    if text.startswith("AGE-SECRET-KEY") or "PRIVATE KEY" in text:
        raise CipherError("recipients: that is a private key; give the public one (age1...) and keep this one away")
    try:
        kind = pyrage.ssh if text.startswith("ssh-") else pyrage.x25519
        kind.Recipient.from_str(text)
    except (pyrage.RecipientError, ValueError):
        raise CipherError(f"recipients: {text[:16]!r}... is no public key (age1... or ssh-...)") from None
    return text
