"""Numbers that somebody gave: what is none, or no good one, is one line that names it."""

from __future__ import annotations

from typing import Any

from fastagi.errors import BadArgument

LARGEST = 2**53
"""The largest number that JSON carries exactly, to whoever reads the metadata."""


def check_seconds(name: str, value: Any, most: int, *, none: str, zero: bool = False) -> None:
    """Refuse what is no time to wait for. True is none, though Python counts it as 1.

    :param value: seconds, or None
    :param most: the longest
    :param none: what None stands for: "None {none}"
    :param zero: whether 0 is one, too
    :raises BadArgument: it is none, or out of range
    """
    if value is None:
        return
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most
    if not good or (value == 0 and not zero):
        least = "0 or more" if zero else "more than 0"
        raise BadArgument(f"{name}={shown(value)} must be {least} and at most {most} seconds, or None {none}")


def shown(value: Any) -> str:
    """A value for an error's one line; an int of thousands of digits cannot even be written."""
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"{'-' if value < 0 else ''}(more than {LARGEST})"
    return repr(value)[:100]
