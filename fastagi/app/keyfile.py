"""The master key's file: `[recordings] key_file`, else beside the ledger. Checks that it opens the ledger's keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastagi.cipher import MasterKey
from fastagi.errors import CipherError
from fastagi.settings import Settings
from fastagi.store.queries import keys

SHARED = Path("/var/lib/fastagi")
"""Folder of the master key when the ledger is no file."""


def key_file(settings: Settings) -> Path:
    """Return its path; no file is made."""
    if settings.recordings.key_file is not None:
        return settings.recordings.key_file
    url = settings.store.url
    folder = Path(url.removeprefix("sqlite:///")).parent if url.startswith("sqlite") else SHARED
    return folder / "master.key"


async def opens_the_ledger(master: MasterKey, read: Callable[..., Awaitable[Any]]) -> bool:
    """Return whether the key wrapped the ledger's newest key; True when there is none.

    :param read: the `read` of a `Store` or an `OfflineLedger`
    """
    found = await read(keys.newest)
    if found is None:
        return True
    recording_id, wrapped = found
    try:
        master.unwrap(wrapped, recording_id.encode())
    except CipherError:
        return False
    return True
