"""Finds recordings by id or its first letters, by file, or by a filter."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastagi.domain.recording import Recording
from fastagi.errors import BadArgument, Error
from fastagi.store.offline import OfflineLedger
from fastagi.store.queries import catalogue, recordings
from fastagi.store.queries.catalogue import RecordingFilter

PAGE = 500


@dataclass(frozen=True, slots=True)
class Selection:
    """Chooses recordings.

    :param names: ids, their first letters, files, names or uniqueids; any of them replaces the filter
    :param limit: at most so many; 0 for all
    """

    names: tuple[str, ...] = ()
    filter: RecordingFilter = field(default_factory=RecordingFilter)
    limit: int = 0


async def by_name(ledger: OfflineLedger, name: str) -> Recording:
    """Return the recording of that id, file, name or uniqueid. The first letters of an id are enough when only one
    begins with them. Of a file or name the last part is enough.

    :raises Error: there is none, or several
    :raises BadArgument: empty
    """
    if not name:
        raise BadArgument("a recording's id is empty")
    found = await ledger.read(recordings.get, name)
    if found is not None:
        return found
    several = await ledger.read(catalogue.named, name, 3) if name.startswith("rec-") else []
    if len(several) > 1:
        raise Error(f"several recordings begin with {name}: {_ids(several)}: write more of it")
    if not several:
        found = await ledger.read(catalogue.of_file, await asyncio.to_thread(os.path.realpath, name))
        if found is not None:
            return found
        several = await ledger.read(catalogue.called_so, name.lstrip("/"), 3)
    if len(several) > 1:
        raise Error(f"several recordings are called {name}: {_ids(several)}: give one of these ids")
    if several:
        return several[0]
    raise Error(f"there is no recording {name} in {ledger.shown}")


async def select(ledger: OfflineLedger, selection: Selection) -> AsyncIterator[Recording]:
    """Yield the recordings, newest first. Reads page by page, so any number is possible.

    :raises Error: a name that fits none, or several
    """
    if selection.names:
        for name in selection.names:
            yield await by_name(ledger, name)
        return
    cursor: str | None = None
    left = selection.limit
    while True:
        limit = min(PAGE, left) if selection.limit else PAGE
        page, cursor = await ledger.read(catalogue.page, selection.filter, cursor=cursor, limit=limit)
        for recording in page:
            yield recording
        left -= len(page)
        if cursor is None or (selection.limit and left <= 0):
            return


def _ids(several: list[Recording]) -> str:
    shown = ", ".join(r.id for r in several)
    return shown if len(several) < 3 else f"{shown}, …"
