"""The ledger's side of deletions, holds and completeness, the same on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from fastagi.domain.delivery import DeliveryStatus
from fastagi.domain.recording import Recording
from fastagi.domain.states import Phase
from fastagi.errors import Error
from fastagi.store import Store, open_store
from fastagi.store.queries import calls, catalogue, deliveries, evidence, journal, keys, recordings
from support.postgres_server import postgres_server, store_url  # noqa: F401


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:  # noqa: F811
    opened = open_store(store_url, node="one")
    await opened.start()
    yield opened
    await opened.stop()


def recording(n: int, **fields: Any) -> Recording:
    base = Recording(
        id=f"rec-{n:04}",
        node="one",
        asterisk="pbx",
        channel="SIP/a",
        uniqueid=f"{n}.1",
        linkedid=f"{n // 10}.1",
        name=f"{n}",
        file_path=f"/rec/{n}.wav",
        phase=Phase.FINISHED,
        requested_at=1000.0 + n,
        finished_at=1000.0 + n,
    )
    return replace(base, **fields)


async def test_a_deletion_is_two_steps_and_a_restart_finds_what_is_between(store: Store) -> None:
    await store.run(recordings.insert, recording(1))
    await store.run(recordings.insert, recording(2, node="two"))
    await store.run(keys.put, "rec-0001", "aes-256-gcm", b"wrapped")
    delivery = await store.run(deliveries.insert, recording(1), "crm", now=1.0)
    with pytest.raises(Error, match=r"crm \(waiting\)"):
        await store.run(evidence.condemn, "rec-0001", 2000.5, "ann", "room")
    assert await store.read(keys.get, "rec-0001") is not None
    doomed, there = await store.run(evidence.condemn, "rec-0001", 2000.5, "ann", "room", True)
    await store.run(evidence.condemn, "rec-0002", 2000.5, "ann", "room")
    assert (doomed.deleted_at, there) == (2000.5, True)
    assert await store.read(keys.get, "rec-0001") is None
    dead = await store.read(deliveries.get, delivery.id)
    assert (dead.status, dead.fence, dead.last_error) == (DeliveryStatus.DEAD, 1, "the recording was deleted")
    assert [r.id for r in await store.read(evidence.pending_deletion, "one")] == ["rec-0001"]
    assert (await store.run(evidence.condemn, "rec-0001", 2001.0, "bob", "again", True))[1] is True
    for at in (1999.0, 2002.0):  # the clock was set back; and twice is once
        await store.run(evidence.removed, ["rec-0001"], at)
    assert await store.read(evidence.pending_deletion, "one") == []
    assert (await store.run(evidence.condemn, "rec-0001", 2003.0, "bob", "again", True))[1] is False
    events = [e.event for e in await store.read(journal.history, "rec-0001")]
    assert events == ["requested", "deleting", "deleted"]


async def test_a_name_is_another_recordings_only_while_that_has_its_file(store: Store) -> None:
    await store.run(recordings.insert, recording(1))
    await store.run(recordings.insert, recording(2, file_path="/rec/1.wav"))
    assert await store.read(evidence.name_reused, "/rec/1.wav", "rec-0001")
    await store.run(evidence.condemn, "rec-0002", 2000.0, "ann", "room")
    assert not await store.read(evidence.name_reused, "/rec/1.wav", "rec-0001")


async def test_a_hold_keeps_and_is_told_who_and_why(store: Store) -> None:
    await store.run(recordings.insert, recording(1))
    await store.run(recordings.insert, recording(2, node="two"))
    assert [r.id for r in await store.read(catalogue.expired, 5000.0, node="one")] == ["rec-0001"]
    assert (await store.run(evidence.hold, "rec-0001", 2000.0, True, "counsel", "case 7")).legal_hold
    assert await store.read(catalogue.expired, 5000.0, node="one") == []
    with pytest.raises(Error, match="legal hold"):
        await store.run(evidence.condemn, "rec-0001", 2000.0, "ann", "room", True)
    await store.run(evidence.hold, "rec-0001", 2001.0, False, "counsel", "closed")
    await store.run(evidence.condemn, "rec-0001", 2002.0, "ann", "room")
    with pytest.raises(Error, match="is deleted"):
        await store.run(evidence.hold, "rec-0001", 2003.0, True, "counsel", "late")
    lines = await store.read(journal.history, "rec-0001")
    assert lines[1].detail == {"who": "counsel", "reason": "case 7"}


async def test_calls_that_ended_and_were_not_judged_and_what_was_recorded_of_them(store: Store) -> None:
    for n in (1, 2, 3):
        call = calls.AnsweredCall("pbx", f"{n}.1", linkedid="0.1", answered_at=10.0 * n, required=True)
        assert await store.run(calls.answered, call)
    for n in (1, 2):
        await store.run(calls.ended, "pbx", f"{n}.1", 100.0)
    await store.run(calls.judged, "pbx", "1.1", "missing", reason="x")
    assert [c.uniqueid for c in await store.read(calls.unjudged, "pbx")] == ["2.1"]
    assert await store.read(calls.unjudged, "other") == []
    for n in (11, 12, 21):
        await store.run(recordings.insert, recording(n))
    found = await store.read(calls.recordings_of, "pbx", "21.1", ["1.1"])
    assert [r.id for r in found] == ["rec-0021", "rec-0012", "rec-0011"]
    assert [r.id for r in await store.read(calls.recordings_of, "pbx", "21.1", [])] == ["rec-0021"]
    assert await store.read(calls.recordings_of, "other", "21.1", ["1.1"]) == []
