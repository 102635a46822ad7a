"""AES-GCM in 64 KiB segments (STREAM): authenticated, seekable; a changed, moved or missing segment is noticed.

The file:

    offset  bytes
    0       8      magic ``FASTAGI\\x01``: name and version of the format
    8       1      16: segments hold 2^16 bytes of plain text
    9       3      zero
    12      16     salt, random per file
    28      ...    segments, each 65,536 bytes of ciphertext (the last one 0 to 65,536) and a 16-byte tag

From the key and the salt HKDF-SHA256 (info: the first 12 bytes) makes the file's own key, as long as the given one, and
a 7-byte nonce prefix; so one key serves any number of files. A segment's nonce is the prefix, its number (32 bits, big
endian) and 1 for the last segment, else 0; the first 28 bytes are authenticated with each. There is always a last
segment.
"""

from __future__ import annotations

import base64
import json
import os
import struct
from collections.abc import Iterator
from os import PathLike
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fastagi.cipher.base import KEY_SIZES, Cipher, key_bytes, open_encrypted_file, read_exactly, write_all
from fastagi.errors import CipherError

SEGMENT = 1 << 16
TAG = 16
HEADER = 28
MOST_SEGMENTS = 1 << 32

_MAGIC = b"FASTAGI\x01" + bytes([16, 0, 0, 0])


class AesGcmCipher(Cipher):
    """AES-128, -192 or -256 in GCM mode, 64 KiB segments.

    :param key: 16, 24 or 32 bytes; may serve any number of recordings
    :raises CipherError: another size or type
    """

    def __init__(self, key: bytes) -> None:
        self._key = key_bytes("key", key, KEY_SIZES)

    @property
    def scheme(self) -> str:
        return f"aes-{8 * len(self._key)}-gcm"

    def encrypt(self, source: BinaryIO, target: BinaryIO) -> None:
        header = _MAGIC + os.urandom(16)
        seal, prefix = self._derive(header)
        write_all(target, header)
        number = 0
        block = read_exactly(source, SEGMENT)
        while True:
            following = read_exactly(source, SEGMENT) if len(block) == SEGMENT else b""
            last = not following
            write_all(target, seal.encrypt(_nonce(prefix, number, last), block, header))
            if last:
                return
            block = following
            number += 1
            if number >= MOST_SEGMENTS:
                raise CipherError("a file of more than 256 TiB cannot be encrypted")

    def plaintext_budget(self, max_bytes: int) -> int:
        whole, rest = divmod(max_bytes - HEADER, SEGMENT + TAG)
        if max_bytes < HEADER + TAG:
            return -1
        return whole * SEGMENT + max(0, rest - TAG)

    def clear_size(self, path: str | PathLike[str]) -> int:
        with open_encrypted_file(path) as file:
            segments, size = self._measure(file, path)
        return size - HEADER - segments * TAG

    def decrypt_from(self, path: str | PathLike[str], start: int = 0, length: int | None = None) -> Iterator[bytes]:
        with open_encrypted_file(path) as file:
            segments, size = self._measure(file, path)
            file.seek(0)
            header = read_exactly(file, HEADER)
            opener, prefix = self._derive(header)
            clear = size - HEADER - segments * TAG
            end = clear if length is None else min(clear, start + length)
            number = min(start // SEGMENT, segments - 1)
            file.seek(HEADER + number * (SEGMENT + TAG))
            while number < segments:
                sealed = read_exactly(file, SEGMENT + TAG)
                try:
                    block = opener.decrypt(_nonce(prefix, number, number == segments - 1), sealed, header)
                except InvalidTag:
                    raise CipherError(f"{os.fspath(path)}: wrong key, or the file is damaged or cut off") from None
                at = number * SEGMENT
                part = block[max(0, start - at) : max(0, end - at)]
                if part:
                    yield part
                number += 1
                if number * SEGMENT >= end and end < clear:
                    return  # only a part was asked for: the rest is not read

    def to_secret(self) -> bytes:
        return json.dumps({"cipher": "aes-gcm", "key": base64.b64encode(self._key).decode("ascii")}).encode("ascii")

    def _derive(self, header: bytes) -> tuple[AESGCM, bytes]:
        made = HKDF(SHA256(), len(self._key) + 7, salt=header[len(_MAGIC) :], info=_MAGIC).derive(self._key)
        return AESGCM(made[:-7]), made[-7:]

    def _measure(self, file: BinaryIO, path: str | PathLike[str]) -> tuple[int, int]:
        """Return the number of segments and the size of an encrypted file."""
        size = os.fstat(file.fileno()).st_size
        if read_exactly(file, len(_MAGIC)) != _MAGIC:
            raise CipherError(f"{os.fspath(path)}: not encrypted with {self.scheme}")
        whole, rest = divmod(size - HEADER, SEGMENT + TAG)
        if size < HEADER + TAG or 0 < rest < TAG:
            raise CipherError(f"{os.fspath(path)}: is cut off")
        return whole + (rest > 0), size


def _nonce(prefix: bytes, number: int, last: bool) -> bytes:
    return prefix + struct.pack(">IB", number, last)
