"""Entries that the ledger could not take yet, by call: those of one call keep their order and wait for no other call's.

Only the order is here; what is written, and when it is tried again, is `journal`'s.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastagi.domain.recording import Recording
from fastagi.recording.ledger.active import ActiveRecording

Call = tuple[str, str]
"""(asterisk name, uniqueid): a call's recordings are delivered in the order in which they ended."""


def call_of(recording: Recording) -> Call:
    """Return the key of the call that a recording belongs to."""
    return (recording.asterisk, recording.uniqueid)


@dataclass(slots=True)
class Entry:
    """One write.

    :ivar after: the row as it is then, should the ledger not know it; :ivar at: when, unix seconds
    :ivar unit: what writes it, called with a connection and `args`
    :ivar job: whose it is
    :ivar write: under way, and not answered yet
    :ivar refused: the database said no, which is more than that it was away
    """

    after: Recording
    at: float
    unit: Callable[..., Any]
    args: tuple[Any, ...]
    job: ActiveRecording | None = None
    write: asyncio.Task[None] | None = None
    refused: bool = False


MOST_ENTRIES = 10_000
"""Some 20 MB: every step of two thousand recordings. What comes then is kept in side files only (`overflow`)."""


class Backlog:
    """Entries that wait. A recording has some five, of 2 kB each; they are gone with the process, and the side files
    are not.
    """

    def __init__(self) -> None:
        self._calls: dict[Call, deque[Entry]] = {}
        self._of: Counter[str] = Counter()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return bool(self._calls)

    @property
    def full(self) -> bool:
        return len(self) >= MOST_ENTRIES

    @property
    def refused(self) -> int:
        """Entries of calls of which the ledger has refused the oldest."""
        return sum(len(waiting) for waiting in self._calls.values() if waiting[0].refused)

    def add(self, entry: Entry) -> None:
        """Put it behind those of its call."""
        self._calls.setdefault(call_of(entry.after), deque()).append(entry)
        self._of[entry.after.id] += 1
        self._count += 1

    def first(self, call: Call) -> Entry | None:
        """The oldest of that call."""
        waiting = self._calls.get(call)
        return waiting[0] if waiting else None

    def drop(self, call: Call) -> None:
        """The oldest of that call is in the ledger."""
        waiting = self._calls[call]
        recording_id = waiting.popleft().after.id
        if not waiting:
            del self._calls[call]
        self._count -= 1
        self._of[recording_id] -= 1
        if not self._of[recording_id]:
            del self._of[recording_id]

    def has(self, recording_id: str) -> bool:
        """Return whether an entry of that recording waits."""
        return recording_id in self._of

    def calls(self) -> list[Call]:
        """Return the calls that have entries, in the order of their first one."""
        return list(self._calls)
