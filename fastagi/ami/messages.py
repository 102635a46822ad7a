"""Conversion to panoramisk's `Message`, for callbacks of `register_event` and callers of `send_action`.

A command's output is in `content` (and `iter_lines()`) on every Asterisk; panoramisk leaves it in `output` since 14.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from panoramisk.message import Message

from fastagi.ami.wire import Block, fields, follows, is_follows, output


def to_message(block: Block) -> Message:
    """Return a `Message`; a repeated header becomes a list, as in panoramisk."""
    if is_follows(block.raw):
        pairs, content = follows(block.raw)
    else:
        pairs = fields(block.raw)
        content = "" if block.name else "\n".join(output(block.raw))
    headers: dict[str, Any] = dict(pairs)
    if len(headers) < len(pairs):
        headers = _listed(pairs)
    if "Result" in headers and isinstance(headers["Result"], str):
        headers["Result"] = unquote(headers["Result"]).strip()  # AsyncAGIExec quotes it
    return Message(headers, content)


def _listed(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the headers, repeated ones as lists under the first spelling."""
    headers: dict[str, Any] = {}
    spelling: dict[str, str] = {}
    for key, value in pairs:
        known = spelling.setdefault(key.lower(), key)
        if known not in headers:
            headers[known] = value
        elif isinstance(headers[known], list):
            headers[known].append(value)
        else:
            headers[known] = [headers[known], value]
    return headers


def synthetic(headers: dict[str, str]) -> Message:
    """Return a response that Asterisk did not send: that of an `Originate` made asynchronous."""
    return Message(headers)
