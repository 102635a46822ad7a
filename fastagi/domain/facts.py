"""Facts of a recording beside its fields: column `facts` of its row, and part of the sinks' metadata.

There are two kinds. `Steering` controls the recorder (end of a pause, reason for a retry of the rendering); the other
facts are for people and sinks. A fact unknown to this version was written by another version: it is kept, told and
written back. Names, values and order are a contract: the payload's `extra` ends with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastagi.domain.states import Cause

RESUME_AT: Final = "resume_at"
"""Unix seconds at which a pause ends by itself."""

UNREACHED: Final = "asterisk_unreached"
"""True when the recording was ended because its Asterisk seemed dead: the call's end was not seen."""

ENDED_BY: Final = "ended_by"
"""Cause of a failed recording's end, kept for a retry of the rendering."""

DISK_FULL: Final = "disk_full"
"""True when there was no room for the finished file: the rendering is retried once there is."""

AS_RECORDED: Final = "as_recorded"
"""True when the file is copied, not rendered: Asterisk made it in a format that is not read here."""

RENAMED: Final = "renamed"
"""True when the wanted name of the finished file was taken: the file has another one."""

MUTED: Final = "muted"
"""Muted spans by side, in seconds since the start; the last end is None while the side is muted."""

LOST: Final = "lost"
"""Spans whose raw files vanished, in seconds since the start."""

MEMBERS: Final = "members"
"""Members of the recorded conference: (uniqueid, joined, left), unix seconds."""

MEMBER_NUMBERS: Final = "member_numbers"
TALKED_WITH: Final = "talked_with"
BRIDGED_SECONDS: Final = "bridged_seconds"
FILE_FORMAT: Final = "file_format"
ORPHAN: Final = "orphan"
SPOOL_FULL: Final = "spool_full"

Spans = list[list[float | None]]


@dataclass(frozen=True, slots=True)
class Steering:
    """Facts that control the recorder.

    :param resume_at: unix seconds of the automatic end of the pause; None without one
    :param unreached: the recording was ended because its Asterisk seemed dead
    :param ended_by: cause of the end of a recording that failed afterwards; else None
    :param disk_full: the rendering failed for lack of room
    :param as_recorded: the file is only copied
    """

    resume_at: float | None = None
    unreached: bool = False
    ended_by: Cause | None = None
    disk_full: bool = False
    as_recorded: bool = False


