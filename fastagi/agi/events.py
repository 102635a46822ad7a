"""Events of the AGI protocol that `fastagi.agi.codec.Parser` returns, and the parser of one reply. No I/O."""

from __future__ import annotations

import re
from typing import Final

_FIELD = re.compile(r'(\w+)=("(?:[^"]*)"(?=\s|$)|\S*)')


class Environment:
    """Header block: every ``agi_...`` line, in order, values as Asterisk wrote them.

    The first header of a name counts, so that an argument with a line feed in it cannot replace the headers before it.
    """

    __slots__ = ("env",)

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env

    def __repr__(self) -> str:
        return f"<Environment {len(self.env)} headers>"


class Reply:
    """Reply to a command.

    :ivar code: 200, or 510 (unknown command), 511 (not on a dead channel), 520 (usage)
    :ivar result: text after ``result=``, empty where there is none
    :ivar data: text between the parentheses, None without them
    :ivar raw: the whole reply as it came, lines joined by a line feed
    """

    __slots__ = ("code", "data", "raw", "result")

    def __init__(self, code: int, result: str, data: str | None, raw: str) -> None:
        self.code = code
        self.result = result
        self.data = data
        self.raw = raw

    def __repr__(self) -> str:
        return f"<Reply {self.code} result={self.result!r}>"  # data may be a secret: not here

    @property
    def text(self) -> str:
        """Asterisk's text without the code; for a 520 the usage."""
        if self.code == 520 and "\n" in self.raw:
            return "\n".join(self.raw.split("\n")[1:-1]).strip()
        return self.raw[4:]

    @property
    def fields(self) -> dict[str, str]:
        """Return the ``name=value`` pairs after result and data, unquoted: endpos, digit, results, score0, text0."""
        tail = self.raw[4 + len(f"result={self.result}") :]
        if self.data is not None:
            tail = tail[len(f" ({self.data})") :]
        return {m[1]: m[2][1:-1] if m[2].startswith('"') else m[2] for m in _FIELD.finditer(tail)}

    @property
    def endpos(self) -> int | None:
        """Sample at which playing or recording ended, None where the reply has none."""
        value = self.fields.get("endpos", "")
        return int(value) if value.isdigit() else None


class HungUp:
    """The bare ``HANGUP`` line: the channel is dead to this AGI. Commands in flight are still answered."""

    __slots__ = ()


class Fault:
    """Input that is not AGI, or exceeds a limit. No event follows; the session must be closed.

    :ivar reason: a few words for the log, without the peer's bytes
    """

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"<Fault {self.reason}>"


Event = Environment | Reply | HungUp | Fault

HUNG_UP: Final = HungUp()


def parse_reply(line: bytes) -> Reply:
    """Parse a whole reply without its last line end. It must start with three digits and a space or a dash."""
    raw = line.decode("utf-8", "surrogateescape")
    code = int(raw[:3])
    if not raw.startswith("result=", 4):
        return Reply(code, "", None, raw)
    result, space, tail = raw[11:].partition(" ")
    if not space or not tail.startswith("("):
        return Reply(code, result, None, raw)
    if tail.endswith(")"):
        return Reply(code, result, tail[1:-1], raw)
    # `(speech) endpos=0 results=1 score0=900 text0="..."`: where more follows, the parentheses hold Asterisk's own word
    return Reply(code, result, tail[1:].partition(")")[0], raw)
