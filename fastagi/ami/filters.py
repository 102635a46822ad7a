"""Event filters for Asterisk from the names of wanted events: other events never reach the socket. Pure.

`Action: Filter` takes a POSIX extended regular expression, searched in the whole text of the event (manager.c,
match_filter). The filter is anchored at the name, so that no variable's value matches. Tried on Asterisk 16 and 22.
Responses and rows of lists do not pass filters. A filter can be added but not taken back on a connection.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from fastagi.errors import BadArgument

LONGEST = 900
"""Most bytes of a filter, which must fit into one line of an action (see wire.MAX_LINE)."""

EVERYTHING = "^Event: "

_LITERAL = re.compile(r"[A-Za-z0-9_-]")


def matcher(pattern: str) -> re.Pattern[str]:
    """Compile a name or a pattern with ``*``, ``?``, ``[...]`` as panoramisk's `register_event` does: case matters."""
    return re.compile(fnmatch.translate(pattern))


def expression(pattern: str) -> str:
    """Return the pattern as part of a POSIX extended regular expression.

    :raises BadArgument: the pattern has characters that no event name has
    """
    out, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            out.append("[^[:space:]]*")
        elif char == "?":
            out.append("[^[:space:]]")
        elif char == "[" and (end := pattern.find("]", at + 2)) > 0:
            inner = pattern[at + 1 : end]
            if not re.fullmatch(r"!?[A-Za-z0-9_-]+", inner):
                raise BadArgument(
                    f"event pattern {pattern!r}: {pattern[at : end + 1]!r} may hold letters and digits only"
                )
            out.append("[" + inner.replace("!", "^", 1) + "]")
            at = end
        elif _LITERAL.match(char):
            out.append(char)
        else:
            raise BadArgument(f"event pattern {pattern!r} holds {char!r}: event names are letters, digits, - and _")
        at += 1
    if not out:
        raise BadArgument("an event name is empty")
    return "".join(out)


def filters(patterns: Iterable[str]) -> list[str]:
    """Return the fewest filters that cover these names and patterns, each short enough to be sent.

    :raises BadArgument: a pattern cannot be an event name, or is longer than a filter may be
    """
    out: list[str] = []
    line = ""
    for pattern in sorted(set(patterns)):
        part = expression(pattern)
        if len(part) > LONGEST - 40:
            raise BadArgument(f"event pattern {pattern[:40]!r}… is too long")
        if line and len(line) + len(part) > LONGEST - 40:
            out.append(line)
            line = ""
        line += ("|" if line else "") + part
    if line:
        out.append(line)
    return [f"^Event: ({names})[[:space:]]" for names in out]
