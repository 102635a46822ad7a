"""File descriptors of this process: the limit, how near it is, and whether a new connection may still be accepted.

Every connection, file and pipe needs a descriptor. Without a free one, uvloop silently closes each accepted connection,
which a dialplan takes for AGISTATUS=SUCCESS. So the last descriptors are kept in reserve: a connection that gets one of
them is refused with a reason, and closed.

The kernel gives the lowest free number, so a connection whose descriptor has number N proves that all below N are in
use: the check costs no system call.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from typing import Final

import structlog

try:
    import resource
except ImportError:  # Windows lacks it; the server does not run there
    resource = None  # type: ignore[assignment]

log = structlog.get_logger(__name__)

MOST: Final = 1 << 20
"""Highest soft limit set: containers allow a billion, and some programs then walk through all of them."""

OTHERS: Final = 200
"""Descriptors beside AGI sessions, HTTP connections and deliveries: ledger, manager connections, logs, raw files and
finished files in the making, programs that are started. An idle server has about 30."""

RESERVE: Final = 64
"""Last descriptors, which no AGI session gets: a call that is refused needs one until it is closed."""

RESERVE_HTTP: Final = 32
"""Last descriptors that no HTTP connection gets either. Fewer: `/readyz` must answer when sessions are refused."""

SCARCE_SECONDS: Final = 60.0
"""Seconds after the last refusal in which `/readyz` still reports it."""


def _soft_and_hard() -> tuple[int, int]:
    if resource is None:
        return MOST, MOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (MOST if soft < 0 else soft), (MOST if hard < 0 else hard)  # RLIM_INFINITY is negative


def available() -> int:
    """Return how many descriptors this process could have: the hard limit, at most `MOST`."""
    soft, hard = _soft_and_hard()
    return max(soft, min(hard, MOST))


def needed(sessions: int, others: int) -> int:
    """Return how many descriptors a server needs.

    :param sessions: AGI sessions at once; :param others: HTTP connections and deliveries at once
    """
    return sessions + others + OTHERS + RESERVE


class Descriptors:
    """The limit of this process, and the connections refused because of it.

    :ivar limit: descriptors that this process may have
    :ivar refused_agi: calls refused for lack of descriptors; :ivar refused_http: HTTP connections refused likewise
    """

    def __init__(self) -> None:
        self.limit = _soft_and_hard()[0]
        self.refused_agi = 0
        self.refused_http = 0
        self._last = 0.0

    def raise_limit(self) -> None:
        """Raise the soft limit to the hard one. Does nothing where that is not allowed."""
        soft, hard = _soft_and_hard()
        wanted = available()
        if resource is not None and soft < wanted:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            except (OSError, ValueError) as exc:
                log.warning("descriptor_limit_not_raised", limit=soft, wanted=wanted, error=str(exc))
        self.limit = _soft_and_hard()[0]

    @property
    def scarce(self) -> bool:
        """True while connections are being refused, and `SCARCE_SECONDS` longer."""
        return bool(self._last) and time.monotonic() - self._last < SCARCE_SECONDS

    def open(self) -> int:
        """Count the open descriptors; 0 where the system does not tell."""
        try:
            return len(os.listdir("/proc/self/fd")) - 1  # the listing's own
        except OSError:
            return 0

    def look(self) -> None:
        """Check for a free descriptor, and note the lack of one: the event loop then closes connections unseen."""
        try:
            os.close(os.dup(0))
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                self._note("none left")

    def refuses_agi(self, transport: asyncio.BaseTransport) -> bool:
        """Return True when a new AGI connection has one of the last descriptors; no session may keep it."""
        if _number(transport) < self.limit - RESERVE:
            return False
        self.refused_agi += 1
        self._note("agi")
        return True

    def refuses_http(self, transport: asyncio.BaseTransport) -> bool:
        """Return True when a new HTTP connection has one of the last descriptors."""
        if _number(transport) < self.limit - RESERVE_HTTP:
            return False
        self.refused_http += 1
        self._note("http")
        return True

    def _note(self, door: str) -> None:
        scarce = self.scarce
        self._last = time.monotonic()
        if not scarce:
            log.error(
                "descriptors_scarce",
                door=door,
                limit=self.limit,
                hint="new connections are refused: raise LimitNOFILE (ulimit -n), or lower [agi] max_sessions",
            )


def _number(transport: asyncio.BaseTransport) -> int:
    link = transport.get_extra_info("socket")
    return link.fileno() if link is not None else -1
