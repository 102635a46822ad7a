"""Checks of numbers from callers; an error is one line that names the number."""

from __future__ import annotations

from typing import Any

from fastagi.errors import BadArgument

LARGEST = 2**53
"""Largest number that JSON carries exactly."""


def check_seconds(name: str, value: Any, most: int, *, none: str, zero: bool = False) -> None:
    """Refuse a value that is no time limit. True is refused, though Python counts it as 1.

    :param value: seconds, or None
    :param most: longest time
    :param none: meaning of None, for the text: "None {none}"
    :param zero: allow 0, too
    :raises BadArgument: not a number of seconds, or out of range
    """
    if value is None:
        return
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most
    if not good or (value == 0 and not zero):
        least = "0 or more" if zero else "more than 0"
        raise BadArgument(f"{name}={shown(value)} must be {least} and at most {most} seconds, or None {none}")


def shown(value: Any) -> str:
    """Return a value as text for one line of an error; an int of thousands of digits is cut."""
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"{'-' if value < 0 else ''}(more than {LARGEST})"
    return repr(value)[:100]
