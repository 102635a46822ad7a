"""fastagi.cipher.AgeCipher: only the recipients can listen, and the loop goes on."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pyrage
import pytest

from fastagi.cipher import AgeCipher, age
from fastagi.errors import CipherError

ME = pyrage.x25519.Identity.generate()
SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN test"


@pytest.mark.parametrize("size", [0, 1, 65_536, 200_000])
def test_every_recipient_can_open_it(size: int, tmp_path: Path) -> None:
    other = pyrage.x25519.Identity.generate()
    cipher = AgeCipher([str(ME.to_public()), str(other.to_public())])
    data = os.urandom(size)
    (tmp_path / "clear").write_bytes(data)
    cipher.encrypt_file(tmp_path / "clear", tmp_path / "sealed")
    sealed = (tmp_path / "sealed").read_bytes()
    for identity in (ME, other):
        assert pyrage.decrypt(sealed, [identity]) == data
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(sealed, [pyrage.x25519.Identity.generate()])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clear", "sealed"]


def test_ssh_keys_are_recipients(tmp_path: Path) -> None:
    (tmp_path / "clear").write_bytes(b"x")
    AgeCipher(SSH).encrypt_file(tmp_path / "clear", tmp_path / "sealed")
    assert b"ssh-ed25519" in (tmp_path / "sealed").read_bytes()


@pytest.mark.parametrize(
    ("recipients", "reason"),
    [
        ([], "1 to 64"),
        ("", "public key"),
        (["age1nonsense"], "no public key"),
        (["ssh-rsa nonsense"], "no public key"),
        ([str(ME)], "private key"),
        ([str(ME.to_public()) + "\n-o/etc/passwd"], "one line"),
        ([7], "one line"),
        (None, "public keys, not NoneType"),
        (7, "public keys, not int"),
    ],
)
def test_bad_recipients_are_refused(recipients: object, reason: str) -> None:
    """The error does not repeat a private key."""
    with pytest.raises(CipherError, match=reason) as caught:
        AgeCipher(recipients)  # type: ignore[arg-type]
    assert str(ME)[20:40] not in str(caught.value)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyrage", None)
    with pytest.raises(CipherError, match=r"fastagi-recorder\[age\]"):
        AgeCipher(str(ME.to_public()))


def test_this_server_cannot_listen(tmp_path: Path) -> None:
    cipher = AgeCipher(str(ME.to_public()))
    for attempt in (cipher.clear_size, cipher.decrypt_from):
        with pytest.raises(CipherError, match="private key"):
            attempt(tmp_path / "a")


def test_a_worker_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(age, "_WORKER", worker)
    monkeypatch.setattr(age, "_STARTING_SECONDS", 0.5)
    (tmp_path / "clear").write_bytes(b"x")
    with pytest.raises(CipherError, match="too long"):
        AgeCipher(str(ME.to_public())).encrypt_file(tmp_path / "clear", tmp_path / "sealed")
    assert not (tmp_path / "sealed").exists()


def test_a_worker_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("import sys\nprint('a', file=sys.stderr)\nsys.exit('the reason')\n")
    monkeypatch.setattr(age, "_WORKER", worker)
    (tmp_path / "clear").write_bytes(b"x")
    with pytest.raises(CipherError, match="age: the reason"):
        AgeCipher(str(ME.to_public())).encrypt_file(tmp_path / "clear", tmp_path / "sealed")


def test_full_disk_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "clear").write_bytes(os.urandom(500_000))
    with (tmp_path / "clear").open("rb") as clear, open("/dev/full", "wb", buffering=0) as full:
        with pytest.raises(OSError, match="No space left") as caught:
            AgeCipher(str(ME.to_public())).encrypt(clear, full)  # type: ignore[arg-type]
        assert caught.value.errno == 28


def test_encryption_does_not_hold_the_interpreter(tmp_path: Path) -> None:
    with (tmp_path / "clear").open("wb") as file:
        file.truncate(100_000_000)
    cipher = AgeCipher(str(ME.to_public()))
    work = threading.Thread(target=cipher.encrypt_file, args=(tmp_path / "clear", tmp_path / "sealed"))
    work.start()
    worst, last = 0.0, time.perf_counter()
    while work.is_alive():
        time.sleep(0.001)
        now = time.perf_counter()
        worst, last = max(worst, now - last), now
    assert (tmp_path / "sealed").stat().st_size > 100_000_000
    assert worst < 0.25  # in this process it would be about 0.3 s of standstill for this file


@pytest.mark.parametrize(("count", "ssh"), [(1, 0), (3, 0), (20, 0), (1, 1)])
def test_budget_always_holds(count: int, ssh: int, tmp_path: Path) -> None:
    keys = [str(pyrage.x25519.Identity.generate().to_public()) for _ in range(count)]
    cipher = AgeCipher(keys + [SSH] * ssh)
    recipients = [pyrage.x25519.Recipient.from_str(k) for k in keys] + [pyrage.ssh.Recipient.from_str(SSH)] * ssh
    for limit in (5000, 70_000, 200_000):
        budget = cipher.plaintext_budget(limit)
        sizes = [len(pyrage.encrypt(bytes(budget), recipients)) for _ in range(60)]
        assert max(sizes) <= limit
        assert min(sizes) >= limit - 300 - 250 * ssh, "what the guide says of it"