class Facts(Mapping[str, Any]):
    """Facts of one recording, as they are stored. Immutable: `merged` and `without` return new facts."""

    __slots__ = ("_all",)

    def __init__(self, facts: Mapping[str, Any] | None = None) -> None:
        self._all: dict[str, Any] = dict(facts or {})

    @classmethod
    def checked(cls, facts: object) -> Facts:
        """Return facts from another source after a check.

        :raises ValueError: a known fact has a value of the wrong kind
        """
        if not isinstance(facts, Mapping):
            raise ValueError("facts is no mapping")
        for name, fits in _KINDS.items():
            if name in facts and not fits(facts[name]):
                raise ValueError(f"fact {name} has a value of the wrong kind")
        return cls(facts)

    def __getitem__(self, name: str) -> Any:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __repr__(self) -> str:
        return f"Facts({self._all!r})"

    def merged(self, more: Mapping[str, Any]) -> Facts:
        """Return these facts and `more`, which replaces facts of the same name."""
        return Facts({**self._all, **more})

    def without(self, *names: str) -> Facts:
        """Return all facts but those named."""
        return Facts({name: value for name, value in self._all.items() if name not in names})

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as the ledger and the payload have them."""
        return dict(self._all)

    @property
    def steering(self) -> Steering:
        """Facts that control the recorder."""
        found = self._all
        ended_by = found.get(ENDED_BY)
        return Steering(
            resume_at=found.get(RESUME_AT),
            unreached=UNREACHED in found,
            ended_by=None if ended_by is None else Cause(ended_by),
            disk_full=bool(found.get(DISK_FULL)),
            as_recorded=bool(found.get(AS_RECORDED)),
        )

    @property
    def resume_at(self) -> float | None:
        """Unix seconds of the automatic end of the pause."""
        at: float | None = self._all.get(RESUME_AT)
        return at

    @property
    def muted(self) -> dict[str, Spans]:
        """Muted spans by side, a copy. The last end is None while the side is muted."""
        return {side: [list(span) for span in spans] for side, spans in self._all.get(MUTED, {}).items()}

    def with_muted(self, side: str, spans: Spans) -> Facts:
        """Return facts in which a side has these muted spans; without spans the fact is removed."""
        muted = {name: found for name, found in self._all.get(MUTED, {}).items() if name != side}
        if spans:
            muted[side] = spans
        facts = self.without(MUTED)
        return facts.merged({MUTED: muted}) if muted else facts

    def with_lost(self, start: float, end: float) -> Facts:
        """Return facts with one more lost span."""
        return self.merged({LOST: [*self._all.get(LOST, []), [start, end]]})

    @property
    def members(self) -> list[tuple[str, float, float | None]]:
        """Members of the recorded conference: (uniqueid, joined, left)."""
        return [(who, joined, left) for who, joined, left in self._all.get(MEMBERS, ())]

    @property
    def member_numbers(self) -> list[str]:
        return list(self._all.get(MEMBER_NUMBERS, ()))

    @property
    def talked_with(self) -> list[str]:
        """Names of the channels that the recorded channel was connected with."""
        return list(self._all.get(TALKED_WITH, ()))

    @property
    def file_format(self) -> str:
        """Container of a file that was only copied; empty for any other."""
        return str(self._all.get(FILE_FORMAT, ""))

    @property
    def silent(self) -> bool:
        return bool(self._all.get("silent"))

    @property
    def one_sided(self) -> bool:
        return bool(self._all.get("one_sided"))

    @property
    def bridge_noted(self) -> bool:
        """Return whether the bridged time was noted: an adopted recording may be one of bridges only."""
        return BRIDGED_SECONDS in self._all

    @property
    def bridged_seconds(self) -> float | None:
        """Seconds in a bridge; None where unknown."""
        seconds: float | None = self._all.get(BRIDGED_SECONDS)
        return seconds


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_moment(value: object) -> bool:
    return value is None or _is_number(value)


def _is_span(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and _is_number(value[0]) and _is_moment(value[1])


def _is_spans(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_span, value))


def _is_muted(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and _is_spans(v) for k, v in value.items())


def _is_members(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(m, (list, tuple)) and len(m) == 3 and isinstance(m[0], str) and _is_span(m[1:]) for m in value
    )


def _is_texts(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_cause(value: object) -> bool:
    return isinstance(value, str) and value in Cause.__members__.values()


_KINDS = {
    RESUME_AT: _is_number,
    UNREACHED: _is_flag,
    ENDED_BY: _is_cause,
    DISK_FULL: _is_flag,
    AS_RECORDED: _is_flag,
    RENAMED: _is_flag,
    ORPHAN: _is_flag,
    SPOOL_FULL: _is_flag,
    MUTED: _is_muted,
    LOST: _is_spans,
    MEMBERS: _is_members,
    MEMBER_NUMBERS: _is_texts,
    TALKED_WITH: _is_texts,
    BRIDGED_SECONDS: _is_moment,
    FILE_FORMAT: _is_text,
    **dict.fromkeys(("salvaged", "silent", "one_sided", "limited"), _is_flag),
    "clipped": _is_number,
    **dict.fromkeys(("level", "legs", "dtmf"), lambda value: isinstance(value, Mapping)),
    "gaps": _is_spans,
    "warnings": _is_texts,
}
"""Known facts and the checks of their values. `fastagi.audio.plan.Rendered.facts` makes the facts of the audio."""
