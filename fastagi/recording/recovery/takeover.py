"""Open recordings of a server that died, taken over by one that can read their files, where several share a ledger.

A server is dead when its heartbeat is silent for some time (`fastagi.delivery` beats it, on the database's clock).
Whoever sees its raw files is the heir: the row changes hands in one transaction, and what the dead one writes later, if
it was only asleep, is refused (`TakenOver`). From there on it is a recording like those of a restart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from fastagi.domain.recording import Recording
from fastagi.domain.states import Phase
from fastagi.errors import StoreError
from fastagi.recording.asterisk import raw_files
from fastagi.recording.context import RecordingContext
from fastagi.recording.recovery.restart import Recovery
from fastagi.store.queries import recordings as units
from fastagi.store.queries import servers
from fastagi.store.queries.servers import SILENT_SECONDS

log = structlog.get_logger(__name__)

LOOK_SECONDS = 3.0
"""With the 15 s after which a silent server is dead: its recordings are somebody's within 20 s."""


class Takeover:
    """Looks for dead servers' recordings.

    :ivar taken: recordings taken over since the start; a metric
    :ivar dead: servers whose recordings wait for an heir, as far as is known here
    """

    def __init__(self, context: RecordingContext, recovery: Recovery) -> None:
        self._store = context.store
        self._journal = context.journal
        self._recovery = recovery
        self._threads = context.threads
        self._pbxs = context.pbxs
        self._node = context.node
        self._clock = context.clock
        self._missed: dict[str, float] = {}
        self.taken = 0
        self.dead: set[str] = set()

    async def run(self) -> None:
        """For ever. Owned by the recorder."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.round()
            except StoreError as exc:
                log.warning("takeover_broken_off", error=str(exc))

    async def round(self) -> int:
        """Look once; how many were taken over. :raises StoreError: the ledger is down"""
        nodes = await self._store.read(units.open_nodes, self._node)
        known = {s.node: s.silent_seconds for s in await self._store.read(servers.servers, self._clock())}
        self._missed = {node: at for node, at in self._missed.items() if node not in known}
        dead = {node for node in nodes if self._is_dead(node, known)}
        self.dead &= dead
        self.dead |= dead
        silent = {node for node in known if node != self._node and self._is_dead(node, known)} | self.dead
        if silent:
            # what the dead ones could not tell the ledger is in their side files, where the folder is shared
            ids = await self._journal.side_files_of_others()
            await self._journal.left.read(ids, lambda node: node in silent)
        if not self.dead:
            return 0
        elsewhere: list[Recording] = await self._store.read(units.open_elsewhere, self._node)
        heritage = [r for r in elsewhere if r.node in self.dead and await self._threads.run(self._within_reach, r)]
        taken = []
        for recording in heritage:
            ours = await self._store.run(units.take_over, recording.id, recording.node, self._node, self._clock())
            if ours is not None:
                log.warning("recording_taken_over", **ours.ids, before=recording.node)
                taken.append(ours)
        self.taken += len(taken)
        self._recovery.load(taken)
        for name in {r.asterisk for r in taken}:
            if self._pbxs[name].up:
                await self._recovery.compare(self._pbxs[name])
        return len(taken)

    def _is_dead(self, node: str, known: Mapping[str, float]) -> bool:
        """A server that said goodbye may be restarting: it has as long as one that fell silent."""
        if node in known:
            return known[node] > SILENT_SECONDS
        return time.monotonic() - self._missed.setdefault(node, time.monotonic()) > SILENT_SECONDS

    def _within_reach(self, recording: Recording) -> bool:
        """Return whether this server can read the raw files. One that was only intended has none: its call must be
        up here.
        """
        pbx = self._pbxs.get(recording.asterisk)
        if pbx is None:
            return False
        last = recording.pieces[-1]
        if any(raw_files.size(path) >= 0 for piece in recording.pieces for path in piece.paths):
            return True
        here = Path(last.paths[0]).parent == pbx.spool
        return recording.phase is Phase.REQUESTED and here and pbx.call_state(last.uniqueid).there
