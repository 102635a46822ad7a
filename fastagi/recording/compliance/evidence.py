"""Evidence: is a finished file still what was recorded, how long is it kept, who held it, who deleted it.

`check_file` needs only the row (the CLI uses it without a server). `Evidence` belongs to a running server: holds,
deletions, and the sweep that retention and unfinished deletions need. A deletion is decided in the ledger first, key
included; the file goes after that; a crash in between is made good by the next sweep, the first of which is at start.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import structlog

from fastagi.domain.recording import Recording
from fastagi.domain.states import Phase
from fastagi.errors import BadArgument, Error, StoreError
from fastagi.exposed_files import remove_file
from fastagi.recording.asterisk import raw_files
from fastagi.runtime.threads import FileThreads
from fastagi.store import Store
from fastagi.store.queries import catalogue, evidence

log = structlog.get_logger(__name__)

SWEEP_SECONDS = 3600.0
"""Retention is counted in days; an hour late is not late."""

BATCH = 100
"""Recordings deleted in a row before others get the ledger's writer and the disk again."""

LONGEST_WORD = 200
"""Characters of a name or a reason that are journalled."""

DAY = 86_400.0

DOUBTED_SECONDS = 3600.0
"""What a machine may be behind after it slept, or ran without NTP, is no reason to doubt."""

DOUBT_SECONDS = DAY
"""After the machine's clock was set: one that shows 2040 would expire everything."""


class Proof(StrEnum):
    """The result of comparing a finished file with the ledger."""

    OK = "ok"  # byte for byte what was finished
    CHANGED = "changed"  # there, but not the same bytes
    MISSING = "missing"  # not there, though nobody deleted it here
    DELETED = "deleted"  # deleted, as the journal says
    UNREADABLE = "unreadable"  # there, but this process may not read it
    UNFINISHED = "unfinished"  # it has no finished file: still open, or failed


@dataclass(frozen=True, slots=True)
class Finding:
    """`check_file`'s answer.

    :param detail: one line for people, empty when all is well
    :param sha256: of what is there now, empty where nothing could be read
    """

    recording_id: str
    proof: Proof
    detail: str = ""
    sha256: str = ""


def check_file(recording: Recording) -> Finding:
    """Compute the SHA-256 of a recording's file again and hold it against its row. Blocking: reads the whole file."""
    path = recording.file_path
    if recording.deleted_at is not None:
        left = "its file is still there" if os.path.lexists(path) else ""
        return Finding(recording.id, Proof.DELETED, left)
    if recording.phase is not Phase.FINISHED or not recording.sha256:
        return Finding(recording.id, Proof.UNFINISHED, recording.error or f"it is {recording.phase.value}")
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return Finding(recording.id, Proof.MISSING, f"{path} is not there")
    except OSError as exc:
        return Finding(recording.id, Proof.UNREADABLE, f"{path}: {exc.strerror}")
    if digest == recording.sha256:
        return Finding(recording.id, Proof.OK, "", digest)
    grown = "" if size == recording.bytes else f", {size} bytes instead of {recording.bytes}"
    return Finding(recording.id, Proof.CHANGED, f"{path} has SHA-256 {digest[:16]}…{grown}", digest)


class Teller(Protocol):
    """Tells the journal's listeners of a change."""

    def __call__(self, recording: Recording, event: str, detail: dict[str, Any]) -> None: ...


