"""Codec of the manager protocol, both ways: no I/O, no clock, no event loop.

`Decoder` takes bytes cut at any place and returns whole messages. The name of an event is read first; an unwanted event
is dropped before the rest is looked at. `encode` makes the bytes of an action and refuses values that would smuggle in
a second header or action. `pending.py` and `protocol.py` match answers with actions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from fastagi.errors import AsteriskError, BadArgument

MAX_MESSAGE = 16 * 1024 * 1024
"""Most bytes of a message. The longest real one is the answer to `Command: dialplan show` of a large FreePBX: 3 MB."""

MAX_BANNER = 1024
"""Most bytes before the first line end. Asterisk's banner has 30; a peer that sends more is no manager."""

MAX_LINE = 1020
"""Most bytes of a line sent. Asterisk reads into `char inbuf[1025]` and refuses the message beyond it
(manager.c, "line too long")."""

MAX_HEADERS = 120
"""Most lines of one action. Asterisk keeps AST_MAX_MANHEADERS = 128; it refuses more without naming the ActionID, so
that the refusal could not be matched to its action."""

MAX_NAMES = 4096
"""Most event names remembered as wanted or not. Asterisk has about 200; invented names must not fill memory."""

_KEY = re.compile(r"[!-9;-~]+")  # printable ASCII but no space and no colon
_FORBIDDEN = re.compile("[\r\n\0]")
_SECRET = {"secret", "key", "password"}
_PREAMBLE = {"response", "privilege", "actionid", "message"}


class WireError(AsteriskError):
    """The peer does not speak the manager protocol: the connection must be closed."""


class Block:
    """Whole message, not parsed yet.

    :param name: the event's name; empty for a response
    :param raw: its bytes, without the empty line that ends it
    """

    __slots__ = ("name", "raw")

    def __init__(self, name: str, raw: bytes) -> None:
        self.name = name
        self.raw = raw

    def __repr__(self) -> str:
        return f"<Block {self.name or 'Response'} {len(self.raw)} bytes>"


class _Verdicts(dict[bytes, str | None]):
    """Cache from a message's first line to the event's name if wanted, "" if unwanted, None if no event.

    An unwanted event costs one look-up here.
    """

    def __init__(self, wants: Callable[[str], bool]) -> None:
        super().__init__()
        self._wants = wants

    def __missing__(self, key: bytes) -> str | None:
        verdict: str | None = None
        if key.startswith(b"Event: "):
            name = first_line_value(key)
            verdict = name if self._wants(name) else ""
        if len(self) < MAX_NAMES:
            self[key] = verdict
        return verdict


