"""fastagi.cipher.AesCbcCipher: byte for byte `openssl enc`."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fastagi.cipher import AesCbcCipher, open_encrypted
from fastagi.cipher.base import STEP
from fastagi.errors import CipherError

IV = bytes(range(16))
SIZES = (0, 1, 15, 16, 17, 4096, STEP - 1, STEP, STEP + 1, 3 * STEP + 5)


def key(bits: int) -> bytes:
    return bytes(range(100, 100 + bits // 8))


@pytest.mark.parametrize("bits", [128, 192, 256])
@pytest.mark.parametrize("size", SIZES)
def test_identical_to_openssl_both_ways(bits: int, size: int, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    assert openssl, "apt-get install openssl"
    clear, ours, back = tmp_path / "clear", tmp_path / "ours", tmp_path / "back"
    clear.write_bytes(os.urandom(size))
    cipher = AesCbcCipher(key(bits), IV)
    assert cipher.scheme == f"aes-{bits}-cbc"
    cipher.encrypt_file(clear, ours)
    command = [openssl, "enc", f"-aes-{bits}-cbc", "-K", key(bits).hex(), "-iv", IV.hex()]
    theirs = subprocess.run([*command, "-in", str(clear)], capture_output=True, check=True).stdout
    assert ours.read_bytes() == theirs
    opened = subprocess.run([*command, "-d", "-in", str(ours)], capture_output=True, check=True).stdout
    assert opened == clear.read_bytes()
    cipher.decrypt_file(ours, back)
    assert back.read_bytes() == clear.read_bytes()
    assert cipher.clear_size(ours) == size


def test_any_part_can_be_read(tmp_path: Path) -> None:
    data = os.urandom(100_003)
    path = tmp_path / "a"
    cipher = AesCbcCipher(key(256), IV)
    with path.open("wb") as file:
        cipher.encrypt(io.BytesIO(data), file)
    for start, length in ((0, 10), (5, 100), (16, 16), (99_990, 100), (100_003, 5), (200_000, 5), (17, None), (0, 0)):
        wanted = data[start:] if length is None else data[start : start + length]
        assert b"".join(open_encrypted(path, cipher, start, length)) == wanted


@pytest.mark.parametrize("limit", [16, 17, 31, 32, 100, 4095, 4096, 70_000])
def test_budget_is_exact(limit: int) -> None:
    cipher = AesCbcCipher(key(128), IV)
    for size, fits in ((cipher.plaintext_budget(limit), True), (cipher.plaintext_budget(limit) + 1, False)):
        out = io.BytesIO()
        cipher.encrypt(io.BytesIO(bytes(size)), out)
        assert (len(out.getvalue()) <= limit) is fits


def test_source_with_short_reads() -> None:
    class Trickle(io.BytesIO):
        def read(self, count: int | None = -1) -> bytes:
            return super().read(min(count or 7, 7) if count and count > 0 else 7)

    data = os.urandom(1000)
    whole, trickled = io.BytesIO(), io.BytesIO()
    AesCbcCipher(key(128), IV).encrypt(io.BytesIO(data), whole)
    AesCbcCipher(key(128), IV).encrypt(Trickle(data), trickled)
    assert whole.getvalue() == trickled.getvalue()


@pytest.mark.parametrize("damage", ["wrong key", "cut", "cut a block", "empty"])
def test_damage_is_one_line_error(damage: str, tmp_path: Path) -> None:
    """No target is left behind."""
    path, out = tmp_path / "a", tmp_path / "out"
    with path.open("wb") as file:
        AesCbcCipher(key(256), IV).encrypt(io.BytesIO(b"x" * 1000), file)
    reader = AesCbcCipher(key(256), IV)
    if damage == "wrong key":
        reader = AesCbcCipher(bytes(32), IV)
    else:
        os.truncate(path, {"cut": 999, "cut a block": 992, "empty": 0}[damage])
    with pytest.raises(CipherError) as caught:
        reader.decrypt_file(path, out)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
