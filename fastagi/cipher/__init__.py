"""Ciphers of finished recordings, and the master key that wraps their keys.

`openssl enc` reads files of `AesCbcCipher`; `AesGcmCipher` is authenticated; with `AgeCipher` only the holder of a
private key can listen. `fastagi.recording` decides when a cipher is applied, `fastagi.audio` writes the file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from os import PathLike

from fastagi.cipher.aes_cbc import AesCbcCipher
from fastagi.cipher.aes_gcm import AesGcmCipher
from fastagi.cipher.age import AgeCipher
from fastagi.cipher.base import Cipher
from fastagi.cipher.keyring import MasterKey
from fastagi.errors import CipherError

__all__ = [
    "AesCbcCipher",
    "AesGcmCipher",
    "AgeCipher",
    "Cipher",
    "MasterKey",
    "from_secret",
    "open_encrypted",
]


def from_secret(secret: bytes) -> Cipher:
    """Return the cipher that `Cipher.to_secret` was called on.

    :raises CipherError: `secret` is not a secret of `to_secret`
    """
    try:
        fields = json.loads(secret)
        match fields["cipher"]:
            case "aes-cbc":
                return AesCbcCipher(base64.b64decode(fields["key"]), base64.b64decode(fields["iv"]))
            case "aes-gcm":
                return AesGcmCipher(base64.b64decode(fields["key"]))
            case "age":
                return AgeCipher(fields["recipients"])
    except (ValueError, KeyError, TypeError):
        pass
    raise CipherError("a stored cipher is not one that this version knows")


def open_encrypted(
    path: str | PathLike[str], cipher: Cipher, start: int = 0, length: int | None = None
) -> Iterator[bytes]:
    """Yield the clear bytes of an encrypted recording from offset `start`, at most `length`, in blocks.

    :raises CipherError: wrong key, damaged or cut file; age files need a private key
    """
    return cipher.decrypt_from(path, start, length)
