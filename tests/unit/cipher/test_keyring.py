"""fastagi.cipher.MasterKey: made once, private, whole; what it wraps opens with it alone."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from fastagi.cipher import MasterKey
from fastagi.errors import CipherError


def test_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    first = MasterKey.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["master.key"]
    before = path.read_bytes()
    again = MasterKey.load_or_create(path)
    assert path.read_bytes() == before
    assert again.unwrap(first.wrap(b"the key", b"rec-1"), b"rec-1") == b"the key"


def test_wrapped_secret_belongs_to_one_recording() -> None:
    """Another master key does not unwrap it either."""
    master = MasterKey(bytes(32))
    wrapped = master.wrap(b"the key", b"rec-1")
    assert b"the key" not in wrapped
    assert master.wrap(b"the key", b"rec-1") != wrapped
    for other, aad in ((MasterKey(b"1" * 32), b"rec-1"), (master, b"rec-2"), (master, b"")):
        with pytest.raises(CipherError, match="another master key, or is damaged"):
            other.unwrap(wrapped, aad)
    for at in range(1, len(wrapped)):
        with pytest.raises(CipherError):
            master.unwrap(wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :], b"rec-1")


@pytest.mark.parametrize("wrapped", [b"", b"\x01", b"\x02" + bytes(60), bytes(60), b"\x01" + bytes(20)])
def test_unknown_forms(wrapped: bytes) -> None:
    with pytest.raises(CipherError, match="form"):
        MasterKey(bytes(32)).unwrap(wrapped)


@pytest.mark.parametrize(
    "text", [b"", b"fastagi-master-key-1 AAAA\n", b"hello", b"\xff\xfe" * 30, b"fastagi-master-key-1 !!!!"]
)
def test_file_without_key_is_never_replaced(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(CipherError, match="not a master key"):
        MasterKey.load_or_create(path)
    assert path.read_bytes() == text


def test_world_readable_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    MasterKey.load_or_create(path)
    path.chmod(0o644)
    with pytest.raises(CipherError, match="chmod 600"):
        MasterKey.load_or_create(path)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CipherError, match="No such file"):
        MasterKey.load_or_create(tmp_path / "no" / "master.key")


def test_repr_and_sizes() -> None:
    assert repr(MasterKey(b"S" * 32)) == "<MasterKey>"
    with pytest.raises(CipherError, match="32 bytes"):
        MasterKey(b"short")


def _wrap(path: str, gate: object, out: object) -> None:
    gate.wait(30)  # type: ignore[attr-defined]
    out.put(MasterKey.load_or_create(path).wrap(b"mine", b""))  # type: ignore[attr-defined]


def test_concurrent_processes_get_one_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    gate, out = context.Barrier(3), context.Queue()
    path = str(tmp_path / "master.key")
    workers = [context.Process(target=_wrap, args=(path, gate, out)) for _ in range(3)]
    for worker in workers:
        worker.start()
    wrapped = [out.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(30)
    master = MasterKey.load_or_create(path)
    assert [master.unwrap(item) for item in wrapped] == [b"mine"] * 3
    assert os.listdir(tmp_path) == ["master.key"]