class Evidence:
    """Holds, deletions and retention of one server's recordings.

    :param retention_days: finished files are deleted after so many; 0 for never
    :param spools: where Asterisk's raw files are, by Asterisk name; a failed recording's are deleted from there only
    :param side_folder: where side files are: one that was set aside names who called whom
    """

    def __init__(
        self,
        store: Store,
        threads: FileThreads,
        *,
        node: str,
        retention_days: int = 0,
        spools: Mapping[str, Path] | None = None,
        side_folder: Path | None = None,
        clock: Callable[[], float] = time.time,
        tell: Teller = lambda recording, event, detail: None,
    ) -> None:
        self._store = store
        self._threads = threads
        self._node = node
        self._retention_days = retention_days
        self._spools = dict(spools or {})
        self._side_folder = side_folder
        self._clock = clock
        self._tell = tell
        self._trusted_from = 0.0
        self.deleted = 0
        """Recordings deleted since the start, for a metric."""

    async def verify(self, recording: Recording) -> Finding:
        """`check_file` in the audio threads: it reads the whole file."""
        return await self._threads.finish(check_file, recording)

    async def hold(self, recording_id: str, who: str, reason: str) -> Recording:
        """Keep it whatever happens: neither retention nor `delete_recording` touch it. Idempotent, journalled.

        :raises Error: it is deleted; :raises StoreError: there is no such recording
        """
        return await self._hold(recording_id, True, who, reason)

    async def release(self, recording_id: str, who: str, reason: str) -> Recording:
        """End a legal hold. Journalled.

        :raises StoreError: there is no such recording; :raises Error: it is not on hold
        """
        return await self._hold(recording_id, False, who, reason)

    async def _hold(self, recording_id: str, on: bool, who: str, reason: str) -> Recording:
        who, reason = word("who", who), word("reason", reason)
        after: Recording = await self._store.run(evidence.hold, recording_id, self._clock(), on, who, reason)
        event = "hold_set" if on else "hold_released"
        log.info(f"legal_{event}", **after.ids, who=who, reason=reason)
        self._tell(after, event, {"who": who, "reason": reason})
        return after

    async def delete_recording(self, recording_id: str, who: str, reason: str, *, force: bool = False) -> Recording:
        """Delete its file and its key; the row stays, with `deleted_at`. Idempotent.

        Who and why are in the journal before the file goes. An encrypted recording's key goes in the same transaction,
        so copies of the file elsewhere cannot be read with anything this server has.

        :param force: also where something is still to be delivered (those deliveries are then dead); never over a hold
        :raises Error: it is on legal hold, has not ended, or is not delivered
        :raises StoreError: there is no such recording; :raises StoreDown: nothing was done, try again
        """
        who, reason = word("who", who), word("reason", reason)
        now = self._clock()
        doomed: Recording
        doomed, there = await self._store.run(evidence.condemn, recording_id, now, who, reason, force)
        if there:
            log.info("recording_deleting", **doomed.ids, who=who, reason=reason)
            self._tell(doomed, "deleting", {"who": who, "reason": reason})
            await self._remove([doomed])
        return doomed

    async def run(self) -> None:
        """For ever: retention and what an earlier deletion left, at start and each hour. Owned by the recorder."""
        while True:
            try:
                await self.sweep()
            except StoreError as exc:
                log.warning("retention_put_off", error=str(exc))
            await asyncio.sleep(SWEEP_SECONDS)

    def doubt_clock(self, by: float) -> None:
        """The clock was set: where it was set far ahead, nothing expires by it for a day, in which somebody may see
        that it is wrong.

        :param by: seconds that it was set ahead; negative for back
        """
        if by < DOUBTED_SECONDS:
            return
        self._trusted_from = time.monotonic() + DOUBT_SECONDS
        if self._retention_days:
            log.warning("retention_waits", seconds=DOUBT_SECONDS, hint="the clock was set; a restart ends the wait")

    async def sweep(self) -> int:
        """End deletions that were begun, then delete what is older than the retention. How many files went."""
        count = await self._end_condemned()
        if self._retention_days and time.monotonic() >= self._trusted_from:
            count += await self._expire(self._clock() - self._retention_days * DAY)
        return count

    async def _end_condemned(self) -> int:
        count = 0
        while True:
            left: list[Recording] = await self._store.read(evidence.pending_deletion, self._node, BATCH)
            done = await self._remove(left)
            count += done
            if done == 0:
                return count

    async def _expire(self, before: float) -> int:
        count = 0
        while True:
            found: list[Recording] = await self._store.read(catalogue.expired, before, limit=BATCH, node=self._node)
            done = 0
            for recording in found:
                try:
                    await self.delete_recording(recording.id, "retention", f"older than {self._retention_days} days")
                    done += 1
                except Error as exc:  # held or delivered to somebody meanwhile
                    log.info("not_expired", **recording.ids, why=str(exc))
            count += done
            if done == 0:
                return count

    async def _remove(self, doomed: list[Recording]) -> int:
        """Remove the files of recordings that are to be deleted, and note it. What is left stays pending."""
        gone: list[str] = []
        for recording in doomed:
            if recording.node != self._node and not await self._threads.run(os.path.exists, recording.file_path):
                continue  # it is on that server's disk, and its sweep removes it
            reused = await self._store.read(evidence.name_reused, recording.file_path, recording.id)
            fault = "" if reused else await self._threads.run(lambda r=recording: _unlink(self._paths(r)))  # type: ignore[misc]
            if fault:
                log.error("file_not_deleted", **recording.ids, error=fault)
            else:
                gone.append(recording.id)
        if gone:
            await self._store.run(evidence.removed, gone, self._clock())
            self.deleted += len(gone)
            for recording in doomed:
                if recording.id in gone:
                    self._tell(recording, "deleted", {})
        return len(gone)

    def _paths(self, recording: Recording) -> tuple[str, ...]:
        """Return the files to remove: the finished one, and Asterisk's own that are left in the spool. Blocking."""
        finished = (recording.file_path,) if recording.phase is Phase.FINISHED else ()
        spool = self._spools.get(recording.asterisk)
        left: list[Path] = []
        if spool is not None:
            raw = (Path(p) for piece in recording.pieces for p in piece.paths)
            left = [p for p in raw if p.parent == spool and raw_files.recording_id_of(p) == recording.id]
        for folder in (spool, self._side_folder):
            if folder is not None:
                left += _set_aside(folder / raw_files.SET_ASIDE, recording.id)
        return (*finished, *map(str, left))


def _set_aside(folder: Path, recording_id: str) -> list[Path]:
    """Files of that recording in a folder of files that were set aside."""
    try:
        with raw_files.listed(folder) as entries:
            return [folder / entry.name for entry in entries if entry.name.startswith(recording_id)]
    except OSError:
        return []


def word(name: str, value: str) -> str:
    """A name or a reason as it is journalled: one line, printable, bounded.

    :raises BadArgument: empty
    """
    clean = " ".join("".join(c if c.isprintable() else " " for c in value[: 4 * LONGEST_WORD]).split())
    if not clean:
        raise BadArgument(f"{name} is missing: a deletion or a hold says who and why")
    return clean[:LONGEST_WORD]


def _unlink(paths: tuple[str, ...]) -> str:
    """Remove and sync the folder; what is gone is gone. Returns the fault, empty when there is none."""
    for path in paths:
        try:
            if remove_file(path):
                raw_files.sync(Path(path).parent)
        except OSError as exc:
            return f"{path}: {exc.strerror}"
    return ""
