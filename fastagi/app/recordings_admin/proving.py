"""Are the finished files still what was recorded? Each is read whole and held against the ledger's SHA-256."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator

from fastagi.domain.recording import Recording
from fastagi.recording.compliance.evidence import Finding, check_file


async def prove(recordings: AsyncIterable[Recording]) -> AsyncIterator[tuple[Recording, Finding]]:
    """Each with what was found. One after the other: the disk is the limit, and a server may need it too."""
    async for recording in recordings:
        yield recording, await asyncio.to_thread(check_file, recording)
