"""The ledger's part of nothing lost, on both databases: rows brought up to a copy, and rows that change hands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fastagi.domain.states import Cause, Event, Phase
from fastagi.errors import StoreError, TakenOver
from fastagi.store import open_store
from fastagi.store.queries import deliveries, journal, recordings
from support.delivery_harness import recording
from support.postgres_server import postgres_server, store_url  # noqa: F401

AT = 1_700_000_100.0


async def test_a_row_changes_hands_once_and_its_old_holder_is_refused(store_url: str) -> None:  # noqa: F811
    store = open_store(store_url, node="one")
    await store.start()
    try:
        row = recording(1, phase=Phase.ACTIVE, node="dead")
        await store.run(recordings.insert, row)
        assert [r.id for r in await store.read(recordings.open_elsewhere, "one")] == [row.id]
        ours = await store.run(recordings.take_over, row.id, "dead", "one", AT)
        assert ours is not None
        assert ours.node == "one"
        assert await store.run(recordings.take_over, row.id, "dead", "two", AT) is None, "somebody was quicker"
        assert await store.read(recordings.open_elsewhere, "one") == []
        for write in (
            lambda conn: recordings.advance(conn, row.id, Event.HUNG_UP, AT, holder="dead"),
            lambda conn: recordings.change(conn, row.id, AT, "renamed", {"channel": "x"}, holder="dead"),
            lambda conn: recordings.finish(conn, row.id, AT, {}, ("crm",), holder="dead"),
        ):
            with pytest.raises(TakenOver, match="taken over by one"):
                await store.run(write)
        await store.run(lambda conn: recordings.advance(conn, row.id, Event.HUNG_UP, AT, holder="one"))
        events = [entry.event for entry in await store.read(journal.history, row.id)]
        assert events == ["requested", "taken_over", "hung_up"]
    finally:
        await store.stop()


@pytest.mark.parametrize(
    ("copy", "at", "there", "newer"),
    [
        ("active", AT + 1, None, True),
        ("closing", AT - 99, "active", True),
        ("active", AT + 99, "closing", False),
        ("active", AT + 1, "paused", True),
        ("paused", AT - 1, "active", False),
        ("closing", AT + 1, "closing", True),
        ("closing", AT, "closing", False),
        ("finished", AT - 99, "finishing", True),
        ("failed", AT - 99, "active", True),
        ("finishing", AT + 1, "failed", True),
        ("finishing", AT - 1, "failed", False),
        ("finished", AT + 99, "finished", False),
        ("active", AT + 99, "finished", False),
    ],
)
async def test_the_newer_of_copy_and_row_wins(
    tmp_path: object, copy: str, at: float, there: str | None, newer: bool
) -> None:
    store = open_store(f"sqlite:///{tmp_path}/ledger.db", node="one")
    await store.start()
    try:
        row = recording(1, requested_at=AT, cause=Cause.NONE)
        if there is not None:
            await store.run(recordings.insert, replace(row, phase=Phase(there)))
        changed = replace(row, phase=Phase(copy), cause=Cause.ABORTED, sinks=("crm",))
        for _ in range(2):
            after, _made = await store.run(recordings.restore, changed, at)
            assert (after.cause is Cause.ABORTED) is newer
            assert await store.read(recordings.get, row.id) == after
        expected = int(newer and copy == "finished")
        assert len(await store.read(deliveries.of_recording, row.id)) == expected
        events = [entry.event for entry in await store.read(journal.history, row.id)]
        assert events.count("restored") == int(newer)
    finally:
        await store.stop()


async def test_a_copy_of_another_recording_is_refused(store_url: str) -> None:  # noqa: F811
    store = open_store(store_url, node="one")
    await store.start()
    try:
        await store.run(recordings.insert, recording(1))
        with pytest.raises(StoreError, match="is another one"):
            await store.run(recordings.restore, recording(1, uniqueid="9.9"), AT)
    finally:
        await store.stop()
