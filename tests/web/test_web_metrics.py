"""/metrics: the figures move with what happens, are bounded in number, and cost the event loop next to nothing."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import structlog.testing

from fastagi.domain.delivery import Delivery, DeliveryStatus, Outcome
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.states import Cause
from fastagi.errors import SinkError, StoreDown
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.runtime.steady_clock import SteadyClock
from fastagi.web import disks, lag
from fastagi.web.counters import FLAWS, MOST_SINKS, Observations, SinkLabels
from support.delivery_harness import finish_many
from support.web_harness import web_scene


async def test_delivered_call_moves_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is recorded and delivered moves the figures."""
    monkeypatch.setattr(disks, "FRESH_SECONDS", 0.0)
    async with web_scene(tmp_path) as scene:
        before = await scene.metrics()
        assert before["fastagi_recordings_total"][(("cause", "HANGUP"),)] == 0, "a rate needs the zero"
        call = scene.ami.call()
        job = await scene.record(call)
        await scene.until(lambda: scene.grown() > 0)
        running = await scene.metrics()
        active = running["fastagi_recordings_active"]
        assert active[(("asterisk", "pbx"), ("phase", "active"))] == 1
        assert running["fastagi_asterisk_channels"][(("asterisk", "pbx"),)] == 1
        assert running["fastagi_ami_up"][(("asterisk", "pbx"),)] == 1
        assert running["fastagi_recording_start_seconds_count"][()] == 1
        assert running["fastagi_recording_start_seconds_sum"][()] < 10
        assert running["fastagi_spool_files"][(("path", str(scene.spool)),)] == 1
        scene.ami.hangup(call)
        assert await job.wait(20)
        await scene.until(lambda: scene.sink.got)
        await scene.until(lambda: scene.parts.courier.stats()["delivered"])
        after = await scene.metrics()
        assert after["fastagi_recordings_total"][(("cause", "HANGUP"),)] == 1
        assert sum(after["fastagi_recordings_total"].values()) == 1
        assert after["fastagi_recordings_active"][(("asterisk", "pbx"), ("phase", "active"))] == 0
        assert after["fastagi_finish_seconds_count"][()] == 1
        assert after["fastagi_recorded_seconds_total"][()] == job.recording.audio_seconds
        assert after["fastagi_recorded_bytes_total"][()] == job.recording.bytes
        sink = ("sink", "recording_sink")
        assert after["fastagi_deliveries_total"][(("outcome", "delivered"), sink)] == 1
        assert after["fastagi_delivery_seconds_count"][(sink,)] == 1
        assert after["fastagi_delivered_after_seconds_count"][(sink,)] == 1
        assert after["fastagi_deliveries_waiting"][(sink, ("status", "waiting"))] == 0
        assert after["fastagi_ami_actions_total"][(("asterisk", "pbx"),)] > 0
        assert after["fastagi_ami_events_total"][(("asterisk", "pbx"), ("wanted", "yes"))] > 0


async def test_failed_start_counts_as_error(tmp_path: Path) -> None:
    """A recording that could not start counts as error."""
    async with web_scene(tmp_path) as scene:
        scene.spool.rmdir()
        job = await scene.record(scene.ami.call())
        assert job.recording.cause is Cause.ERROR
        assert await scene.metric("fastagi_recordings_total", cause="ERROR") == 1
        assert await scene.metric("fastagi_recording_start_seconds_count") == 0


async def test_refusing_and_down_sinks_differ(tmp_path: Path) -> None:
    """A refusing sink shows dead deliveries, and one that is down shows as down."""
    async with web_scene(tmp_path) as scene:
        sink = "recording_sink"
        scene.sink.fault = SinkError("no such customer", retry=False)
        await scene.recorded("calls/1")
        await scene.until(lambda: scene.parts.courier.stats()["dead"] == 1)
        figures = await scene.metrics()
        assert figures["fastagi_deliveries_waiting"][(("sink", sink), ("status", "dead"))] == 1
        assert figures["fastagi_deliveries_total"][(("outcome", "dead"), ("sink", sink))] == 1
        assert figures["fastagi_deliveries_oldest_seconds"][(("sink", sink),)] == 0, "dead ones do not wait"
        assert figures["fastagi_sink_down"][(("sink", sink),)] == 0
        breaker = scene.parts.courier._breakers[sink]
        while not breaker.is_open:
            breaker.failed(time.time())
        assert await scene.metric("fastagi_sink_down", sink=sink) == 1


async def test_backlog_shows_depth_and_age(tmp_path: Path) -> None:
    """A backlog shows its depth and the age of its oldest delivery."""
    async with web_scene(tmp_path) as scene:
        at = time.time() - 7200
        scene.sink.fault = SinkError("later", retry_after=3600)
        await scene.parts.store.run(finish_many, scene.parts.courier, 0, 20, "recording_sink", at)

        async def twenty() -> bool:
            found = (await scene.metrics())["fastagi_deliveries_waiting"]
            pending = (found[(("sink", "recording_sink"), ("status", s))] for s in ("waiting", "running"))
            return sum(pending) == 20

        await scene.until(twenty)
        assert 7200 <= await scene.metric("fastagi_deliveries_oldest_seconds", sink="recording_sink") < 7400


