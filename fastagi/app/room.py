"""Computes how many AGI sessions the file descriptors of a process allow, before any call comes."""

from __future__ import annotations

from fastagi.agi import descriptors
from fastagi.errors import ConfigError
from fastagi.settings import Settings
from fastagi.web.connections import MOST_CONNECTIONS

PER_DELIVERY = 2
"""A connection and the recording's file."""


def others(settings: Settings) -> int:
    """Return how many descriptors HTTP connections and deliveries can need at once."""
    http = MOST_CONNECTIONS if settings.http.enabled else 0
    return http + PER_DELIVERY * sum(sink.concurrency for sink in settings.sinks)


def sessions_that_fit(settings: Settings, limit: int) -> int:
    """Return how many sessions there may be at once: `[agi] max_sessions`, or fewer where that is only the default.

    :param limit: descriptors that the process may have
    :raises ConfigError: `max_sessions` is set and cannot be had, or not one session can; the text says what would do
    """
    wanted = settings.agi.max_sessions
    needed = descriptors.needed(wanted, others(settings))
    if needed <= limit:
        return wanted
    possible = wanted - (needed - limit)
    if possible >= 1 and "max_sessions" not in settings.agi.model_fields_set:
        return possible
    lower = f", or agi.max_sessions = {possible}" if possible >= 1 else ""
    raise ConfigError(
        f"agi.max_sessions = {wanted}: needs {needed} file descriptors with everything else, and this process may have "
        f"{limit}: set LimitNOFILE={needed} (ulimit -n {needed}){lower}"
    )
