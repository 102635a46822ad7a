"""The master key: wraps secrets that must survive a crash (the keys of open recordings) before they are stored."""

from __future__ import annotations

import base64
import os
import secrets
import stat
from os import PathLike
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fastagi.cipher.base import key_bytes
from fastagi.errors import CipherError
from fastagi.ownership import denied, inherit_owner

_LABEL = "fastagi-master-key-1"
_FORM = b"\x01"
_NONCE = 12


class MasterKey:
    """Key of 256 bits that wraps small secrets (AES-256-GCM, a random nonce each).

    :param key: 32 bytes
    :raises CipherError: another size or type
    """

    def __init__(self, key: bytes) -> None:
        self._key = key_bytes("the master key", key, (32,))
        self._aead = AESGCM(self._key)

    @classmethod
    def load_or_create(cls, path: str | PathLike[str]) -> MasterKey:
        """Return the key in `path`. Without such a file a new key is made, readable by its owner only, and synced.

        Several processes may call this at once: all get the same key.

        :raises CipherError: the file is no key, other users may read it, or it cannot be read or made
        """
        file = Path(path)
        try:
            if not file.exists():
                _create(file)
            return cls(_load(file))
        except OSError as exc:
            raise CipherError(denied(file, exc)) from None

    def wrap(self, secret: bytes, aad: bytes = b"") -> bytes:
        """Encrypt a secret.

        :param aad: owner of the secret (a recording's id); `unwrap` needs the same
        """
        nonce = os.urandom(_NONCE)
        return _FORM + nonce + self._aead.encrypt(nonce, secret, aad)

    def unwrap(self, wrapped: bytes, aad: bytes = b"") -> bytes:
        """Decrypt a wrapped secret.

        :raises CipherError: it was wrapped with another master key or for another owner, or is damaged
        """
        if wrapped[:1] != _FORM or len(wrapped) < 1 + _NONCE + 16:
            raise CipherError("a stored key is not in a form that this version knows")
        try:
            return self._aead.decrypt(wrapped[1 : 1 + _NONCE], wrapped[1 + _NONCE :], aad)
        except InvalidTag:
            raise CipherError("a stored key was wrapped with another master key, or is damaged") from None

    def derive(self, purpose: str) -> bytes:
        """Derive 32 bytes for a purpose. Every holder of this key gets the same bytes."""
        return HKDF(SHA256(), 32, None, b"fastagi " + purpose.encode()).derive(self._key)

    def __repr__(self) -> str:
        return "<MasterKey>"


def _create(file: Path) -> None:
    """Create a new key under a temporary name, then link it: a reader finds no key or a complete one."""
    text = f"{_LABEL} {base64.b64encode(os.urandom(32)).decode('ascii')}\n"
    draft = file.with_name(f".{file.name}.{secrets.token_hex(6)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        inherit_owner(fd, file.parent)
        os.write(fd, text.encode("ascii"))
        os.fsync(fd)
        try:
            os.link(draft, file)
        except FileExistsError:
            return  # another process was faster: its key counts
    finally:
        os.close(fd)
        draft.unlink()
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _load(file: Path) -> bytes:
    with file.open("rb") as opened:
        mode = os.fstat(opened.fileno()).st_mode
        text = opened.read(200)
    if stat.S_IMODE(mode) & 0o007:
        raise CipherError(f"{file}: everybody on this machine can read the master key: chmod 600 it")
    label, _, encoded = text.decode("ascii", "replace").strip().partition(" ")
    try:
        key = base64.b64decode(encoded, validate=True)
    except ValueError:
        key = b""
    if label != _LABEL or len(key) != 32:
        raise CipherError(f"{file}: is not a master key")
    return key
