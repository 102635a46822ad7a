"""Finds the user that serves. Root may do everything, so a check by root says nothing about the server's user.

The user is named by `--user`, else it is the owner of the server that has the ledger, else `User=` of fastagi.service.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from fastagi.errors import BadArgument
from fastagi.settings import Settings
from fastagi.store.sqlite import path_of

UNIT = "fastagi.service"
SYSTEMCTL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ServingUser:
    """A user with its groups.

    :param source: how it was found, for people
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    source: str

    def become(self) -> None:
        """Drop this process's rights to those of the user, for good. Call it in a process of its own, as root."""
        os.setgroups(self.groups)
        os.setgid(self.gid)
        os.setuid(self.uid)
        if os.getresuid() != (self.uid,) * 3 or os.getresgid() != (self.gid,) * 3:
            raise OSError("the rights could not be dropped")


def find(settings: Settings, named: str = "") -> ServingUser | None:
    """Return the user that serves; None for this process's user, or when it cannot be found.

    :param named: `--user`
    :raises BadArgument: there is no such user, or only root could examine for it
    """
    if named:
        found: ServingUser | None = _in_unit(of_name(named, "--user"))
    elif os.geteuid() == 0:
        found = _of_running(settings) or of_unit()
    else:
        return None
    if found is None or found.uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise BadArgument(f"--user {named}: only root can examine with another user's rights: sudo fastagi doctor")
    return found


def _in_unit(user: ServingUser) -> ServingUser:
    """Add the groups that fastagi.service gives it, when it is that unit's user."""
    unit = of_unit() if os.geteuid() == 0 else None
    return replace(user, groups=unit.groups) if unit is not None and unit.uid == user.uid else user


def of_name(name: str, source: str, more_groups: tuple[str, ...] = ()) -> ServingUser:
    """Return a user by name or number.

    :param more_groups: groups besides its own: systemd's SupplementaryGroups
    :raises BadArgument: there is none of that name
    """
    try:
        found = pwd.getpwuid(int(name)) if name.isascii() and name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise BadArgument(f"--user {name}: this machine has no such user: useradd --system {name}") from None
    groups = set(os.getgrouplist(found.pw_name, found.pw_gid))
    for group in more_groups:
        try:
            groups.add(int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid)
        except KeyError:
            continue  # systemd would not start the unit, and reports it
    return ServingUser(found.pw_name, found.pw_uid, found.pw_gid, tuple(sorted(groups)), source)


def _of_running(settings: Settings) -> ServingUser | None:
    pid = holder(path_of(settings.store.url))[1] if settings.store.url.startswith("sqlite:///") else 0
    pid = pid or int(_unit().get("MainPID", "0") or 0)
    return _of_process(pid) if pid > 0 else None


def holder(ledger: Path) -> tuple[str, int]:
    """Return user and process of the server that holds an SQLite ledger, from its lock file; ("", 0) when none does.

    A server that was killed leaves its name there, but no lock.
    """
    try:
        fd = os.open(
            ledger.with_name(ledger.name + ".lock"), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except OSError:
        return "", 0
    try:
        text = os.read(fd, 300).decode("utf-8", "replace").strip()
        number = text.rpartition(" ")[2]
        if not number.isdigit() or not Path(f"/proc/{number}").exists() or _free(fd):
            return "", 0
        return text, int(number)
    finally:
        os.close(fd)


def _free(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _of_process(pid: int) -> ServingUser | None:
    ids: dict[str, list[int]] = {}
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            key, _, values = line.partition(":")
            if key in ("Uid", "Gid", "Groups"):
                ids[key] = [int(value) for value in values.split()]
        uid, gid = ids["Uid"][1], ids["Gid"][1]
    except (OSError, KeyError, IndexError, ValueError):
        return None
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return ServingUser(name, uid, gid, tuple(ids.get("Groups", [])), f"the server that runs (process {pid})")


def of_unit() -> ServingUser | None:
    """Return the user of fastagi.service, with systemd's groups; None without such a unit, or without a user in it."""
    unit = _unit()
    if not unit.get("User"):
        return None
    try:
        return of_name(unit["User"], f"User= of {UNIT}", tuple(unit.get("SupplementaryGroups", "").split()))
    except BadArgument:
        return None


def _unit() -> dict[str, str]:
    """Return the unit's properties from systemd; empty without systemd, or without the unit."""
    asked = ["systemctl", "show", UNIT, "--property=LoadState,User,SupplementaryGroups,MainPID"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=SYSTEMCTL_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return {}
    told = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return told if told.get("LoadState") == "loaded" else {}
