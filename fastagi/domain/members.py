"""Members of a conference with the recorded channel, and their times: they are recorded, too, on no channel of their
own.

Kept as facts of the recording: ``members`` (uniqueid, joined, left: unix seconds, null while there) and
``member_numbers``, by which the recording is found.
"""

from __future__ import annotations

from typing import Any

from fastagi.domain.facts import MEMBER_NUMBERS, MEMBERS, Facts

MOST_MEMBERS = 200
"""Most channels noted; each costs 60 bytes in the recording's row."""

MOST_SPANS = 1000
"""Most spans of all members: a member who comes and goes all the time must not fill the row."""


class Members:
    """The members of one recording's conference."""

    def __init__(self, facts: Facts) -> None:
        self._spans = facts.members
        self._numbers: dict[str, None] = dict.fromkeys(facts.member_numbers)

    def __bool__(self) -> bool:
        return bool(self._spans)

    @property
    def there(self) -> list[str]:
        """Return the uniqueids of the members present."""
        return [uniqueid for uniqueid, _, left in self._spans if left is None]

    def joined(self, uniqueid: str, number: str, at: float) -> bool:
        """Note that a member joined.

        :returns: False where nothing is noted: the member is there already, or there are too many
        """
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
        """Note that a member left.

        :returns: False where that member was not there
        """
        if uniqueid not in self.there:
            return False
        self._spans = [
            (u, a, round(max(a, at), 3)) if u == uniqueid and b is None else (u, a, b) for u, a, b in self._spans
        ]
        return True

    def facts(self) -> dict[str, Any]:
        """Return the members as facts of the recording; empty without members."""
        if not self._spans:
            return {}
        return {MEMBERS: [list(span) for span in self._spans], MEMBER_NUMBERS: list(self._numbers)}


def spans_of(facts: Facts, uniqueid: str) -> list[tuple[float, float | None]]:
    """Return the spans in which a channel was a member, from the facts of a recording."""
    return [(joined, left) for who, joined, left in facts.members if who == uniqueid]
