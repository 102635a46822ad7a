"""Measure how far the two sides of a recording are out of step, to a quarter of a millisecond.

Each leg of a real call carries markers. The far end echoes what it hears, so each marker that is sent comes back one
frame later, and the distance of the two in the stereo file must be the same from the first second to the last. In
between each leg has gaps that the other has not: for some seconds only the far end talks, for some only the recorded
side is talked to, for some nobody sends a frame.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastagi.testing import AsteriskServer
from fastagi.testing.sound import RATE, Samples, save, tone_samples

DIALPLAN = """
[in-step]
exten => s,1,Answer()
 same => n(again),Playback(in-step/talk)
 same => n,Echo()
 same => n,Wait(3)
 same => n,Echo()
 same => n,Goto(again)
; who is talked to before he says a word
exten => late,1,Answer()
 same => n,Wait(2)
 same => n,Goto(s,again)
"""

STEP_MS = 20.0
"""One frame: what `separate` promises."""

MONITOR_MS = 120.0
"""What Monitor may be out of step: it puts a leg back once it is four frames behind the other; a frame of each is more.
"""

ECHO_MS = 20.0
"""What the far end needs to send a marker back: a frame."""

TALK_SECONDS = 2.0
MARKER_SECONDS = 0.25
SHORTEST_SECONDS = 16.0
"""One round of everything takes so long."""


def marker() -> Samples:
    """A sweep from 500 to 3000 Hz: nothing else in a call looks like it, and it has one place only where it fits."""
    time = np.arange(round(MARKER_SECONDS * RATE)) / RATE
    sweep = np.sin(2 * np.pi * (500 * time + 2500 / MARKER_SECONDS * time**2 / 2))
    return (0.5 * np.hanning(len(time)) * sweep).astype(np.float32)


def lay_markers(asterisk: AsteriskServer) -> None:
    """The sounds of such a call, as prompts of this Asterisk."""
    folder = asterisk.sounds / "in-step"
    save(folder / "marker.wav", np.concatenate([marker(), np.zeros(RATE // 10, np.float32)]))
    save(folder / "talk.wav", tone_samples(TALK_SECONDS, 440))


async def keep_marking(call: Any, seconds: float, *, late: float = 0.0) -> None:
    """Mark both legs for about so long, with gaps in the one, the other and both.

    :param late: seconds in which the far end only listens, at first
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    if late:
        await call.stream_file("in-step/talk")
        await call.exec("Wait", max(0.1, late - TALK_SECONDS))
    while True:
        await call.exec("Wait", TALK_SECONDS + 0.6)  # only he is heard
        await _mark(call)
        await call.exec("SendDTMF", "#")  # his echo ends; only we are heard
        await call.stream_file("in-step/talk")
        await call.exec("Wait", 1.4)
        await _mark(call)
        if loop.time() >= end:
            return
        await call.exec("SendDTMF", "#")


async def _mark(call: Any) -> None:
    for gap in (0.0, 0.37, 1.11):  # no frames at all in the gaps
        await call.stream_file("in-step/marker")
        await call.exec("Wait", 0.2 + gap)


@dataclass(frozen=True, slots=True)
class Step:
    """How far the received side is behind the sent one, in milliseconds; at every marker.

    :param lags: of each marker; :param at: where it is in the file, in seconds
    """

    lags: tuple[float, ...]
    at: tuple[float, ...]

    @property
    def spread(self) -> float:
        return max(self.lags) - min(self.lags)

    @property
    def farthest(self) -> float:
        """Of the lags from 0: the echo's own 20 ms are in it."""
        return max(abs(lag) for lag in self.lags)

    def holds(self, most: float) -> bool:
        """Is every marker in step to so much, the echo's frame left out?"""
        return max(abs(lag - ECHO_MS) for lag in self.lags) <= most

    def told(self) -> dict[str, Any]:
        """Figures for a report."""
        return {
            "markers": len(self.lags),
            "lag_ms": [round(min(self.lags), 1), round(float(np.median(self.lags)), 1), round(max(self.lags), 1)],
            "spread_ms": round(self.spread, 1),
            "first_and_last_ms": [round(self.lags[0], 1), round(self.lags[-1], 1)],
        }


def step(received: Samples, sent: Samples) -> Step:
    """Compare the places of the markers in the two sides.

    :raises AssertionError: there are none, or a side has one that the other has not
    """
    there, here = places(received), places(sent)
    assert len(here), "no marker was sent"
    lags, at = [], []
    for place in here:
        nearest = there[np.argmin(np.abs(there - place))] if len(there) else -1
        assert nearest >= 0, "no marker came back"
        lags.append(1000 * float(nearest - place) / RATE)
        at.append(float(place) / RATE)
    assert len(there) == len(here), f"{len(here)} markers were sent, {len(there)} came back"
    return Step(tuple(lags), tuple(at))


def places(samples: Samples) -> np.ndarray[Any, Any]:
    """Where the markers begin, in samples."""
    sweep = marker()
    size = 1 << int(np.ceil(np.log2(len(sweep) + (1 << 16))))
    filter_ = np.conj(np.fft.rfft(sweep, size))
    hop = size - len(sweep)
    norm = float(np.sum(sweep.astype(np.float64) ** 2))
    fits = np.concatenate(
        [
            np.fft.irfft(np.fft.rfft(samples[start : start + size], size) * filter_, size)[:hop] / norm
            for start in range(0, len(samples), hop)
        ]
    )[: len(samples)]
    found = []
    apart = round(MARKER_SECONDS * RATE)
    while fits.max(initial=0.0) > 0.5:
        best = int(np.argmax(fits))
        found.append(best)
        fits[max(0, best - apart) : best + apart] = 0.0
    return np.sort(np.array(found, np.int64))
