"""Turns a recording's parameters from text (AGI arguments, a query string, UserEvent headers) into values for
`record()`.

Every value here may come from a caller. An unknown name or a wrong value is one error line, and nothing is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastagi.domain.spec import RecordingSpec
from fastagi.errors import BadArgument

_YES = {"yes": True, "true": True, "1": True, "on": True, "no": False, "false": False, "0": False, "off": False}

CALL_KEYS = ("filename", "mid_call", "sink", "recorder", "asterisk")
"""Arguments about the call or the file, beside those of `RecordingSpec`."""


def flag(name: str, text: str) -> bool:
    """Read yes/no, true/false, on/off or 1/0.

    :raises BadArgument: anything else
    """
    try:
        return _YES[text.strip().lower()]
    except KeyError:
        raise BadArgument(f"{name}={text!r} must be yes or no") from None


def number(name: str, text: str) -> float:
    """Read a decimal number; a whole one is returned as an int.

    :raises BadArgument: the text is no number
    """
    try:
        return int(text) if text.strip().lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise BadArgument(f"{name}={text!r} must be a number") from None


def seconds(name: str, text: str | None) -> float | None:
    """Read seconds; None for an empty text and for ``none``."""
    if text is None or text.strip().lower() in ("", "none"):
        return None
    return number(name, text)


def only(params: Mapping[str, str], allowed: tuple[str, ...]) -> None:
    """Check that `params` holds no name beside the allowed ones.

    :raises BadArgument: it does
    """
    for name in params:
        if name not in allowed:
            raise BadArgument(f"{name} is no argument here: there are {', '.join(allowed)}")


def options(params: Mapping[str, str], also: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the parameters of `RecordingSpec` among `params`, typed.

    :param also: further names that are allowed and left alone
    :raises BadArgument: an unknown name, or a value of the wrong type
    """
    found: dict[str, Any] = {}
    fields = RecordingSpec.__dataclass_fields__
    for name, text in params.items():
        if name in CALL_KEYS or name in also:
            continue
        if name not in fields or name == "encryption":
            allowed = ", ".join([*CALL_KEYS, *also, *(n for n in fields if n != "encryption")])
            raise BadArgument(f"{name} is no argument here: there are {allowed}")
        default = fields[name].default
        if name == "seconds_timeout":
            found[name] = seconds(name, text)
        elif isinstance(default, bool):
            found[name] = flag(name, text)
        elif isinstance(default, int):
            found[name] = number(name, text)
        else:
            found[name] = text
    return found
