"""Where the master key is: `[recordings] key_file`, else beside the ledger."""

from __future__ import annotations

from pathlib import Path

from fastagi.settings import Settings

SHARED = Path("/var/lib/fastagi")
"""Where it is beside a ledger that is no file."""


def key_file(settings: Settings) -> Path:
    """Its path; nothing is made."""
    if settings.recordings.key_file is not None:
        return settings.recordings.key_file
    url = settings.store.url
    folder = Path(url.removeprefix("sqlite:///")).parent if url.startswith("sqlite") else SHARED
    return folder / "master.key"
