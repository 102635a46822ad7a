"""A check's finding: one line, and the remedy of a fault."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """The status of a finding. Only FAIL fails the doctor."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Change(StrEnum):
    """The kind of change that a fix makes."""

    OWN = "own"
    MODE = "mode"
    MAKE = "make"


@dataclass(frozen=True, slots=True)
class Fix:
    """A remedy that `fastagi doctor --fix` may carry out, because it touches only the server's own files.

    :param user: the new owner; empty to keep it
    :param mode: permission bits; -1 to keep them
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
    """One finding.

    :param area: the examined part: ``asterisk pbx1``, ``spool``, ``sink crm``
    :param check: the examined property
    :param text: the observation
    :param remedy: what to do; empty when nothing is to be done
    :param fixes: the part of the remedy that `--fix` can carry out
    """

    area: str
    check: str
    status: Status
    text: str
    remedy: str = ""
    fixes: tuple[Fix, ...] = ()

    def to_line(self) -> str:
        """Return the finding as a line for `from_line`, in another process."""
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
