"""The incoming half of the AGI wire: bytes in, events out.

What Asterisk's `res_agi` says on a FastAGI socket, and nothing else: no socket, no clock, no event loop. `Parser` takes
the bytes in whatever pieces they come and gives `Environment` once, then `Reply`, `HungUp` and, when the peer is no
Asterisk, one `Fault`. Which reply belongs to which command is `fastagi.agi.session`'s; commands are `encoder`'s.

What res_agi.c settles, and what shapes this file:

- ``HANGUP`` on a line of its own is an event that may come anywhere between replies, never a reply.
- A variable's value is printed raw between parentheses: it may hold line feeds, parentheses, and lines that look like
  replies. Asterisk writes a reply at once, so what else came with it and is no reply belongs to the value.
- A 520 comes in several lines, first ``520-``, last ``520 ``.
- A line with code 100 announces a reply that will come later (GOSUB).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fastagi.agi.encoder import encode, encode_exec, encode_line, quote
from fastagi.agi.events import HUNG_UP, Environment, Event, Fault, HungUp, Reply, parse_reply

__all__ = [
    "HUNG_UP",
    "Environment",
    "Event",
    "Fault",
    "HungUp",
    "Parser",
    "Reply",
    "encode",
    "encode_exec",
    "encode_line",
    "quote",
]

MAX_HEADER_BYTES: Final = 65_536
"""Largest header block. Asterisk writes 22 lines and the arguments; all of AGI(...) fits into 8 KiB (EXT_DATA_SIZE) and
is written twice at most; names and caller ids add under 4 KiB. Three times that; 5,000 hostile peers cost 320 MB."""

MAX_HEADERS: Final = 256
"""Most header lines: 22 plus at most 127 arguments (MAX_ARGS), with room for what a later Asterisk adds."""

MAX_HEADER_LINE: Final = 16_384
"""Longest header line: twice the 8 KiB that the whole argument of AGI(...) can have."""

MAX_REPLY_BYTES: Final = 65_536
"""Longest reply, all lines of a value or a usage text together. Values have no limit in Asterisk, but functions read
by GET VARIABLE stop at 1 KiB, the longest usage is 3 KiB, and 64 KiB is more than a dialplan keeps in a variable."""

MAX_STRAYS: Final = 100
"""Lines in a row that are no reply: code 100 (one per GOSUB), blank ones, and the rest of a value whose line ends in a
parenthesis. More is no Asterisk."""

_NOTHING: Final[tuple[Event, ...]] = ()
_ENDS_VALUE = re.compile(rb"\)(?:\s+\w+=\S.*)?\s*$", re.DOTALL)
_STARTS_VALUE = re.compile(rb"200 result=\S* \(")
_STARTS_REPLY = re.compile(rb"\d\d\d[ -]")
_STARTS_EVENT = re.compile(rb"\d\d\d[ -]|HANGUP\r?$")

_DIGITS = (*range(-2, 10), *b"*#0123456789")

# A session is mostly these lines: one look-up instead of a parse, and one shared object instead of one per command.
_COMMON: Final[dict[bytes, tuple[Event, ...]]] = {
    b"200 result=%d\n" % number: (parse_reply(b"200 result=%d" % number),) for number in _DIGITS
}

# One string per header name for all sessions together: 1.5 kB less in each.
_KNOWN: Final = {
    f"agi_{name}": f"agi_{name}"
    for name in (
        *("network", "network_script", "request", "channel", "language", "type", "uniqueid", "version", "callerid"),
        *("calleridname", "callingpres", "callingani2", "callington", "callingtns", "dnid", "rdnis", "context"),
        *("extension", "priority", "enhanced", "accountcode", "threadid", *(f"arg_{n}" for n in range(1, 10))),
    )
}


class Parser:
    """One FastAGI connection's incoming half. Feed it; it never raises and never holds more than the limits above."""

    __slots__ = ("_buffer", "_collected", "_in_header", "_scanned", "_size", "_strays", "_tolerant", "_usage", "broken")

    def __init__(self) -> None:
        self.broken = False  # a Fault was given
        self._in_header = True
        self._buffer: bytes | bytearray = b""  # an unfinished line or block; a bytearray once it grew
        self._scanned = 0  # no end of it before this offset: it is not looked for again
        self._collected: list[bytes] | None = None  # lines of an unfinished 520 or value
        self._usage = False  # ... which is a 520
        self._size = 0  # ... and their bytes; in the header block, where its last line begins
        self._strays = 0
        self._tolerant = False  # the last reply held a value: further lines of it may still come

    def feed(self, data: bytes) -> Sequence[Event]:
        """What these bytes complete, in order; after a `Fault` nothing any more."""
        if self._in_header:
            return self._feed_header(data)
        if not self._buffer and self._collected is None:
            common = _COMMON.get(data)
            if common is not None:
                self._strays = 0
                self._tolerant = False
                return _NOTHING if self.broken else common
        return self._feed_replies(data)

    def unfinished(self) -> str:
        """What an end of file now would cut off: ``header``, ``reply``, or nothing (empty)."""
        if self._in_header:
            return "header" if self._buffer else ""  # who connects and says nothing only looked whether we listen
        return "reply" if self._buffer or self._collected is not None else ""

    def _fault(self, reason: str) -> Fault:
        self.broken = True
        self._buffer = b""
        self._collected = None
        return Fault(reason)

    def _whole(self, data: bytes) -> bytes | bytearray:
        """What was left over with `data` behind it, without copying what is old: a byte at a time stays linear."""
        if not self._buffer:
            return data
        if not isinstance(self._buffer, bytearray):
            self._buffer = bytearray(self._buffer)
        self._buffer += data
        return self._buffer

    def _wait(self, whole: bytes | bytearray) -> Sequence[Event]:
        self._buffer = whole
        self._scanned = len(whole)
        return _NOTHING

    # -- the header block

    def _feed_header(self, data: bytes) -> Sequence[Event]:
        if self.broken:
            return _NOTHING
        whole = self._whole(data)
        end, after = _block_end(whole, max(0, self._scanned - 3))
        if end < 0:
            if len(whole) > MAX_HEADER_BYTES:
                return (self._fault("header block too long"),)
            self._size = (whole.rfind(b"\n", self._scanned) + 1) or self._size  # where the last line begins
            if len(whole) - self._size > MAX_HEADER_LINE:
                return (self._fault("header line too long"),)
            return self._wait(whole)
        if end > MAX_HEADER_BYTES:
            return (self._fault("header block too long"),)
        event = self._environment(bytes(whole[:end]))
        rest = bytes(whole[after:])
        self._in_header = False
        self._buffer = b""
        self._scanned = 0
        return [event, *self.feed(rest)] if rest else (event,)

    def _environment(self, block: bytes) -> Environment | Fault:
        if block.count(b"\n") >= MAX_HEADERS:
            return self._fault("too many header lines")
        text = block.decode("utf-8", "surrogateescape")
        if "\r" in text:
            text = text.removesuffix("\r").replace("\r\n", "\n")
        lines = text.split("\n")
        known = _KNOWN
        try:
            env = {known.get(name, name): value for name, value in [line.split(": ", 1) for line in lines]}
        except ValueError:
            env = {}
        if len(env) != len(lines):
            env = _by_hand(lines)
        if "agi_network" not in env and not any(name.startswith("agi_") for name in env):
            return self._fault("no agi header")
        if len(text) > MAX_HEADER_LINE and max(map(len, env.values())) > MAX_HEADER_LINE:
            return self._fault("header line too long")
        return Environment(env)

    # -- replies

    def _feed_replies(self, data: bytes) -> Sequence[Event]:
        if self.broken:
            return _NOTHING
        whole = self._whole(data)
        end = whole.rfind(b"\n", self._scanned)
        if len(whole) - end - 1 > MAX_REPLY_BYTES:
            return (self._fault("line too long"),)
        if end < 0:
            return self._wait(whole)
        self._buffer = bytes(whole[end + 1 :])
        self._scanned = len(self._buffer)
        lines = bytes(whole[:end]).split(b"\n")
        events: list[Event] = []
        for line, following in zip(lines, _followers(lines), strict=True):
            if line == b"HANGUP" or line == b"HANGUP\r":
                if self._collected is not None and not self._usage:
                    events.append(self._end_collecting())  # a value cut short: whatever follows is not its end
                events.append(HUNG_UP)
            else:
                self._line(line, following, events)
            if self.broken:
                break
        return events

    def _line(self, line: bytes, following: bytes, events: list[Event]) -> None:
        if self._collected is not None and self._usage and _STARTS_REPLY.match(line) and not line.startswith(b"520"):
            events.append(self._end_collecting())  # a usage text cut short
        if self._collected is not None:
            self._collected.append(line)
            self._size += len(line) + 1
            if self._size > MAX_REPLY_BYTES:
                events.append(self._fault("reply too long"))
            elif line.startswith(b"520 ") if self._usage else _value_ends(line, following):
                events.append(self._end_collecting())
        elif len(line) > MAX_REPLY_BYTES:
            events.append(self._fault("line too long"))
        elif not _STARTS_REPLY.match(line):
            self._stray(line, events)
        elif line.startswith(b"100"):
            self._count_stray(events)
        else:
            usage = line.startswith(b"520-")
            value = _STARTS_VALUE.match(line) is not None
            if usage or (value and not _value_ends(line, following)):
                self._collected = [line]
                self._size = len(line)
                self._usage = usage
            else:
                events.append(self._reply(line, value=value))

    def _end_collecting(self) -> Reply:
        assert self._collected is not None
        line = b"\n".join(self._collected)
        self._collected = None
        return self._reply(line, value=not self._usage)

    def _reply(self, line: bytes, *, value: bool) -> Reply:
        self._strays = 0
        self._tolerant = value
        return parse_reply(line.removesuffix(b"\r"))

    def _stray(self, line: bytes, events: list[Event]) -> None:
        """A line that is no reply: the rest of a value that seemed to end, or a peer that is no Asterisk. Dropping it
        is right for the first; for the second its command would wait for an answer that never comes."""
        if self._tolerant or not line.strip(b"\r"):
            self._count_stray(events)
        else:
            events.append(self._fault("not an AGI reply"))

    def _count_stray(self, events: list[Event]) -> None:
        self._strays += 1
        if self._strays > MAX_STRAYS:
            events.append(self._fault("too many lines that are no reply"))


