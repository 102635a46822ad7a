"""`/healthz` fails when a restart would help. `/readyz` fails when the server should get no calls, and says the remedy.

`/healthz` checks only what a restart mends. `/readyz` checks everything that a recording needs.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass

from aiohttp import web

from fastagi.domain.timestamps import rfc3339
from fastagi.errors import StoreError
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.runtime.steady_clock import JUMP_SECONDS, SteadyClock
from fastagi.web.dependencies import WebDependencies
from fastagi.web.disks import Disks, Measured
from fastagi.web.responses import answer

STORE_SECONDS = 2.0
"""Seconds that the ledger has to answer a probe, and to take a write."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault.

    :param what: the part, by its name in the settings
    :param problem: the fault
    :param do: the remedy
    """

    what: str
    problem: str
    do: str


class Health:
    """Answers probes. Both routes are open to every peer that reaches the port: they show no caller."""

    def __init__(self, sources: WebDependencies, disks: Disks) -> None:
        self._sources = sources
        self._disks = disks

    async def healthz(self, request: web.Request) -> web.Response:
        """Return 200 while the loop turns (otherwise there is no answer) and no lasting task has died."""
        dead = self._sources.recorder.tasks_dead
        if dead:
            return answer(
                {"healthy": False, "dead": dead, "do": "restart the server; the log says what killed them"}, 503
            )
        return answer({"healthy": True})

    async def readyz(self, request: web.Request) -> web.Response:
        """Return 200 when recordings can be made, kept and journalled; else 503 and the faults."""
        measured, store_problem = await asyncio.gather(self._disks.measure(), self._store())
        problems = [p for pbx in self._sources.pbxs.values() if (p := asterisk_problem(pbx)) is not None]
        problems += [store_problem] if store_problem is not None else []
        problems += self._disk_problems(measured)
        problems += [Problem(f"recordings {f.where}", f.problem, f.do) for f in measured.start_faults]
        problems += self._descriptor_problems()
        checked = [
            *(f"asterisk {name}" for name, pbx in self._sources.pbxs.items() if pbx.manager is not None),
            "store",
            "descriptors",
            *(f"disk {folder}" for folder in self._disks.folders),
        ]
        body = {
            "ready": not problems,
            "checked": checked,
            "problems": [asdict(p) for p in problems],
            "warnings": [asdict(p) for p in self._warnings()],
        }
        return answer(body, 503 if problems else 200)

    def _warnings(self) -> list[Problem]:
        """Return faults that an operator should know and no probe should act on."""
        found = [*self._held_sinks(), *self._refused_side_files(), *self._sinks_on_the_main_loop()]
        agi, wanted = self._sources.agi, self._sources.settings.agi.max_sessions
        if agi.max_sessions < wanted:
            limit = self._sources.descriptors.limit
            problem = f"{limit} file descriptors allow {agi.max_sessions} AGI sessions, not {wanted}"
            found.append(Problem("descriptors", problem, "raise LimitNOFILE (ulimit -n) and restart"))
        clock = self._sources.clock
        if isinstance(clock, SteadyClock) and abs(clock.off_seconds) >= JUMP_SECONDS:
            problem = f"the machine's clock was set by {clock.off_seconds:+.1f} s while calls are recorded"
            found.append(
                Problem("clock", problem, "run NTP; the new time is taken over when nothing is being recorded")
            )
        return found

    def _held_sinks(self) -> list[Problem]:
        do = "its deliveries wait: mend the receiver, or url and signing_secret; fastagi doctor --send-ping tries them"
        return [
            Problem(f"sink {name}", f"held since {rfc3339(refusals.held_since)}: {refusals.error}", do)
            for name, refusals in self._sources.courier.held.items()
        ]

    def _sinks_on_the_main_loop(self) -> list[Problem]:
        bound = {entry.name: entry.runner.bound for entry in self._sources.registry if entry.runner.bound}
        do = "make the client in on_recording_complete, so that the sink has an event loop of its own and holds no call"
        return [
            Problem(f"sink {name}", f"runs on the server's event loop, to which its attribute {why} belongs", do)
            for name, why in bound.items()
        ]

    def _descriptor_problems(self) -> list[Problem]:
        descriptors = self._sources.descriptors
        if not descriptors.scarce:
            return []
        problem = (
            f"calls are refused: {descriptors.open()} of {descriptors.limit} file descriptors are in use "
            f"({self._sources.agi.sessions} AGI sessions)"
        )
        return [Problem("descriptors", problem, "raise LimitNOFILE (ulimit -n), or lower [agi] max_sessions; restart")]

    def _refused_side_files(self) -> list[Problem]:
        count = self._sources.recorder.figures().side_files_refused
        if not count:
            return []
        problem = f"{count} files that pass for rows of the ledger were refused since the start"
        do = "grep side_file_refused in the log: it says where they are and why; another user may have put them there"
        return [Problem("side files", problem, do)]

    async def _store(self) -> Problem | None:
        store = self._sources.store
        behind, full = self._sources.recorder.figures().ledger_behind, self._sources.recorder.ledger_full
        do = "look at its disk, its permissions or the database server; recordings go on, and side files keep them"
        if full:
            return Problem("store", f"{store.shown}: no recording is begun: {full}", do.partition(";")[0])
        if not store.healthy:
            late = f"; {behind} journal entries wait" if behind else ""
            fault = (store.last_error or "not open").removeprefix(f"{store.shown}: ")
            return Problem("store", f"{store.shown}: {fault}{late}", do)
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._sources.ledger.answers()
        except TimeoutError:
            return Problem("store", f"{store.shown}: no answer within {STORE_SECONDS:g} s", do)
        except StoreError as exc:
            return Problem("store", str(exc), do)
        seconds = store.pace.seconds()
        if seconds >= STORE_SECONDS or (store.pace.slow and behind):
            late = f"; {behind} journal entries wait" if behind else ""
            return Problem("store", f"{store.shown}: slow: a write took {seconds:.1f} s{late}", do)
        return None

    def _disk_problems(self, measured: Measured) -> list[Problem]:
        if not measured.answered:
            names = ", ".join(str(f) for f in self._disks.folders)
            return [Problem("disk", f"{names}: no answer", "look for a network mount that is gone")]
        wanted = self._sources.settings.recordings.min_free_mb
        found = []
        for folder, room in measured.rooms.items():
            what = f"disk {folder}"
            if room.fault:
                problem, _, do = room.fault.partition(": ")
                found.append(Problem(what, problem, do or "see the log"))
            elif room.free < wanted * 1_000_000:
                free = f"{room.free // 1_000_000} MB free, [recordings] min_free_mb is {wanted}"
                found.append(Problem(what, free, "make room: a full disk truncates recordings without a word"))
        return found


def asterisk_problem(pbx: Pbx) -> Problem | None:
    """Return the fault of the connection to that Asterisk; None when there is none, or no connection is wanted."""
    if pbx.manager is None or pbx.up:
        return None
    if pbx.manager.connected:
        problem = "logged in, but its channels are not listed yet"
    else:
        problem = pbx.manager.last_error or "not connected yet"
    where = f"{pbx.settings.host}:{pbx.settings.port}"
    do = f"run fastagi doctor: it tells network, login and rights apart (manager interface {where})"
    return Problem(f"asterisk {pbx.name}", problem, do)
