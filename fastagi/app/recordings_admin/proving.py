"""Verifies finished files: each is read whole and compared with the ledger's SHA-256."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator

from fastagi.domain.recording import Recording
from fastagi.recording.compliance.evidence import Finding, check_file


async def prove(recordings: AsyncIterable[Recording]) -> AsyncIterator[tuple[Recording, Finding]]:
    """Yield each recording with its finding, one after the other: a server may need the disk too."""
    async for recording in recordings:
        yield recording, await asyncio.to_thread(check_file, recording)
