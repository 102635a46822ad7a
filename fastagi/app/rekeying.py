"""Makes a new master key: every key in the ledger is wrapped with it instead of the old one. Recordings are not
touched.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from fastagi.app.keyfile import key_file
from fastagi.cipher import MasterKey
from fastagi.errors import CipherError, Error
from fastagi.settings import Settings
from fastagi.store.lock import ProcessLock
from fastagi.store.offline import OfflineLedger
from fastagi.store.queries import keys
from fastagi.store.queries.servers import servers
from fastagi.store.schema import recording_key
from fastagi.store.sqlite import path_of

LIVES_SECONDS = 15.0
"""Seconds within which a server on PostgreSQL that has sent a heartbeat counts as running."""


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """The result.

    :param count: keys that were wrapped anew
    :param current: file of the new master key
    :param old: file of the old one
    """

    count: int
    current: Path
    old: Path


async def rekey(settings: Settings) -> Rekeyed:
    """Wrap every key anew, in one transaction, and put the new master key in the old one's place.

    A run that was broken off is finished by the next.

    :raises Error: a server runs, or keys wait in side files that only a server brings into the ledger
    :raises CipherError: there is no master key, or it does not open the ledger's keys; nothing has changed
    :raises StoreDown: the ledger cannot be written
    """
    current = key_file(settings)
    if not await asyncio.to_thread(current.exists):
        raise CipherError(f"{current}: there is no master key: the server makes it at its first start")
    for folder in (settings.recordings.side_folder, *(section.spool for section in settings.asterisk)):
        waiting = await asyncio.to_thread(_waiting, folder)
        if waiting is not None:
            raise Error(f"{waiting} waits for the ledger: start the server once, and stop it when it has caught up")
    async with OfflineLedger(settings.store.url) as ledger, _alone(settings, ledger):
        before = await asyncio.to_thread(MasterKey.load_or_create, current)
        new = current.with_name(f"{current.name}.new")
        after = await asyncio.to_thread(MasterKey.load_or_create, new)
        count = await ledger.run(_wrap_anew, before, after)
        old = current.with_name(f"{current.name}.{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}")
        await asyncio.to_thread(_replace, new, current, old)
    return Rekeyed(count, current, old)


@asynccontextmanager
async def _alone(settings: Settings, ledger: OfflineLedger) -> AsyncIterator[None]:
    """Check that no server runs on this ledger; on SQLite none can start before the context ends."""
    if not settings.store.url.startswith("sqlite:///"):
        living = [s.node for s in await ledger.read(servers, time.time()) if s.silent_seconds < LIVES_SECONDS]
        if living:
            raise Error(f"stop the servers first: {', '.join(living)}")
        yield
        return
    path = path_of(settings.store.url)
    lock = ProcessLock(path.with_name(path.name + ".lock"), "fastagi store rekey")
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _wrap_anew(conn: sa.Connection, before: MasterKey, after: MasterKey) -> int:
    rows = conn.execute(sa.select(recording_key)).all()
    for row in rows:
        aad = row.recording_id.encode()
        try:
            secret = before.unwrap(bytes(row.wrapped), aad)
        except CipherError:
            secret = after.unwrap(bytes(row.wrapped), aad)  # left by a run that was broken off
        keys.put(conn, row.recording_id, row.scheme, after.wrap(secret, aad))
    return len(rows)


def _replace(new: Path, current: Path, old: Path) -> None:
    os.link(current, old)
    os.replace(new, current)
    folder = os.open(current.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _waiting(folder: Path) -> Path | None:
    return next(folder.glob("*.journal"), None) if folder.is_dir() else None
