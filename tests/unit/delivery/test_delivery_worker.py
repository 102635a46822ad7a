"""The delivery worker on SQLite with a clock that the test turns: when it tries, and what it writes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fastagi.delivery.dispatch import Reschedule
from fastagi.delivery.inprocess import InProcessDispatcher
from fastagi.delivery.registry import SinkRegistry
from fastagi.delivery.sinks.composite import CompositeSink
from fastagi.delivery.worker import DeliveryWorker
from fastagi.domain.delivery import GIVE_UP_SECONDS, Delivery, DeliveryStatus
from fastagi.domain.metadata import RecordingMetadata
from fastagi.errors import SinkError, StoreDown, StoreError
from fastagi.store.queries import deliveries, journal, recordings
from fastagi.store.sqlite import SqliteStore
from support.delivery_harness import Clock, NotingSink, finish, finish_many, finish_unit, recording, until


class Office:
    """A store, a dispatcher and a courier, and ways to look at them."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.clock = clock
        self.path = path
        self.dead: list[Delivery] = []
        self.attempts: list[tuple[str, bool]] = []
        self.registry = SinkRegistry()
        self.store = SqliteStore(path, node="one", busy_seconds=0.1)

    async def open(self, **sinks: Any) -> Office:
        await self.store.start()
        for name, sink in sinks.items():
            self.registry.register(name, sink, loop="main")
        self.dispatcher = InProcessDispatcher(self.store, clock=self.clock)
        self.courier = DeliveryWorker(
            self.store,
            self.dispatcher,
            self.registry,
            clock=self.clock,
            random=lambda: 0.5,
            on_dead=lambda delivery, recording: self.dead.append(delivery),
            on_attempt=lambda delivery, outcome, seconds: self.attempts.append((delivery.sink, outcome.ok)),
        )
        await self.courier.start()
        return self

    async def close(self, drain: float = 5.0) -> None:
        await self.courier.stop(drain)
        await self.store.stop()

    def turn(self, seconds: float) -> None:
        self.clock.now += seconds
        self.dispatcher.nudge()

    async def finish(self, n: int, *sinks: str, **fields: Any) -> list[Delivery]:
        return await finish(self.store, self.courier, n, sinks or ("crm",), self.clock.now, **fields)

    async def get(self, delivery: Delivery) -> Delivery:
        found = await self.store.read(deliveries.get, delivery.id)
        assert found is not None
        return found

    async def reaches(self, delivery: Delivery, status: str, attempts: int | None = None) -> Delivery:
        async def there() -> bool:
            now = await self.get(delivery)
            return now.status == status and (attempts is None or now.attempts == attempts)

        await until(there)
        return await self.get(delivery)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    made = Office(tmp_path / "fastagi.db", Clock())
    yield made
    await made.close()


async def test_a_finished_recording_is_delivered_once(office: Office) -> None:
    sink = NotingSink()
    await office.open(crm=sink)
    [made] = await office.finish(1)
    done = await office.reaches(made, "delivered")
    assert (sink.seen, sink.deliveries, sink.attempts) == (["rec-000001"], [made.id], [1])
    assert (done.attempts, done.fence, done.done_at, done.last_error) == (1, 1, office.clock.now, "")
    assert office.attempts == [("crm", True)]
    assert office.courier.stats()["delivered"] == 1
    assert [e.event for e in await office.store.read(journal.history, "rec-000001")][-2:] == ["finished", "delivered"]


async def test_failed_transaction_sends_nothing(office: Office) -> None:
    """Nothing is sent for a transaction that failed."""
    sink = NotingSink()
    await office.open(crm=sink)

    def unit(conn: sa.Connection) -> None:
        finish_unit(conn, office.courier, recording(1), ("crm",), office.clock.now)
        raise ValueError("after all not")

    with pytest.raises(ValueError, match="after all"):
        await office.store.run(unit)
    [made] = await office.finish(2)
    await office.reaches(made, "delivered")
    assert sink.seen == ["rec-000002"]


