"""Names the children of a `CompositeSink`, so that a name means the same child after a restart.

A delivery waits for days, and meanwhile children come, go and change places. A name that could then mean another child
is worse than one that means none: a delivery for no child is parked and shown, one to a wrong child is lost. So:

- a sink with an `identity` is named by its class and its identity
- the only sink of its class is named by its class
- several of one class are named by their attributes (plain text and paths, no secrets), as they are when registered
- indistinguishable ones are named by their place and their number: with one more of them, the old names mean none
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import PurePath

from yarl import URL

from fastagi.delivery.sink import AnySink

_SHORT = re.compile(r"[\w.-]{1,40}")
_SECRET = re.compile(r"secret|passw|token|key|auth|cred|sign", re.IGNORECASE)


def child_names(children: Sequence[AnySink]) -> list[str]:
    """Return a name for each child, all different."""
    known = [_named(sink) for sink in children]
    alike = Counter(_class_of(sink) for sink, name in zip(children, known, strict=True) if name is None)
    bases = []
    for sink, name in zip(children, known, strict=True):
        kind = _class_of(sink)
        text = _text_of(sink) if name is None and alike[kind] > 1 else ""
        bases.append(name or (f"{kind}.{_digest(text)}" if text else kind))
    total, seen = Counter(bases), defaultdict[str, int](int)
    names = []
    for base, name in zip(bases, known, strict=True):
        seen[base] += 1
        if total[base] == 1 or (name is not None and seen[base] == 1):
            names.append(base)
        elif name is not None:  # the same target twice: both are right
            names.append(f"{base}.{seen[base]}")
        else:
            names.append(f"{base}.{seen[base]}of{total[base]}")
    return names


def _named(sink: AnySink) -> str | None:
    identity = getattr(sink, "identity", None)
    if not isinstance(identity, str) or not identity:
        return None
    kind = type(sink).__qualname__.rpartition(".")[2]
    if _SHORT.fullmatch(identity):
        return f"{kind}.{identity}"
    return ".".join(part for part in (kind, _host(identity), _digest(f"{kind}\n{identity}")) if part)


def _class_of(sink: AnySink) -> str:
    kind = type(sink)
    return f"{kind.__module__}.{kind.__qualname__}".replace("<locals>.", "")


def _text_of(sink: AnySink) -> str:
    said = {
        name: str(value)
        for name, value in getattr(sink, "__dict__", {}).items()
        if isinstance(value, (str, PurePath)) and not _SECRET.search(name)
    }
    return "\n".join(f"{name}={value}" for name, value in sorted(said.items()))


def _host(identity: str) -> str:
    """Return the host of a URL, by which people recognise it; empty for other texts."""
    try:
        host = URL(identity).host if "://" in identity else ""
    except ValueError:
        host = ""
    return re.sub(r"[^\w.-]", "", host or "")[:60]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
