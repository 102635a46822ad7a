"""The AGI route `fastagi/ping`: says that this is a fastagi, and does nothing else. `fastagi doctor` calls it."""

from __future__ import annotations

from fastagi.recording.call import CallChannel

ROUTE = "fastagi/ping"

GREETING = "fastagi is here"


async def ping(call: CallChannel) -> None:
    """Write a line to Asterisk's console."""
    await call.verbose(GREETING)


ROUTES = {ROUTE: ping}
