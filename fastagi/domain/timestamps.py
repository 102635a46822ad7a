"""Times as text. The clock itself is always passed in."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(seconds: float | None) -> str | None:
    """Return unix seconds as RFC 3339 in UTC with milliseconds (``2026-01-02T03:04:05.678Z``); None stays None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
