"""What a check found: one line, and what to do where it is not well."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """How well it is. Only FAIL fails the doctor."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Change(StrEnum):
    """What a fix does."""

    OWN = "own"
    MODE = "mode"
    MAKE = "make"


@dataclass(frozen=True, slots=True)
class Fix:
    """A remedy that `fastagi doctor --fix` may carry out, because it touches nothing but what is the server's own.

    :param user: who shall have it; empty where the owner stays
    :param mode: permission bits; -1 where they stay
    """

    change: Change
    path: str
    user: str = ""
    mode: int = -1

    def __str__(self) -> str:
        match self.change:
            case Change.OWN:
                return f"chown {self.user}: {self.path}"
            case Change.MODE:
                return f"chmod {self.mode:o} {self.path}"
            case Change.MAKE:
                return f"install -d -o {self.user} -m {self.mode:o} {self.path}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line.

    :param area: what it is about: ``asterisk pbx1``, ``spool``, ``sink crm``
    :param check: what was looked at
    :param text: what was seen
    :param remedy: what to do; empty where nothing is to be done
    :param fixes: that of it which `--fix` can do
    """

    area: str
    check: str
    status: Status
    text: str
    remedy: str = ""
    fixes: tuple[Fix, ...] = ()

    def to_line(self) -> str:
        """For `from_line`, in another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Finding:
        told = json.loads(line)
        fixes = tuple(Fix(**{**fix, "change": Change(fix["change"])}) for fix in told["fixes"])
        return cls(**{**told, "status": Status(told["status"]), "fixes": fixes})

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "status": self.status.value, "fixes": [str(fix) for fix in self.fixes]}


Findings = AsyncIterator[Finding]


class Reporter:
    """Makes findings of one area."""

    def __init__(self, area: str) -> None:
        self.area = area

    def ok(self, check: str, text: str) -> Finding:
        return Finding(self.area, check, Status.OK, text)

    def warn(self, check: str, text: str, remedy: str, *fixes: Fix) -> Finding:
        return Finding(self.area, check, Status.WARN, text, remedy, fixes)

    def fail(self, check: str, text: str, remedy: str, *fixes: Fix) -> Finding:
        return Finding(self.area, check, Status.FAIL, text, remedy, fixes)


Tell = Callable[[Finding], None]