async def test_lost_ledger_shows_as_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that is gone shows as down and leaves its figures out."""
    async with web_scene(tmp_path) as scene:
        store = scene.parts.store

        async def gone(*args: object) -> None:
            raise StoreDown("locked")

        with monkeypatch.context() as patch:
            for way in ("read", "search", "run"):
                patch.setattr(store, way, gone)
            patch.setattr(store, "_well", lambda: None)  # a write that was under way changes nothing
            store._ill(StoreDown("locked"))
            job = await scene.record(scene.ami.call())
            assert job.recording.state == "RECORDING", "a call is recorded all the same"
            figures = await scene.metrics()
            assert figures["fastagi_store_up"][()] == 0
            assert 0 < figures["fastagi_ledger_backlog"][()] <= scene.parts.recorder.parts.context.journal.behind
            assert "fastagi_deliveries_waiting" not in figures, "old figures would look like good ones"
            assert figures["fastagi_scrape_faults_total"][(("what", "ledger"),)] == 1
        await scene.until(lambda: not scene.parts.recorder.parts.context.journal.behind)
        assert await scene.metric("fastagi_store_up") == 1


async def test_alarms_of_running_recordings_are_counted(tmp_path: Path) -> None:
    async with web_scene(tmp_path) as scene:
        job = await scene.record(scene.ami.call())
        job.alarms |= {"silent", "one_sided"}
        assert await scene.metric("fastagi_recordings_silent") == 1
        assert await scene.metric("fastagi_recordings_one_sided") == 1
        assert await scene.metric("fastagi_recordings_stalled") == 0


async def test_clock_set_is_counted(tmp_path: Path) -> None:
    """A clock that was set is counted, and shown as a warning until nothing is recorded."""
    by = 0.0
    clock = SteadyClock(lambda: time.time() + by)
    async with web_scene(tmp_path, clock=clock) as scene:
        call = scene.ami.call()
        job = await scene.record(call)
        by = 3600.0
        await scene.until(lambda: clock.jumps)
        assert await scene.metric("fastagi_clock_jumps_total") == 1
        assert await scene.metric("fastagi_clock_off_seconds") == pytest.approx(3600, abs=1)
        status, body = await scene.get("/readyz")
        assert (status, [w["what"] for w in body["warnings"]]) == (200, ["clock"])
        assert "+3600.0 s" in body["warnings"][0]["problem"]
        scene.ami.hangup(call)
        assert await job.wait(20)
        await scene.until(lambda: abs(clock.off_seconds) < 1)
        assert (await scene.get("/readyz"))[1]["warnings"] == []
        assert await scene.metric("fastagi_clock_jumps_total") == 1


async def test_scraped_names_are_in_guide(tmp_path: Path, registered: set[str]) -> None:
    """Every name of a scrape is in the guide or belongs to the process."""
    async with web_scene(tmp_path) as scene:
        await scene.recorded()
        _, text = await scene.get("/metrics")
    names = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    assert {n for n in names if not n.startswith("process_")} <= registered


async def test_refused_agi_peers_are_counted(tmp_path: Path) -> None:
    async with web_scene(tmp_path, agi={"port": 0, "allow": ["192.0.2.1"]}) as scene:
        reader, writer = await asyncio.open_connection("127.0.0.1", scene.parts.agi.port)
        assert await reader.read() == b""
        writer.close()
        assert await scene.metric("fastagi_agi_sessions_total", outcome="refused") == 1
        assert await scene.metric("fastagi_agi_sessions_total", outcome="accepted") == 0


async def test_scrape_does_not_hold_loop(tmp_path: Path) -> None:
    """With ten thousand recordings and a full queue a scrape does not hold the loop."""
    async with web_scene(tmp_path) as scene:
        scene.sink.fault = SinkError("down for the day", retry_after=3600)
        store, courier = scene.parts.store, scene.parts.courier
        # for a sink that nobody here has: they wait, and nothing works at them while the clock is looked at
        await store.run(finish_many, courier, 0, 10_000, "elsewhere", time.time())
        template = Recording("rec-x", "here", "pbx", "SIP/a", "1.1", "n", "/n.wav", pieces=(Segment("/spool/x.wav"),))
        for n in range(2_000):
            scene.parts.recorder.parts.context.jobs.add(
                ActiveRecording(replace(template, id=f"rec-{n}", uniqueid=f"1.{n}"))
            )
        held: list[float] = []

        async def tick() -> None:
            while True:
                started = time.perf_counter()
                await asyncio.sleep(0)
                held.append(time.perf_counter() - started)

        await scene.metrics()
        metrics = scene.parts.http.metrics
        ticking = asyncio.create_task(tick())
        longest = []
        for _ in range(5):  # the best of five: this machine has other things to do
            held.clear()
            text = await metrics.text()
            longest.append(max(held))
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
        # parked as soon as the upkeep has come by: nobody has that sink
        assert re.search(rb'fastagi_deliveries_waiting\{sink="elsewhere",status="(waiting|parked)"\} 10000\.0', text)
        assert min(longest) < 0.03, f"10 ms are promised; {[round(x * 1000, 1) for x in longest]} ms"


async def test_scrapes_at_once_share_one_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with web_scene(tmp_path) as scene:
        metrics, made = scene.parts.http.metrics, []
        real = metrics.text

        async def counted() -> bytes:
            made.append(1)
            await asyncio.sleep(0.2)
            return await real()

        monkeypatch.setattr(metrics, "text", counted)
        answers = await asyncio.gather(*(scene.get("/metrics") for _ in range(10)))
        assert {status for status, _ in answers} == {200}
        assert len(made) == 1


def test_sink_labels_are_bounded() -> None:
    """Sink names are bounded, and unnamed objects share a label."""
    labels = SinkLabels()
    assert {labels.of(f"object:Crm:{n}@abc") for n in range(1000)} == {"object"}
    assert len({labels.of(f"sink-{n}") for n in range(10_000)}) == MOST_SINKS + 1
    assert labels.of("sink-0") == "sink-0"
    assert labels.of("one-more") == "other"


@pytest.mark.parametrize(
    ("outcome", "status", "told"),
    [
        (Outcome(True), DeliveryStatus.DELIVERED, "delivered"),
        (Outcome(False, "503"), DeliveryStatus.WAITING, "failed"),
        (Outcome(False, "404", retry=False), DeliveryStatus.DEAD, "dead"),
    ],
)
def test_each_attempt_counts_once(outcome: Outcome, status: DeliveryStatus, told: str) -> None:
    observed = Observations(clock=lambda: 1030.0)
    observed.attempt(Delivery("d", "r", "crm", status=status, created_at=1000.0), outcome, 0.5)
    value = observed.registry.get_sample_value
    assert value("fastagi_deliveries_total", {"sink": "crm", "outcome": told}) == 1
    assert value("fastagi_delivery_seconds_sum", {"sink": "crm"}) == 0.5
    arrived = value("fastagi_delivered_after_seconds_sum", {"sink": "crm"})
    assert arrived == (30.0 if outcome.ok else None)


def test_flaws_of_finished_recordings_are_counted() -> None:
    observed = Observations()
    done = Recording(
        "rec-1", "here", "pbx", "SIP/a", "1.1", "n", "/n.wav", cause=Cause.HANGUP, audio_seconds=2.5, bytes=100,
        ended_at=100.0, finished_at=100.25, facts={"silent": False, "one_sided": True, "salvaged": True},
    )  # fmt: skip
    observed.journal(done, "finished", {})
    for facts in ({"clipped": 5, "limited": False}, {"clipped": 5, "limited": True}, {"clipped": 0, "limited": False}):
        observed.journal(replace(done, facts=facts, audio_seconds=0.0), "finished", {})
    value = observed.registry.get_sample_value
    found = {f: value("fastagi_recordings_flawed_total", {"flaw": f}) for f in FLAWS}
    assert found == {"silent": 0, "one_sided": 1, "salvaged": 1, "clipped": 1}
    assert value("fastagi_finish_seconds_sum") == 1.0


def test_resumed_recording_has_no_start_time() -> None:
    """A recording that is found running after a restart does not count as a start."""
    observed = Observations(clock=lambda: 5000.0)
    found = Recording("rec-1", "here", "pbx", "SIP/a", "1.1", "n", "/n.wav", requested_at=10.0, started_at=10.0)
    observed.journal(found, "started", {})
    value = observed.registry.get_sample_value
    assert value("fastagi_recording_start_seconds_count") == 0
    observed.journal(replace(found, requested_at=4999.5, started_at=4999.9), "started", {})
    assert value("fastagi_recording_start_seconds_sum") == 0.5


def test_guide_names_exactly_the_metrics(registered: set[str]) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "watching.md").read_text()
    named = set(re.findall(r"`(fastagi_\w+)`", guide))
    assert named == registered


@pytest.fixture
async def registered(tmp_path: Path) -> set[str]:
    from support.metric_names import names_of

    return await names_of(tmp_path)


async def test_blocked_event_loop_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "HELD_SECONDS", 0.1)
    monkeypatch.setattr(lag, "TICK_SECONDS", 0.05)
    measured = lag.LoopLag()
    with structlog.testing.capture_logs() as logs:
        measured.start()
        time.sleep(0.3)  # noqa: ASYNC251 - what a handler must not do
        while not logs:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    measured.stop()
    assert (logs[0]["event"], logs[0]["log_level"]) == ("event_loop_held", "warning")
    assert logs[0]["seconds"] >= 0.2
    assert measured.longest >= 0.2
