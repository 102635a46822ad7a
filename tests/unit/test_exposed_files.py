"""Names that somebody else has put into a folder: links, hard links, pipes, links on the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastagi.exposed_files import create_file, folder_of, open_file, open_folder, remove_file
from support.planted_files import foreign_link


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "private").mkdir()
    path = tmp_path / "private" / "master.key"
    path.write_bytes(b"secret")
    return path


def read(path: Path) -> bytes:
    with os.fdopen(open_file(path), "rb") as file:
        return file.read()


def test_regular_files_are_opened(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(secret) == b"secret"
    monkeypatch.chdir(secret.parent)
    assert read(Path("master.key")) == b"secret"
    assert read(Path("../private/./master.key")) == b"secret"


def test_link_as_file_is_refused(secret: Path, tmp_path: Path) -> None:
    (tmp_path / "x.g722").symlink_to(secret)
    with pytest.raises(PermissionError, match="is a link"):
        open_file(tmp_path / "x.g722")


def test_hard_link_is_refused(secret: Path, tmp_path: Path) -> None:
    os.link(secret, tmp_path / "x.g722")
    with pytest.raises(PermissionError, match="hard link"):
        open_file(tmp_path / "x.g722")


def test_pipe_and_folder_are_refused(tmp_path: Path) -> None:
    """Opening a pipe without a writer would wait for ever."""
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    for name in ("pipe.wav", "folder.wav"):
        with pytest.raises(PermissionError, match="no regular file"):
            open_file(tmp_path / name)


def test_foreign_link_on_the_way_is_refused(secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of Asterisk's user that leads elsewhere would make any file there a recording, and delete it."""
    foreign_link(tmp_path / "spool", secret.parent, monkeypatch)
    for use in (open_file, remove_file, create_file):
        with pytest.raises(PermissionError, match="link of another user"):
            use(tmp_path / "spool" / "master.key")
    with pytest.raises(PermissionError, match="link of another user"):
        open_folder(tmp_path / "spool")
    assert secret.read_bytes() == b"secret"


def test_own_links_on_the_way_are_followed(secret: Path, tmp_path: Path) -> None:
    """An operator moves the spool to another disk, with absolute links or relative ones, one after the other."""
    (tmp_path / "spool").symlink_to(tmp_path / "second")
    (tmp_path / "second").symlink_to("private/../private")
    assert read(tmp_path / "spool" / "master.key") == b"secret"


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="Too many levels"):
        open_file(tmp_path / "a" / "x.wav")


def test_missing_names_say_which(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.wav", tmp_path / "gone" / "x.wav"):
        with pytest.raises(FileNotFoundError, match=r"gone"):
            open_file(path)
        assert not remove_file(path)
    for path in ("/", f"{tmp_path}/", f"{tmp_path}/.."):
        with pytest.raises(OSError, match="names no file"):
            open_file(path)


def test_new_files_take_no_name_that_is_there(secret: Path, tmp_path: Path) -> None:
    (tmp_path / "probe.conf").symlink_to(secret)
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "probe.conf")
    os.close(create_file(tmp_path / "new.conf"))
    assert (tmp_path / "new.conf").stat().st_mode & 0o777 == 0o600
    assert remove_file(tmp_path / "probe.conf")
    assert secret.read_bytes() == b"secret"


def test_no_descriptor_is_left_open(secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(secret)
    os.link(secret, tmp_path / "hard")
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path / "link", tmp_path / "hard", tmp_path / "gone" / "x", secret.parent, secret / "x"):
        with pytest.raises(OSError):
            open_file(path)
    foreign_link(tmp_path / "spool", secret.parent, monkeypatch)
    with pytest.raises(PermissionError), folder_of(tmp_path / "spool" / "x"):
        pass
    assert len(os.listdir("/proc/self/fd")) == before
