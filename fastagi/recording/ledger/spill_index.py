"""Recordings of which the ledger lacks more than memory is to hold: their rows are in side files only.

What a recording became is kept, and how it came there, step by step, is not: the ledger gets the newest row, as after a
restart. Only what is kept where is here; when it comes to that, and when it is over, is `journal`'s.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass

from fastagi.domain.states import OPEN
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.ledger.backlog import Call, Entry, call_of
from fastagi.recording.ledger.spill_file import SpillFile
from fastagi.recording.ledger.spill_store import SpillStore

MOST_ASIDE = 200_000
"""Recordings, at some 500 bytes each that is 100 MB; with three files each in one folder, and a gigabyte of side files.
A thousand calls an hour reach it after a week without a ledger. No more are started then."""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The newest state of one recording; a newer one replaces it.

    :ivar side: what the side file holds: while the recording is open, or where the file could not be written
    :ivar job: whose it is, while it is open
    """

    call: Call
    side: SpillFile | None
    job: ActiveRecording | None


class SpillIndex:
    """Recordings that are kept in side files only, oldest first.

    :param aside: this process' side files
    """

    def __init__(self, aside: SpillStore) -> None:
        self._aside = aside
        self._kept: dict[str, Kept] = {}
        self._of: Counter[Call] = Counter()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, recording_id: str) -> bool:
        return recording_id in self._kept

    @property
    def full(self) -> bool:
        return len(self._kept) >= MOST_ASIDE

    async def add(self, entry: Entry) -> None:
        """Keep the row as it is after that entry, in place of an older one."""
        row = entry.after
        call, side = call_of(row), SpillFile(row, entry.at, self._aside.keys.get(row.id))
        if row.id not in self._kept:
            self._of[call] += 1
        kept = self._kept[row.id] = Kept(call, side, entry.job)
        if await self._aside.write(row) and row.phase not in OPEN and self._kept.get(row.id) is kept:
            self._kept[row.id] = Kept(call, None, None)
            self._aside.keys.pop(row.id, None)  # it is in the file

    def has(self, call: Call) -> bool:
        """Return whether a recording of that call is kept here."""
        return call in self._of

    def call(self, recording_id: str) -> Call:
        """Return the call that the recording belongs to. :raises KeyError: it is not kept here"""
        return self._kept[recording_id].call

    def lanes(self, count: int) -> list[list[str]]:
        """Ids in at most so many lists: those of one call are in one, in their order."""
        found: dict[int, list[str]] = defaultdict(list)
        for recording_id, kept in self._kept.items():
            found[hash(kept.call) % count].append(recording_id)
        return list(found.values())

    async def newest(self, recording_id: str) -> tuple[Kept, SpillFile]:
        """Return the newest entry of the recording and the content of its side file.

        :raises OSError: the side file cannot be read; :raises ValueError: nor understood
        """
        kept = self._kept[recording_id]
        if kept.side is not None:
            return kept, kept.side
        return kept, await asyncio.to_thread(self._aside.read, recording_id)

    def drop(self, recording_id: str, kept: Kept) -> None:
        """Forget an entry that the ledger has now. A newer one stays."""
        if self._kept.get(recording_id) is kept:
            self.forget(recording_id)

    def forget(self, recording_id: str) -> None:
        """Nothing can be made of it any more, or it is in the ledger."""
        call = self._kept.pop(recording_id).call
        self._of[call] -= 1
        if not self._of[call]:
            del self._of[call]
