"""The ledger as HTTP reads it: the only module of web that uses the store. Reads only.

Lists and searches go through the searchers' thread (`Store.search`), so that a slow one holds up no single row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fastagi.domain.delivery import Delivery
from fastagi.domain.recording import Recording
from fastagi.store import Store
from fastagi.store.queries import calls, catalogue, deliveries, journal, recordings
from fastagi.store.queries.calls import AnsweredCall
from fastagi.store.queries.deliveries import Attempt, Depth

NEWEST = 2**53
"""Cursor of the page behind the calls that are up: those of the ledger, from the newest on."""


Render = Callable[[journal.Entry, Recording | None], bytes]


@dataclass(frozen=True, slots=True)
class WholeRecording:
    """A recording with its deliveries and its journal, oldest entry first."""

    recording: Recording
    deliveries: list[Delivery]
    journal: list[journal.Entry]


@dataclass(frozen=True, slots=True)
class WholeDelivery:
    """A delivery with its attempts, oldest first."""

    delivery: Delivery
    attempts: list[Attempt]


@dataclass(frozen=True, slots=True)
class LedgerReads:
    """Reads of the ledger. All methods raise alike:

    :raises StoreError: the ledger does not answer, or cannot
    """

    store: Store

    async def answers(self) -> None:
        """Check that the ledger answers."""
        await self.store.read(_one)

    async def recording(self, recording_id: str) -> Recording | None:
        """Return the recording of that id; None for none."""
        found: Recording | None = await self.store.read(recordings.get, recording_id)
        return found

    async def whole_recording(self, recording_id: str) -> WholeRecording | None:
        """Return the recording of that id with all that belongs to it; None for none."""
        found: WholeRecording | None = await self.store.read(_whole_recording, recording_id)
        return found

    async def recordings(
        self, wanted: catalogue.RecordingFilter, cursor: str | None, limit: int
    ) -> tuple[list[Recording], str | None]:
        """Return a page of recordings and the cursor of the next one."""
        page: tuple[list[Recording], str | None] = await self.store.search(
            catalogue.page, wanted, cursor=cursor, limit=limit
        )
        return page

    async def delivery(self, delivery_id: str) -> Delivery | None:
        """Return the delivery of that id; None for none."""
        found: Delivery | None = await self.store.read(deliveries.get, delivery_id)
        return found

    async def whole_delivery(self, delivery_id: str) -> WholeDelivery | None:
        """Return the delivery of that id with its attempts; None for none."""
        found: WholeDelivery | None = await self.store.read(_whole_delivery, delivery_id)
        return found

    async def recording_of_delivery(self, delivery_id: str) -> Recording | None:
        """Return the recording that is delivered; None where there is no such delivery."""
        found: Recording | None = await self.store.read(_recording_of_delivery, delivery_id)
        return found

    async def deliveries(self, query: dict[str, Any]) -> tuple[list[Delivery], str | None]:
        """Return a page of deliveries and the cursor of the next one."""
        page: tuple[list[Delivery], str | None] = await self.store.search(deliveries.page, **query)
        return page

    async def depths(self, now: float) -> list[Depth]:
        """Return how many deliveries of each sink wait, by status. :param now: unix seconds"""
        found: list[Depth] = await self.store.search(deliveries.depths, now)
        return found

    async def calls(
        self, up: list[AnsweredCall], query: dict[str, Any]
    ) -> tuple[list[AnsweredCall], list[list[str]], int | None]:
        """Return a page of calls, the ids of the recordings of each, and the cursor of the next page.

        :param up: calls that are up and not in the ledger: they come first
        """
        page: tuple[list[AnsweredCall], list[list[str]], int | None] = await self.store.search(_calls, up, query)
        return page

    async def last_entry(self) -> int:
        """Return the number of the journal's last entry; 0 for an empty one."""
        seq: int = await self.store.read(journal.last_seq)
        return seq

    async def entries_after(
        self, seq: int, limit: int, render: Render, known: frozenset[int] = frozenset()
    ) -> list[tuple[int, bytes]]:
        """Return journal entries later than `seq`, oldest first: their numbers, and what `render` makes of each.

        :param limit: the most; :param known: numbers of entries that are left out
        :param render: called on the store's thread with an entry and its recording
        """
        found: list[tuple[int, bytes]] = await self.store.read(_entries_after, seq, limit, render, known)
        return found


def _one(conn: sa.Connection) -> int:
    return int(conn.execute(sa.select(sa.literal(1))).scalar_one())


def _whole_recording(conn: sa.Connection, recording_id: str) -> WholeRecording | None:
    recording = recordings.get(conn, recording_id)
    if recording is None:
        return None
    made, history = deliveries.of_recording(conn, recording_id), journal.history(conn, recording_id)
    return WholeRecording(recording, made, history)


def _whole_delivery(conn: sa.Connection, delivery_id: str) -> WholeDelivery | None:
    delivery = deliveries.get(conn, delivery_id)
    return None if delivery is None else WholeDelivery(delivery, deliveries.attempts(conn, delivery_id))


def _recording_of_delivery(conn: sa.Connection, delivery_id: str) -> Recording | None:
    delivery = deliveries.get(conn, delivery_id)
    return None if delivery is None else recordings.get(conn, delivery.recording_id)


def _calls(
    conn: sa.Connection, up: list[AnsweredCall], query: dict[str, Any]
) -> tuple[list[AnsweredCall], list[list[str]], int | None]:
    room = query["limit"] - len(up)
    found, following = calls.page(conn, **{**query, "limit": room}) if room else ([], NEWEST)
    return [*up, *found], calls.recorded_on(conn, [*up, *found]), following


def _entries_after(
    conn: sa.Connection, seq: int, limit: int, render: Render, known: frozenset[int]
) -> list[tuple[int, bytes]]:
    entries = [e for e in journal.after(conn, seq, limit + len(known)) if e.seq not in known][:limit]
    rows = {recording_id: recordings.get(conn, recording_id) for recording_id in {e.recording_id for e in entries}}
    return [(entry.seq, render(entry, rows[entry.recording_id])) for entry in entries]
