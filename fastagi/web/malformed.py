"""Logs requests that are no HTTP, and unknown tokens, in one line each and at a limited rate.

Any peer that reaches the port can send them as fast as it likes, and their content may hold a real token.
"""

from __future__ import annotations

import logging
import time

import structlog
from aiohttp.http_exceptions import HttpProcessingError

LOGGED_PER_MINUTE = 20
"""Requests of one kind that are logged one by one: enough to see who tries, too few to fill the disk."""


class RateLimitedLog:
    """Logs warnings of one event, up to a number per minute.

    :param event: its name; the number left out is logged as ``EVENT_not_logged``
    """

    def __init__(self, logger: str, event: str) -> None:
        self._log = structlog.get_logger(logger)
        self._event = event
        self._minute = 0
        self._count = 0

    def __call__(self, **fields: object) -> None:
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            if self._count > LOGGED_PER_MINUTE:
                self._log.warning(f"{self._event}_not_logged", count=self._count - LOGGED_PER_MINUTE)
            self._minute, self._count = minute, 0
        self._count += 1
        if self._count <= LOGGED_PER_MINUTE:
            self._log.warning(self._event, **fields)


class MalformedRequests(logging.Filter):
    """A filter on aiohttp's logger: its traceback, which quotes a malformed request, becomes one line."""

    def __init__(self) -> None:
        super().__init__()
        self._note = RateLimitedLog(__name__, "http_malformed")

    def filter(self, record: logging.LogRecord) -> bool:
        fault = record.exc_info[1] if record.exc_info else None
        if not isinstance(fault, HttpProcessingError):
            return True
        peer = record.args[0] if isinstance(record.args, tuple) and record.args else None
        self._note(peer=peer, fault=type(fault).__name__)
        return False
