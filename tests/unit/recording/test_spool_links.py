"""Links in the spool: Asterisk's user can put one in place of any file and folder there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fastagi.audio import GrowingWav, RawPiece, RenderPlan, inspect, render, repair
from fastagi.domain.facts import AS_RECORDED
from fastagi.domain.recording import Segment
from fastagi.errors import AudioError
from fastagi.recording.asterisk import external, raw_files, spool_inventory
from fastagi.recording.asterisk.render_plan import render_plan
from fastagi.recording.compliance.evidence import Evidence
from fastagi.recording.monitoring.levels import LevelTracker
from fastagi.testing.sound import save, speech_samples
from support.delivery_harness import recording
from support.planted_files import foreign_link

ID = "rec-01m7yd00000000000000000000"


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder that only the server may write to, with a file in it that the server may read."""
    (tmp_path / "private").mkdir()
    save(tmp_path / "private" / "other.wav", speech_samples(1.0, 3))
    return tmp_path / "private"


def test_adopted_link_to_the_master_key_is_not_copied(spool: Path, elsewhere: Path, tmp_path: Path) -> None:
    (elsewhere / "master.key").write_text("secret")
    (spool / "x.g722").symlink_to(elsewhere / "master.key")
    row = replace(
        recording(1),
        pieces=(Segment(str(spool / "x.g722")),),
        adopted=True,
        file_path=str(tmp_path / "x.g722"),
        facts={AS_RECORDED: True},
    )
    with pytest.raises(AudioError):
        external.finish(row, render_plan(row, None, -48.0))
    (spool / "x.g722").unlink()
    os.link(elsewhere / "master.key", spool / "x.g722")
    with pytest.raises(AudioError, match="hard link"):
        external.finish(row, render_plan(row, None, -48.0))
    assert not (tmp_path / "x.g722").exists()


def test_link_makes_no_other_call_this_recording(spool: Path, elsewhere: Path, tmp_path: Path) -> None:
    raw = spool / f"{ID}.wav"
    raw.symlink_to(elsewhere / "other.wav")
    with pytest.raises(AudioError, match="is a link"):
        render(RenderPlan((RawPiece(str(raw)),), str(tmp_path / "done.wav")))
    with pytest.raises(AudioError, match="is a link"):
        inspect(raw)
    with pytest.raises(AudioError, match="is a link"):
        GrowingWav(raw).read_new()
    assert raw_files.size(str(raw)) == -1
    assert spool_inventory.listing(spool) == {}
    assert not raw_files.closed((str(raw),))


def test_header_is_not_mended_over_a_link(spool: Path, elsewhere: Path) -> None:
    other = elsewhere / "other.wav"
    with other.open("r+b") as file:
        file.seek(4)
        file.write(bytes(4))
        file.seek(40)
        file.write(bytes(4))
    before = other.read_bytes()
    (spool / f"{ID}.wav").symlink_to(other)
    with pytest.raises(AudioError, match="is a link"):
        repair(spool / f"{ID}.wav")
    assert other.read_bytes() == before


def test_levels_are_not_heard_over_a_link(spool: Path, elsewhere: Path) -> None:
    (spool / f"{ID}.wav").symlink_to(elsewhere / "other.wav")
    linked, there = LevelTracker(-48.0), LevelTracker(-48.0)
    linked.listen(Segment(str(spool / f"{ID}.wav")))
    there.listen(Segment(str(elsewhere / "other.wav")))
    assert (linked.all_heard, there.all_heard) == (False, True)


def test_set_aside_as_a_link_moves_nothing(spool: Path, elsewhere: Path) -> None:
    (spool / raw_files.SET_ASIDE).symlink_to(elsewhere)
    raw = save(spool / "other.wav", speech_samples(0.5, 3))
    before = (elsewhere / "other.wav").read_bytes()
    with pytest.raises(OSError, match="Not a directory"):
        raw_files.set_aside((str(raw),), "because")
    assert raw.exists()
    assert os.listdir(elsewhere) == ["other.wav"]
    assert (elsewhere / "other.wav").read_bytes() == before


def test_reason_is_not_written_over_a_link(spool: Path, elsewhere: Path) -> None:
    (spool / raw_files.SET_ASIDE).mkdir()
    (spool / raw_files.SET_ASIDE / "one.wav.reason").symlink_to(elsewhere / "other.wav")
    before = (elsewhere / "other.wav").read_bytes()
    raw = save(spool / "one.wav", speech_samples(0.5, 3))
    (moved,) = raw_files.set_aside((str(raw), str(spool / "gone.wav")), "because")
    assert moved.name == "one.1.wav"
    assert moved.with_name("one.1.wav.reason").read_text() == "because\n"
    assert (elsewhere / "other.wav").read_bytes() == before


def test_spool_behind_a_foreign_link_is_not_swept(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the spool's parent is Asterisk's, it can be put aside and a link made in its place."""
    save(elsewhere / f"{ID}.wav", speech_samples(0.5, 3))
    foreign_link(tmp_path / "linked", elsewhere, monkeypatch)
    with pytest.raises(PermissionError, match="link of another user"):
        spool_inventory.listing(tmp_path / "linked")
    with pytest.raises(PermissionError, match="link of another user"):
        raw_files.remove((str(tmp_path / "linked" / f"{ID}.wav"),))
    assert (elsewhere / f"{ID}.wav").exists()


def test_deletion_removes_nothing_behind_a_link(spool: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in `set-aside` of a deleted recording goes with it; not where that is a link."""
    save(elsewhere / f"{ID}.wav", speech_samples(0.5, 3))
    foreign_link(spool / raw_files.SET_ASIDE, elsewhere, monkeypatch)
    evidence = Evidence(None, None, node="one", spools={"pbx": spool})  # type: ignore[arg-type]
    row = replace(recording(1), id=ID, asterisk="pbx", pieces=(Segment(str(spool / f"{ID}.wav")),))
    assert all(raw_files.SET_ASIDE not in path for path in evidence._paths(row))
