"""Why recordings could not be started, for `/readyz`: red for as long as the next one would fail, too."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from fastagi.recording.asterisk import raw_files
from fastagi.recording.lifecycle.start_faults import BESIDE_SECONDS, MOST, UNSEEN_SECONDS, StartFaults


class Scene:
    def __init__(self, folder: Path) -> None:
        self.directory, self.spool, self.now = folder / "recordings", folder / "spool", 1000.0
        self.directory.mkdir()
        self.faults = StartFaults(self.directory, clock=lambda: self.now)

    def refuse(self, relative: str) -> None:
        """As the starter does it: whoever takes the name is refused."""
        with pytest.raises(OSError) as caught:
            raw_files.reserve(self.directory, relative, "rec-1")
        self.faults.unwritten(relative, caught.value)

    def told(self) -> list[str]:
        return [fault.where for fault in self.faults.current()]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_fault_stays_while_its_cause_does(scene: Scene, tmp_path: Path) -> None:
    """A link that leads out is refused to root, too; to other users a folder of another owner is."""
    today = scene.directory / "today"
    today.symlink_to(tmp_path)
    scene.refuse("today/a.wav")
    scene.now += 10 * UNSEEN_SECONDS
    (fault,) = scene.faults.current()
    assert fault.where == str(scene.directory)
    assert "today" not in fault.problem + fault.do, "a caller's number may be in it"
    assert "leads out" in fault.problem
    assert "doctor" in fault.do
    today.unlink()
    assert scene.told() == []
    today.symlink_to(tmp_path)
    assert scene.told() == [], "until the next start that fails"


def test_success_elsewhere_ends_an_old_fault(scene: Scene, tmp_path: Path) -> None:
    (scene.directory / "today").symlink_to(tmp_path)
    scene.refuse("today/a.wav")
    scene.now += 1
    scene.faults.succeeded(str(scene.directory / "other" / "b.wav"), scene.spool)
    assert scene.told() == [str(scene.directory)], "half of the calls fail"
    scene.now += BESIDE_SECONDS
    assert scene.told() == []


def test_success_there_ends_it_at_once(scene: Scene) -> None:
    scene.faults.unwritten("a.wav", OSError(errno.ENOSPC, "No space left on device"))
    assert scene.told() == [str(scene.directory)]
    scene.faults.succeeded(str(scene.directory / "b.wav"), scene.spool)
    assert scene.told() == []


def test_full_disk_is_forgotten_in_time(scene: Scene) -> None:
    """It cannot be looked at again without writing, and whoever sends no calls meanwhile would never see it end."""
    scene.faults.unwritten("a.wav", OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert [f.problem for f in scene.faults.current()] == [
        "no recording can be started in a folder there: Disk quota exceeded"
    ]
    scene.now += UNSEEN_SECONDS
    assert scene.told() == []


@pytest.mark.parametrize("code", [errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.ELOOP])
def test_callers_names_are_no_fault(scene: Scene, code: int) -> None:
    """One caller with a strange number must not keep the others' calls away."""
    scene.faults.unwritten("a.wav", OSError(code, "x"))
    assert scene.told() == []


def test_unopened_files_in_a_row(scene: Scene) -> None:
    for _ in range(2):
        scene.faults.unopened(scene.spool)
    assert scene.told() == [], "calls that were just over"
    scene.faults.unopened(scene.spool)
    (fault,) = scene.faults.current()
    assert (fault.where, "opened none of the last 3" in fault.problem) == (str(scene.spool), True)
    scene.faults.succeeded(str(scene.directory / "a.wav"), scene.spool)
    scene.faults.unopened(scene.spool)
    assert scene.told() == []


def test_remembered_folders_are_few(scene: Scene) -> None:
    for n in range(10 * MOST):
        scene.faults.unwritten(f"{n}/a.wav", OSError(errno.ENOSPC, "full"))
    (fault,) = scene.faults.current()
    assert f"in {MOST} folders" in fault.problem
