"""Fake calls with real recordings: the channel table behind `ScriptedAmi`.

A fake MixMonitor writes files as app_mixmonitor does: a WAV whose header has no sizes until it is closed, and that
grows in steps of 32,768 bytes (stdio's), only while audio flows. No sockets here.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fastagi.testing.sound import RATE, Samples, speech_samples

Pcm = npt.NDArray[np.int16]

STEP = 32_768
"""Bytes by which a real MixMonitor's file grows: the size of stdio's buffer there."""

TICK = 0.02

HEADER = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 0, b"WAVE", b"fmt ", 16, 1, 1, RATE, RATE * 2, 2, 16, b"data", 0)


@functools.cache
def _voice(seed: int) -> Pcm:
    """Return twenty seconds of speech, which are repeated."""
    return pcm(speech_samples(20.0, seed))


def pcm(samples: Samples) -> Pcm:
    """Return samples as 16-bit PCM, as Asterisk has them."""
    return np.asarray(np.clip(np.asarray(samples) * 32767, -32768, 32767), np.int16)


@dataclass(eq=False, slots=True)
class FakeFile:
    """WAV that is being written. A failure to open is silent, as in Asterisk."""

    path: Path
    direction: str  # "mixed", "read" (received from the channel) or "write" (sent to it)
    opened: bool = False
    pending: bytearray = field(default_factory=bytearray)
    written: int = 0

    def open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(HEADER)
        except OSError:
            return
        self.opened = True

    def add(self, data: bytes) -> None:
        self.pending += data
        while len(self.pending) >= STEP:
            self._flush(STEP)

    def _flush(self, size: int) -> None:
        data = bytes(self.pending[:size])
        del self.pending[:size]
        if self.opened and self.path.exists():
            with open(self.path, "ab") as out:
                out.write(data)
            self.written += len(data)

    def close(self) -> None:
        """Write the rest, then the sizes: the completion mark."""
        self._flush(len(self.pending))
        if self.opened and self.path.exists() and self.written:
            with open(self.path, "r+b") as out:
                out.seek(4)
                out.write(struct.pack("<I", 36 + self.written))
                out.seek(40)
                out.write(struct.pack("<I", self.written))


@dataclass(eq=False, slots=True)
class FakeMonitor:
    """Fake MixMonitor (or Monitor) on a channel.

    :param synced: silence is inserted so that the legs stay in step (from 20 on, or option S)
    """

    id: str
    files: list[FakeFile]
    synced: bool = True
    muted: set[str] = field(default_factory=set)
    paused: bool = False

    @property
    def filename(self) -> str:
        return next((str(f.path) for f in self.files if f.direction == "mixed"), "")

    def take(self, received: Pcm | None, sent: Pcm | None) -> None:
        """Record the audio of both sides in one tick; None where no frame came."""
        if self.paused or (received is None and sent is None):
            return
        length = max(len(x) for x in (received, sent) if x is not None)
        nothing = np.zeros(length, np.int16)
        legs = {"read": received, "write": sent}
        heard = {k: nothing if v is None or k in self.muted else v for k, v in legs.items()}
        mixed = np.clip(heard["read"].astype(np.int32) + heard["write"], -32768, 32767).astype(np.int16)
        for file in self.files:
            if file.direction == "mixed":
                file.add(mixed.tobytes())
            elif self.synced or legs[file.direction] is not None:
                file.add(heard[file.direction].tobytes())

    def close(self) -> None:
        for file in self.files:
            file.close()


@dataclass(eq=False, slots=True)
class FakeChannel:
    """Fake channel.

    :param received: audio from its far end, repeated; None sends no frame at all
    :param sent: audio played to it; None likewise
    """

    name: str
    uniqueid: str
    linkedid: str
    caller: str = "1001"
    context: str = "from-sipp"
    exten: str = "s"
    state: str = "6"
    application: str = "AGI"
    received: Samples | None = field(default_factory=lambda: np.zeros(0, np.float32))
    sent: Samples | None = field(default_factory=lambda: np.zeros(0, np.float32))
    variables: dict[str, str] = field(default_factory=dict)
    monitors: list[FakeMonitor] = field(default_factory=list)
    created: float = field(default_factory=time.monotonic)

    def headers(self) -> dict[str, str]:
        """Return the channel's headers of every event about it, in Asterisk's order."""
        return {
            "Channel": self.name,
            "ChannelState": self.state,
            "ChannelStateDesc": {"0": "Down", "4": "Ring", "5": "Ringing", "6": "Up"}.get(self.state, "Unknown"),
            "CallerIDNum": self.caller or "<unknown>",
            "CallerIDName": "<unknown>",
            "ConnectedLineNum": "<unknown>",
            "ConnectedLineName": "<unknown>",
            "Language": "en",
            "AccountCode": "",
            "Context": self.context,
            "Exten": self.exten,
            "Priority": "1",
            "Uniqueid": self.uniqueid,
            "Linkedid": self.linkedid,
        }

    def said(self, direction: str, start: int, count: int) -> Pcm | None:
        """Return `count` samples of one direction from `start` on."""
        samples = self.received if direction == "read" else self.sent
        if samples is None:
            return None
        loop = pcm(samples) if len(samples) else _voice(1 if direction == "read" else 2)
        return np.asarray(np.take(loop, np.arange(start, start + count), mode="wrap"), np.int16)


class FakeCalls:
    """Table of fake channels, and the clock that lets their recordings grow.

    :param spool: folder of relative file names
    :param major: Asterisk's major version to imitate
    :param speed: seconds of audio per second
    """

    def __init__(self, spool: Path, *, major: int = 22, speed: float = 1.0, system_name: str = "") -> None:
        self.spool = spool
        self.major = major
        self.speed = speed
        self.channels: dict[str, FakeChannel] = {}
        self._prefix = f"{system_name}-" if system_name else ""
        self._numbers = itertools.count(1)
        self._ids = itertools.count(0x7F5D1C002E00, 0x10)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._grow())

    async def stop(self) -> None:
        """Stop the clock. Every file stays as it is, as when Asterisk is killed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def next_number(self) -> int:
        return next(self._numbers)

    def new_uniqueid(self) -> str:
        return f"{self._prefix}{int(time.time())}.{self.next_number()}"

    def add(self, channel: FakeChannel) -> FakeChannel:
        self.channels[channel.name] = channel
        return channel

    def monitor(self, channel: FakeChannel, name: str, options: str) -> FakeMonitor:
        """Start a MixMonitor as the application would, with its options i, r, t, S and n."""
        asked = dict(_options(options))
        files = [FakeFile(self._path(name), "mixed")] if name else []
        files += [FakeFile(self._path(asked[k]), d) for k, d in (("r", "read"), ("t", "write")) if asked.get(k)]
        synced = "S" in asked or (self.major >= 20 and "n" not in asked)
        monitor = FakeMonitor(f"0x{next(self._ids):x}", files, synced)
        for file in files:
            file.open()
        channel.monitors.insert(0, monitor)
        channel.variables["MIXMONITOR_FILENAME"] = monitor.filename
        if asked.get("i"):
            channel.variables[asked["i"]] = monitor.id
        return monitor

    def monitor_legs(self, channel: FakeChannel, base: str, form: str) -> FakeMonitor:
        """Start a Monitor (up to Asterisk 20): two files, ``-in`` and ``-out``."""
        legs = (("in", "read"), ("out", "write"))
        files = [FakeFile(self._path(f"{base}-{suffix}.{form}"), direction) for suffix, direction in legs]
        for file in files:
            file.open()
        monitor = FakeMonitor("monitor", files, synced=False)
        channel.monitors.append(monitor)
        return monitor

    def remove(self, channel: FakeChannel) -> list[FakeMonitor]:
        """Remove a channel and return its monitors, which stay open until the caller closes them."""
        del self.channels[channel.name]
        monitors, channel.monitors = channel.monitors, []
        return monitors

    def _path(self, name: str) -> Path:
        return Path(name) if name.startswith("/") else self.spool / name

    async def _grow(self) -> None:
        before = time.monotonic()
        left = 0.0
        at = 0
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            left += (now - before) * self.speed * RATE
            before, count = now, int(left)
            left -= count
            for channel in list(self.channels.values()):
                if channel.monitors:
                    received, sent = channel.said("read", at, count), channel.said("write", at, count)
                    for monitor in channel.monitors:
                        monitor.take(received, sent)
            at += count


def _options(text: str) -> Iterator[tuple[str, str]]:
    """Yield ``i(VAR)r(a.wav)S`` as pairs."""
    at = 0
    while at < len(text):
        letter, value, at = text[at], "", at + 1
        if at < len(text) and text[at] == "(":
            end = text.find(")", at)
            end = len(text) if end < 0 else end
            value, at = text[at + 1 : end], end + 1
        yield letter, value
