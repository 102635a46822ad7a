"""Where the master key is: `[recordings] key_file`, else beside the ledger; and is it the one that the ledger needs?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastagi.cipher import MasterKey
from fastagi.errors import CipherError
from fastagi.settings import Settings
from fastagi.store.queries import keys

SHARED = Path("/var/lib/fastagi")
"""Where it is beside a ledger that is no file."""


def key_file(settings: Settings) -> Path:
    """Its path; nothing is made."""
    if settings.recordings.key_file is not None:
        return settings.recordings.key_file
    url = settings.store.url
    folder = Path(url.removeprefix("sqlite:///")).parent if url.startswith("sqlite") else SHARED
    return folder / "master.key"


async def opens_the_ledger(master: MasterKey, read: Callable[..., Awaitable[Any]]) -> bool:
    """Is it the key that wrapped the ledger's youngest one? True where there is none.

    :param read: a ledger's, of a `Store` or a `OfflineLedger`
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
