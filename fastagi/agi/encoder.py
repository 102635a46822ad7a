"""Encoding of AGI commands: quotes arguments, and refuses bytes that Asterisk would read as a second command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fastagi.agi.vocabulary import command_name
from fastagi.errors import BadArgument

MAX_COMMAND_BYTES: Final = 2047
"""Longest command with its line feed: AGI_BUF_LEN is 2048 up to Asterisk 22.0. The rest of a longer line becomes a
second command with a second reply, which shifts all later replies (seen on 16.28)."""

MAX_ARGUMENTS: Final = 127
"""Most arguments: res_agi.c's MAX_ARGS less the end mark. Asterisk would silently drop the rest."""

_FORBIDDEN = re.compile("[\r\n\0]")  # all of them are unprintable
_APPLICATION = re.compile(r"[A-Za-z0-9_]{1,80}")


def quote(text: str) -> str:
    """Return `text` as one argument: quoted, with quotes and backslashes escaped for res_agi's parse_args."""
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def encode(words: str, *arguments: str | int | float) -> bytes:
    """Return a command line: `words` as they are, text arguments quoted, numbers bare.

    :raises BadArgument: an argument holds CR, LF or NUL, is neither text nor number, or the whole is too long
    """
    line = words
    for argument in arguments:
        if isinstance(argument, str):
            line += " " + quote(argument)
        elif isinstance(argument, (int, float)) and not isinstance(argument, bool):
            line += f" {argument}"
        else:
            raise BadArgument(f"{words}: {argument!r} is neither text nor a number")
    if len(arguments) >= MAX_ARGUMENTS:
        raise BadArgument(f"{words}: {len(arguments)} arguments; Asterisk reads {MAX_ARGUMENTS} words at most")
    return encode_line(line)


def encode_line(line: str) -> bytes:
    """Return a whole command line as bytes. `line` comes from the user, without its line feed.

    :raises BadArgument: it is empty, holds CR, LF or NUL, or is longer than Asterisk reads at once
    """
    if not line.isprintable() and _FORBIDDEN.search(line):  # quick: nearly every command is printable
        raise BadArgument(
            f"{command_name(line)}: an argument holds a line feed, a carriage return or a NUL: Asterisk would read a "
            "second command"
        )
    if not line or line.isspace():
        raise BadArgument("an AGI command must not be empty")
    try:
        data = line.encode("utf-8", "surrogateescape") + b"\n"
    except UnicodeEncodeError:
        raise BadArgument(
            f"{command_name(line)}: an argument holds half of a surrogate pair, which no text has"
        ) from None
    if len(data) > MAX_COMMAND_BYTES:
        raise BadArgument(
            f"{command_name(line)}: {len(data)} bytes; Asterisk reads {MAX_COMMAND_BYTES} at once and would take the "
            "rest for a second command"
        )
    return data


def encode_exec(application: str, arguments: Sequence[str | int | float]) -> bytes:
    """Return ``EXEC application "a,b,c"``.

    The argument is always there, even if empty: with AGIEXECFULL set, Asterisk evaluates a missing one as a null
    pointer.

    :raises BadArgument: as `encode`, or `application` is no application's name
    """
    if not isinstance(application, str) or not _APPLICATION.fullmatch(application):
        raise BadArgument(f"application={application!r} must be a name: letters, digits and underscores")
    for argument in arguments:
        if isinstance(argument, bool) or not isinstance(argument, (str, int, float)):
            raise BadArgument(f"EXEC {application}: {argument!r} is neither text nor a number")
    return encode(f"EXEC {application}", ",".join(map(str, arguments)))