class Decoder:
    """Decoder from bytes to wanted messages. Only the first line of each event is parsed here.

    :param wants: tells whether an event of a name is wanted; called once per name, until `forget`
    :param max_message: most bytes of a message

    `expecting`: an action is pending, so that events with an ActionID are returned whatever their name.
    `seen`: events that came, wanted or not. `garbage`: blocks that were neither event nor response.
    """

    def __init__(self, wants: Callable[[str], bool], *, max_message: int = MAX_MESSAGE) -> None:
        self.banner = ""
        self.expecting = False
        self.seen = 0
        self.garbage = 0
        self._max = max_message
        self._verdicts = _Verdicts(wants)
        self._buffer = bytearray()
        self._eol = b"\r\n"
        self._end = b"\r\n\r\n"
        self._follows: list[bytes] = []
        self._follows_size = 0

    def forget(self) -> None:
        """Forget which names are wanted: the subscriptions have changed."""
        self._verdicts.clear()

    @property
    def held(self) -> int:
        """Bytes kept of an incomplete message."""
        return len(self._buffer) + self._follows_size

    def feed(self, data: bytes) -> list[Block]:
        """Return the messages that `data` completes, in order, without unwanted events.

        :raises WireError: the peer is no Asterisk manager, or a message is longer than allowed
        """
        out: list[Block] = []
        if not self.banner:
            data = self._read_banner(data)
            if not data:
                return out
        if self._buffer:
            # the empty line may be cut anywhere: look from the last three bytes on, so that single bytes cost no more
            if self._end not in self._buffer[-3:] + data:
                self._buffer += data
                self._check()
                return out
            data = b"".join((self._buffer, data))
            self._buffer.clear()
        blocks = data.split(self._end)
        rest = blocks.pop()
        self._buffer += rest
        verdicts, expecting, eol, follows, others = self._verdicts, self.expecting, self._eol, self._follows, 0
        for block in blocks:
            end = block.find(eol)
            name = verdicts[block[:end] if end >= 0 else block]
            if name is None or follows:
                others += 1
                self._other(block, out)
            elif name:
                out.append(Block(name, block))
            elif expecting and b"\nActionID: " in block:
                out.append(Block(first_line_value(block) or "-", block))
        self.seen += len(blocks) - others
        self._check()
        return out

    def _read_banner(self, data: bytes) -> bytes:
        """Remove the first line and return the bytes after it; empty while the line is incomplete."""
        self._buffer += data
        end = self._buffer.find(b"\n")
        if end < 0 and len(self._buffer) <= MAX_BANNER:
            return b""
        line = bytes(self._buffer[:end] if end >= 0 else self._buffer)
        if end < 0 or not line.startswith(b"Asterisk Call Manager"):
            shown = line[:60].decode("ascii", "backslashreplace").strip()
            raise WireError(f"the peer is no Asterisk manager: it says {shown!r}")
        if not line.endswith(b"\r"):  # a proxy that speaks bare LF
            self._eol, self._end = b"\n", b"\n\n"
        self.banner = line.decode("utf-8", "replace").strip()
        rest = bytes(self._buffer[end + 1 :])
        self._buffer.clear()
        return rest

    def _other(self, block: bytes, out: list[Block]) -> None:
        """Handle a block that begins no event: a response, its body, or badly separated messages."""
        if self._follows:
            self._follow(block, out)
            return
        block = block.lstrip(b"\r\n")  # more empty lines than one between two messages
        if block.startswith(b"Response:"):
            if is_follows(block):
                self._follow(block, out)
                return
            glued = block.find(b"\nEvent: ")  # one line end only before the next message
            if glued < 0:
                out.append(Block("", block))
            else:
                out.append(Block("", block[:glued].rstrip(b"\r")))
                self._other(block[glued + 1 :], out)
        elif block.startswith(b"Event:") or b"\nEvent: " in block:
            self.seen += 1
            key = first_line_value(block) if block.startswith(b"Event:") else field(block, "Event")
            if self._verdicts[b"Event: " + key.encode()] or (self.expecting and b"\nActionID: " in block):
                out.append(Block(key or "-", block))
        elif b"\nResponse: " in block:
            out.append(Block("", block))
        elif block:
            self.garbage += 1

    def _follow(self, block: bytes, out: list[Block]) -> None:
        """Collect `Response: Follows` of Asterisk 13 and older: a free body with empty lines, up to its end mark."""
        if self._follows and block.lstrip(b"\r\n").startswith((b"Event: ", b"Response: ")):
            out.append(Block("", self._end.join(self._follows)))  # the end mark never came
            self._end_follows()
            self._other(block, out)
            return
        self._follows.append(block)
        self._follows_size += len(block) + len(self._end)
        if block.rstrip().endswith(b"--END COMMAND--"):
            out.append(Block("", self._end.join(self._follows)))
            self._end_follows()

    def _end_follows(self) -> None:
        self._follows.clear()
        self._follows_size = 0

    def _check(self) -> None:
        if len(self._buffer) + self._follows_size > self._max:
            raise WireError(f"a message is longer than {self._max} bytes")


def first_line_value(raw: bytes) -> str:
    """Return the text after the colon of the first line: an event's name."""
    line = raw[: raw.find(b"\n")] if b"\n" in raw else raw
    return line.partition(b":")[2].decode("utf-8", "replace").strip()


