"""Measures free space and the size of the spools, in a thread of its own.

A dead network mount holds that thread and nothing else: the next measurement waits for it, and none is begun beside it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fastagi.recording.asterisk import raw_files
from fastagi.recording.lifecycle.start_faults import StartFault
from fastagi.runtime.threads import Pool

PATIENCE_SECONDS = 2.0
"""Seconds that a scrape or a probe waits for the disks: both have time limits of their own, usually 5 to 10 s."""

FRESH_SECONDS = 1.0
"""A measurement that is younger is returned again, so that many readers cost what one does."""

MOST_FILES = 200_000
"""Most files of a spool that are counted: beyond it the figure is a lower bound, and the alarm has long been raised."""


@dataclass(frozen=True, slots=True)
class Room:
    """Free space of one folder.

    :param fault: one line with the fault and its remedy; empty for none
    """

    free: int = 0
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """Content of a spool: bytes and number of files."""

    bytes: int = 0
    files: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement. `answered` is False when the disks did not answer in time; the rest is empty then."""

    answered: bool = False
    rooms: dict[Path, Room] = field(default_factory=dict)
    spools: dict[Path, Held] = field(default_factory=dict)
    start_faults: list[StartFault] = field(default_factory=list)


class Disks:
    """Measures folders.

    :param folders: folders whose free space counts
    :param spools: those of them that Asterisk writes to
    :param start_faults: returns, from folders, why recordings would not start
    """

    def __init__(
        self,
        folders: Iterable[Path],
        spools: Iterable[Path],
        start_faults: Callable[[], list[StartFault]] = list,
    ) -> None:
        self.spools = tuple(dict.fromkeys(spools))
        self.folders = tuple(dict.fromkeys([*folders, *self.spools]))
        self._start_faults = start_faults
        self._thread = Pool("fastagi-disks", 1)
        self._running: asyncio.Future[Measured] | None = None
        self._last = Measured()
        self._at = float("-inf")

    async def measure(self) -> Measured:
        """Return a measurement that is at most `FRESH_SECONDS` old. Takes `PATIENCE_SECONDS` at most."""
        # an operator who has just mended a start fault must not read about it again
        if time.monotonic() - self._at < FRESH_SECONDS and not self._last.start_faults:
            return self._last
        if self._running is None:
            self._running = self._thread.submit(self._measure)
        running = self._running
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                found = await asyncio.shield(running)
        except TimeoutError:
            return Measured()
        if self._running is running:
            self._running, self._last, self._at = None, found, time.monotonic()
        return found

    def close(self) -> None:
        """Begin no further measurement. Does not wait, because a dead mount would hold the shutdown."""
        self._thread.close(0.0)

    def _measure(self) -> Measured:
        rooms = {f: _room(f, f in self.spools) for f in self.folders}
        return Measured(True, rooms, {s: _held(s) for s in self.spools}, self._start_faults())


def _room(folder: Path, spool: bool) -> Room:
    fault = raw_files.spool_fault(folder) if spool else _folder_fault(folder)
    try:
        return Room(raw_files.free_bytes(folder), fault)
    except OSError as exc:
        return Room(0, fault or f"{folder}: {exc.strerror}: look at that disk")


def _folder_fault(folder: Path) -> str:
    """Check a folder. One of this server may still have to be made; then its nearest parent must allow it."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        return f"{there} is no directory"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"this server may not write to {there}: give it to its user, or set another [recordings] directory"
    return ""


def _held(spool: Path) -> Held:
    total = count = 0
    try:
        with os.scandir(spool) as entries:
            for entry in entries:
                try:
                    if entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
                        count += 1
                except FileNotFoundError:
                    continue  # the file was finished meanwhile
                if count >= MOST_FILES:
                    break
    except OSError:
        return Held()  # `_room` reports the fault
    return Held(total, count)