@pytest.mark.parametrize("raised", [RuntimeError("oops"), SinkError("busy"), TimeoutError("mine"), KeyError("x")])
async def test_any_exception_is_retried(office: Office, raised: Exception) -> None:
    sink = NotingSink(lambda metadata: raised if len(sink.seen) < 3 else None)
    await office.open(crm=sink)
    [made] = await office.finish(1)
    waiting = await office.reaches(made, "waiting", attempts=1)
    assert waiting.next_at == office.clock.now + 5.0 * 0.75
    assert str(raised).strip("'") in waiting.last_error
    office.turn(3.7)
    await asyncio.sleep(0.05)
    assert sink.attempts == [1], "not before it is due"
    office.turn(0.1)
    waiting = await office.reaches(made, "waiting", attempts=2)
    assert waiting.next_at == office.clock.now + 10.0 * 0.75
    office.turn(7.5)
    await office.reaches(made, "delivered", attempts=3)
    assert sink.attempts == [1, 2, 3]
    assert len(set(sink.deliveries)) == 1, "the id is the same on every attempt"
    assert [a.ok for a in await office.store.read(deliveries.attempts, made.id)] == [False, False, True]


class Plain:
    """A plain sink that raises."""

    def __init__(self, raised: BaseException) -> None:
        self.raised = raised
        self.calls = 0

    def on_recording_complete(self, metadata: object) -> None:
        self.calls += 1
        raise self.raised


class SharedTask:
    """A sink that awaits a task of its own, which somebody cancelled."""

    def __init__(self) -> None:
        self.calls = 0
        self.connection: asyncio.Task[None] | None = None

    async def on_recording_complete(self, metadata: object) -> None:
        self.calls += 1
        if self.connection is None:
            self.connection = asyncio.create_task(asyncio.sleep(60))
            self.connection.cancel()
        await self.connection


class Async(Plain):
    async def on_recording_complete(self, metadata: object) -> None:  # type: ignore[override]
        self.calls += 1
        raise self.raised


class Panic(BaseException):
    """As pyo3's PanicException: no `Exception`."""


@pytest.mark.parametrize(
    ("sink", "said"),
    [
        (Async(asyncio.CancelledError()), "CancelledError: what it waited for was cancelled"),
        (SharedTask(), "CancelledError: what it waited for was cancelled"),
        (Async(SystemExit("usage: upload FILE")), "SystemExit: usage: upload FILE"),
        (Async(Panic("in Rust")), "Panic: in Rust"),
        (Plain(SystemExit(3)), "SystemExit: 3"),
        (Plain(StopIteration("x")), "StopIteration: x"),
        (Plain(asyncio.CancelledError()), "CancelledError: "),
        (Plain(KeyboardInterrupt()), "KeyboardInterrupt: "),
    ],
)
async def test_system_exit_is_a_failed_attempt(office: Office, sink: Any, said: str) -> None:
    """An exit or a cancellation raised by a sink is a failed attempt, too."""
    other = NotingSink()
    await office.open(crm=sink, other=other)
    [made, sister] = await office.finish(1, "crm", "other")
    waiting = await office.reaches(made, "waiting", attempts=1)
    assert waiting.next_at == office.clock.now + 5.0 * 0.75
    assert waiting.last_error == said.strip()
    await office.reaches(sister, "delivered")
    office.turn(3.8)
    await office.reaches(made, "waiting", attempts=2)
    assert sink.calls == 2, "it backs off"


