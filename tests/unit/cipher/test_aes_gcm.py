"""fastagi.cipher.AesGcmCipher: nothing changed, moved, missing or added goes unnoticed."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from fastagi.cipher import AesGcmCipher, open_encrypted
from fastagi.cipher.aes_gcm import HEADER, SEGMENT, TAG
from fastagi.errors import CipherError

KEY = bytes(range(32))
CIPHER = AesGcmCipher(KEY)


def sealed(data: bytes, cipher: AesGcmCipher = CIPHER) -> bytes:
    out = io.BytesIO()
    cipher.encrypt(io.BytesIO(data), out)
    return out.getvalue()


def opened(path: Path, data: bytes, cipher: AesGcmCipher = CIPHER) -> bytes:
    path.write_bytes(data)
    return b"".join(open_encrypted(path, cipher))


@pytest.mark.parametrize("bits", [128, 192, 256])
@pytest.mark.parametrize("size", [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 3 * SEGMENT + 77])
def test_there_and_back(bits: int, size: int, tmp_path: Path) -> None:
    cipher = AesGcmCipher(KEY[: bits // 8])
    assert cipher.scheme == f"aes-{bits}-gcm"
    clear = tmp_path / "clear"
    clear.write_bytes(os.urandom(size))
    cipher.encrypt_file(clear, tmp_path / "sealed")
    cipher.decrypt_file(tmp_path / "sealed", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == clear.read_bytes()
    assert cipher.clear_size(tmp_path / "sealed") == size
    segments = max(1, -(-size // SEGMENT))
    assert (tmp_path / "sealed").stat().st_size == HEADER + size + segments * TAG


def test_format_is_as_documented(tmp_path: Path) -> None:
    """Opened with the primitives alone, by the description in the module."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    data = os.urandom(SEGMENT + 10)
    file = sealed(data)
    assert file[:12] == b"FASTAGI\x01\x10\0\0\0"
    made = HKDF(SHA256(), 39, salt=file[12:28], info=file[:12]).derive(KEY)
    aead, prefix = AESGCM(made[:32]), made[32:]
    first = aead.decrypt(prefix + b"\0\0\0\0" + b"\0", file[28 : 28 + SEGMENT + 16], file[:28])
    last = aead.decrypt(prefix + b"\0\0\0\1" + b"\1", file[28 + SEGMENT + 16 :], file[:28])
    assert first + last == data


def test_two_files_share_nothing() -> None:
    assert sealed(b"same" * 100)[HEADER:] != sealed(b"same" * 100)[HEADER:]


DATA = bytes(range(256)) * 600
WHOLE = sealed(DATA)
STEP = SEGMENT + TAG
CHANGED = {
    "a bit of the first segment": WHOLE[: HEADER + 5] + bytes([WHOLE[HEADER + 5] ^ 1]) + WHOLE[HEADER + 6 :],
    "a bit of the last tag": WHOLE[:-1] + bytes([WHOLE[-1] ^ 1]),
    "a bit of the salt": WHOLE[:20] + bytes([WHOLE[20] ^ 1]) + WHOLE[21:],
    "cut at a segment": WHOLE[: HEADER + STEP],
    "cut at two segments": WHOLE[: HEADER + 2 * STEP],
    "cut in a segment": WHOLE[: HEADER + STEP + 1000],
    "cut in a tag": WHOLE[: HEADER + STEP + 5],
    "cut in the header": WHOLE[:20],
    "header only": WHOLE[:HEADER],
    "last segment missing": WHOLE[: HEADER + 2 * STEP],
    "two segments changed places": WHOLE[:HEADER]
    + WHOLE[HEADER + STEP : HEADER + 2 * STEP]
    + WHOLE[HEADER : HEADER + STEP]
    + WHOLE[HEADER + 2 * STEP :],
    "something added": WHOLE + b"more",
    "a segment of another file": WHOLE[:HEADER] + sealed(DATA)[HEADER : HEADER + STEP] + WHOLE[HEADER + STEP :],
    "empty": b"",
    "clear audio": b"RIFF" + bytes(1000),
}


@pytest.mark.parametrize("case", CHANGED)
def test_every_change_is_noticed(case: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(CipherError) as caught:
        opened(path, CHANGED[case])
    assert "\n" not in str(caught.value)
    with pytest.raises(CipherError):
        CIPHER.decrypt_file(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_wrong_key(tmp_path: Path) -> None:
    with pytest.raises(CipherError, match="wrong key"):
        opened(tmp_path / "a", WHOLE, AesGcmCipher(bytes(32)))


def test_any_part_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(WHOLE)
    n = len(DATA)
    for start, length in (
        (0, 10),
        (SEGMENT - 5, 10),
        (SEGMENT, SEGMENT),
        (n - 3, 10),
        (n, 5),
        (n + 9, 5),
        (70_000, None),
        (3, 0),
    ):
        wanted = DATA[start:] if length is None else DATA[start : start + length]
        assert b"".join(open_encrypted(path, CIPHER, start, length)) == wanted


@pytest.mark.parametrize("limit", [44, 45, 100, HEADER + STEP, HEADER + STEP + 1, HEADER + STEP + 17, 200_000])
def test_budget_is_exact(limit: int) -> None:
    budget = CIPHER.plaintext_budget(limit)
    assert len(sealed(bytes(budget))) <= limit
    assert len(sealed(bytes(budget + 1))) > limit


def test_budget_below_the_overhead_is_negative() -> None:
    assert all(CIPHER.plaintext_budget(limit) < 0 for limit in (0, 1, 27, 43))
