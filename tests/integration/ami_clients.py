"""Managers as the tests of `fastagi.ami` want them: quick to lose patience, and stopped whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastagi.ami import Backoff, Manager

SECONDS = 15.0
"""How long a test waits for what must happen: far above what it takes, so that a busy machine fails no test."""


def impatient(port: int, **options: Any) -> Manager:
    """A Manager for `ami_peer.Peer`; not started."""
    quick: dict[str, Any] = {
        "name": "pbx",
        "username": "fastagi",
        "secret": "s3cret",
        "boot_seconds": 0.2,
        "backoff": Backoff(0.01, 0.05),
    }
    return Manager(port=port, **{**quick, **options})


@asynccontextmanager
async def running(port: int, *, up: bool = True, **options: Any) -> AsyncIterator[Manager]:
    """The same, started, and up unless `up` is False. Leaves no task behind, or the test fails."""
    before = asyncio.all_tasks()
    ami = impatient(port, **options)
    await ami.start()
    try:
        if up:
            await ami.wait_up(SECONDS)
        yield ami
    finally:
        await ami.stop()
    left = {t for t in asyncio.all_tasks() - before if t.get_name().startswith("ami-")}
    assert not left, f"tasks left behind: {left}"


async def until(condition: Callable[[], Any], seconds: float = SECONDS) -> None:
    """Wait until it is true, looking every 5 ms."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions of all kinds, none of which tells when it changes
            await asyncio.sleep(0.005)
