"""The server killed again and again under calls; every call is accounted for."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

from fastagi.testing import AsteriskServer
from support.crash_harness import DIALPLAN, Calls, Receiver, Serving, account, killing, until, watched_calls

SHORTEST, LONGEST = 3.0, 45.0
"""Seconds a call lasts: some end between two kills, some live through many."""


async def kills(folder: Path, count: int, at_once: int, seed: int, version: int) -> dict[str, Any]:
    """Kill so many times while `at_once` calls are up; the figures.

    :raises AssertionError: a call was lost
    """
    moments = random.Random(seed)
    async with (
        AsteriskServer(version, dialplan=DIALPLAN) as asterisk,
        Receiver() as receiver,
        watched_calls(asterisk) as calls,
    ):
        server = Serving(asterisk, folder, sink=receiver.url)
        try:
            await server.start()
            begun = time.monotonic()
            killer = asyncio.create_task(killing(server, count, seed, longest=4.0))
            most = await _keep_up(calls, server, killer, at_once, moments)
            lives = await killer
            await server.start()
            await until(lambda: calls.up == 0, 300, "all calls are over")
            await until(lambda: not server.unsettled(), 300, "all is finished and delivered")
            figures = account(calls.made, server, receiver)
            return {
                "kills": len(lives),
                "calls_at_once": most,
                "seconds": round(time.monotonic() - begun),
                "lives_seconds": [round(min(lives), 2), round(max(lives), 2)],
                **figures,
            }
        finally:
            await server.close()


async def _keep_up(calls: Calls, server: Serving, killer: asyncio.Task[Any], at_once: int, moments: Any) -> int:
    """Have so many calls up until the killing is over; the most there were."""
    most = 0
    while not killer.done():
        if calls.up < at_once:
            await calls.one(server, moments.uniform(SHORTEST, LONGEST))
            most = max(most, calls.up)
        await asyncio.sleep(0.05)
    return most
