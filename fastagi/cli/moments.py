"""Parses times: ``2026-11-20``, ``2026-11-20 14:05``, ``14:05``, ``today``, ``friday``, ``36h``, ``36 hours ago``."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from fastagi.errors import BadArgument

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def moment(option: str, text: str, now: datetime | None = None) -> float | None:
    """Return unix seconds; None for an empty text. Times without a zone are this machine's.

    :param option: its name, for the error
    :param now: for tests; with a zone
    :raises BadArgument: not understood
    """
    word = text.strip().lower()
    if not word:
        return None
    current = datetime.now().astimezone() if now is None else now
    midnight = current.replace(hour=0, minute=0, second=0, microsecond=0)
    if word in ("today", "yesterday"):
        return (midnight - timedelta(days=word == "yesterday")).timestamp()
    day = next((n for n, name in enumerate(WEEKDAYS) if word in (name, name[:3])), None)
    if day is not None:
        return (midnight - timedelta(days=(current.weekday() - day) % 7)).timestamp()
    ago = re.fullmatch(r"(\d{1,6})\s*(?:([mhdw])|(min)s?|(minute|hour|day|week)s?)(\s+ago)?", word)
    if ago is not None:
        unit = next(found for found in ago.group(2, 3, 4) if found)
        return current.timestamp() - int(ago.group(1)) * UNITS[unit[0]]
    clock = re.fullmatch(r"(\d{1,2}):(\d{2})", word)
    try:
        if clock is not None:
            return midnight.replace(hour=int(clock.group(1)), minute=int(clock.group(2))).timestamp()
        read = datetime.fromisoformat(text.strip())
        return (read if read.tzinfo is not None else read.replace(tzinfo=current.tzinfo)).timestamp()
    except ValueError:
        raise BadArgument(
            f"{option} {text!r}: write a date (2026-11-20), a time (2026-11-20T14:05), today, yesterday, friday, "
            "or 90m, 36h, 7d ago"
        ) from None
