"""Adoption (`[recordings] adopt`): MixMonitors that others started are tracked, finished and delivered.

Asterisk's MixMonitorStart names a channel and nothing else, so `mixmonitor list CHANNEL` is asked: it has id and path,
but no suffix; that is in the channel's MIXMONITOR_FILENAME, or in the folder. (The function MIXMONITOR(id,filename)
would tell it, but crashes Asterisk 16 and 22 where a MixMonitor has legs only. It is never asked here.) A MixMonitor
that the list no longer shows has been stopped; a hangup ends it like any other recording.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from fastagi.ami import actions
from fastagi.ami.actions import MixMonitorRow
from fastagi.domain.facts import AS_RECORDED, FILE_FORMAT, RENAMED, Facts
from fastagi.domain.ids import new_id
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.states import Phase
from fastagi.errors import FastAGIError, HeldElsewhere
from fastagi.recording.asterisk import external, raw_files
from fastagi.recording.asterisk.call_state import call_state
from fastagi.recording.asterisk.channel_table import LiveChannel, called_number
from fastagi.recording.asterisk.external import Found
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording

log = structlog.get_logger(__name__)

LOOKS = (0.0, 0.1, 0.4, 1.5)
"""Seconds before each look that an event has us take: Asterisk publishes it before it opens the file."""

AT_ONCE = 8
"""Channels asked about at once: `mixmonitor list` takes 0.3 ms, and the call's own commands go first."""

PATIENCE_SECONDS = 5.0

RECENT_SECONDS = 3.0
"""A stop that is older has been explained by one of those looks."""


EVENTS = ("MixMonitorStart", "MixMonitorStop", "Hangup")


