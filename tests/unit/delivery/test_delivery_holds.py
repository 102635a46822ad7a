"""A sink whose receiver refuses everything is held: nothing dies, one delivery is tried, and a restart goes on so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from test_delivery_worker import Office

from fastagi.delivery.holding import Change, SinkHolds
from fastagi.delivery.registry import SinkRegistry
from fastagi.domain.delivery import Delivery, Outcome, SinkRefusals
from fastagi.domain.metadata import RecordingMetadata
from fastagi.errors import SinkError
from fastagi.store.queries import holds
from fastagi.store.sqlite import SqliteStore
from support.delivery_harness import Clock, NotingSink, until

REFUSED = Outcome(False, "401", retry=False, refused=True)


class Receiver(NotingSink):
    """Refuses everything while `wrong` says so, and everything of `never` for good."""

    def __init__(self) -> None:
        super().__init__(self.answer)
        self.wrong = True
        self.never: set[str] = set()

    def answer(self, metadata: RecordingMetadata) -> Exception | None:
        if self.wrong:
            return SinkError("https://crm: answered 401: wrong signature", retry=False, refused=True)
        if metadata.extra["recording_id"] in self.never:
            return SinkError("https://crm: answered 404", retry=False, refused=True)
        return None


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    made = Office(tmp_path / "fastagi.db", Clock())
    yield made
    await made.close()


async def restart(office: Office, sink: NotingSink) -> None:
    await office.close()
    office.registry, office.store = SinkRegistry(), SqliteStore(office.path, node="one", busy_seconds=0.1)
    await office.open(crm=sink)


async def refuse_three(office: Office) -> list[Delivery]:
    """Two die before the third holds the sink, and wait again."""
    made = []
    for n, status in ((1, "dead"), (2, "dead"), (3, "waiting")):
        [delivery] = await office.finish(n)
        made.append(await office.reaches(delivery, status, attempts=1))
    for delivery in made:
        await office.reaches(delivery, "waiting")
    return made


async def test_a_wrong_secret_kills_no_delivery(office: Office) -> None:
    """Each was dead at its first 401, for as long as nobody looked."""
    sink = Receiver()
    await office.open(crm=sink)
    with structlog.testing.capture_logs() as lines:
        made = await refuse_three(office)
        assert list(office.courier.held) == ["crm"]
        made += [(await office.finish(n))[0] for n in range(10, 30)]
        await asyncio.sleep(0.05)
        assert len(sink.seen) == 3, "they wait"
        for tried in (4, 5):
            office.turn(61.0)
            await until(lambda tried=tried: len(sink.seen) == tried)
            await until(lambda tried=tried: office.courier.stats()["attempts"] == tried)
            await asyncio.sleep(0.05)
            assert len(sink.seen) == tried, "one is tried"
        sink.wrong = False
        office.turn(61.0)
        for delivery in made:
            await office.reaches(delivery, "delivered")
    assert office.courier.held == {}
    assert await office.store.read(holds.known) == {}
    said = [line["event"] for line in lines if line["event"] in ("sink_held", "sink_released", "sink_up")]
    assert said == ["sink_held", "sink_released", "sink_up"]


async def test_a_hold_outlasts_retry_hours(office: Office) -> None:
    """Nobody mended it over a long weekend: nothing is dead, and each has its whole time afterwards."""
    sink = Receiver()
    await office.open(crm=sink)
    made = await refuse_three(office)
    office.turn(80 * 3600.0)
    await until(lambda: len(sink.seen) == 4)
    await until(lambda: office.courier.stats()["attempts"] == 4)
    assert [(await office.get(d)).status.value for d in made] == ["waiting"] * 3
    sink.wrong = False
    office.turn(3600.0)
    for delivery in made:
        await office.reaches(delivery, "delivered")


async def test_a_restart_keeps_the_hold(office: Office) -> None:
    sink = Receiver()
    await office.open(crm=sink)
    made = await refuse_three(office)
    since = office.courier.held["crm"].held_since
    await restart(office, sink)
    assert office.courier.held["crm"].held_since == since
    assert office.courier.stats()["down"] == ["crm"]
    [later] = await office.finish(4)
    office.turn(10.0)
    await until(lambda: len(sink.seen) == 4)
    await office.reaches(later, "waiting")
    sink.wrong = False
    office.turn(61.0)
    for delivery in (*made, later):
        await office.reaches(delivery, "delivered")


async def test_a_restart_keeps_the_count(office: Office) -> None:
    """Two refusals before it and one after hold the sink, and take back those two."""
    sink = Receiver()
    await office.open(crm=sink)
    made = [(await office.finish(n))[0] for n in (1, 2)]
    for delivery in made:
        await office.reaches(delivery, "dead")
    await restart(office, sink)
    [third] = await office.finish(3)
    for delivery in (*made, third):
        await office.reaches(delivery, "waiting")
    assert list(office.courier.held) == ["crm"]


async def test_one_refused_recording_dies_alone(office: Office) -> None:
    sink = Receiver()
    sink.wrong, sink.never = False, {"rec-000002", "rec-000003", "rec-000005"}
    await office.open(crm=sink)
    for n in range(1, 7):
        [made] = await office.finish(n)
        await office.reaches(made, "dead" if n in (2, 3, 5) else "delivered")
    assert office.courier.held == {}


async def test_many_at_once_all_wait(office: Office) -> None:
    """Whichever order the ledger takes their outcomes in."""
    sink, gate = Receiver(), asyncio.Event()
    answer = sink.answer

    async def refuse(metadata: RecordingMetadata) -> None:
        await gate.wait()
        fault = answer(metadata)
        if fault is not None:
            raise fault

    sink.behave = refuse
    await office.open(crm=sink)
    made = [(await office.finish(n))[0] for n in range(8)]
    await until(lambda: sink.running == 8)
    gate.set()
    await until(lambda: office.courier.stats()["attempts"] == 8)
    assert {(await office.get(d)).status.value for d in made} == {"waiting"}


async def test_a_reload_tries_a_held_sink(office: Office) -> None:
    """The operator mended the secret: the sink of that name is another object, tried within moments, and released."""
    await office.open(crm=Receiver())
    made = await refuse_three(office)
    office.turn(600.0)  # the next probe is far by now
    await asyncio.sleep(0.05)
    office.registry.remove("crm")
    assert office.courier.held == {}
    mended = Receiver()
    mended.wrong = False
    office.registry.register("crm", mended, loop="main")
    assert list(office.courier.held) == ["crm"]
    office.turn(6.0)
    for delivery in made:
        await office.reaches(delivery, "delivered")
    assert office.courier.held == {}
    assert await office.store.read(holds.known) == {}


async def test_a_gone_sink_is_forgotten(office: Office) -> None:
    """Nobody has it: its hold is shown no longer."""
    sink = Receiver()
    await office.open(crm=sink)
    await refuse_three(office)
    await office.close()
    office.registry, office.store = SinkRegistry(), SqliteStore(office.path, node="one", busy_seconds=0.1)
    await office.open(other=sink)
    assert await office.store.read(holds.known) == {}


def test_other_servers_are_followed() -> None:
    """On PostgreSQL one finds the refusals, or the first success; the others read of it."""
    mine, held = SinkHolds(), SinkRefusals(("a", "b", "c"), 100.0, "401")
    assert mine.adopt({"crm": held}, 101.0) == {"crm": Change.HELD}
    assert mine.adopt({"crm": held}, 102.0) == {}
    assert mine.adopt({}, 103.0) == {}, "it may not be written yet"
    assert mine.adopt({}, 200.0) == {"crm": Change.RELEASED}
    assert mine.note("crm", "d", REFUSED, 201.0) is Change.COUNTED
    assert mine.adopt({}, 300.0) == {}, "what it counted itself stays"
