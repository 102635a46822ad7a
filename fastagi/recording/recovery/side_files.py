"""Side files that the last process left: what calls need is read before they are served, the rest afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

import structlog

from fastagi.domain.recording import Recording
from fastagi.errors import StoreError
from fastagi.recording.context import RecordingContext
from fastagi.recording.recovery.restart import Recovery
from fastagi.store.queries import catalogue, servers
from fastagi.store.queries import recordings as units

log = structlog.get_logger(__name__)

SERVE_WITHIN_SECONDS = 1.0
"""What may be spent on side files before calls are served. Those of recordings that the ledger has open come first in
any case, then the newest, which are of calls that are up; what is left is of calls that are over, and can wait."""

AT_ONCE = 200
"""Side files after which open recordings are taken up, and whoever else wants the ledger has his turn."""

AGAIN_SECONDS = 2.0


class SideFileReplay:
    """Brings the last process's side files into the ledger, and its open recordings back to life.

    :param folders: where the version before left side files
    """

    def __init__(self, context: RecordingContext, recovery: Recovery, folders: Iterable[Path]) -> None:
        self._store = context.store
        self._journal = context.journal
        self._jobs = context.jobs
        self._recovery = recovery
        self._pbxs = context.pbxs
        self._node = context.node
        self._folders = tuple(folders)
        self._left: list[str] = []

    async def before_serving(self) -> list[Recording]:
        """Read what calls need; the open recordings of this server, which are jobs now.

        :raises StoreError: the ledger cannot be read or written
        """
        fault = await asyncio.to_thread(self._journal.sides.fault)
        if fault:
            log.error("side_files_unusable", error=fault, hint="fastagi doctor says what to do")
        open_ids = await self._store.read(catalogue.open_ids)
        ids = await self._journal.side_files_of_others()
        count = await self._journal.left.read([i for i in ids if i in open_ids], self._ours)
        count += await self._journal.left.read_old(
            self._folders, self._ours, "alone" if self._store.alone else self._node
        )
        self._left = [i for i in ids if i not in open_ids]
        until = time.monotonic() + SERVE_WITHIN_SECONDS
        while self._left and time.monotonic() < until:
            count += await self._next()
        if self._left:
            log.warning("side_files_left_for_later", count=len(self._left))
        await self._rename(again=count > 0)
        return await self._reopen()

    async def run(self) -> None:
        """Read what is left, while calls are served. Lasts for ever; owned by the recorder."""
        while self._left:
            try:
                await self._next()
                await self._rename(again=True)
                await self._compare(await self._reopen())
            except StoreError as exc:
                log.warning("side_files_wait", error=str(exc))
                await asyncio.sleep(AGAIN_SECONDS)
        await asyncio.Event().wait()

    async def _next(self) -> int:
        """Read the newest of those that are left; how many were ours."""
        count = await self._journal.left.read(self._left[-AT_ONCE:], self._ours)
        del self._left[-AT_ONCE:]
        return count

    def _ours(self, node: str) -> bool:
        """Return whether a node's side file is this server's to read."""
        return self._store.alone or node == self._node

    async def _rename(self, *, again: bool) -> None:
        """On SQLite everything is this server's, whatever its name was before."""
        if self._store.alone:
            renamed = await self._store.run(servers.only_one, self._node, again=again)
            if renamed:
                log.warning("server_renamed", node=self._node, recordings=renamed)

    async def _reopen(self) -> list[Recording]:
        """Make jobs of this server's open recordings that are none yet; which."""
        found: list[Recording] = await self._store.read(units.open_recordings, self._node)
        found = [recording for recording in found if self._jobs.get(recording.id) is None]
        self._recovery.load(found)
        return found

    async def _compare(self, reopened: list[Recording]) -> None:
        for name in {recording.asterisk for recording in reopened} & set(self._pbxs):
            if self._pbxs[name].up:
                await self._recovery.compare(self._pbxs[name])
