"""`fastagi doctor`: proves the settings against the live system. Prints one line per check, with the remedy of a fault.

Nothing is changed: no call is made, no delivery, no migration, and a check removes the files that it writes. Only
`send_ping` lets receivers see something. `examine` yields the findings in the order of need, as they come.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastagi.app.doctor import asterisk, ledger, places, side_files, sinks
from fastagi.app.doctor.finding import Finding, Findings, Reporter, Status
from fastagi.settings import Settings

__all__ = ["Finding", "Status", "examine"]

AREA_SECONDS = 60.0
"""Seconds for one area; each wait inside has its own, shorter limit."""


async def examine(settings: Settings, *, send_ping: bool = False) -> AsyncIterator[Finding]:
    """Yield all findings.

    :param send_ping: post a signed event of type ``ping`` to the webhooks
    """
    if not settings.asterisk:
        yield Reporter("asterisk").fail(
            "settings",
            "there is no [[asterisk]]: hangups would not be noticed",
            "add [[asterisk]] with host, username and secret_file; dialplan/manager.conf has the user's rights",
        )
    seen: list[asterisk.Seen] = []
    areas: list[tuple[str, Findings]] = [
        (f"asterisk {s.name}", asterisk.examine(s, settings.agi, seen)) for s in settings.asterisk
    ]
    areas.append(("asterisk", asterisk.alike(seen)))
    areas += [("machine", places.examine(settings)), ("store", ledger.examine(settings))]
    areas += [("side files", side_files.examine(settings))]
    areas += [("sinks", sinks.examine(settings, send_ping=send_ping))]
    for area, findings in areas:
        try:
            async with asyncio.timeout(AREA_SECONDS):
                async for finding in findings:
                    yield finding
        except TimeoutError:
            yield Reporter(area).fail("time", f"did not end within {AREA_SECONDS:g} s", "look at disks and network")
