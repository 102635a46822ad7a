"""The figures of `/metrics` that are read at each scrape. Those that are counted as they happen are in `counters`."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fastagi.domain.delivery import OBJECT, DeliveryStatus
from fastagi.domain.states import OPEN, Phase
from fastagi.recording.compliance.judging import VERDICTS
from fastagi.runtime.steady_clock import SteadyClock
from fastagi.store.queries import deliveries
from fastagi.web.connections import Connections
from fastagi.web.counters import SinkLabels
from fastagi.web.dependencies import WebDependencies
from fastagi.web.disks import Measured
from fastagi.web.lag import LoopLag
from fastagi.web.version import VERSION

ALARMS = ("stalled", "silent", "one_sided")
"""Alarms of a running recording (`ActiveRecording.alarms`)."""

_PENDING = (DeliveryStatus.WAITING, DeliveryStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class Slow:
    """Values that were fetched beside the loop. `depths` is None when the ledger did not answer.

    :param faults: number of scrapes so far from which something was missing, by what
    """

    disks: Measured
    depths: list[deliveries.Depth] | None
    faults: Mapping[str, int]


class Figures:
    """Reads the figures from the app's parts.

    :param labels: sink names as label values
    """

    def __init__(self, sources: WebDependencies, labels: SinkLabels, lag: LoopLag, connections: Connections) -> None:
        self._sources = sources
        self._connections = connections
        self._labels = labels
        self._lag = lag

    def families(self, slow: Slow) -> Iterator[Metric]:
        """Yield everything but the metrics of `Observations`. Runs on the loop: reads, and waits for nothing."""
        yield from self._recordings()
        yield from self._completeness()
        yield from self._asterisks()
        yield from self._agi()
        yield from self._doors()
        yield from self._deliveries(slow.depths)
        yield from self._ledger()
        yield from self._rooms(slow.disks)
        yield from self._process(slow.faults)

    def _recordings(self) -> Iterator[Metric]:
        phases: Tally[tuple[str, str]] = Tally(
            {(name, phase.value): 0 for name in self._sources.pbxs for phase in Phase if phase in OPEN}
        )
        known = self._sources.pbxs
        figures = self._sources.recorder.figures()
        for (asterisk, phase), count in figures.phases.items():
            phases[asterisk if asterisk in known else "not_configured", phase] += count
        yield _gauge("recordings_active", "Recordings with work left, by phase", ("asterisk", "phase"), phases.items())
        words = {
            "stalled": "Running recordings whose file does not grow",
            "silent": "Running recordings in which nothing was heard for long",
            "one_sided": "Running recordings in which one side was not heard for long",
        }
        for alarm in ALARMS:
            yield _gauge(f"recordings_{alarm}", words[alarm], (), [((), figures.alarms.get(alarm, 0))])

    def _completeness(self) -> Iterator[Metric]:
        figures = self._sources.recorder.figures()
        yield _gauge(
            "calls_required", "Calls up that [recordings] required wants recorded", (), [((), figures.calls_open)]
        )
        yield _counter(
            "calls_judged",
            "Calls that had to be recorded and have ended, by what was found",
            ("verdict",),
            [((verdict,), figures.judged.get(verdict, 0)) for verdict in VERDICTS],
        )
        yield _counter(
            "calls_unfollowed", "Calls that were too many to be followed", (), [((), figures.calls_unfollowed)]
        )
        yield _counter(
            "recordings_adopted",
            "MixMonitors of others that were taken over",
            (),
            [((), figures.adopted)],
        )
        yield _counter(
            "recordings_taken_over", "Recordings of servers that died, taken over", (), [((), figures.taken_over)]
        )
        yield _gauge("servers_dead", "Servers whose recordings wait for an heir", (), [((), figures.servers_dead)])
        yield _counter(
            "recordings_unreached",
            "Recordings that were ended because their Asterisk stayed away",
            (),
            [((), figures.unreached)],
        )
        yield _counter(
            "orphans_adopted", "Raw files unknown to the ledger made recordings", (), [((), figures.orphans_adopted)]
        )
        yield _counter("recordings_refinished", "Finishings that were tried again", (), [((), figures.refinished)])
        yield _gauge("spool_set_aside", "Raw files that cannot be saved, in set-aside", (), [((), figures.set_aside)])
        yield _gauge(
            "finished_unproved",
            "Finished files that are not what was finished, and whose raw files are kept",
            (),
            [((), figures.unproved)],
        )
        yield _counter(
            "recordings_deleted",
            "Recordings whose file was deleted: retention, or an admin",
            (),
            [((), figures.deleted)],
        )

    def _asterisks(self) -> Iterator[Metric]:
        pbxs = {name: p for name, p in self._sources.pbxs.items() if p.manager is not None}
        managers = [((name,), p.manager) for name, p in pbxs.items() if p.manager is not None]
        yield _gauge(
            "ami_up",
            "1 while the manager connection is logged in and its channel list in step",
            ("asterisk",),
            [((name,), int(p.up)) for name, p in pbxs.items()],
        )
        yield _gauge(
            "asterisk_channels", "Channels up", ("asterisk",), [((name,), len(p.channels)) for name, p in pbxs.items()]
        )
        yield _counter(
            "ami_reconnects",
            "Manager connections after the first",
            ("asterisk",),
            [(k, m.reconnects) for k, m in managers],
        )
        yield _counter(
            "ami_events",
            "Manager events that arrived, by whether a handler took them",
            ("asterisk", "wanted"),
            [
                row
                for k, m in managers
                for row in (
                    ((*k, "yes"), m.events_parsed),
                    ((*k, "no"), max(0, m.events_seen - m.events_parsed)),
                )
            ],
        )
        yield _counter(
            "ami_actions",
            "Manager actions sent",
            ("asterisk",),
            [(k, m.actions_sent) for k, m in managers],
        )
        yield _counter(
            "ami_actions_failed",
            "Manager actions that were refused, or not answered in time",
            ("asterisk", "why"),
            [
                row
                for k, m in managers
                for row in (((*k, "refused"), m.actions_failed), ((*k, "timed_out"), m.actions_timed_out))
            ],
        )
        yield _counter(
            "ami_callback_faults",
            "Event callbacks that raised, and events that one was too slow for",
            ("asterisk", "why"),
            [
                row
                for k, m in managers
                for row in (((*k, "raised"), m.callback_errors), ((*k, "dropped"), m.callback_dropped))
            ],
        )

    def _agi(self) -> Iterator[Metric]:
        agi = self._sources.agi
        yield _gauge("agi_sessions", "FastAGI sessions now", (), [((), agi.sessions)])
        yield _gauge("agi_sessions_limit", "[agi] max_sessions", (), [((), agi.max_sessions)])
        yield _counter(
            "agi_sessions",
            "FastAGI connections, by whether they were let in",
            ("outcome",),
            [(("accepted",), agi.tally.accepted), (("refused",), agi.tally.refused)],
        )
        yield _counter(
            "agi_session_faults",
            "Sessions that ended badly: a handler raised, the peer was no proper Asterisk, or it is not whose it says",
            ("why",),
            [(("handler",), agi.tally.failed), (("peer",), agi.tally.faulty), (("denied",), agi.tally.denied)],
        )

    def _doors(self) -> Iterator[Metric]:
        http = self._connections
        yield _gauge("http_connections", "HTTP connections now", (), [((), len(http))])
        yield _counter(
            "http_connections_closed",
            "HTTP connections that were refused, or closed because they sent no whole request",
            ("why",),
            [(("refused",), http.refused), (("waited",), http.dropped)],
        )
        descriptors = self._sources.descriptors
        yield _counter(
            "descriptors_refused",
            "Connections that were refused because nearly all file descriptors are in use",
            ("door",),
            [(("agi",), descriptors.refused_agi), (("http",), descriptors.refused_http)],
        )

    def _deliveries(self, depths: list[deliveries.Depth] | None) -> Iterator[Metric]:
        stats = self._sources.courier.stats()
        named = [entry.name for entry in self._sources.registry if not entry.name.startswith(OBJECT)]
        labels = self._labels
        down = set(stats["down"])
        circuits = {labels.of(name): 0 for name in named}
        for name in down:
            circuits[labels.of(name)] = 1
        yield _gauge(
            "sink_down", "1 while a sink fails so often that it is only probed", ("sink",),
            [((name,), state) for name, state in circuits.items()],
        )  # fmt: skip
        held: Tally[str] = Tally({labels.of(name): 0 for name in named})
        for name in self._sources.courier.held:
            held[labels.of(name)] = 1
        yield _gauge(
            "sink_held",
            "1 while a sink is held, because its receiver refuses everything (401, 403, 404)",
            ("sink",),
            [((name,), count) for name, count in held.items()],
        )
        blocked: Tally[str] = Tally({labels.of(name): 0 for name in named})
        for name, count in self._sources.registry.blocked.items():
            blocked[labels.of(name)] += count
        yield _counter(
            "sink_blocked",
            "How often a sink of one's own was found blocking its event loop for over a second",
            ("sink",),
            [((name,), count) for name, count in blocked.items()],
        )
        yield _counter(
            "delivery_outcomes_refused",
            "Outcomes that the ledger refused because another server had taken the delivery over",
            (),
            [((), stats["refused_outcomes"])],
        )
        if depths is None:
            return
        statuses = [s for s in DeliveryStatus if s is not DeliveryStatus.DELIVERED]
        waiting: Tally[tuple[str, str]] = Tally({(labels.of(n), s.value): 0 for n in named for s in statuses})
        oldest = {labels.of(name): 0.0 for name in named}
        for depth in depths:
            sink = labels.of(depth.sink)
            waiting[sink, depth.status.value] += depth.count
            if depth.status in _PENDING:
                oldest[sink] = max(oldest.get(sink, 0.0), depth.oldest_seconds)
        yield _gauge(
            "deliveries_waiting", "Deliveries that are not delivered, by status", ("sink", "status"), waiting.items()
        )
        yield _gauge(
            "deliveries_oldest_seconds",
            "Age of the oldest delivery that is waiting or running",
            ("sink",),
            [((name,), age) for name, age in oldest.items()],
        )

    def _ledger(self) -> Iterator[Metric]:
        yield _gauge("store_up", "1 while the ledger takes writes", (), [((), int(self._sources.store.healthy))])
        yield _gauge(
            "store_write_seconds",
            "The longest that a write to the ledger took, or takes already, within the last minute",
            (),
            [((), self._sources.store.pace.seconds(60))],
        )
        yield _gauge(
            "ledger_backlog",
            "Journal entries that wait in memory and side files for the ledger",
            (),
            [((), self._sources.recorder.figures().ledger_behind)],
        )
        yield _counter(
            "side_files_refused",
            "Side files that were refused, and are set aside",
            (),
            [((), self._sources.recorder.figures().side_files_refused)],
        )

    def _rooms(self, measured: Measured) -> Iterator[Metric]:
        if not measured.answered:
            return
        yield _gauge(
            "disk_free_bytes",
            "Free disk where recordings, raw recordings and the ledger are",
            ("path",),
            [((str(path),), room.free) for path, room in measured.rooms.items()],
        )
        yield _gauge(
            "spool_bytes",
            "Raw recordings that Asterisk has written and that are not finished",
            ("path",),
            [((str(path),), held.bytes) for path, held in measured.spools.items()],
        )
        yield _gauge(
            "spool_files",
            "Their number",
            ("path",),
            [((str(path),), held.files) for path, held in measured.spools.items()],
        )

    def _process(self, faults: Mapping[str, int]) -> Iterator[Metric]:
        yield _gauge(
            "loop_lag_seconds",
            "The longest that something which was due had to wait, within the last minute",
            (),
            [((), self._lag.longest)],
        )
        clock = self._sources.clock
        steady = clock if isinstance(clock, SteadyClock) else None
        yield _counter(
            "clock_jumps",
            "How often the machine's clock was set",
            (),
            [((), steady.jumps if steady is not None else 0)],
        )
        yield _gauge(
            "clock_off_seconds",
            "How far the machine's clock is ahead of the one that recordings are measured with",
            (),
            [((), steady.off_seconds if steady is not None else 0.0)],
        )
        yield _counter(
            "tasks_died",
            "Background tasks that ended by an error",
            (),
            [((), self._sources.recorder.figures().tasks_died)],
        )
        yield _counter(
            "scrape_faults",
            "Scrapes from which something is missing, because it did not answer in time",
            ("what",),
            [((what,), count) for what, count in faults.items()],
        )
        node = self._sources.settings.store.node
        yield _gauge("info", "Always 1; its labels say who answers", ("version", "node"), [((VERSION, node), 1)])


Rows = Iterable[tuple[tuple[str, ...], float]]


def _gauge(name: str, words: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    family = GaugeMetricFamily(f"fastagi_{name}", words, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _counter(name: str, words: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    family = CounterMetricFamily(f"fastagi_{name}", words, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family
