"""fastagi.audio.render when the disk is full, the cipher fails, or the process dies."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from made_sound import voice, write_wav

from fastagi.audio import RawPiece, RenderPlan, finalfile, is_temporary, render, repair, temporary_name
from fastagi.audio.finalfile import FinalFile
from fastagi.cipher import AesCbcCipher, AesGcmCipher
from fastagi.errors import AudioError, CipherError, DiskFull

SOUND = voice(10.0, seed=60)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel refuses to let a file grow further, as on a full disk (EFBIG instead of ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def plan(folder: Path, **more: object) -> RenderPlan:
    raw = write_wav(folder / "raw.wav", SOUND)
    target = folder / "done.bin"
    target.touch()
    return RenderPlan((RawPiece(raw),), str(target), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("file_format", ["alaw", "s16bit", "oki", "ima", "flac", "opus", "mp3"])
@pytest.mark.parametrize("cipher", [None, AesCbcCipher(b"k" * 16, b"i" * 16), AesGcmCipher(b"k" * 16)])
def test_full_disk_keeps_raw_file(file_format: str, cipher: object, tmp_path: Path) -> None:
    """The reservation stays, too, and no other file."""
    work = plan(tmp_path, file_format=file_format, cipher=cipher)
    raw = Path(work.pieces[0].mixed).read_bytes()
    with files_of_at_most(9000), pytest.raises(DiskFull) as caught:
        render(work)
    assert work.target in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["done.bin", "raw.wav"]
    assert Path(work.target).read_bytes() == b""
    assert Path(work.pieces[0].mixed).read_bytes() == raw
    assert render(work).bytes > 0  # room again: it can be made


def test_full_disk_during_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = plan(tmp_path, file_format="s16bit")
    with files_of_at_most(9000), pytest.raises(DiskFull):
        render(work)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["done.bin", "raw.wav"]


def test_full_disk_during_header_repair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "raw.wav"
    write_wav(path, SOUND, closed=False)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskFull, match="no room"):
        repair(path)
    with pytest.raises(DiskFull, match="no room"):
        render(RenderPlan((RawPiece(str(path)),), str(tmp_path / "done.bin")))


class Failing:
    """A cipher that breaks half-way."""

    scheme = "failing"

    def encrypt(self, source: BinaryIO, target: BinaryIO) -> None:
        target.write(source.read(100))
        raise CipherError("the key broke")

    def plaintext_budget(self, max_bytes: int) -> int:
        return max_bytes


def test_failing_cipher_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(CipherError, match="broke"):
        render(plan(tmp_path, cipher=Failing()))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["done.bin", "raw.wav"]


class Peeping:
    """A cipher that looks which files have a name while it works."""

    scheme = "peeping"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clear_with_a_name: list[str] = []

    def encrypt(self, source: BinaryIO, target: BinaryIO) -> None:
        assert source.read(4) == b"RIFF"
        for path in self.folder.iterdir():
            if path.name != "raw.wav" and path.read_bytes()[:4] == b"RIFF":
                self.clear_with_a_name.append(path.name)
        target.write(b"sealed")

    def plaintext_budget(self, max_bytes: int) -> int:
        return max_bytes


def test_clear_audio_never_has_a_name(tmp_path: Path) -> None:
    cipher = Peeping(tmp_path)
    made = render(plan(tmp_path, cipher=cipher))
    assert cipher.clear_with_a_name == []
    assert (tmp_path / "done.bin").read_bytes() == b"sealed"
    assert made.bytes == 6


def test_kill_leaves_only_sweepable_file(tmp_path: Path) -> None:
    work = plan(tmp_path)
    program = (
        "import sys, os\n"
        "from fastagi.audio import render, RenderPlan, RawPiece\n"
        "import fastagi.audio.finalfile as f\n"
        "class C:\n"
        "    scheme = 'c'\n"
        "    def encrypt(self, source, target):\n"
        "        target.write(b'half')\n"
        "        os.kill(os.getpid(), 9)\n"
        "    def plaintext_budget(self, n): return n\n"
        "render(RenderPlan((RawPiece(sys.argv[1]),), sys.argv[2], cipher=C()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, work.pieces[0].mixed, work.target], timeout=60, check=False)
    assert done.returncode == -9
    left = {p.name for p in tmp_path.iterdir()} - {"raw.wav", "done.bin"}
    assert left == {temporary_name(Path(work.target)).name}
    assert all(is_temporary(name) for name in left)
    assert (tmp_path / "done.bin").read_bytes() == b""
    assert render(work).bytes > 0
    assert {p.name for p in tmp_path.iterdir()} == {"raw.wav", "done.bin"}


@pytest.mark.parametrize("name", ["done.bin", "raw.wav", ".hidden", "a.fastagi-tmp"])
def test_other_names_are_not_swept(name: str) -> None:
    assert not is_temporary(name)


def test_missing_target_folder_is_an_error(tmp_path: Path) -> None:
    raw = write_wav(tmp_path / "raw.wav", SOUND)
    with pytest.raises(AudioError, match="No such file"):
        render(RenderPlan((RawPiece(raw),), str(tmp_path / "no" / "done.wav")))


def test_no_descriptors_leak(tmp_path: Path) -> None:
    work = plan(tmp_path, cipher=AesGcmCipher(b"k" * 16))
    render(work)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        render(work)
        with files_of_at_most(9000), pytest.raises(DiskFull):
            render(work)
        with pytest.raises(AudioError):
            render(RenderPlan((RawPiece(str(tmp_path / "no.wav")),), work.target))
    assert len(os.listdir("/proc/self/fd")) == before


def test_stale_writer_cannot_spoil_file(tmp_path: Path) -> None:
    """A worker that outlived its killed server has the temporary file open."""
    work = plan(tmp_path, file_format="s16bit")
    with temporary_name(Path(work.target)).open("wb") as orphan, FinalFile(work.target) as final:
        final.file.write(b"whole")
        orphan.write(b"x" * 10_000)
        orphan.flush()
        final.commit()
    assert Path(work.target).read_bytes() == b"whole"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["done.bin", "raw.wav"]


def test_later_of_two_writers_wins(tmp_path: Path) -> None:
    """A server that was asleep and taken for dead wakes up in a finishing that its heir does again."""
    target = tmp_path / "done.bin"
    with FinalFile(str(target)) as asleep:
        asleep.file.write(b"asleep")
        with FinalFile(str(target)) as successor:
            successor.file.write(b"half")
            with pytest.raises(AudioError, match="another server"):
                asleep.commit()
            assert not target.exists(), "half a file has no name"
            successor.file.write(b" and whole")
            successor.commit()
    assert target.read_bytes() == b"half and whole"
    assert [p.name for p in tmp_path.iterdir()] == ["done.bin"]


def test_refused_permit_changes_nothing(tmp_path: Path) -> None:
    """It slept before it began, and its successor is at work, or has done it."""
    target = tmp_path / "done.bin"
    with FinalFile(str(target)) as successor:
        successor.file.write(b"the successor's")
        with pytest.raises(AudioError, match="another server's to finish"):
            FinalFile(str(target), permit=lambda: False)
        successor.commit()
    assert target.read_bytes() == b"the successor's"


def test_lost_permit_stops_the_rename(tmp_path: Path) -> None:
    target = tmp_path / "done.bin"
    answers = [False, True]
    with FinalFile(str(target), permit=answers.pop) as asleep:
        asleep.file.write(b"asleep")
        target.write_bytes(b"the successor's")
        with pytest.raises(AudioError, match="another server's to finish"):
            asleep.commit()
    assert target.read_bytes() == b"the successor's"
    assert [p.name for p in tmp_path.iterdir()] == ["done.bin"]


def test_stale_permit_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that slept may have been taken for dead."""
    clock = 0.0
    monkeypatch.setattr(finalfile.time, "monotonic", lambda: clock)
    asked = 0

    def permit() -> bool:
        nonlocal clock, asked
        asked += 1
        if asked == 2:
            clock += 60.0  # and somebody else took it over in that minute
        return asked < 3

    target = tmp_path / "done.bin"
    with FinalFile(str(target), permit=permit) as asleep, pytest.raises(AudioError, match="another server's"):
        asleep.commit()
    assert asked == 3
    assert not target.exists()
