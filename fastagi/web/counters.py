"""Metrics that must be counted as they happen: ended recordings and delivery attempts. All others are read at a scrape.

`journal` is a listener of the recorder's journal, `attempt` is the delivery worker's `on_attempt`. Both only count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from fastagi.domain.delivery import OBJECT, Delivery, DeliveryStatus, Outcome
from fastagi.domain.recording import Recording
from fastagi.domain.states import Cause, Event

MOST_SINKS = 200
"""Most sink names that become label values; a program that registers sinks for each call must not fill Prometheus."""

OTHER = "other"
UNNAMED = "object"
"""The label of sinks that a call brought along: each has a name of its own, which ends with its process."""

START_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10)
FINISH_BUCKETS = (0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
ATTEMPT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ARRIVAL_BUCKETS = (0.05, 0.25, 1, 5, 15, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600, 72 * 3600)

FLAWS = ("silent", "one_sided", "salvaged", "clipped")
"""Facts of a finished recording that need a person's attention."""


def flaws(facts: Mapping[str, Any]) -> set[str]:
    """Return which of `FLAWS` a finished recording has. Samples that were limited in time are no flaw."""
    found = {flaw for flaw in FLAWS if facts.get(flaw) is True}
    return found | ({"clipped"} if facts.get("clipped") and not facts.get("limited") else set())


class SinkLabels:
    """Sink names as label values: bounded, however many a program registers."""

    def __init__(self, most: int = MOST_SINKS) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, name: str) -> str:
        """Return the label value of that sink."""
        if name.startswith(OBJECT):
            return UNNAMED
        if name not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(name)
        return name


class Observations:
    """The counters and histograms of one app, in a registry of their own.

    :param clock: unix seconds
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.registry = CollectorRegistry()
        self.sinks = SinkLabels()
        self._ended = Counter(
            "fastagi_recordings", "Recordings that have ended, by cause", ["cause"], registry=self.registry
        )
        self._flawed = Counter(
            "fastagi_recordings_flawed", "Finished recordings with a flaw", ["flaw"], registry=self.registry
        )
        self._seconds = Counter("fastagi_recorded_seconds", "Audio in finished files", registry=self.registry)
        self._bytes = Counter("fastagi_recorded_bytes", "Size of finished files", registry=self.registry)
        self._start = Histogram(
            "fastagi_recording_start_seconds",
            "From the request to the file that Asterisk opened",
            buckets=START_BUCKETS,
            registry=self.registry,
        )
        self._finish = Histogram(
            "fastagi_finish_seconds",
            "From the end of a recording to its finished file",
            buckets=FINISH_BUCKETS,
            registry=self.registry,
        )
        self._attempts = Counter(
            "fastagi_deliveries",
            "Delivery attempts, by what became of them",
            ["sink", "outcome"],
            registry=self.registry,
        )
        self._attempt = Histogram(
            "fastagi_delivery_seconds",
            "Duration of one delivery attempt",
            ["sink"],
            buckets=ATTEMPT_BUCKETS,
            registry=self.registry,
        )
        self._arrival = Histogram(
            "fastagi_delivered_after_seconds",
            "From the finished file to its arrival at the sink, retries included",
            ["sink"],
            buckets=ARRIVAL_BUCKETS,
            registry=self.registry,
        )
        for cause in Cause:  # a rate needs the zero before the first one
            if cause is not Cause.NONE:
                self._ended.labels(cause.value)
        for flaw in FLAWS:
            self._flawed.labels(flaw)

    def journal(self, recording: Recording, event: str, detail: dict[str, Any]) -> None:
        """Count a journal line. A listener of the journal."""
        if event == Event.STARTED.value:
            # a recording that was found running after a restart gives no start time to measure
            if not recording.adopted and recording.started_at != recording.requested_at:
                self._start.observe(max(0.0, self._clock() - recording.requested_at))
        elif event == Event.FAILED.value:
            self._ended.labels(recording.cause.value).inc()
        elif event == Event.FINISHED.value:
            self._finished(recording)

    def _finished(self, recording: Recording) -> None:
        self._ended.labels(recording.cause.value).inc()
        self._seconds.inc(max(0.0, recording.audio_seconds or 0.0))
        self._bytes.inc(max(0, recording.bytes or 0))
        if recording.finished_at is not None and recording.ended_at is not None:
            self._finish.observe(max(0.0, recording.finished_at - recording.ended_at))
        for flaw in flaws(recording.facts):
            self._flawed.labels(flaw).inc()

    def attempt(self, delivery: Delivery, outcome: Outcome, seconds: float) -> None:
        """Count an attempt. The delivery worker's `on_attempt`.

        :param delivery: after the attempt
        :param seconds: duration of the attempt
        """
        sink = self.sinks.of(delivery.sink)
        failed = "dead" if delivery.status is DeliveryStatus.DEAD else "failed"
        told = "delivered" if outcome.ok else failed
        self._attempts.labels(sink, told).inc()
        self._attempt.labels(sink).observe(max(0.0, seconds))
        if outcome.ok:
            self._arrival.labels(sink).observe(max(0.0, self._clock() - delivery.created_at))
