"""fastagi.recording.asterisk.raw_files: a name is taken below the recordings directory and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastagi.recording.asterisk import raw_files


def test_a_link_that_leads_out_is_not_followed_not_even_to_make_a_folder(tmp_path: Path) -> None:
    directory, outside = tmp_path / "recordings", tmp_path / "outside"
    directory.mkdir()
    outside.mkdir()
    (directory / "link").symlink_to(outside)
    for relative in ("link/x.wav", "link/new/folder/x.wav"):
        with pytest.raises(PermissionError, match="a link leads out of the recordings directory"):
            raw_files.reserve(directory, relative, "rec-1")
    assert list(outside.iterdir()) == []


def test_a_link_within_is_followed_and_the_directory_may_be_one_itself(tmp_path: Path) -> None:
    (tmp_path / "disk2" / "here").mkdir(parents=True)
    (tmp_path / "recordings").symlink_to(tmp_path / "disk2")
    (tmp_path / "disk2" / "link").symlink_to(tmp_path / "disk2" / "here")
    path, renamed = raw_files.reserve(tmp_path / "recordings", "link/new/x.wav", "rec-1")
    assert (path, renamed) == (str(tmp_path / "disk2" / "link" / "new" / "x.wav"), False)
    assert (tmp_path / "disk2" / "here" / "new" / "x.wav").exists()
    again = raw_files.reserve(tmp_path / "recordings", "link/new/x.wav", "rec-2")
    assert again == (str(tmp_path / "disk2" / "link" / "new" / "x-rec-2.wav"), True)
