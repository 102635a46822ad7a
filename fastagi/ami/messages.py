"""panoramisk's `Message` from our bytes: what callbacks of `register_event` and callers of `send_action` are given.

A command's output is in `content` (and `iter_lines()`) on every Asterisk; panoramisk leaves it in `output` since 14.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from panoramisk.message import Message

from fastagi.ami.wire import Block, fields, follows, is_follows, output


def to_message(block: Block) -> Message:
    """A `Message`; a repeated header becomes a list, as panoramisk has it."""
    if is_follows(block.raw):
        pairs, content = follows(block.raw)
    else:
        pairs = fields(block.raw)
        content = "" if block.name else "\n".join(output(block.raw))
    headers: dict[str, Any] = {}
    names: dict[str, str] = {}  # headers differ in case only when a peer is odd; panoramisk's mapping ignores case
    for key, value in pairs:
        if key.lower() == "result":
            value = unquote(value).strip()  # AsyncAGIExec quotes it
        known = names.setdefault(key.lower(), key)
        if known not in headers:
            headers[known] = value
        elif isinstance(headers[known], list):
            headers[known].append(value)
        else:
            headers[known] = [headers[known], value]
    return Message(headers, content)


def synthetic(headers: dict[str, str]) -> Message:
    """A response that Asterisk did not write in these words: of an `Originate` that was made asynchronous."""
    return Message(headers)