async def test_stop_survives_sink_swallowing_cancellation(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop is not held by a sink that swallows its cancelling."""
    monkeypatch.setattr("fastagi.delivery.inprocess.CANCEL_SECONDS", 0.05)
    gate = asyncio.Event()

    async def deaf() -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                pass

    sink = NotingSink(lambda metadata: deaf())
    await office.open(crm=sink)
    [made] = await office.finish(1)
    await until(lambda: sink.running == 1)
    async with asyncio.timeout(10):
        await office.courier.stop(0.01)
    gate.set()
    await office.reaches(made, "delivered")


async def test_retry_after_is_honoured(office: Office) -> None:
    await office.open(crm=NotingSink(lambda metadata: SinkError("429", retry_after=300.0)))
    [made] = await office.finish(1)
    waiting = await office.reaches(made, "waiting", attempts=1)
    assert waiting.next_at == office.clock.now + 300.0


async def test_long_retry_after_outlives_restart(office: Office) -> None:
    """A long Retry-After outlives a restart and holds no other delivery."""
    asked = 20 * 3600.0
    sink = NotingSink(lambda metadata: SinkError("503", retry_after=asked) if len(sink.seen) < 2 else None)
    await office.open(crm=sink)
    [made] = await office.finish(1)
    waiting = await office.reaches(made, "waiting", attempts=1)
    assert waiting.next_at == office.clock.now + asked
    await office.courier.stop()
    await office.store.stop()
    office.clock.now += 60
    office.registry = SinkRegistry()
    office.store = SqliteStore(office.path, node="one", busy_seconds=0.1)
    await office.open(crm=sink)
    assert await office.get(made) == waiting, "a clock that was ahead is not what it waits for"
    sink.behave = lambda metadata: None
    [other] = await office.finish(2)
    await office.reaches(other, "delivered")
    office.turn(asked)
    await office.reaches(made, "delivered", attempts=2)


@pytest.mark.parametrize("asked", ["60", float("nan"), float("inf"), -5, True])
async def test_invalid_retry_after_is_ignored(office: Office, asked: Any) -> None:
    """A retry after that is no number is not used."""
    await office.open(crm=NotingSink(lambda metadata: SinkError("429", retry_after=asked)))
    [made] = await office.finish(1)
    waiting = await office.reaches(made, "waiting", attempts=1)
    assert waiting.next_at == office.clock.now + 5.0 * 0.75


async def test_final_refusal_makes_dead_letter(office: Office) -> None:
    """A refusal for good is dead at once, listed, reported, and can be retried."""
    sink = NotingSink(lambda metadata: SinkError("404 no such thing", retry=False) if len(sink.seen) == 1 else None)
    await office.open(crm=sink)
    [made] = await office.finish(1)
    dead = await office.reaches(made, "dead")
    assert office.dead == [dead]
    assert (await office.store.read(deliveries.page, status="dead"))[0] == [dead]
    assert office.courier.stats()["dead"] == 1
    with pytest.raises(StoreError, match="no delivery"):
        await office.courier.retry("dlv-none")
    await office.courier.retry(made.id)
    await office.reaches(made, "delivered", attempts=2)
    with pytest.raises(StoreError, match="is delivered"):
        await office.courier.retry(made.id)


async def test_day_long_outage_makes_dead_letters(office: Office) -> None:
    """A sink that is down for a day makes dead letters, not losses."""
    sink = NotingSink(lambda metadata: SinkError("503"))
    await office.open(crm=sink)
    [made] = await office.finish(1)
    start = office.clock.now
    times = []
    while (now := await office.get(made)).status != "dead":
        now = await office.reaches(made, "waiting", attempts=len(times) + 1)
        times.append(office.clock.now - start)
        office.turn(now.next_at - office.clock.now)
        # an open breaker may keep it a little longer
        before = len(times)
        await until(lambda before=before: office.turn(1.0) or len(sink.seen) > before)
        if len(sink.seen) > before:
            await until(lambda before=before: office.courier.stats()["attempts"] > before)
    assert office.dead[0].attempts == len(sink.seen)
    assert GIVE_UP_SECONDS <= office.clock.now - start < GIVE_UP_SECONDS + 600
    assert 72 <= len(sink.seen) <= 160
    assert times[:4] == pytest.approx([0, 4, 12, 27], abs=8)
    sink.behave = lambda metadata: None
    await office.courier.retry(made.id)
    await until(lambda: office.turn(30.0) or office.courier.stats()["delivered"] == 1)
    await office.reaches(made, "delivered")


async def test_retry_hours_survive_a_restart(office: Office) -> None:
    """The time counts from the first attempt, which is in the ledger."""
    sink = NotingSink(lambda metadata: SinkError("no"))
    sink.retry_hours = 1.0  # type: ignore[attr-defined]
    await office.open(crm=sink)
    [made] = await office.finish(1)
    await office.reaches(made, "waiting", attempts=1)
    await office.close()
    office.clock.now += 3601.0
    office.registry, office.store = SinkRegistry(), SqliteStore(office.path, node="one", busy_seconds=0.1)
    await office.open(crm=sink)
    assert (await office.reaches(made, "dead")).attempts == 2


async def test_long_wait_survives_start(office: Office) -> None:
    """A receiver asked for 100 h: a start took that for a clock that had been ahead, and called it at once."""
    sink = NotingSink(lambda metadata: SinkError("later", retry_after=360_000.0))
    sink.retry_hours = 200.0  # type: ignore[attr-defined]
    await office.open(crm=sink)
    [made] = await office.finish(1)
    before = await office.reaches(made, "waiting", attempts=1)
    await office.close()
    office.registry, office.store = SinkRegistry(), SqliteStore(office.path, node="one", busy_seconds=0.1)
    await office.open(crm=sink)
    assert (await office.get(made)).next_at == before.next_at == office.clock.now + 360_000.0


@pytest.mark.parametrize("by", [100 * 86_400.0, -86_400.0])
async def test_clock_set_kills_no_delivery(office: Office, by: float) -> None:
    """Set ahead by 100 days, the 72 h of each delivery were over; set back by a day, each waited that long."""
    sink = NotingSink(lambda metadata: SinkError("down") if len(sink.seen) < 3 else None)
    await office.open(crm=sink)
    [made] = await office.finish(1)
    await office.reaches(made, "waiting", attempts=1)
    office.clock.now += by
    office.courier.clock_set(by)
    await office.reaches(made, "waiting", attempts=2)  # it was due at once
    office.turn(3700)
    await office.reaches(made, "delivered", attempts=3)


async def test_slow_sink_holds_no_other(office: Office) -> None:
    """A slow sink holds no other sink and keeps its limit."""
    gate = asyncio.Event()
    slow, quick = NotingSink(lambda metadata: gate.wait()), NotingSink()
    slow.concurrency = 3  # type: ignore[attr-defined]
    await office.open(slow=slow, quick=quick)
    made = [(await office.finish(n, "slow", "quick"))[0] for n in range(20)]
    await until(lambda: len(quick.seen) == 20)
    assert slow.running == slow.most == 3
    gate.set()
    await until(lambda: len(slow.seen) == 20)
    await asyncio.gather(*(office.reaches(d, "delivered") for d in made))
    assert slow.most == 3


async def test_plain_sink_runs_in_own_thread(office: Office) -> None:
    gate = threading.Event()
    threads: list[str] = []

    class Plain:
        def on_recording_complete(self, metadata: object) -> None:
            threads.append(threading.current_thread().name)
            gate.wait(10)

    other = NotingSink()
    await office.open(plain=Plain(), other=other)
    [made, _] = await office.finish(1, "plain", "other")
    await until(lambda: bool(threads) and len(other.seen) == 1)
    assert threads[0].startswith("fastagi-sink-plain")
    gate.set()
    await office.reaches(made, "delivered")


async def test_hung_sink_is_cut_off(office: Office) -> None:
    """A sink that never returns is cut off."""
    sink = NotingSink(lambda metadata: asyncio.Event().wait())
    sink.time_limit_seconds = 0.05  # type: ignore[attr-defined]
    await office.open(crm=sink)
    [made] = await office.finish(1)
    waiting = await office.reaches(made, "waiting", attempts=1)
    assert waiting.last_error == "the sink took longer than 0.05 s"
    assert sink.running == 0


async def test_open_breaker_counts_no_attempts(office: Office) -> None:
    """An open breaker probes with one delivery and counts no attempts of the others."""
    down = True
    sink = NotingSink(lambda metadata: SinkError("connection refused") if down else None)
    await office.open(crm=sink)
    made = [(await office.finish(n))[0] for n in range(5)]
    await asyncio.gather(*(office.reaches(d, "waiting", attempts=1) for d in made))
    assert office.courier.stats()["down"] == ["crm"]
    later = [(await office.finish(n))[0] for n in range(100, 200)]
    office.turn(4.9)
    await asyncio.sleep(0.05)
    assert len(sink.seen) == 5, "nothing is tried while it is open"
    office.turn(0.2)
    await until(lambda: len(sink.seen) == 6)
    await asyncio.sleep(0.05)
    assert len(sink.seen) == 6, "one probe"
    office.turn(5.0)
    await asyncio.sleep(0.05)
    assert len(sink.seen) == 6, "the pause grows"
    down = False
    office.turn(5.1)
    await until(lambda: office.turn(1.0) or office.courier.stats()["delivered"] == 105)
    assert office.courier.stats()["down"] == []
    counts = [(await office.get(d)).attempts for d in later]
    assert sum(counts) <= len(later) + 1, "those that waited were tried once each"


async def test_refusals_do_not_open_the_breaker(office: Office) -> None:
    sink = NotingSink(lambda metadata: SinkError("400", retry=False))
    await office.open(crm=sink)
    made = [(await office.finish(n))[0] for n in range(12)]
    await asyncio.gather(*(office.reaches(d, "dead") for d in made))
    assert office.courier.stats()["down"] == []


async def test_recordings_of_call_arrive_in_order(office: Office) -> None:
    fail = {"rec-000001"}
    sink = NotingSink(lambda metadata: SinkError("no") if metadata.extra["recording_id"] in fail else None)
    await office.open(crm=sink)
    made = []
    for n in (1, 2, 3):
        made += await office.finish(n, uniqueid="one-call")
        office.clock.now += 0.01
    await office.finish(4)
    await office.reaches(made[0], "waiting", attempts=1)
    await until(lambda: sink.seen == ["rec-000001", "rec-000004"])
    await asyncio.sleep(0.05)
    fail.clear()
    office.turn(10)
    await asyncio.gather(*(office.reaches(d, "delivered") for d in made))
    assert [s for s in sink.seen if s != "rec-000004"] == ["rec-000001", "rec-000001", "rec-000002", "rec-000003"]


async def test_dead_delivery_frees_the_next(office: Office) -> None:
    """A dead delivery lets the next of its call go."""
    sink = NotingSink(lambda m: SinkError("no", retry=False) if m.extra["recording_id"] == "rec-000001" else None)
    await office.open(crm=sink)
    [first] = await office.finish(1, uniqueid="one-call")
    office.clock.now += 0.01
    [second] = await office.finish(2, uniqueid="one-call")
    await office.reaches(first, "dead")
    await office.reaches(second, "delivered")


async def test_composite_has_delivery_per_leaf(office: Office) -> None:
    """A leaf that took its delivery is not called again for another one's failure."""
    good, bad = NotingSink(), NotingSink(lambda metadata: SinkError("no") if len(bad.seen) < 3 else None)
    await office.open()
    names = office.registry.register("both", CompositeSink(good, CompositeSink(bad)))
    made = await office.finish(1, *names)
    assert [d.sink for d in made] == [
        "both/support.delivery_harness.NotingSink.1of2",
        "both/support.delivery_harness.NotingSink.2of2",
    ]
    for attempts in (1, 2):
        await office.reaches(made[1], "waiting", attempts=attempts)  # written, so that the clock turns past its wait
        office.turn(60)
    await office.reaches(made[1], "delivered")
    assert len(good.seen) == 1
    assert len(bad.seen) == 3


class Child(NotingSink):
    """One that differs from others by what it was made with."""

    def __init__(self, name: str, *, down: bool = False) -> None:
        super().__init__(lambda metadata: SinkError("down") if self.down else None)
        self.name = name
        self.down = down


async def restarted(office: Office, **sinks: Any) -> None:
    await office.courier.stop()
    await office.store.stop()
    office.registry = SinkRegistry()
    office.store = SqliteStore(office.path, node="one", busy_seconds=0.1)
    await office.open(**sinks)


async def test_child_keeps_deliveries_after_restart(office: Office) -> None:
    """A delivery that waits for a child reaches that one after a restart with other children."""
    await office.open(both=CompositeSink(Child("archive"), Child("billing", down=True)))
    made = await office.finish(1, *office.registry.names("both"))
    await office.reaches(made[0], "delivered")
    await office.reaches(made[1], "waiting", attempts=1)
    crm, archive, billing = Child("crm"), Child("archive"), Child("billing")
    await restarted(office, both=CompositeSink(crm, archive, billing))
    office.turn(10)
    await office.reaches(made[1], "delivered", attempts=2)
    assert (crm.seen, archive.seen, billing.seen) == ([], [], ["rec-000001"])


async def test_deliveries_of_ambiguous_child_are_parked(office: Office) -> None:
    """A delivery that waits for a child which nothing tells from others is parked."""
    down = NotingSink(lambda metadata: SinkError("down"))
    await office.open(both=CompositeSink(NotingSink(), down))
    made = await office.finish(1, *office.registry.names("both"))
    await office.reaches(made[1], "waiting", attempts=1)
    others = NotingSink(), NotingSink(), NotingSink()
    await restarted(office, both=CompositeSink(*others))
    office.turn(10)
    await office.reaches(made[1], "parked")
    assert [sink.seen for sink in others] == [[], [], []]
    back = NotingSink()
    office.registry.register(made[1].sink, back)  # the operator knows whose it is
    await office.reaches(made[1], "delivered")
    assert back.seen == ["rec-000001"]


async def test_composite_with_method_is_one_sink(office: Office) -> None:
    """Its method is called and tried again as one."""

    class Own(CompositeSink):
        calls = 0

        async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
            self.calls += 1
            await super().on_recording_complete(metadata)

    good, bad = NotingSink(), NotingSink(lambda m: SinkError("busy", retry_after=60) if len(bad.seen) < 2 else None)
    sink = Own(good, bad)
    await office.open(own=sink)
    [made] = await office.finish(1, "own")
    waiting = await office.reaches(made, "waiting", attempts=1)
    assert (waiting.last_error, waiting.next_at) == ("busy", office.clock.now + 60)
    office.turn(60)
    await office.reaches(made, "delivered", attempts=2)
    assert sink.calls == 2


async def test_unnamed_sink_ends_with_process(office: Office) -> None:
    """An object without a name lives with its process."""
    sink = NotingSink()
    await office.open()
    [name] = office.registry.names(sink)
    [made] = await office.finish(1, name)
    await office.reaches(made, "delivered")
    await until(lambda: name not in office.registry)

    stuck = NotingSink(lambda metadata: SinkError("no"))
    [name] = office.registry.names(stuck)
    [made] = await office.finish(2, name)
    await office.reaches(made, "waiting", attempts=1)
    await office.courier.stop(1.0)
    await office.store.stop()

    after = Office(office.path, office.clock)
    await after.open()
    parked = await after.get(made)
    assert parked.status is DeliveryStatus.PARKED, "what it missed is shown, not dropped"
    assert parked.sink.startswith("object:NotingSink:")
    with pytest.raises(StoreError, match=r"went with its process.*there are: none"):
        await after.courier.retry(made.id)
    crm = NotingSink()
    after.registry.register("crm", crm)
    await after.courier.retry(made.id, to="crm")
    await after.reaches(made, "delivered")
    assert crm.deliveries == [made.id]
    await after.close()
    await office.open()


async def test_missing_sink_parks_its_deliveries(office: Office) -> None:
    """Deliveries of a sink that is gone are parked until it is back."""
    await office.open()
    made = [(await office.finish(n, "gone"))[0] for n in range(3)]
    await office.courier.stop()
    await office.store.stop()
    await office.open()
    assert {(await office.get(d)).status for d in made} == {DeliveryStatus.PARKED}
    with pytest.raises(StoreError, match="no server that runs has a sink 'gone'"):
        await office.courier.retry(made[0].id)
    sink = NotingSink()
    office.registry.register("gone", sink)  # while it runs
    await asyncio.gather(*(office.reaches(d, "delivered") for d in made))
    assert len(sink.seen) == 3


@pytest.mark.slow
async def test_backlog_stays_out_of_memory(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog slows nothing and stays out of memory."""
    monkeypatch.setattr("fastagi.delivery.inprocess.HELD", 100)
    monkeypatch.setattr("fastagi.delivery.inprocess.LOW", 25)
    down = True
    sink, quick = NotingSink(lambda metadata: SinkError("down") if down else None), NotingSink()
    await office.open(crm=sink, quick=quick)
    await office.store.run(finish_many, office.courier, 0, 1500, "crm", office.clock.now)
    await until(lambda: office.courier.stats()["down"] == ["crm"])
    assert len(office.dispatcher._queues["deliver.crm"].waiting) <= 110
    for n in range(20_000, 20_020):
        [made] = await office.finish(n, "quick")
        await office.reaches(made, "delivered")
    down = False
    await until(lambda: office.turn(61.0) or office.courier.stats()["delivered"] == 1520, 60)
    assert len(set(sink.seen)) == 1500
    assert len(sink.seen) <= 1530


async def test_restart_resumes_running_and_waiting(office: Office) -> None:
    never = asyncio.Event()
    sink = NotingSink(lambda metadata: never.wait())
    await office.open(crm=sink)
    running = [(await office.finish(n))[0] for n in range(3)]
    await until(lambda: sink.running == 3)
    # a kill: nothing is given back
    for task in list(office.dispatcher._tasks):
        task.cancel()
    office.courier._own = lambda coroutine: coroutine.close() or asyncio.sleep(0)  # type: ignore[method-assign]
    await office.courier.stop(0)
    await office.store.stop()

    after = Office(office.path, office.clock)
    calm = NotingSink()
    await after.open(crm=calm)
    await asyncio.gather(*(after.reaches(d, "delivered") for d in running))
    assert sorted(calm.deliveries) == sorted(d.id for d in running)
    assert {(await after.get(d)).fence for d in running} == {2}
    await after.close()
    await office.open()


async def test_stop_gives_back_unfinished(office: Office) -> None:
    """A stop drains, and gives back the attempts that do not end."""
    quick, never = asyncio.Event(), asyncio.Event()
    await office.open(ends=NotingSink(lambda metadata: quick.wait()), hangs=NotingSink(lambda metadata: never.wait()))
    made = await office.finish(1, "ends", "hangs")
    await until(lambda: office.courier.stats()["running"] == 2)
    stopping = asyncio.create_task(office.courier.stop(0.3))
    await asyncio.sleep(0)
    quick.set()
    await stopping
    assert (await office.get(made[0])).status is DeliveryStatus.DELIVERED
    left = await office.get(made[1])
    assert (left.status, left.attempts) == (DeliveryStatus.WAITING, 0)
    assert [d.id for d in await office.store.read(deliveries.due, 10)] == [made[1].id]


async def test_outcome_survives_ledger_outage(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outcome is written however long the ledger is down."""
    monkeypatch.setattr("fastagi.delivery.ledger.SETTLE_SECONDS", (0.01, 0.05))
    gate = asyncio.Event()
    sink = NotingSink(lambda metadata: gate.wait())
    await office.open(crm=sink)
    [made] = await office.finish(1)
    await until(lambda: sink.running == 1)
    run, refused = office.store.run, 0

    async def down(unit: Any, /, *args: Any, **kwargs: Any) -> Any:
        nonlocal refused
        if refused < 5:
            refused += 1
            raise StoreDown("database is locked")
        return await run(unit, *args, **kwargs)

    monkeypatch.setattr(office.store, "run", down)
    gate.set()
    await office.reaches(made, "delivered", attempts=1)
    assert refused == 5
    assert len(sink.seen) == 1


async def test_old_fence_is_refused(office: Office) -> None:
    """An outcome with an old fence is refused."""
    gate = asyncio.Event()
    sink = NotingSink(lambda metadata: gate.wait() if len(sink.seen) == 1 else None)
    await office.open(crm=sink)
    [made] = await office.finish(1)
    await until(lambda: sink.running == 1)
    [due] = await office.store.run(deliveries.release, [], office.clock.now)  # somebody thought us dead
    taken = await office.store.run(deliveries.claim, due.id, office.clock.now, "two")
    gate.set()
    await until(lambda: office.courier.stats()["refused_outcomes"] == 1)
    now = await office.get(made)
    assert (now.status, now.fence, now.attempts) == (DeliveryStatus.RUNNING, taken.fence, 0)


async def test_running_delivery_is_not_begun_again(office: Office) -> None:
    gate = asyncio.Event()
    sink = NotingSink(lambda metadata: gate.wait())
    await office.open(crm=sink)
    [made] = await office.finish(1)
    await until(lambda: sink.running == 1)
    [due] = await office.store.run(deliveries.release, [], office.clock.now)  # somebody thought us dead
    with pytest.raises(Reschedule):
        await office.courier._deliver("crm", due.id)
    gate.set()
    await until(lambda: sink.running == 0)
    assert len(sink.seen) == 1
    office.dispatcher.refresh("deliver.crm")
    await office.reaches(made, "delivered")


async def test_local_file_goes_after_every_sink(office: Office, tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(b"RIFF")
    keep, archive = NotingSink(lambda metadata: SinkError("no") if len(keep.seen) < 2 else None), NotingSink()
    archive.delete_local = True  # type: ignore[attr-defined]
    await office.open(archive=archive, crm=keep)
    made = await office.finish(1, "archive", "crm", file_path=str(file))
    await office.reaches(made[0], "delivered")
    await office.reaches(made[1], "waiting", attempts=1)
    assert file.exists()
    office.turn(10)
    await office.reaches(made[1], "delivered")
    await until(lambda: not file.exists())
    found = await office.store.read(recordings.get, "rec-000001")
    assert found is not None
    assert found.deleted_at == office.clock.now
    assert [e.event for e in await office.store.read(journal.history, "rec-000001")][-1] == "file_removed"


async def test_hold_keeps_the_local_file(office: Office, tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(b"RIFF")
    archive = NotingSink()
    archive.delete_local = True  # type: ignore[attr-defined]
    await office.open(archive=archive)
    [made] = await office.finish(1, "archive", file_path=str(file), legal_hold=True)
    await office.reaches(made, "delivered")
    [other] = await office.finish(2, "archive")
    await office.reaches(other, "delivered")
    assert file.exists()
