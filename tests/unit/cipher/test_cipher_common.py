"""What all ciphers share: key checks, secrets that stay secret, files that are whole or not there."""

from __future__ import annotations

import copy
import os
import pickle
import resource
import signal
from pathlib import Path

import pyrage
import pytest

from fastagi.audio import TEMPORARY_SUFFIX
from fastagi.cipher import AesCbcCipher, AesGcmCipher, AgeCipher, Cipher, base, from_secret
from fastagi.errors import CipherError

KEY = b"S3cret-key-that-nobody-may-see!!"
IV = b"IV-also-private!"
PUBLIC = str(pyrage.x25519.Identity.generate().to_public())
ALL = [AesCbcCipher(KEY, IV), AesGcmCipher(KEY), AgeCipher(PUBLIC)]


@pytest.mark.parametrize("size", [0, 1, 15, 17, 31, 33, 64])
def test_wrong_key_sizes(size: int) -> None:
    for make in (lambda: AesCbcCipher(bytes(size), IV), lambda: AesGcmCipher(bytes(size))):
        with pytest.raises(CipherError, match=f"16, 24 or 32 bytes, not {size}"):
            make()
    with pytest.raises(CipherError, match=f"iv must have 16 bytes, not {size}"):
        AesCbcCipher(KEY, bytes(size))


@pytest.mark.parametrize("key", ["0123456789abcdef", None, 16, [1] * 16])
def test_wrong_key_types(key: object) -> None:
    for make in (lambda: AesCbcCipher(key, IV), lambda: AesGcmCipher(key), lambda: AesCbcCipher(KEY, key)):  # type: ignore[arg-type]
        with pytest.raises(CipherError, match="must be bytes") as caught:
            make()
        assert "0123456789abcdef" not in str(caught.value)


def test_bytearrays_are_keys_too(tmp_path: Path) -> None:
    assert AesGcmCipher(bytearray(KEY)).to_secret() == AesGcmCipher(KEY).to_secret()  # type: ignore[arg-type]


@pytest.mark.parametrize("cipher", ALL, ids=lambda c: c.scheme)
def test_key_is_neither_shown_nor_pickled(cipher: Cipher) -> None:
    for text in (repr(cipher), str(cipher), f"{cipher}"):
        assert "S3cret" not in text
        assert KEY.hex() not in text
        assert cipher.scheme in text
    for carry in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="pickled"):
            carry(cipher)
    assert cipher.suffix == ""


@pytest.mark.parametrize("cipher", ALL[:2], ids=lambda c: c.scheme)
def test_secret_makes_the_same_cipher_again(cipher: Cipher, tmp_path: Path) -> None:
    (tmp_path / "clear").write_bytes(b"talk")
    cipher.encrypt_file(tmp_path / "clear", tmp_path / "sealed")
    again = from_secret(cipher.to_secret())
    assert type(again) is type(cipher)
    again.decrypt_file(tmp_path / "sealed", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"talk"


def test_secret_of_age() -> None:
    again = from_secret(AgeCipher(PUBLIC).to_secret())
    assert isinstance(again, AgeCipher)
    assert again.recipients == (PUBLIC,)


@pytest.mark.parametrize(
    "secret",
    [
        b"",
        b"{}",
        b"[]",
        b"7",
        b"null",
        b'{"cipher": "rot13"}',
        b'{"cipher": "aes-gcm"}',
        b'{"cipher": "aes-gcm", "key": "!"}',
        b"\xff",
    ],
)
def test_secret_that_is_none(secret: bytes) -> None:
    with pytest.raises(CipherError) as caught:
        from_secret(secret)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cipher", ALL, ids=lambda c: c.scheme)
def test_missing_source_leaves_no_target(cipher: Cipher, tmp_path: Path) -> None:
    with pytest.raises(CipherError, match="No such file"):
        cipher.encrypt_file(tmp_path / "no", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cipher", ALL[:2], ids=lambda c: c.scheme)
def test_full_disk_leaves_no_file(cipher: Cipher, tmp_path: Path) -> None:
    (tmp_path / "clear").write_bytes(os.urandom(300_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, hard))
    try:
        with pytest.raises(CipherError, match="no room"):
            cipher.encrypt_file(tmp_path / "clear", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert [p.name for p in tmp_path.iterdir()] == ["clear"]


def test_target_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "clear").write_bytes(b"x")
    with pytest.raises(CipherError, match="cannot be written"):
        ALL[0].encrypt_file(tmp_path / "clear", tmp_path / "no" / "out")


def test_one_sweep_finds_all_leftovers() -> None:
    assert base.TEMPORARY_SUFFIX == TEMPORARY_SUFFIX


def test_encrypted_files_are_private(tmp_path: Path) -> None:
    (tmp_path / "sealed").write_bytes(b"")
    (tmp_path / "clear").write_bytes(b"x")
    ALL[1].encrypt_file(tmp_path / "clear", tmp_path / "sealed")
    ALL[1].decrypt_file(tmp_path / "sealed", tmp_path / "back")
    assert (tmp_path / "back").stat().st_mode & 0o077 == 0