class Adoption:
    """Finds recordings that others started, and their end.

    :param sinks: names of the sinks that get them
    :param track: has a recording watched
    :param stopped: ends a recording that somebody stopped
    :ivar adopted: how many since the start; a metric
    """

    def __init__(
        self,
        context: RecordingContext,
        *,
        track: Callable[[ActiveRecording], None],
        stopped: Callable[..., Coroutine[Any, Any, bool]],
    ) -> None:
        self._journal = context.journal
        self._jobs = context.jobs
        self._threads = context.threads
        self._settings = context.settings
        self._node = context.node
        self._sinks = context.default_sinks
        self._spawn = context.tasks.spawn
        self._track = track
        self._stopped = stopped
        self._clock = context.clock
        self._lanes = asyncio.Semaphore(AT_ONCE)
        self._looking: dict[tuple[str, str], bool] = {}
        self._ours: dict[tuple[str, str], set[str]] = {}
        self._stops: dict[tuple[str, str], list[float]] = {}
        self.adopted = 0

    @property
    def idle(self) -> bool:
        """True while no channel is being asked about."""
        return not self._looking

    def event(self, pbx: Pbx, name: str, headers: Mapping[str, str], channel: LiveChannel | None) -> None:
        """A MixMonitor was begun or stopped on a channel, or the channel is gone. Only with `[recordings] adopt`."""
        if channel is None:
            return
        key = (pbx.name, channel.uniqueid)
        if name == "Hangup":
            self._stopped_at_the_end(pbx, channel)
            self._ours.pop(key, None)
        elif name == "MixMonitorStart" or (name == "MixMonitorStop" and self._adopted_on(pbx, channel)):
            if name == "MixMonitorStop" and not call_state(channel, True).over:
                self._stops.setdefault(key, []).append(self._clock())
            self._look_at(pbx, channel.uniqueid, self._clock())

    def _stopped_at_the_end(self, pbx: Pbx, gone: LiveChannel) -> None:
        """End with ABORTED what was stopped directly before the hangup: the channel went before its list was asked.

        The event names no MixMonitor, so there must be one for each adopted recording, and none of this server's that
        it may have been about.
        """
        key, now = (pbx.name, gone.uniqueid), self._clock()
        stops = [at for at in self._stops.pop(key, ()) if now - at <= RECENT_SECONDS]
        running = [j for j in self._adopted_on(pbx, gone) if j.phase in (Phase.ACTIVE, Phase.PAUSED)]
        ours = self._ours.get(key) or any(not j.recording.adopted for j in self._jobs.on_channel(*key))
        if stops and len(stops) >= len(running) and not ours:
            for job in running:
                self._spawn(self._stopped(job, ended_at=stops[-1]), f"stopped {job.id}")

    def synced(self, pbx: Pbx) -> None:
        """The connection is up, again or for the first time: MixMonitors that run already, and those stopped unseen."""
        for channel in pbx.channels if self._settings.adopt else ():
            self._look_at(pbx, channel.uniqueid, None)

    def _look_at(self, pbx: Pbx, uniqueid: str, since: float | None) -> None:
        key = (pbx.name, uniqueid)
        if key in self._looking:
            self._looking[key] = True  # whoever looks now looks once more
            return
        self._looking[key] = False
        self._spawn(self._look(pbx, uniqueid, since), f"mixmonitors of {uniqueid}")

    async def _look(self, pbx: Pbx, uniqueid: str, since: float | None) -> None:
        """Look until every MixMonitor that the channel may have is in the list, or enough.

        :param since: when the event came, unix seconds; None where nothing says when a MixMonitor began
        """
        key = (pbx.name, uniqueid)
        try:
            for pause in LOOKS if since is not None else LOOKS[:1]:
                await asyncio.sleep(pause)
                self._looking[key] = False
                async with self._lanes:
                    live = pbx.channels.get(uniqueid)
                    if live is None or not pbx.up or await self._compare(pbx, live, since):
                        break
        except FastAGIError as exc:
            log.warning("adoption_look_failed", asterisk=pbx.name, uniqueid=uniqueid, error=str(exc))
        finally:
            if self._looking.pop(key, False):  # another event came after the last look
                self._look_at(pbx, uniqueid, self._clock())

    def _adopted_on(self, pbx: Pbx, live: LiveChannel) -> list[ActiveRecording]:
        return [job for job in self._jobs.on_channel(pbx.name, live.uniqueid) if job.recording.adopted]

    async def _compare(self, pbx: Pbx, live: LiveChannel, since: float | None) -> bool:
        """Hold the list against what is known: adopt what is new, end what is gone.

        :returns: whether that explains all events: something began or ended, and nothing is about to
        """
        assert pbx.manager is not None
        rows = await actions.mixmonitor_list(pbx.manager, live.name, timeout=PATIENCE_SECONDS)
        mine = self._adopted_on(pbx, live)
        changed = False
        for job in mine:
            piece = job.recording.pieces[-1]
            if job.recording.running and not any(_same(row, piece) for row in rows):
                changed = await self._stopped(job) or changed
        before = self._ours.get((pbx.name, live.uniqueid), set())
        ours = {row.id + row.file for row in rows if external.is_ours(row)}
        if ours or before:
            self._ours[pbx.name, live.uniqueid] = ours
        changed = changed or ours != before
        if changed:
            self._stops.pop((pbx.name, live.uniqueid), None)
        opening = False
        for row in rows:
            if not (row.file or row.received or row.sent):
                opening = True  # its thread has no file yet, or never will
                continue
            if external.is_ours(row):
                continue
            if not any(_same(row, job.recording.pieces[-1]) for job in mine):
                try:
                    await self._adopt(pbx, live, row, since)
                except HeldElsewhere as exc:  # two servers beside one Asterisk: one of them adopts it
                    log.debug(
                        "adopted_elsewhere", asterisk=pbx.name, channel=live.name, uniqueid=live.uniqueid, by=str(exc)
                    )
                changed = True
        return changed and not opening

    async def _adopt(self, pbx: Pbx, live: LiveChannel, row: MixMonitorRow, since: float | None) -> None:
        assert pbx.manager is not None
        if self._journal.full:
            log.error(
                "mixmonitor_not_adopted",
                channel=live.name,
                uniqueid=live.uniqueid,
                asterisk=pbx.name,
                error=self._journal.full,
            )
            return
        named = await actions.getvar(pbx.manager, "MIXMONITOR_FILENAME", live.name, timeout=PATIENCE_SECONDS)
        taken = frozenset(p for j in self._adopted_on(pbx, live) for p in j.recording.pieces[-1].paths)
        found = await self._threads.run(external.locate, row, named, live.name, live.uniqueid, taken)
        recording = await self._recording(pbx, live, found, since)
        try:
            await self._journal.enter(recording, {"file": found.piece.paths[0]})
        except BaseException:
            await self._threads.run(raw_files.release, recording.file_path)
            raise
        job = ActiveRecording(recording)
        job.bridged_seconds = 0.0 if since is not None else None
        self._jobs.add(job)
        self._track(job)
        self.adopted += 1
        log.info(
            "recording_adopted",
            **recording.ids,
            on=live.name,
            file=found.piece.paths[0],
            visible=found.bytes >= 0,
        )

    async def _recording(self, pbx: Pbx, live: LiveChannel, found: Found, since: float | None) -> Recording:
        now = self._clock()
        recording_id = new_id("rec", now, os.urandom(10))
        spec = external.spec_of(found, self._settings.defaults)
        name, relative = external.name_of(found, spec)
        facts: dict[str, Any] = {}
        if not external.readable(found.suffix):
            facts = {AS_RECORDED: True, FILE_FORMAT: Path(relative).suffix.removeprefix(".") or "unknown"}
        try:
            path, renamed = await self._threads.run(raw_files.reserve, self._settings.directory, relative, recording_id)
            if renamed:
                facts[RENAMED] = True
        except OSError as exc:  # it is tracked all the same: there may be room when it ends
            log.error(
                "name_not_reserved",
                recording_id=recording_id,
                channel=live.name,
                uniqueid=live.uniqueid,
                asterisk=pbx.name,
                error=str(exc),
            )
            path = str(self._settings.directory / relative)
        started = since
        if started is None:  # it ran before we looked: as long as its file says
            started = max(live.since, now - external.audio_seconds(found.piece.paths[0], found.bytes))
        first = pbx.channels.origin(live.uniqueid) or live
        return Recording(
            id=recording_id,
            node=self._node,
            asterisk=pbx.name,
            system=pbx.system,
            channel=live.name,
            uniqueid=live.uniqueid,
            linkedid=live.linkedid,
            recorder=f"mixmonitor-{found.piece.monitor_id}",
            name=name,
            file_path=path,
            spec=spec,
            phase=Phase.ACTIVE,
            caller=first.caller,
            called=called_number(first.first_exten, first.exten, live.called),
            pieces=(replace(found.piece, started_at=started),),
            sinks=self._sinks(),
            adopted=True,
            requested_at=now,
            started_at=started,
            facts=Facts(facts),
        )


def _same(row: MixMonitorRow, piece: Segment) -> bool:
    """Return whether this row is that segment. The id is an address that Asterisk uses again, so the file must
    agree.
    """
    return row.id == piece.monitor_id and _stem(piece.paths[0]) == (row.file or row.received or row.sent)


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)
