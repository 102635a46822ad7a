"""Legal holds and deletions without a server, by the same rules and with the same journal lines as with one."""

from __future__ import annotations

import time
from typing import cast

from fastagi.domain.recording import Recording
from fastagi.errors import Error
from fastagi.recording.compliance.evidence import Evidence
from fastagi.runtime.threads import FileThreads
from fastagi.settings import Settings
from fastagi.store import Store
from fastagi.store.offline import OfflineLedger


def _evidence(settings: Settings, ledger: OfflineLedger, threads: FileThreads) -> Evidence:
    return Evidence(
        cast(Store, ledger),  # imported for types only: this class only reads and runs units
        threads,
        node=settings.store.node,
        spools={section.name: section.spool for section in settings.asterisk},
        clock=time.time,
    )


async def hold(settings: Settings, ledger: OfflineLedger, recording: Recording, who: str, reason: str) -> Recording:
    """Put a recording on hold until it is released. Idempotent.

    :raises Error: it is deleted
    """
    threads = FileThreads(1)
    try:
        return await _evidence(settings, ledger, threads).hold(recording.id, who, reason)
    finally:
        threads.close()


async def release(settings: Settings, ledger: OfflineLedger, recording: Recording, who: str, reason: str) -> Recording:
    """End a hold.

    :raises Error: it is not on hold
    """
    threads = FileThreads(1)
    try:
        return await _evidence(settings, ledger, threads).release(recording.id, who, reason)
    finally:
        threads.close()


async def delete(
    settings: Settings, ledger: OfflineLedger, recording: Recording, who: str, reason: str, *, force: bool = False
) -> Recording:
    """Delete a recording's file and its key; the row and its journal stay. Idempotent.

    :param force: also when a delivery is still open; never over a hold
    :raises Error: on hold, not ended, not delivered, or another server has the file
    """
    if recording.node != settings.store.node and not settings.store.url.startswith("sqlite"):
        raise Error(
            f"the file of {recording.id} is on {recording.node}, this is {settings.store.node}: delete it there"
        )
    threads = FileThreads(1)
    try:
        return await _evidence(settings, ledger, threads).delete_recording(recording.id, who, reason, force=force)
    finally:
        threads.close()
