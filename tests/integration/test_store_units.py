"""Every unit of work, on both databases: the same functions must do the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from fastagi.domain.delivery import DeliveryStatus, Outcome, Verdict
from fastagi.domain.recording import Recording, Segment, Span
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Cause, Event, Phase, State
from fastagi.errors import IllegalTransition, StoreDown, StoreError, TakenOver
from fastagi.store import Store, after_commit, open_store
from fastagi.store.queries import calls, catalogue, deliveries, evidence, journal, keys, recordings, servers
from fastagi.store.rows import recording_columns, recording_of
from support.postgres_server import postgres_server, store_url  # noqa: F401


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:  # noqa: F811
    opened = open_store(store_url, node="one")
    await opened.start()
    yield opened
    await opened.stop()


def recording(n: int = 1, **fields: Any) -> Recording:
    base = Recording(
        id=f"rec-{n:04}",
        node="one",
        asterisk="pbx",
        channel=f"SIP/a-{n}",
        uniqueid=f"1700000000.{n}",
        name=f"calls/{n}",
        file_path=f"/rec/calls/{n}.wav",
        requested_at=1000.0 + n,
        caller="alice",
        called="100",
        sinks=("crm",),
    )
    return replace(base, **fields)


async def finished(store: Store, n: int = 1, sinks: tuple[str, ...] = ("crm",), **fields: Any) -> list[Any]:
    """A recording all the way through; its deliveries."""
    item = recording(n, **fields)
    await store.run(recordings.insert, item)
    for event in (Event.STARTED, Event.HUNG_UP, Event.CLOSED):
        await store.run(recordings.advance, item.id, event, at=2000.0)
    return (await store.run(recordings.finish, item.id, at=3000.0, sinks=sinks))[1]


OK = Outcome(True)
DELIVERED = Verdict(DeliveryStatus.DELIVERED)
BAD = Outcome(False, "503 nope")


async def test_a_recording_comes_back_as_it_went(store: Store) -> None:
    full = recording(
        spec=RecordingSpec(file_format="ulaw", rate=11025, seconds_timeout=2.5, max_bytes=5000, encryption="age"),
        system="sys",
        linkedid="l",
        recorder="second",
        pieces=(Segment("/s/a.wav", "/s/r.wav", "/s/t.wav", "SIP/a", "1.2", 3.25, "0x1"), Segment("/s/b.wav")),
        pauses=(Span(1.5, 2.5), Span(3.0)),
        sinks=("crm", "archive"),
        adopted=True,
        started_at=1700000000.123456,
        audio_seconds=0.1,
        bytes=5_000_000_000,
        sha256="ab",
        legal_hold=True,
        facts={"z": 1, "a": [1.5, None, "ü"], "salvaged": True},
        error="näh",
    )
    await store.run(recordings.insert, full, {"by": "agi"})
    got = await store.read(recordings.get, full.id)
    assert got == full
    assert got.metadata().to_json() == full.metadata().to_json(), "key order is kept: a webhook's body must not change"
    assert await store.read(recordings.get, "rec-none") is None
    [entry] = await store.read(journal.history, full.id)
    assert (entry.event, entry.to_phase, entry.detail, entry.at) == ("requested", "requested", {"by": "agi"}, 1001.0)


async def test_a_recording_is_inserted_once_and_its_id_is_nobody_elses(store: Store) -> None:
    for _ in range(2):  # whoever could not know whether the first was committed says it again
        assert await store.run(recordings.insert, recording()) == recording()
    assert len(await store.read(journal.history, "rec-0001")) == 1
    with pytest.raises(StoreError, match="another one"):
        await store.run(recordings.insert, recording(uniqueid="mallory"))
    assert (await store.read(recordings.get, "rec-0001")).caller == "alice"


def test_a_recording_survives_a_round_trip_through_json() -> None:
    full = recording(pieces=(Segment("/s/a.wav"),), pauses=(Span(1.0),), facts={"a": 1}, cause=Cause.SIZE)
    assert recording_of(json.loads(json.dumps(recording_columns(full)))) == full


async def test_advance_writes_row_and_journal(store: Store) -> None:
    await store.run(recordings.insert, recording())
    after = await store.run(
        recordings.advance, "rec-0001", Event.STARTED, at=1002.5, changes={"started_at": 1002.0}, detail={"size": 44}
    )
    assert after.phase is Phase.ACTIVE
    after = await store.run(
        recordings.advance, "rec-0001", Event.STOP, at=1010.0, changes={"cause": Cause.SIZE, "ended_at": 1009.5}
    )
    assert after == await store.read(recordings.get, "rec-0001")
    assert (after.cause, after.phase, after.started_at) == (Cause.SIZE, Phase.STOPPING, 1002.0)
    lines = await store.read(journal.history, "rec-0001")
    assert [(x.event, x.from_phase, x.to_phase) for x in lines] == [
        ("requested", "", "requested"),
        ("started", "requested", "active"),
        ("stop", "active", "stopping"),
    ]
    assert await store.read(journal.last_seq) == lines[-1].seq
    assert await store.read(journal.after, lines[0].seq) == lines[1:]


async def test_what_the_table_refuses_leaves_nothing(store: Store) -> None:
    await store.run(recordings.insert, recording())
    with pytest.raises(IllegalTransition):
        await store.run(recordings.advance, "rec-0001", Event.FINISHED, at=1.0, changes={"error": "x"})
    with pytest.raises(StoreError, match="no recording"):
        await store.run(recordings.advance, "rec-none", Event.STARTED, at=1.0)
    for bad in ({"phase": Phase.FAILED}, {"id": "x"}, {"colour": "red"}):
        with pytest.raises(StoreError, match="no field"):
            await store.run(recordings.advance, "rec-0001", Event.STARTED, at=1.0, changes=bad)
    assert await store.read(recordings.get, "rec-0001") == recording()
    assert len(await store.read(journal.history, "rec-0001")) == 1


async def test_only_one_of_two_that_advance_at_once_wins(store: Store) -> None:
    await store.run(recordings.insert, recording())
    results = await asyncio.gather(
        *(store.run(recordings.advance, "rec-0001", Event.HUNG_UP, at=1.0) for _ in range(6)), return_exceptions=True
    )
    assert sum(isinstance(r, Recording) for r in results) == 1
    assert sum(isinstance(r, IllegalTransition) for r in results) == 5
    assert len(await store.read(journal.history, "rec-0001")) == 2


async def test_who_knows_the_row_is_believed_only_while_it_is_so(store: Store) -> None:
    item = recording()
    await store.run(recordings.insert, item)
    active = await store.run(recordings.advance, item.id, Event.STARTED, 2.0, {"started_at": 2.0}, known=item)
    assert (await store.read(recordings.get, item.id)) == active
    with pytest.raises(IllegalTransition):  # the copy is old: the row decides
        await store.run(recordings.advance, item.id, Event.STARTED, 3.0, known=item)
    held = await store.run(recordings.change, item.id, changes={"legal_hold": True})
    closing = await store.run(recordings.advance, item.id, Event.HUNG_UP, 4.0, holder="one", known=active)
    assert closing.phase is Phase.CLOSING
    assert (await store.read(recordings.get, item.id)) == replace(held, phase=Phase.CLOSING)
    with pytest.raises(TakenOver):
        await store.run(recordings.advance, item.id, Event.CLOSED, 5.0, holder="two", known=closing)
    assert [e.event for e in await store.read(journal.history, item.id)] == ["requested", "started", "hung_up"]


async def test_change_is_no_transition(store: Store) -> None:
    await store.run(recordings.insert, recording())
    pieces = (Segment("/s/a.wav"), Segment("/s/b.wav"))
    after = await store.run(recordings.change, "rec-0001", 5.0, file_path="/rec/x.wav", pieces=pieces, legal_hold=True)
    assert (after.file_path, after.pieces, after.phase) == ("/rec/x.wav", pieces, Phase.REQUESTED)
    assert await store.read(recordings.get, "rec-0001") == after
    assert len(await store.read(journal.history, "rec-0001")) == 1
    await store.run(recordings.change, "rec-0001", 6.0, "moved", {"channel": "SIP/b"})
    assert [e.event for e in await store.read(journal.history, "rec-0001")] == ["requested", "moved"]


async def test_finish_writes_recording_and_deliveries_together(store: Store) -> None:
    item = recording(facts={})
    await store.run(recordings.insert, item)
    with pytest.raises(IllegalTransition):
        await store.run(recordings.finish, item.id, at=3.0, sinks=["crm"])
    assert await store.read(deliveries.of_recording, item.id) == []
    for event in (Event.STARTED, Event.HUNG_UP, Event.CLOSED):
        await store.run(recordings.advance, item.id, event, at=2.0)
    after, made = await store.run(
        recordings.finish, item.id, at=3.0, changes={"bytes": 7, "facts": {"a": 1}}, sinks=["crm", "archive", "crm"]
    )
    assert (after.phase, after.state, after.finished_at, after.bytes) == (Phase.FINISHED, State.IDLE, 3.0, 7)
    assert [(d.sink, d.status, d.next_at) for d in made] == [
        ("crm", DeliveryStatus.WAITING, 3.0),
        ("archive", DeliveryStatus.WAITING, 3.0),
    ]
    assert sorted(await store.read(deliveries.of_recording, item.id), key=lambda d: d.id) == sorted(
        made, key=lambda d: d.id
    )
    again = await store.run(lambda conn: deliveries.insert(conn, after, "crm", now=9.0))
    assert again == made[0], "one delivery per recording and sink, for ever"


async def test_open_recordings_are_those_of_this_node_with_work_left(store: Store) -> None:
    await store.run(recordings.insert, recording(1))
    await store.run(recordings.insert, recording(2, node="two"))
    await finished(store, 3)
    await store.run(recordings.insert, recording(4))
    await store.run(recordings.advance, "rec-0004", Event.HUNG_UP, at=1.0)
    await store.run(recordings.insert, recording(5))
    await store.run(recordings.advance, "rec-0005", Event.FAILED, at=1.0)
    assert [r.id for r in await store.read(recordings.open_recordings, "one")] == ["rec-0001", "rec-0004"]


async def test_find_by_call_and_recorder(store: Store) -> None:
    await store.run(recordings.insert, recording(1, uniqueid="u"))
    await store.run(recordings.insert, recording(2, uniqueid="u", recorder="agent"))
    await store.run(recordings.insert, recording(3, uniqueid="u", asterisk="other"))
    ids = [r.id for r in await store.read(recordings.find, "u")]
    assert ids == ["rec-0003", "rec-0002", "rec-0001"]
    assert [r.id for r in await store.read(recordings.find, "u", "agent")] == ["rec-0002"]
    assert [r.id for r in await store.read(recordings.find, "u", "", asterisk="pbx")] == ["rec-0001"]


async def test_pages_and_filters(store: Store) -> None:
    for n in range(1, 8):
        await store.run(recordings.insert, recording(n, caller="Bob_1" if n % 2 else "eve", name=f"50%/{n}"))
    await store.run(recordings.advance, "rec-0001", Event.FAILED, at=1.0, changes={"cause": Cause.ERROR})

    async def ids(**wanted: Any) -> list[str]:
        found, _ = await store.read(catalogue.page, catalogue.RecordingFilter(**wanted))
        return [r.id[-1] for r in found]

    seen: list[str] = []
    cursor = None
    while True:
        found, cursor = await store.read(catalogue.page, None, cursor=cursor, limit=3)
        seen += [r.id[-1] for r in found]
        if len(seen) == 3:
            await store.run(recordings.insert, recording(9))  # what is new does not shift the pages
        if cursor is None:
            break
    assert seen == list("7654321")
    assert await ids(uniqueid="1700000000.3") == ["3"]
    assert await ids(channel="SIP/a-2") == ["2"]
    assert await ids(caller="eve") == list("642")
    assert await ids(cause="ERROR") == ["1"]
    assert await ids(state="ERROR") == ["1"]
    assert await ids(phase="failed") == ["1"]
    assert await ids(since=1006.0, until=1007.0) == ["6"]
    assert await ids(search="bOb_") == list("7531")
    assert await ids(search="b%b") == [], "what a person types is no pattern"
    assert await ids(search="50%/4") == ["4"]
    assert await ids(called="100", caller="eve", search="6") == ["6"]
    assert await ids(deleted=True) == []
    await store.run(recordings.change, "rec-0002", deleted_at=5.0)
    assert await ids(deleted=True) == ["2"]
    assert await ids(deleted=False, caller="eve") == list("64")
    with pytest.raises(StoreError, match="limit=0"):
        await store.read(catalogue.page, None, limit=0)


async def test_retention_spares_what_is_held_or_not_delivered(store: Store) -> None:
    for n in range(1, 5):
        for delivery in await finished(store, n):
            if n != 3:
                taken = await store.run(deliveries.claim, delivery.id, 3000.0)
                await store.run(deliveries.settle, delivery.id, taken.fence, DELIVERED, OK, 3000.0)
    await store.run(recordings.change, "rec-0002", legal_hold=True)
    await store.run(recordings.change, "rec-0004", deleted_at=1.0)
    assert [r.id for r in await store.read(catalogue.expired, 4000.0)] == ["rec-0001"]
    assert await store.read(catalogue.expired, 3000.0) == []


async def test_a_claim_is_taken_once_and_its_fence_grows(store: Store) -> None:
    [waiting] = await finished(store)
    assert await store.run(deliveries.claim, waiting.id, 2999.0) is None, "not due yet"
    taken = [d for d in await asyncio.gather(*(store.run(deliveries.claim, waiting.id, 3001.0) for _ in range(5))) if d]
    assert len(taken) == 1
    assert (taken[0].status, taken[0].fence, taken[0].first_at) == (DeliveryStatus.RUNNING, 1, 3001.0)
    retry = Verdict(DeliveryStatus.WAITING, 3010.0)
    settled = await store.run(deliveries.settle, waiting.id, 1, retry, BAD, 3002.0, 0.5)
    assert settled.delivery == await store.read(deliveries.get, waiting.id)
    assert (settled.delivery.status, settled.delivery.attempts, settled.delivery.next_at) == (
        DeliveryStatus.WAITING,
        1,
        3010.0,
    )
    again = await store.run(deliveries.claim, waiting.id, 3010.0)
    assert (again.fence, again.attempts, again.first_at) == (2, 1, 3001.0)
    assert await store.run(deliveries.settle, waiting.id, 1, DELIVERED, OK, 3011.0) is None, "an old fence is refused"
    assert (await store.read(deliveries.get, waiting.id)).status is DeliveryStatus.RUNNING
    done = await store.run(deliveries.settle, waiting.id, 2, DELIVERED, OK, 3012.0, 1.0)
    assert (done.delivery.status, done.delivery.done_at, done.delivery.last_error) == (
        DeliveryStatus.DELIVERED,
        3012.0,
        "",
    )
    assert await store.run(deliveries.settle, waiting.id, 2, DELIVERED, OK, 3012.0, 1.0) is None
    assert [(a.n, a.at, a.seconds, a.ok, a.error) for a in await store.read(deliveries.attempts, waiting.id)] == [
        (1, 3001.5, 0.5, False, "503 nope"),
        (2, 3011.0, 1.0, True, ""),
    ]
    assert [e.event for e in await store.read(journal.history, "rec-0001")][-1] == "delivered"


async def test_what_a_receiver_says_is_kept_as_one_printable_line(store: Store) -> None:
    [waiting] = await finished(store)
    taken = await store.run(deliveries.claim, waiting.id, 3001.0)
    rude = Outcome(False, "a\x00b\r\nc\x1b[2J" + "x" * 5000)
    settled = await store.run(
        deliveries.settle, waiting.id, taken.fence, Verdict(DeliveryStatus.WAITING, 1.0), rude, 2.0
    )
    assert settled.delivery.last_error.startswith("a b c [2Jxxx")
    assert len(settled.delivery.last_error) == deliveries.LONGEST_ERROR


async def test_give_back_counts_no_attempt(store: Store) -> None:
    [waiting] = await finished(store)
    taken = await store.run(deliveries.claim, waiting.id, 3001.0, "one")
    assert not await store.run(deliveries.give_back, waiting.id, taken.fence - 1, 3005.0)
    assert await store.run(deliveries.give_back, waiting.id, taken.fence, 3005.0)
    now = await store.read(deliveries.get, waiting.id)
    assert (now.status, now.attempts, now.next_at) == (DeliveryStatus.WAITING, 0, 3005.0)


async def test_recordings_of_one_call_reach_a_sink_in_order(store: Store) -> None:
    first = (await finished(store, 1, uniqueid="u"))[0]
    second = (await finished(store, 2, ("crm", "archive"), uniqueid="u"))[0]
    other_call = (await finished(store, 3))[0]
    other_sink = (await store.read(deliveries.of_recording, "rec-0002"))[-1]
    assert first.id < second.id or first.id > second.id
    early, late = sorted((first, second), key=lambda d: d.id)
    assert await store.run(deliveries.claim, late.id, 3001.0) is None
    assert await store.run(deliveries.claim, other_call.id, 3001.0) is not None
    assert {d.sink for d in (early, late, other_sink)} <= {"crm", "archive"}
    taken = await store.run(deliveries.claim, early.id, 3001.0)
    assert await store.run(deliveries.claim, late.id, 3001.0) is None
    retry = Verdict(DeliveryStatus.WAITING, 3010.0)
    assert (await store.run(deliveries.settle, early.id, taken.fence, retry, BAD, 3002.0)).due.id == early.id
    assert await store.run(deliveries.claim, late.id, 3005.0) is None, "the first one is still to come"
    taken = await store.run(deliveries.claim, early.id, 3010.0)
    settled = await store.run(deliveries.settle, early.id, taken.fence, DELIVERED, OK, 3011.0)
    assert settled.due is not None
    assert settled.due.id == late.id
    assert await store.run(deliveries.claim, late.id, 3011.0) is not None


async def test_due_release_park_and_unpark(store: Store) -> None:
    ids = {}
    for n, sink in enumerate(("crm", "gone", "gone", "archive"), 1):
        [ids[n]] = [d.id for d in await finished(store, n, (sink,), node="two" if n == 4 else "one")]
    await store.run(deliveries.claim, ids[1], 3001.0, "one")
    await store.run(deliveries.claim, ids[4], 3001.0, "two")
    assert {d.id for d in await store.read(deliveries.due, 10)} == {ids[2], ids[3]}
    assert [d.id for d in await store.read(deliveries.due, 10, sink="crm")] == []
    assert len(await store.read(deliveries.due, 1, sink="gone", home="one")) == 1
    assert [(d.id, d.home) for d in await store.run(deliveries.release, ["one"], 3005.0)] == [(ids[4], "two")]
    assert [d.id for d in await store.run(deliveries.release, [], 3006.0)] == [ids[1]]
    assert (await store.read(deliveries.due_entry, ids[1])).next_at == 3006.0
    assert await store.read(deliveries.sinks, DeliveryStatus.WAITING) == ["archive", "crm", "gone"]
    assert await store.run(deliveries.park, ["gone"]) == 2
    assert await store.read(deliveries.sinks, DeliveryStatus.PARKED) == ["gone"]
    assert await store.run(deliveries.claim, ids[2], 9000.0) is None
    assert await store.read(deliveries.due_entry, ids[2]) is None
    depths = {
        (d.sink, d.status.value): (d.count, d.oldest_seconds) for d in await store.read(deliveries.depths, 3100.0)
    }
    assert depths == {
        ("crm", "waiting"): (1, 100.0),
        ("archive", "waiting"): (1, 100.0),
        ("gone", "parked"): (2, 100.0),
    }
    assert await store.run(deliveries.unpark, ["gone", "crm"], 4000.0) == 2
    assert await store.run(deliveries.claim, ids[2], 4000.0) is not None
    assert await store.run(deliveries.park, []) == 0


async def test_clock_set_ahead_gives_new_period(store: Store) -> None:
    """72 h by a clock that was set are no 72 h in which a receiver was tried."""
    day = 86_400.0
    failing, running, fresh = [(await finished(store, n))[0].id for n in (1, 2, 3)]
    for id in (failing, running):
        taken = await store.run(deliveries.claim, id, 3001.0, "one")
        if id == failing:
            again = Verdict(DeliveryStatus.WAITING, 3500.0)
            await store.run(deliveries.settle, id, taken.fence, again, BAD, 3002.0)
    await store.run(deliveries.new_day, "two")
    assert (await store.read(deliveries.get, failing)).first_at == 3001.0, "others' are others'"
    await store.run(deliveries.new_day, None)
    assert [(await store.read(deliveries.get, id)).first_at for id in (failing, running, fresh)] == [None] * 3
    assert (await store.read(deliveries.get, running)).status is DeliveryStatus.RUNNING
    assert await store.run(deliveries.bring_forward, 3000.0 + day) == [], "all of it is due"


async def test_clock_set_back_holds_no_delivery(store: Store) -> None:
    """What was to be tried in five minutes would wait for a day and five minutes."""
    day = 86_400.0
    failing, fresh = [(await finished(store, n))[0].id for n in (1, 2)]
    taken = await store.run(deliveries.claim, failing, 3001.0, "one")
    again = Verdict(DeliveryStatus.WAITING, 3500.0)
    await store.run(deliveries.settle, failing, taken.fence, again, BAD, 3002.0)
    assert await store.run(deliveries.bring_forward, 0.0, "two") == [], "others' are others'"
    brought = await store.run(deliveries.bring_forward, 3000.0 - day)
    assert {(due.id, due.next_at) for due in brought} == {(failing, 3000.0 - day), (fresh, 3000.0 - day)}
    assert (await store.read(deliveries.get, failing)).first_at is None, "it has a new period"
    assert await store.run(deliveries.bring_forward, 3000.0 - day) == []


async def test_revive_gives_a_dead_delivery_a_new_day(store: Store) -> None:
    [waiting] = await finished(store)
    taken = await store.run(deliveries.claim, waiting.id, 3001.0)
    with pytest.raises(StoreError, match="is running"):
        await store.run(deliveries.requeue, waiting.id, 1.0)
    await store.run(deliveries.settle, waiting.id, taken.fence, Verdict(DeliveryStatus.DEAD), BAD, 3002.0)
    dead, _ = await store.read(deliveries.page, status="dead", sink="crm", recording_id="rec-0001")
    assert [(d.id, d.last_error) for d in dead] == [(waiting.id, "503 nope")]
    await store.run(deliveries.requeue, waiting.id, 99_000.0)
    taken = await store.run(deliveries.claim, waiting.id, 99_000.0)
    assert (taken.first_at, taken.attempts, taken.done_at) == (99_000.0, 1, None)
    await store.run(deliveries.settle, waiting.id, taken.fence, DELIVERED, OK, 99_001.0)
    with pytest.raises(StoreError, match="is delivered"):
        await store.run(deliveries.requeue, waiting.id, 1.0)
    with pytest.raises(StoreError, match="no delivery"):
        await store.run(deliveries.requeue, "dlv-none", 1.0)
    assert [e.event for e in await store.read(journal.history, "rec-0001")][-3:] == [
        "dead",
        "delivery_revived",
        "delivered",
    ]


async def test_a_parked_delivery_is_revived_where_its_sink_is_there_again(store: Store) -> None:
    [waiting] = await finished(store)
    await store.run(deliveries.park, ["crm"])
    for served in ((), ("archive", "object:@1234")):
        with pytest.raises(StoreError) as refused:
            await store.run(deliveries.requeue, waiting.id, 5000.0, served=served)
        told = str(refused.value)
        assert "is parked" in told
        assert "no server that runs has a sink 'crm'" in told
        assert told.endswith(f"(there are: {'archive' if served else 'none'})")
    assert (await store.read(deliveries.get, waiting.id)).hint in told
    assert await store.read(deliveries.to_revive, DeliveryStatus.PARKED) == [waiting.id]
    await store.run(deliveries.requeue, waiting.id, 5000.0, served={"crm"})
    again = await store.read(deliveries.get, waiting.id)
    assert (again.status, again.next_at, again.first_at, again.hint) == ("waiting", 5000.0, None, "")


async def test_a_dead_or_parked_delivery_can_go_to_another_sink_that_has_not_got_it(store: Store) -> None:
    gone, archived = await finished(store, sinks=("object:Mine:1@1234", "archive"))
    [dead] = await finished(store, 2)
    there = {"archive", "crm", "new"}
    await store.run(deliveries.park, [gone.sink])
    with pytest.raises(StoreError, match="went with its process"):
        await store.run(deliveries.requeue, gone.id, 5000.0, served=there)
    with pytest.raises(StoreError, match=f"has a delivery to archive, {archived.id} .waiting"):
        await store.run(deliveries.requeue, gone.id, 5000.0, to="archive", served=there)
    with pytest.raises(StoreError, match=r"has a sink 'nwe' .there are: archive, crm, new."):
        await store.run(deliveries.requeue, gone.id, 5000.0, to="nwe", served=there)
    with pytest.raises(StoreError, match="only a dead or parked one"):
        await store.run(deliveries.requeue, archived.id, 5000.0, to="new", served=there)
    taken = await store.run(deliveries.claim, dead.id, 3001.0)
    await store.run(deliveries.settle, dead.id, taken.fence, Verdict(DeliveryStatus.DEAD), BAD, 3002.0)
    for delivery in (gone, dead):
        due = await store.run(deliveries.requeue, delivery.id, 5000.0, to="new", served=there)
        assert (due.id, due.sink) == (delivery.id, "new")
        assert await store.run(deliveries.claim, delivery.id, 5000.0, "one", delivery.sink) is None, "a stale queue"
        taken = await store.run(deliveries.claim, delivery.id, 5000.0, "one", "new")
        assert (taken.sink, taken.first_at) == ("new", 5000.0)
        row = await store.read(recordings.get, delivery.recording_id)
        made = len(await store.read(deliveries.of_recording, row.id))
        await store.run(recordings.restore, row, 6000.0)
        assert len(await store.read(deliveries.of_recording, row.id)) == made, "the one it went to before is gone"
    last = [e for e in await store.read(journal.history, dead.recording_id) if e.event == "delivery_revived"][-1]
    assert (last.event, last.detail["sink"], last.detail["instead_of"]) == ("delivery_revived", "new", "crm")


async def test_a_sink_that_nobody_has_is_no_reason_to_leave_a_dead_delivery_where_none_can_be_asked(
    store: Store,
) -> None:
    [dead] = await finished(store)
    taken = await store.run(deliveries.claim, dead.id, 3001.0)
    await store.run(deliveries.settle, dead.id, taken.fence, Verdict(DeliveryStatus.DEAD), BAD, 3002.0)
    with pytest.raises(StoreError, match="is dead: no server that runs has a sink 'crm'"):
        await store.run(deliveries.requeue, dead.id, 5000.0, served={"archive"}, all_known=True)
    assert (await store.run(deliveries.requeue, dead.id, 5000.0, served={"archive"})).sink == "crm"


async def test_what_was_deleted_is_delivered_to_nobody(store: Store) -> None:
    [dead] = await finished(store)
    await store.run(evidence.condemn, dead.recording_id, 4000.0, "me", "case 7", True)
    assert (await store.read(deliveries.get, dead.id)).status == "dead"
    assert await store.read(deliveries.to_revive, DeliveryStatus.DEAD) == []
    with pytest.raises(StoreError, match="was deleted"):
        await store.run(deliveries.requeue, dead.id, 5000.0)


async def test_sinks_that_are_served_are_those_of_servers_that_live(store: Store, store_url: str) -> None:  # noqa: F811
    assert await store.read(servers.sinks_served, 1000.0, 15.0) == set()
    for node, sinks in (("one", ("crm",)), ("two", ("archive", "object:@77"))):
        await store.run(servers.heartbeat, node, 1000.0, started_at=1000.0, sinks=sinks)
    assert await store.read(servers.sinks_served, 1050.0, 15.0) == {"crm", "archive", "object:@77"}
    silent = await store.read(servers.sinks_served, 1050.0, -1.0)
    assert silent == (set() if store_url.startswith("postgres") else {"crm", "archive", "object:@77"})


async def test_pages_of_deliveries(store: Store) -> None:
    for n in range(1, 6):
        await finished(store, n)
    first, cursor = await store.read(deliveries.page, limit=3)
    second, end = await store.read(deliveries.page, cursor=cursor, limit=3)
    assert len(first + second) == len({d.id for d in first + second}) == 5
    assert end is None


async def test_calls(store: Store) -> None:
    call = calls.AnsweredCall(
        "pbx", "u1", epoch=7, caller="a", context="sales", answered_at=10.0, required=True, channel="SIP/a"
    )
    assert await store.run(calls.answered, call)
    assert not await store.run(calls.answered, replace(call, caller="later"))
    assert await store.run(calls.answered, replace(call, epoch=8)), "the same uniqueid of another run is another call"
    assert await store.run(calls.answered, replace(call, uniqueid="u2", required=False, answered_at=11.0))
    got = await store.read(calls.get, "pbx", "u1", 7)
    assert replace(got, id=0) == call
    assert [c.uniqueid for c in await store.read(calls.open_calls, "pbx")] == ["u1", "u1", "u2"]
    assert await store.run(calls.remark, "pbx", "u1", 7, reason="refused", recording_id="rec-9")
    assert await store.run(calls.remark, "pbx", "u1", 7, reason="refused again")
    noted = await store.read(calls.get, "pbx", "u1", 7)
    assert (noted.reason, noted.recording_id) == ("refused again", "rec-9")
    assert not await store.run(calls.remark, "pbx", "nobody", reason="x")
    assert await store.run(calls.ended, "pbx", "u1", 20.0, 7)
    assert not await store.run(calls.ended, "pbx", "u1", 21.0, 7)
    assert await store.run(calls.ended, "pbx", "u2", 21.0, 7)
    found, _ = await store.read(calls.page, incomplete=True)
    assert [(c.uniqueid, c.epoch, c.ended_at) for c in found] == [("u1", 7, 20.0)]
    assert await store.run(calls.judged, "pbx", "u1", "missing", reason="not started", epoch=7)
    assert [c.reason for c in (await store.read(calls.page, incomplete=True))[0]] == ["not started"]
    assert await store.run(calls.judged, "pbx", "u1", calls.RECORDED, recording_id="rec-1", epoch=7)
    assert not await store.run(calls.remark, "pbx", "u1", 7, reason="late"), "a verdict is a verdict"
    assert not await store.run(calls.judged, "pbx", "nobody", calls.RECORDED)
    assert (await store.read(calls.page, incomplete=True))[0] == []
    found, cursor = await store.read(calls.page, limit=2)
    more, end = await store.read(calls.page, limit=2, cursor=cursor)
    assert [(c.uniqueid, c.epoch) for c in found + more] == [("u2", 7), ("u1", 8), ("u1", 7)]
    assert end is None
    assert [c.uniqueid for c in (await store.read(calls.page, since=10.5, until=11.5))[0]] == ["u2"]


async def test_keys(store: Store) -> None:
    await store.run(keys.put, "rec-1", "aes-gcm", b"\x00\xffwrapped")
    await store.run(keys.put, "rec-1", "aes-cbc", b"\x00\xfe")
    assert await store.read(keys.get, "rec-1") == ("aes-cbc", b"\x00\xfe")
    assert await store.run(keys.forget, "rec-1")
    assert not await store.run(keys.forget, "rec-1")
    assert await store.read(keys.get, "rec-1") is None


async def test_servers(store: Store) -> None:
    await store.run(servers.heartbeat, "one", 1000.0, started_at=990.0, version="1", sinks=["crm"])
    await store.run(servers.heartbeat, "one", 1005.0, started_at=990.0, version="1", sinks=["crm", "archive"])
    await store.run(servers.heartbeat, "two", 1005.0, started_at=995.0)
    found = await store.read(servers.servers, 1006.0)
    assert [(s.node, s.sinks, s.version) for s in found] == [("one", ("archive", "crm"), "1"), ("two", (), "")]
    assert all(s.silent_seconds < 5 for s in found)
    await store.run(servers.goodbye, ["two"])
    assert [s.node for s in await store.read(servers.servers, 1006.0)] == ["one"]


async def test_after_commit_on_both(store: Store) -> None:
    called: list[str] = []

    def unit(conn: sa.Connection, name: str, fail: bool) -> None:
        after_commit(conn, lambda: called.append(name))
        journal.write(conn, name, at=1.0, event="x")
        if fail:
            raise ValueError(name)

    await store.run(unit, "a", False)
    with pytest.raises(ValueError, match="b"):
        await store.run(unit, "b", True)
    await store.run(unit, "c", False)
    assert called == ["a", "c"]
    assert await store.read(journal.history, "b") == []


async def test_a_cancelled_caller_does_not_undo_the_write(store: Store) -> None:
    task = asyncio.create_task(store.run(journal.write, "rec-1", at=1.0, event="x"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        while not await store.read(journal.history, "rec-1"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_closed_is_down(store_url: str) -> None:  # noqa: F811
    closed = open_store(store_url, node="one")
    with pytest.raises(StoreDown):
        await closed.run(journal.last_seq)
    await closed.start()
    await closed.stop()
    with pytest.raises(StoreDown):
        await closed.read(journal.last_seq)


async def test_found_by_who_talked_and_by_what_people_call_it(store: Store) -> None:
    talked = recording(1, linkedid="1700000000.9", facts={"talked_with": ["PJSIP/agent7-0000002a", "Local/x_y@q-1;1"]})
    for item in (talked, recording(2), recording(3, name="calls/10%", file_path="/rec/calls/10%.wav")):
        await store.run(recordings.insert, item)

    async def ids(**wanted: str) -> list[str]:
        found, _ = await store.read(catalogue.page, catalogue.RecordingFilter(**wanted))
        return [r.id for r in found]

    assert await ids(channel_prefix="PJSIP/agent7") == [talked.id]
    assert await ids(channel_prefix="Local/x_y@q") == [talked.id]
    assert await ids(channel_prefix="SIP/a-2") == ["rec-0002"]
    assert await ids(channel_prefix="agent7") == []
    assert await ids(search="AGENT7") == await ids(search="1700000000.9") == [talked.id]
    assert await ids(search="talked_with") == []

    async def called(text: str) -> list[str]:
        return [r.id for r in await store.read(catalogue.called_so, text)]

    assert await called("calls/1") == await called("1.wav") == await called("1700000000.1") == [talked.id]
    assert await called("10%") == ["rec-0003"]
    assert await called("%") == await called("alls/1") == []
