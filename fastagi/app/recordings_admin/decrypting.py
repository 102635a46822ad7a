"""Decrypts recordings, with the key in the ledger or with one from a file."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from pathlib import Path

from fastagi.app.keyfile import key_file
from fastagi.cipher import AesCbcCipher, AesGcmCipher, Cipher, MasterKey, from_secret
from fastagi.domain.recording import Recording
from fastagi.errors import BadArgument, CipherError, Error
from fastagi.settings import Settings
from fastagi.store.offline import OfflineLedger
from fastagi.store.queries import keys

GCM_MAGIC = b"FASTAGI\x01"
AGE_MAGIC = b"age-encryption.org/"
KEY_SIZES = (16, 24, 32)
LARGEST_KEY_FILE = 10_000


async def decrypt(settings: Settings, ledger: OfflineLedger, recording: Recording, target: Path) -> None:
    """Write the clear file of a recording, with the ledger's key and this server's master key.

    :raises Error: it is not encrypted, or its key was deleted with it
    :raises CipherError: another master key, an age recipient's file, or a damaged file
    """
    if not recording.spec.encryption:
        raise Error(f"{recording.id} is not encrypted: {recording.file_path}")
    cipher = await ledger_cipher(settings, ledger, recording)
    await asyncio.to_thread(cipher.decrypt_file, recording.file_path, target)


async def ledger_cipher(settings: Settings, ledger: OfflineLedger, recording: Recording) -> Cipher:
    """Return the cipher of a recording, with the key in the ledger.

    :raises Error: its key is not in the ledger
    :raises CipherError: another master key wrapped it
    """
    row = await ledger.read(keys.get, recording.id)
    if row is None:
        raise Error(f"the ledger has no key of {recording.id}: it was deleted, or never kept; use --key-file")
    path = key_file(settings)
    if not await asyncio.to_thread(path.exists):
        raise CipherError(f"{path}: the master key is not there; it is needed to unwrap the recording's key")
    master = await asyncio.to_thread(MasterKey.load_or_create, path)
    return from_secret(master.unwrap(row[1], recording.id.encode()))


def decrypt_with(source: Path, key: Path, target: Path, iv: str = "") -> None:
    """Write the clear file, with a key from a file; the encrypted file tells which cipher it is. Blocking.

    :param key: a file with 16, 24 or 32 bytes, raw, in hex or in base64 (a second word is the IV); or an age identity
    :param iv: 32 hex digits; of AES-CBC only
    :raises BadArgument: the key file holds no key, or the IV is missing
    :raises CipherError: a wrong key, or a damaged file
    """
    with source.open("rb") as file:
        start = file.read(len(AGE_MAGIC))
    if start == AGE_MAGIC:
        _decrypt_age(source, key, target)
        return
    raw = key.read_bytes()[:LARGEST_KEY_FILE]
    secret, word = _key(key, raw)
    if start.startswith(GCM_MAGIC):
        AesGcmCipher(secret).decrypt_file(source, target)
        return
    vector = _hex(iv or word)
    if vector is None or len(vector) != 16:
        raise BadArgument(
            f"{source} is AES-CBC: give its IV, 32 hex digits, with --iv or as the key file's second word"
        )
    AesCbcCipher(secret, vector).decrypt_file(source, target)


def _key(path: Path, raw: bytes) -> tuple[bytes, str]:
    """Return the key, and the word after it."""
    words = raw.decode("ascii", "replace").split()
    if words:
        for decoded in (_hex(words[0]), _base64(words[0])):
            if decoded is not None and len(decoded) in KEY_SIZES:
                return decoded, words[1] if len(words) > 1 else ""
    if len(raw) in KEY_SIZES:
        return raw, ""
    raise BadArgument(f"{path}: holds no key: 16, 24 or 32 bytes, raw, in hex or in base64")


def _hex(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _decrypt_age(source: Path, key: Path, target: Path) -> None:
    try:
        import pyrage
    except ImportError:
        raise CipherError("age needs the extra: pip install 'fastagi-recorder[age]'") from None
    lines = [line.strip() for line in key.read_text(errors="replace").splitlines()]
    try:
        identities = [pyrage.x25519.Identity.from_str(x) for x in lines if x.startswith("AGE-SECRET-KEY-")]
    except (pyrage.IdentityError, ValueError):
        identities = []
    if not identities:
        raise BadArgument(f"{key}: holds no age identity (AGE-SECRET-KEY-…); {source} is for age recipients")
    draft = target.with_name(f".{target.name}.fastagi-tmp")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        pyrage.decrypt_file(str(source), str(draft), identities)
        os.replace(draft, target)
    except pyrage.DecryptError as exc:
        raise CipherError(f"{source}: {exc}") from None
    finally:
        draft.unlink(missing_ok=True)
