"""Parser of the AGI protocol: bytes from Asterisk in, events out.

Parses the output of Asterisk's `res_agi` on a FastAGI socket, without socket, clock or event loop. `Parser` takes the
bytes in any chunks and returns `Environment` once, then `Reply`, `HungUp` and, when the peer is no Asterisk, one
`Fault`. `fastagi.agi.session` matches replies with commands; `encoder` writes commands.

Rules of res_agi.c that shape this file:

- ``HANGUP`` on a line of its own is an event that may come anywhere between replies, never a reply.
- A variable's value is printed raw between parentheses: it may hold line feeds, parentheses, and lines that look like
  replies. Asterisk writes a reply at once, so lines in the same chunk that are no reply belong to the value.
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

MAX_NON_REPLIES: Final = 100
"""Most lines in a row that are no reply: code 100 (one per GOSUB), blank ones, and the rest of a value whose line ends
in a parenthesis. A peer that sends more is no Asterisk."""

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
    """Parser of one FastAGI connection. Never raises, and never holds more than the limits above."""

    __slots__ = (
        "_buffer",
        "_collected",
        "_in_header",
        "_non_replies",
        "_scanned",
        "_size",
        "_tolerant",
        "_usage",
        "broken",
    )

    def __init__(self) -> None:
        self.broken = False  # a Fault was returned
        self._in_header = True
        self._buffer: bytes | bytearray = b""  # unfinished line or block; a bytearray once it grew
        self._scanned = 0  # the buffer was searched for an end up to this offset
        self._collected: list[bytes] | None = None  # lines of an unfinished 520 or value
        self._usage = False  # the collected lines are a 520
        self._size = 0  # bytes of these lines; in the header block, the offset of its last line
        self._non_replies = 0
        self._tolerant = False  # the last reply held a value: more lines of it may come

    def feed(self, data: bytes) -> Sequence[Event]:
        """Return the events that these bytes complete, in order; none after a `Fault`."""
        if self._in_header:
            return self._feed_header(data)
        if not self._buffer and self._collected is None:
            common = _COMMON.get(data)
            if common is not None:
                self._non_replies = 0
                self._tolerant = False
                return _NOTHING if self.broken else common
        return self._feed_replies(data)

    def unfinished(self) -> str:
        """Return the part that an end of file would cut off now: ``header``, ``reply``, or an empty string."""
        if self._in_header:
            return "header" if self._buffer else ""  # a connection without a byte was a port check
        return "reply" if self._buffer or self._collected is not None else ""

    def _fault(self, reason: str) -> Fault:
        self.broken = True
        self._buffer = b""
        self._collected = None
        return Fault(reason)

    def _whole(self, data: bytes) -> bytes | bytearray:
        """Return the buffer with `data` appended. Old bytes are not copied, so a byte at a time stays linear."""
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
                    events.append(self._end_collecting())  # a value cut short: the next lines are not its end
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
            self._drop_non_reply(line, events)
        elif line.startswith(b"100"):
            self._count_non_reply(events)
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
        self._non_replies = 0
        self._tolerant = value
        return parse_reply(line.removesuffix(b"\r"))

    def _drop_non_reply(self, line: bytes, events: list[Event]) -> None:
        """Handle a line that is no reply.

        The line is the rest of a value that seemed to end, or the peer is no Asterisk. The former is dropped; the
        latter is a fault, as its command would wait for a reply that never comes.
        """
        if self._tolerant or not line.strip(b"\r"):
            self._count_non_reply(events)
        else:
            events.append(self._fault("not an AGI reply"))

    def _count_non_reply(self, events: list[Event]) -> None:
        self._non_replies += 1
        if self._non_replies > MAX_NON_REPLIES:
            events.append(self._fault("too many lines that are no reply"))


def _by_hand(lines: list[str]) -> dict[str, str]:
    """Return the headers of a block with irregular lines.

    The first header of a name counts. A line without a colon continues a value with a line feed in it. The space after
    the colon may be missing.
    """
    env: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and name not in env:
            env[_KNOWN.get(name, name)] = value.removeprefix(" ")
    return env


def _followers(lines: list[bytes]) -> list[bytes]:
    """Return for each line the next one that is not blank; empty where none is known to follow."""
    following = b""
    found: list[bytes] = []
    for line in reversed(lines):
        found.append(following)
        if line and line != b"\r":
            following = line
    found.reverse()
    return found


def _value_ends(line: bytes, following: bytes) -> bool:
    """Tell whether a line is a value's last.

    `following` came in the same chunk: a line there that is no event belongs to the value.
    """
    if following and not _STARTS_EVENT.match(following):
        return False
    return line.endswith(b")") or _ENDS_VALUE.search(line) is not None


def _block_end(data: bytes | bytearray, start: int) -> tuple[int, int]:
    """Return the end of the header block and the start of the bytes after it; (-1, -1) without a blank line."""
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
