"""AES-CBC with PKCS#7 padding: byte for byte the output of `openssl enc -aes-256-cbc -K KEY -iv IV`.

The file holds neither key nor IV, and nothing that proves it complete. The mode is here because the seed's maker
documents this compatibility. Where there is a choice, `AesGcmCipher` is better.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from os import PathLike
from typing import BinaryIO

from cryptography.hazmat.primitives.ciphers import Cipher as Primitive
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from fastagi.cipher.base import KEY_SIZES, STEP, Cipher, key_bytes, open_encrypted_file, read_exactly, write_all
from fastagi.errors import CipherError

_BLOCK = 16


class AesCbcCipher(Cipher):
    """AES-128, -192 or -256 in CBC mode.

    :param key: 16, 24 or 32 bytes; :param iv: 16 bytes, never used twice with one key
    :raises CipherError: another size or type
    """

    def __init__(self, key: bytes, iv: bytes) -> None:
        self._key = key_bytes("key", key, KEY_SIZES)
        self._iv = key_bytes("iv", iv, (_BLOCK,))

    @property
    def scheme(self) -> str:
        return f"aes-{8 * len(self._key)}-cbc"

    def encrypt(self, source: BinaryIO, target: BinaryIO) -> None:
        encryptor = Primitive(AES(self._key), CBC(self._iv)).encryptor()
        while True:
            block = read_exactly(source, STEP)
            if len(block) < STEP:
                pad = _BLOCK - len(block) % _BLOCK
                write_all(target, encryptor.update(block + bytes([pad]) * pad) + encryptor.finalize())
                return
            write_all(target, encryptor.update(block))

    def plaintext_budget(self, max_bytes: int) -> int:
        return max_bytes // _BLOCK * _BLOCK - 1

    def clear_size(self, path: str | PathLike[str]) -> int:
        with open_encrypted_file(path) as file:
            size = self._size(file, path)
            if size >= 2 * _BLOCK:
                file.seek(size - 2 * _BLOCK)
                before = read_exactly(file, _BLOCK)
            else:
                before = self._iv
            file.seek(size - _BLOCK)
            decryptor = Primitive(AES(self._key), CBC(before)).decryptor()
            last = decryptor.update(read_exactly(file, _BLOCK)) + decryptor.finalize()
        return size - _padding(last, path)

    def decrypt_from(self, path: str | PathLike[str], start: int = 0, length: int | None = None) -> Iterator[bytes]:
        end = self.clear_size(path)
        if length is not None:
            end = min(end, start + length)
        if start >= end:
            return
        with open_encrypted_file(path) as file:
            at = start // _BLOCK * _BLOCK
            before = self._iv
            if at:
                file.seek(at - _BLOCK)
                before = read_exactly(file, _BLOCK)
            decryptor = Primitive(AES(self._key), CBC(before)).decryptor()
            while at < end:
                block = decryptor.update(read_exactly(file, STEP))
                if not block:
                    raise CipherError(f"{os.fspath(path)}: became shorter while it was read")
                yield block[max(0, start - at) : end - at]
                at += len(block)

    def to_secret(self) -> bytes:
        secret = {"cipher": "aes-cbc", "key": _text(self._key), "iv": _text(self._iv)}
        return json.dumps(secret).encode("ascii")

    def _size(self, file: BinaryIO, path: str | PathLike[str]) -> int:
        size = os.fstat(file.fileno()).st_size
        if size == 0 or size % _BLOCK:
            raise CipherError(f"{os.fspath(path)}: not encrypted with {self.scheme}, or cut off ({size} bytes)")
        return size


def _padding(last: bytes, path: str | PathLike[str]) -> int:
    pad = last[-1]
    if not 1 <= pad <= _BLOCK or last[-pad:] != bytes([pad]) * pad:
        raise CipherError(f"{os.fspath(path)}: wrong key, or the file is damaged or cut off")
    return pad


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
