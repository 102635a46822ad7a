"""Whose rights `fastagi doctor` examines with."""

from __future__ import annotations

import fcntl
import os
import pwd
import sys
from pathlib import Path

import pytest

from fastagi.app.doctor.borrowed_rights import examine_as
from fastagi.app.doctor.finding import Status
from fastagi.app.doctor.serving_user import find, holder, of_name
from fastagi.errors import BadArgument
from fastagi.settings import Settings

NOBODY = pwd.getpwnam("nobody")


def test_lock_of_dead_server_is_ignored(tmp_path: Path) -> None:
    """Its process number may be another program's by now: only the lock proves a server."""
    lock = tmp_path / "ledger.db.lock"
    assert holder(tmp_path / "ledger.db") == ("", 0)
    lock.write_text(f"server 'x', process {os.getpid()}\n")
    assert holder(tmp_path / "ledger.db") == ("", 0)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert holder(tmp_path / "ledger.db") == (f"server 'x', process {os.getpid()}", os.getpid())
        lock.write_text("nonsense")
        assert holder(tmp_path / "ledger.db") == ("", 0)


def test_groups_come_with_the_user() -> None:
    found = of_name("nobody", "--user", ("daemon", "no-such-group"))
    assert (found.uid, found.gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert set(found.groups) >= {NOBODY.pw_gid, pwd.getpwnam("daemon").pw_gid}
    assert of_name(str(NOBODY.pw_uid), "--user").name == "nobody"
    for name in ("no-such-user", "4294967295"):
        with pytest.raises(BadArgument, match="no such user"):
            of_name(name, "--user")


def test_own_user_needs_no_other_process() -> None:
    assert find(Settings(), pwd.getpwuid(os.geteuid()).pw_name) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop rights")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_unreadable_program_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual environment in root's home: the unit would not start, and said so in its own way only."""
    (tmp_path / "closed").mkdir(mode=0o700)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "closed" / "python"))
    user = of_name("nobody", "--user")
    rights, program = examine_as(user, Settings())
    assert (rights.status, program.status, program.check) == (Status.OK, Status.FAIL, "program")
    assert "closed/python" in program.text
    assert "/opt/fastagi" in program.remedy
