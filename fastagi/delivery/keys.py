"""Makes a recording's key in a folder or a bucket: the same on every attempt, and never outside of its place."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import PurePosixPath

from fastagi.delivery.sink import recording_id_of
from fastagi.domain.metadata import RecordingMetadata
from fastagi.domain.naming import expand
from fastagi.errors import BadArgument

DEFAULT_TEMPLATE = "{date:%Y/%m/%d}/{recording_id}.{suffix}"

_FIELDS = ("recording_id", "session_id", "name", "file", "suffix", "format", "caller", "called", "channel", "node")
_SAMPLE = dict.fromkeys(_FIELDS, "x")


def check_template(template: str) -> str:
    """Return the template itself.

    :raises BadArgument: an unknown field, an absolute path, or a step upwards
    """
    _path(expand(template, _SAMPLE, 0.0), template)
    return template


def key_of(template: str, metadata: RecordingMetadata, below: str = "") -> str:
    """Return the key of a recording. Field values get no separator, so a caller's text cannot make a folder.

    `{date}` is when the recording started (UTC), so that every attempt gives the same key. When the place ends with the
    year (or year and month, …) that the key begins with, the key leaves it out: ``2026/11/30`` below ``calls/2026`` is
    ``calls/2026/11/30``.

    :param below: path of the folder or prefix that the key will stand below
    :raises BadArgument: the template does not fit
    """
    extra = metadata.extra
    file = PurePosixPath(metadata.file_path).name
    fields = {
        "recording_id": recording_id_of(metadata),
        "session_id": metadata.session_id,
        "name": metadata.name,
        "file": file,
        "suffix": PurePosixPath(file).suffix.lstrip(".") or metadata.format,
        "format": metadata.format,
        **{name: str(extra.get(name) or "") for name in ("caller", "called", "channel", "node")},
    }
    key = _path(expand(template, fields, started_at(metadata)), template)
    return _date_once(below, key) if template.startswith("{date:%Y") else key


def _date_once(below: str, key: str) -> str:
    folders, parts = below.strip("/").split("/"), key.split("/")
    for count in range(min(len(folders), len(parts) - 1), 0, -1):
        if folders[-count:] == parts[:count] and all(part.isdecimal() for part in parts[:count]):
            return "/".join(parts[count:])
    return key


def started_at(metadata: RecordingMetadata) -> float:
    """Return when the recording started, unix seconds; without that its end, and without both the current time."""
    for name in ("started_at", "ended_at"):
        value = metadata.extra.get(name)
        if isinstance(value, str):
            try:
                return datetime.fromisoformat(value).timestamp()
            except ValueError:
                continue
    return time.time()


def _path(key: str, template: str) -> str:
    parts = key.split("/")
    if not key or any(part in ("", ".", "..") for part in parts) or "\\" in key or not key.isprintable():
        raise BadArgument(f"key_template={template!r} must be a relative path without empty or .. parts")
    return key