def _by_hand(lines: list[str]) -> dict[str, str]:
    """Headers of a block that is not as Asterisk writes it: the first of a name counts, a line without a colon is the
    rest of a value with a line feed in it, the space behind the colon may be missing."""
    env: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and name not in env:
            env[_KNOWN.get(name, name)] = value.removeprefix(" ")
    return env


def _followers(lines: list[bytes]) -> list[bytes]:
    """For each line the next one that is not blank, empty where none is known to follow."""
    following = b""
    found: list[bytes] = []
    for line in reversed(lines):
        found.append(following)
        if line and line != b"\r":
            following = line
    found.reverse()
    return found


def _value_ends(line: bytes, following: bytes) -> bool:
    """Whether a value's line is its last. `following` came in the same piece: what is no event belongs to the value."""
    if following and not _STARTS_EVENT.match(following):
        return False
    return line.endswith(b")") or _ENDS_VALUE.search(line) is not None


def _block_end(data: bytes | bytearray, start: int) -> tuple[int, int]:
    """Where the header block ends and where what follows it begins; (-1, -1) while there is no blank line."""
    found = data.find(b"\n\n", start)
    crlf = data.find(b"\n\r\n", start)
    if found >= 0 and (crlf < 0 or found < crlf):
        return found, found + 2
    if crlf >= 0:
        return crlf, crlf + 3
    for blank in (b"\n", b"\r\n"):
        if start == 0 and data.startswith(blank):
            return 0, len(blank)
    return -1, -1