def field(raw: bytes, key: str) -> str:
    """Return one header of a message without parsing the others; "" without it. Write the key as Asterisk does."""
    mark = f"\n{key}: ".encode()
    start = raw.find(mark)
    if start < 0:
        return ""
    start += len(mark)
    end = raw.find(b"\n", start)
    return (raw[start:end] if end >= 0 else raw[start:]).rstrip(b"\r").decode("utf-8", "replace")


def fields(raw: bytes) -> list[tuple[str, str]]:
    """Return all headers of a message in order, repeated ones too. Bytes that are no UTF-8 become U+FFFD."""
    return _split(raw.decode("utf-8", "replace"), "\r\n" if b"\r\n" in raw else "\n")


def follows(raw: bytes) -> tuple[list[tuple[str, str]], str]:
    """Return headers and body of a `Response: Follows`, the form of Asterisk 13 and older.

    The body starts at the first line that is none of the usual headers, and stops before its end mark.
    """
    lines = raw.decode("utf-8", "replace").split("\r\n")
    count = 0
    while count < len(lines) and lines[count].partition(":")[0].lower() in _PREAMBLE:
        count += 1
    text = "\r\n".join(lines[count:]).rstrip().removesuffix("--END COMMAND--").rstrip("\r\n")
    return _split("\n".join(lines[:count]), "\n"), text


def is_follows(raw: bytes) -> bool:
    return raw.startswith(b"Response: Follows") and b"\nOutput:" not in raw


def output(raw: bytes) -> list[str]:
    """Return the lines that a CLI command printed; [] for any other message.

    Asterisk 14 and newer has a header `Output:` for each line, older ones a free body.
    """
    if is_follows(raw):
        text = follows(raw)[1]
        return text.split("\n") if text else []
    return [value.rstrip("\r") for key, value in fields(raw) if key == "Output"] if b"\nOutput:" in raw else []


def _split(text: str, eol: str) -> list[tuple[str, str]]:
    out = []
    for line in text.split(eol):
        key, colon, value = line.partition(": ")
        if colon:
            out.append((key, value))
        elif line.endswith(":"):
            out.append((line[:-1], ""))
    return out


def encode(action: Mapping[str, object]) -> bytes:
    """Return the bytes of one action. A list or tuple repeats its header; a bool is written `true` or `false`.

    :raises BadArgument: a key or value holds CR, LF or NUL (it would be a second header or action), a key is no header
        name, a value is None, a line or the whole is longer than Asterisk reads
    """
    lines: list[bytes] = []
    for key, value in action.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise BadArgument(f"AMI header name {key!r} must be printable ASCII without space or colon")
        if type(value) is str:  # nearly all of them
            lines.append(_line(key, value))
        else:
            items = value if isinstance(value, (list, tuple)) else (value,)
            lines += [_line(key, _text(key, item)) for item in items]
    if not lines:
        raise BadArgument("AMI action is empty")
    if len(lines) > MAX_HEADERS:
        raise BadArgument(f"AMI action has {len(lines)} headers: Asterisk reads {MAX_HEADERS}")
    lines.append(b"\r\n")
    return b"".join(lines)


def _text(key: str, value: object) -> str:
    if value is None or isinstance(value, (bytes, Mapping)):
        raise BadArgument(f"AMI header {key} must be text or a number, not {type(value).__name__}")
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _line(key: str, text: str) -> bytes:
    if not text.isprintable() and _FORBIDDEN.search(text):  # quick: nearly every value is printable
        shown = "" if key.lower() in _SECRET else f"={text[:60]!r}"
        raise BadArgument(f"AMI header {key}{shown} holds CR, LF or NUL: it would be a second header or action")
    try:
        line = f"{key}: {text}\r\n".encode()
    except UnicodeEncodeError:
        raise BadArgument(f"AMI header {key} holds what is no Unicode text") from None
    if len(line) > MAX_LINE:
        raise BadArgument(f"AMI header {key} has {len(line)} bytes: Asterisk reads {MAX_LINE}")
    return line
