"""File names from callers' text: paths that cannot leave the recordings directory.

A name may come from a dialplan variable, and so from the caller: it is hostile until it was checked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from fastagi.domain.formats import FORMATS, Format
from fastagi.errors import BadArgument

LONGEST_NAME = 200
"""Most bytes in a path component: ext4 allows 255; `-<id>`, a temporary suffix and Asterisk's own need the rest."""

DEEPEST = 16

_FIELD = re.compile(r"\{(\w+)(?::([^{}]*))?\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNSAFE_IN_FIELD = re.compile(r"[^\w.+@=-]")
_SUFFIXES = {f.suffix for f in FORMATS.values()}


def well_formed(text: str) -> str:
    """Return `text` with a mark for each half of a character, as a Latin-1 dialplan sends them. Never raises.

    The result is what a database and JSON take.
    """
    if text.isascii():
        return text
    return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in _joined(text))


def _joined(text: str) -> str:
    """Return `text` with escaped bytes that are valid UTF-8 decoded."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:  # a half that no byte was escaped to
        return text


def wanted_name(text: str) -> str:
    """Return a file name that a caller asked for as text that a file system takes.

    :raises BadArgument: it has half of a surrogate pair, which no text has and no byte of a dialplan becomes
    """
    if any("\ud800" <= c <= "\udc7f" or "\udd00" <= c <= "\udfff" for c in text):
        raise BadArgument(f"filename={text!r} has half of a surrogate pair, which no text has")
    return well_formed(text)


def expand(template: str, fields: Mapping[str, str], now: float) -> str:
    """Fill in fields like `{caller}` and `{date:%Y/%m/%d}`; separators in a field's value are replaced.

    :param fields: values by name, from the call: hostile
    :param now: unix seconds; `{date}` is UTC
    :raises BadArgument: an unknown field, or a date format that Python does not know
    """

    def fill(match: re.Match[str]) -> str:
        name, form = match.group(1), match.group(2)
        if name == "date":
            try:
                return datetime.fromtimestamp(now, UTC).strftime(form or "%Y-%m-%d")
            except ValueError:
                raise BadArgument(f"filename: {match.group(0)} has a date format that is not known") from None
        if name not in fields:
            known = ", ".join(sorted([*fields, "date"]))
            raise BadArgument(f"filename: {match.group(0)} is not known; there are {known}")
        clean = _UNSAFE_IN_FIELD.sub("_", fields[name]).strip(".")[:80]
        return clean or "unknown"

    return _FIELD.sub(fill, template)


def relative_path(name: str, form: Format) -> str:
    """Return `name` as a relative path with the right suffix that stays below its directory.

    :param name: already expanded; folders with ``/``; no suffix means the format's own (``.wav`` for the seed's)
    :raises BadArgument: absolute, leaves the directory, control characters, too long, or another format's suffix
    """
    if not isinstance(name, str) or not name.strip():
        raise BadArgument(f"filename={name!r} is empty")
    if _CONTROL.search(name):
        raise BadArgument(f"filename={name!r} has a control character")
    if name.startswith(("/", "~")) or "\\" in name:
        raise BadArgument(f"filename={name!r} must be relative to the recordings directory")
    parts = [p for p in name.split("/") if p not in ("", ".")]
    if ".." in parts:
        raise BadArgument(f"filename={name!r} leaves the recordings directory")
    if not parts or len(parts) > DEEPEST:
        raise BadArgument(f"filename={name!r} must have 1 to {DEEPEST} parts")
    last = parts[-1]
    dot = last.rfind(".")
    suffix = last[dot:].lower() if dot > 0 else ""
    if suffix in _SUFFIXES and suffix != form.suffix:
        raise BadArgument(f"filename={name!r} ends in {suffix}, but {form.name} makes {form.suffix} files")
    if suffix != form.suffix:
        parts[-1] = last + form.suffix
    for part in parts:
        if len(part.encode("utf-8", "surrogateescape")) > LONGEST_NAME:
            raise BadArgument(f"filename: {part[:40]!r}… is longer than {LONGEST_NAME} bytes")
        if part.startswith("."):
            raise BadArgument(f"filename={name!r}: a part may not start with a dot")
    return "/".join(parts)


def distinct(path: str, recording_id: str) -> str:
    """Return `path` with ``-<id>`` before its suffix, for a recording whose name is taken."""
    stem, dot, suffix = path.rpartition(".")
    return f"{stem}-{recording_id}{dot}{suffix}" if dot else f"{path}-{recording_id}"
