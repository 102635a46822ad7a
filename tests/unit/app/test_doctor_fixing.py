"""`fastagi doctor --fix` as root does nothing to what is not the server's own, whoever asks for it."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from fastagi.app.doctor.finding import Change, Finding, Fix, Status
from fastagi.app.doctor.fixing import Fixer
from fastagi.settings import Settings, load

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

USER = "nobody"
NOBODY = pwd.getpwnam(USER)
OTHER = pwd.getpwnam("daemon").pw_uid


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("recordings", "state", "elsewhere"):
        (tmp_path / name).mkdir()
    config = tmp_path / "fastagi.toml"
    config.write_text(
        f'[recordings]\ndirectory = "{tmp_path}/recordings"\n[store]\nurl = "sqlite:///{tmp_path}/state/ledger.db"\n'
    )
    monkeypatch.setenv("FASTAGI_CONFIG", str(config))
    return load(config, {})


def own(path: Path) -> Fix:
    return Fix(Change.OWN, str(path), user=USER)


def test_own_files_are_given(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "recordings" / "2026"
    folder.mkdir()
    paths = [
        folder / "a.wav",
        folder,
        *(tmp_path / "state" / name for name in ("ledger.db", "ledger.db.lock", "master.key")),
    ]
    for path in paths:
        if path != folder:
            path.touch()
    for path in [*paths, tmp_path / "state"]:
        assert Fixer(settings).carry_out(own(path)).why_not == ""
        assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY.pw_uid, NOBODY.pw_gid)


def test_chosen_group_stays(settings: Settings, tmp_path: Path) -> None:
    os.chown(tmp_path / "recordings", 0, OTHER)
    assert Fixer(settings).carry_out(own(tmp_path / "recordings")).why_not == ""
    assert (tmp_path / "recordings").stat().st_gid == OTHER


def test_planted_names_are_refused(settings: Settings, tmp_path: Path) -> None:
    """The user that serves may write there, and would like to be given another file."""
    secret = tmp_path / "elsewhere" / "shadow"
    secret.touch(0o600)
    directory, state = tmp_path / "recordings", tmp_path / "state"
    os.link(secret, directory / "hard.wav")
    os.link(secret, state / "master.key")
    (directory / "soft.wav").symlink_to(secret)
    (state / "ledger.db.lock").symlink_to(secret)
    os.lchown(state / "ledger.db.lock", NOBODY.pw_uid, NOBODY.pw_gid)
    (directory / "folder").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(state / "ledger.db")
    asked = [
        *(directory / name for name in ("hard.wav", "soft.wav", "folder", "folder/shadow", "../elsewhere")),
        *(state / name for name in ("master.key", "ledger.db.lock", "ledger.db")),
        *(secret, tmp_path / "elsewhere", tmp_path, Path("/etc/shadow"), directory / "missing"),
    ]
    for path in asked:
        assert Fixer(settings).carry_out(own(path)).why_not, path
    for path in (secret, tmp_path / "elsewhere", tmp_path, Path("/etc/shadow")):
        assert path.stat().st_uid == 0


def test_other_owners_stay(settings: Settings, tmp_path: Path) -> None:
    """A folder below the directory that is neither root's nor the user's is somebody's."""
    folder = tmp_path / "recordings" / "backup"
    folder.mkdir()
    os.chown(folder, OTHER, -1)
    assert "belongs to daemon" in Fixer(settings).carry_out(own(folder)).why_not
    assert folder.stat().st_uid == OTHER


def test_shared_folder_stays_with_root(settings: Settings, tmp_path: Path) -> None:
    """`store.url = sqlite:////var/lib/x.db` makes /var/lib no folder of the server's."""
    (tmp_path / "state" / "dpkg").mkdir()
    assert "dpkg" in Fixer(settings).carry_out(own(tmp_path / "state")).why_not
    assert (tmp_path / "state").stat().st_uid == 0


def test_directories_are_made_once(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "recordings").rmdir()
    make = Fix(Change.MAKE, str(tmp_path / "recordings"), user=USER, mode=0o2750)
    assert Fixer(settings).carry_out(make).why_not == ""
    found = (tmp_path / "recordings").stat()
    assert (found.st_uid, found.st_mode & 0o7777) == (NOBODY.pw_uid, 0o2750)
    assert Fixer(settings).carry_out(make).why_not, "it is there now"
    for path in (tmp_path / "another", Path("/etc/fastagi-doctor-test")):
        assert Fixer(settings).carry_out(Fix(Change.MAKE, str(path), user=USER, mode=0o777)).why_not
        assert not path.exists()


def test_side_files_elsewhere_are_given(settings: Settings, tmp_path: Path) -> None:
    """`[recordings] side_files` may be outside the directory."""
    sides = tmp_path / "elsewhere"
    (sides / "rec-1.journal").touch()
    assert Fixer(settings).carry_out(own(sides)).why_not
    recordings = settings.recordings.model_copy(update={"side_files": sides})
    fixer = Fixer(settings.model_copy(update={"recordings": recordings}))
    for path in (sides, sides / "rec-1.journal"):
        assert fixer.carry_out(own(path)).why_not == ""
    assert fixer.carry_out(Fix(Change.MODE, str(sides), mode=0o700)).why_not == ""
    assert fixer.carry_out(Fix(Change.MODE, str(sides), mode=0o777)).why_not


def test_only_the_key_is_closed(settings: Settings, tmp_path: Path) -> None:
    key = tmp_path / "state" / "master.key"
    key.touch(0o644)
    assert Fixer(settings).carry_out(Fix(Change.MODE, str(key), mode=0o600)).why_not == ""
    assert key.stat().st_mode & 0o777 == 0o600
    for fix in (Fix(Change.MODE, str(key), mode=0o666), Fix(Change.MODE, "/etc/shadow", mode=0o600)):
        assert Fixer(settings).carry_out(fix).why_not


def test_settings_of_other_user_are_refused(settings: Settings, tmp_path: Path) -> None:
    """They could name any folder as the recordings'."""
    (tmp_path / "fastagi.toml").chmod(0o666)
    assert "may be written by others" in Fixer(settings).carry_out(own(tmp_path / "recordings")).why_not
    (tmp_path / "fastagi.toml").chmod(0o600)
    os.chown(tmp_path / "fastagi.toml", NOBODY.pw_uid, -1)
    assert "may be written by others" in Fixer(settings).carry_out(own(tmp_path / "recordings")).why_not
    assert (tmp_path / "recordings").stat().st_uid == 0


def test_findings_survive_the_pipe() -> None:
    found = Finding(
        "store", "writable", Status.FAIL, "text\nof two lines", "remedy", (Fix(Change.MODE, "/x", mode=0o600),)
    )
    assert "\n" not in found.to_line()
    assert Finding.from_line(found.to_line()) == found
