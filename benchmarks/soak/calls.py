"""More and more recorded calls at once, until Asterisk or the machine gives up; none that was recorded is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Any

from fastagi.errors import AsteriskError
from fastagi.testing import AsteriskServer
from support.crash_harness import DIALPLAN, Receiver, Serving, account, until, watched_calls

FIRST_SECONDS = 3.0
"""Until every file has grown for the first time."""

WINDOW_SECONDS = 5 * 2.048
"""Files grow by 32,768 bytes at a time: five times in this, whenever it begins."""

SLOWEST_START = 5.0
"""A call that waits longer for its recording has been given up on."""

BEHIND_SECONDS = 3.0
"""All are hung up at once: the last one's Hangup event comes seconds after that."""

SHORTEST_SHARE = 0.9
"""Less audio than so much of the wall clock: Asterisk cannot keep up with its frames any more."""


async def calls(folder: Path, most: int, step: int, version: int) -> dict[str, Any]:
    """Go up in steps until something gives; the figures of the last step that held."""
    async with (
        AsteriskServer(version, dialplan=DIALPLAN) as asterisk,
        Receiver() as receiver,
        watched_calls(asterisk) as made,
    ):
        server = Serving(asterisk, folder, sink=receiver.url)
        try:
            await server.start()
            held, gave = 0, ""
            while made.up < most and not gave:
                with contextlib.suppress(AsteriskError):
                    for _ in range(step):
                        await made.one(server, 3600.0)
                gave = await _what_gave(server, len(made.made))
                if not gave:
                    held = made.up
                    print(f"  {held} calls hold, load {os.getloadavg()[0]:.1f}", flush=True)
            await asterisk.cli("channel request hangup all", timeout=120)
            await until(lambda: made.up == 0, 600, "all calls are over")
            await until(lambda: not server.unsettled(), 600, "all is finished and delivered")
            figures = {} if gave else account(made.made, server, receiver, behind=BEHIND_SECONDS)
            lost = [c for c in made.made.values() if len(receiver.told(c.uniqueid)) != 1]
            assert not lost, f"{len(lost)} calls without a delivered recording: {lost[:5]}"
            return {
                "held_at_once": held,
                "gave_up_because": gave or f"{most} were enough",
                "calls": len(made.made),
            } | figures
        finally:
            await server.close()


async def _what_gave(server: Serving, count: int) -> str:
    """What does not hold any more with so many calls; empty while all does."""
    try:
        await until(lambda: len(server.events("recording_started")) >= count, SLOWEST_START + 10)
    except AssertionError:
        return f"only {len(server.events('recording_started'))} of {count} calls were recorded in time"
    await asyncio.sleep(FIRST_SECONDS)
    sizes = _sizes(server)
    begun = time.monotonic()
    await asyncio.sleep(WINDOW_SECONDS)
    grown = sum(_sizes(server).values()) - sum(sizes.values())
    share = grown / (16_000 * (time.monotonic() - begun) * max(1, len(sizes)))
    if share < SHORTEST_SHARE:
        return f"only {share:.0%} of the audio reached the disk in time with {count} calls"
    return ""


def _sizes(server: Serving) -> dict[str, int]:
    """Bytes of every mixed raw file."""
    return {p.name: p.stat().st_size for p in server.spool.glob("rec-*.wav") if p.name.count("-") == 1}
