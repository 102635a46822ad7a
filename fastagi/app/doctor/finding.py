"""What a check found: one line, and what to do where it is not well."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from enum import StrEnum


class Status(StrEnum):
    """How well it is. Only FAIL fails the doctor."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line.

    :param area: what it is about: ``asterisk pbx1``, ``spool``, ``sink crm``
    :param check: what was looked at
    :param text: what was seen
    :param remedy: what to do; empty where nothing is to be done
    """

    area: str
    check: str
    status: Status
    text: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        return {**asdict(self), "status": self.status.value}


Findings = AsyncIterator[Finding]


class Reporter:
    """Makes findings of one area."""

    def __init__(self, area: str) -> None:
        self.area = area

    def ok(self, check: str, text: str) -> Finding:
        return Finding(self.area, check, Status.OK, text)

    def warn(self, check: str, text: str, remedy: str) -> Finding:
        return Finding(self.area, check, Status.WARN, text, remedy)

    def fail(self, check: str, text: str, remedy: str) -> Finding:
        return Finding(self.area, check, Status.FAIL, text, remedy)


Tell = Callable[[Finding], None]
