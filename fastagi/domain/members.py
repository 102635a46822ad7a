"""Who was in a conference with the recorded channel, and when: they are recorded there, though on no channel of theirs.

Kept as facts of the recording: ``members`` (uniqueid, joined, left: unix seconds, null while there) and
``member_numbers``, by which the recording is found.
"""

from __future__ import annotations

from typing import Any

from fastagi.domain.facts import MEMBER_NUMBERS, MEMBERS, Facts

MOST_MEMBERS = 200
"""Different channels; each costs 60 bytes in the recording's row."""

MOST_SPANS = 1000
"""Of all of them: who comes and goes all the time must not fill the row."""


class Members:
    """The members of one recording's conference."""

    def __init__(self, facts: Facts) -> None:
        self._spans = facts.members
        self._numbers: dict[str, None] = dict.fromkeys(facts.member_numbers)

    def __bool__(self) -> bool:
        return bool(self._spans)

    @property
    def there(self) -> list[str]:
        """Uniqueids of those who have not left."""
        return [uniqueid for uniqueid, _, left in self._spans if left is None]

    def joined(self, uniqueid: str, number: str, at: float) -> bool:
        """:returns: False where nothing is noted: that member is there already, or there are too many"""
        known = {span[0] for span in self._spans}
        if uniqueid in self.there or len(self._spans) >= MOST_SPANS:
            return False
        if uniqueid not in known and len(known) >= MOST_MEMBERS:
            return False
        self._spans.append((uniqueid, round(at, 3), None))
        if number:
            self._numbers.setdefault(number)
        return True

    def left(self, uniqueid: str, at: float) -> bool:
        """:returns: False where that member was not there"""
        if uniqueid not in self.there:
            return False
        self._spans = [
            (u, a, round(max(a, at), 3)) if u == uniqueid and b is None else (u, a, b) for u, a, b in self._spans
        ]
        return True

    def facts(self) -> dict[str, Any]:
        """The recording's facts of them; empty where there were none."""
        if not self._spans:
            return {}
        return {MEMBERS: [list(span) for span in self._spans], MEMBER_NUMBERS: list(self._numbers)}


def spans_of(facts: Facts, uniqueid: str) -> list[tuple[float, float | None]]:
    """When that channel was a member, by the facts of a recording."""
    return [(joined, left) for who, joined, left in facts.members if who == uniqueid]
