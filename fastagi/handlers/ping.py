"""The AGI route `fastagi/ping`: says that this is a fastagi, and does nothing else. `fastagi doctor` asks for it."""

from __future__ import annotations

from fastagi.recording.call import CallChannel

ROUTE = "fastagi/ping"

GREETING = "fastagi is here"


async def ping(call: CallChannel) -> None:
    """A line on Asterisk's console."""
    await call.verbose(GREETING)


ROUTES = {ROUTE: ping}
