"""The incoming wire, split at every byte; limits; and what res_agi.c does that a simple reader gets wrong."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastagi.agi import codec
from fastagi.agi.codec import Environment, Fault, HungUp, Parser, Reply

HEADER = (
    b"agi_network: yes\nagi_network_script: record?x=1\nagi_request: agi://127.0.0.1/record?x=1\n"
    b"agi_channel: PJSIP/a-00000001\nagi_uniqueid: 1.1\nagi_callerid: 100\nagi_calleridname: A: B\n"
    b"agi_accountcode: \nagi_arg_1: one\nagi_arg_2:  two\n\n"
)
USAGE = (
    b"520-Invalid command syntax.  Proper usage follows:\nWaits up to x.\n\nUsage: HANGUP\n520 End of proper usage.\n"
)


def drain(pieces: list[bytes], parser: Parser | None = None) -> list[object]:
    parser = parser or Parser()
    return [event for piece in pieces for event in parser.feed(piece)]


def ready() -> Parser:
    parser = Parser()
    assert len(parser.feed(b"agi_network: yes\n\n")) == 1
    return parser


def shape(events: list[object]) -> list[object]:
    """Comparable: a reply by its fields, the others by their kind."""
    out: list[object] = []
    for event in events:
        if isinstance(event, Reply):
            out.append((event.code, event.result, event.data, event.raw))
        elif isinstance(event, Environment):
            out.append(tuple(event.env.items()))
        elif isinstance(event, Fault):
            out.append(f"fault {event.reason}")
        else:
            out.append("hangup")
    return out


STREAM = (
    HEADER
    + b"200 result=0\n"
    + b"100 result=0 Trying...\n200 result=0 Gosub complete (abnormal exit)\n"
    + b"200 result=1 (a value)\nHANGUP\n"
    + USAGE
    + b"200 result=123 (timeout)\n511 Command Not Permitted on a dead channel or intercept routine\n"
    + b"HANGUP\nHANGUP\n200 result=1 (two\nlines)\n510 Invalid or unknown command\n"
    + b'200 result=1 (speech) endpos=5 results=1 score0=900 text0="yes (sir)" grammar0=g\n'
    + b"200 result=-1 endpos=8000\n"
)


def test_everything_asterisk_says_in_one_piece() -> None:
    events = drain([STREAM])
    env = events[0]
    assert isinstance(env, Environment)
    assert env.env["agi_network_script"] == "record?x=1"
    assert env.env["agi_calleridname"] == "A: B"
    assert env.env["agi_accountcode"] == ""
    assert env.env["agi_arg_2"] == " two"
    usage = USAGE.decode().rstrip("\n")
    assert shape(events[1:]) == [
        (200, "0", None, "200 result=0"),
        (200, "0", None, "200 result=0 Gosub complete (abnormal exit)"),
        (200, "1", "a value", "200 result=1 (a value)"),
        "hangup",
        (520, "", None, usage),
        (200, "123", "timeout", "200 result=123 (timeout)"),
        (511, "", None, "511 Command Not Permitted on a dead channel or intercept routine"),
        "hangup",
        "hangup",
        (200, "1", "two\nlines", "200 result=1 (two\nlines)"),
        (510, "", None, "510 Invalid or unknown command"),
        (200, "1", "speech", '200 result=1 (speech) endpos=5 results=1 score0=900 text0="yes (sir)" grammar0=g'),
        (200, "-1", None, "200 result=-1 endpos=8000"),
    ]
    assert isinstance(events[5], Reply)
    assert events[5].text == "Waits up to x.\n\nUsage: HANGUP"


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_split_at_every_byte(end: bytes) -> None:
    stream = STREAM.replace(b"\n", end)
    whole = shape(drain([stream]))
    if end == b"\n":
        assert len(whole) == 14
    for cut in range(1, len(stream)):
        assert shape(drain([stream[:cut], stream[cut:]])) == whole, cut
    assert shape(drain([stream[i : i + 1] for i in range(len(stream))])) == whole


def test_crlf_reads_like_lf() -> None:
    lf, crlf = shape(drain([STREAM])), shape(drain([STREAM.replace(b"\n", b"\r\n")]))
    assert [e if isinstance(e, str) else e[:2] for e in crlf] == [e if isinstance(e, str) else e[:2] for e in lf]
    assert crlf[0] == lf[0]


@pytest.mark.parametrize("where", range(len(STREAM.split(b"\n"))))
def test_hangup_between_lines_shifts_no_reply(where: int) -> None:
    """Between replies, inside a 520's usage, before the first and after the last."""
    lines = STREAM.split(b"\n")[:-1]
    first = HEADER.count(b"\n")
    if where < first or where > len(lines):
        where = first
    torn = (
        b"200 result=1 (two"  # a value cannot be told from its own HANGUP line: it ends there, nothing after it shifts
    )
    events = shape(drain([b"\n".join([*lines[:where], b"HANGUP", *lines[where:]]) + b"\n"]))
    plain = shape(drain([STREAM]))
    replies = [e for e in events if e != "hangup"]
    expected = [e for e in plain if e != "hangup"]
    if lines[where - 1] == torn:
        replies = [e for e in replies if e[1:3] != ("1", "two")]
        expected = [e for e in expected if e[1:3] != ("1", "two\nlines")]
    assert replies == expected
    assert events.count("hangup") == plain.count("hangup") + 1


@pytest.mark.parametrize(
    ("wire", "value"),
    [
        (b"200 result=1 ()\n", ""),
        (b"200 result=1 (x)y (z)\n", "x)y (z"),
        (b"200 result=1 (a) endpos=1)\n", "a) endpos=1"),
        (b"200 result=1 (a)\nb)\n", "a)\nb"),
        (b"200 result=1 (a)\n\n\nb)\n", "a)\n\n\nb"),
        (b"200 result=1 (a\n200 result=5)\n", "a\n200 result=5"),
        (b"200 result=1 (a\n\nb)\n", "a\n\nb"),
        (b"200 result=1 (\xc3\xa4\xff)\n", "ä\udcff"),
        (b"200 result=1 (HANGUP)\n", "HANGUP"),
    ],
)
def test_values_as_asterisk_prints_them(wire: bytes, value: str) -> None:
    """Seen on 16.28 and 22.10 with SHELL(): raw, line feeds and parentheses included."""
    parser = ready()
    events = drain([wire], parser)
    assert [type(e) for e in events] == [Reply]
    assert events[0].data == value  # type: ignore[attr-defined]
    assert drain([b"200 result=0\n"], parser)[0].result == "0"  # type: ignore[attr-defined]


def test_value_in_chunks_shifts_no_reply() -> None:
    parser = ready()
    events = drain([b"200 result=1 (a)\n", b"b)\n", b"200 result=7\n"], parser)
    assert shape(events) == [(200, "1", "a", "200 result=1 (a)"), (200, "7", None, "200 result=7")]


def test_hangup_ends_an_unfinished_value() -> None:
    events = drain([b"200 result=1 (a", b"\nHANGUP\n", b"200 result=1 (b)\n"], ready())
    assert [e if isinstance(e, str) else e[2] for e in shape(events)] == ["a", "hangup", "b"]


def test_next_reply_ends_unfinished_usage() -> None:
    events = drain([b"520-Invalid\nUsage: X\n", b"HANGUP\n200 result=1 (b)\n"], ready())
    assert [e if isinstance(e, str) else e[0] for e in shape(events)] == ["hangup", 520, 200]


def test_fields_behind_a_value() -> None:
    (reply,) = drain([b'200 result=1 (speech) endpos=5 results=1 score0=900 text0="yes sir" grammar0=g\n'], ready())
    assert isinstance(reply, Reply)
    assert reply.fields == {"endpos": "5", "results": "1", "score0": "900", "text0": "yes sir", "grammar0": "g"}
    assert reply.endpos == 5


def test_the_first_of_a_header_counts() -> None:
    """An argument with a line feed in it must not replace what Asterisk wrote before it."""
    (event,) = drain([b"agi_network: yes\nagi_uniqueid: 1.1\nagi_arg_1: x\nagi_uniqueid: evil\nrest\n\n"])
    assert isinstance(event, Environment)
    assert event.env == {"agi_network": "yes", "agi_uniqueid": "1.1", "agi_arg_1": "x"}


def test_header_without_space_is_read() -> None:
    (event,) = drain([b"agi_network:yes\nagi_accountcode:\n\n"])
    assert isinstance(event, Environment)
    assert event.env == {"agi_network": "yes", "agi_accountcode": ""}


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b"\n", "no agi header"),
        (b"\r\n", "no agi header"),
        (bytes(range(128, 256)) + b"\xff no colon\n\x00\n\n", "no agi header"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "no agi header"),
        (b"agi_network: " + b"x" * codec.MAX_HEADER_LINE, "header line too long"),
        (b"agi_network: yes\nx: " + b"x" * (codec.MAX_HEADER_LINE + 1) + b"\n\n", "header line too long"),
        (b"agi_network: yes\n" + b"agi_arg_1: x\n" * codec.MAX_HEADERS + b"\n", "too many header lines"),
        (b"agi_arg_1: xxxxxxxxxxxx\n" * 3000, "header block too long"),
        (b"agi_arg_1: xxxxxxxxxxxx\n" * 3000 + b"\n", "header block too long"),
    ],
)
def test_what_is_no_header_block(wire: bytes, reason: str) -> None:
    for pieces in ([wire], [wire[i : i + 1000] for i in range(0, len(wire), 1000)]):
        parser = Parser()
        events = drain(pieces, parser)
        assert shape(events) == [f"fault {reason}"]
        assert parser.broken
        assert list(parser.feed(b"agi_network: yes\n\n200 result=0\n")) == []


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b"\x80\xff\xfe garbage\n", "not an AGI reply"),
        (b"200\n", "not an AGI reply"),
        (b"x" * (codec.MAX_REPLY_BYTES + 1), "line too long"),
        (b"200 result=1 (" + b"x" * codec.MAX_REPLY_BYTES + b")\n", "line too long"),
        (b"520-x\n" + b"usage\n" * 20_000, "reply too long"),
        (b"200 result=1 (a\n" + b"more\n" * 20_000, "reply too long"),
        (b"100 x\n" * (codec.MAX_NON_REPLIES + 1), "too many lines that are no reply"),
        (b"\n" * (codec.MAX_NON_REPLIES + 1), "too many lines that are no reply"),
        (b"200 result=1 (a)\n" + b"b)\nx\n" * codec.MAX_NON_REPLIES, None),
    ],
)
def test_what_is_no_reply(wire: bytes, reason: str | None) -> None:
    for pieces in ([wire], [wire[i : i + 777] for i in range(0, len(wire), 777)]):
        parser = ready()
        events = [e for e in drain(pieces, parser) if isinstance(e, Fault)]
        if reason is None:  # one value of many lines, or one and strays: either is fine, silence or a fault
            assert len(events) <= 1
            continue
        assert [e.reason for e in events] == [reason]
        assert list(parser.feed(b"200 result=0\n")) == []
        assert list(parser.feed(b"200 result=1 (x)\n")) == []


def test_never_quadratic(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte one byte at a time takes a second; with a copy of the buffer for each, minutes."""
    for limit in ("MAX_HEADER_BYTES", "MAX_HEADER_LINE", "MAX_REPLY_BYTES"):
        monkeypatch.setattr(codec, limit, 1 << 30)
    start = time.perf_counter()
    for prefix, parser in ((b"agi_network: yes\n", Parser()), (b"200 result=1 (", ready())):
        parser.feed(prefix)
        for n in range(1_000_000):
            parser.feed(b"x")
            if not n % 1000:
                assert time.perf_counter() - start < 15
        assert not parser.broken


def test_unfinished_says_what_was_cut() -> None:
    parser = Parser()
    assert parser.unfinished() == ""
    parser.feed(b"agi_n")
    assert parser.unfinished() == "header"
    parser.feed(b"etwork: yes\n\n")
    assert parser.unfinished() == ""
    parser.feed(b"200 re")
    assert parser.unfinished() == "reply"
    parser.feed(b"sult=0\n520-x\n")
    assert parser.unfinished() == "reply"


def test_values_stay_out_of_repr() -> None:
    (reply,) = drain([b"200 result=1 (secret)\n"], ready())
    assert "secret" not in repr(reply)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=20), st.booleans())
def test_any_bytes_are_bounded(pieces: list[bytes], started: bool) -> None:
    """The parser never raises."""
    parser = ready() if started else Parser()
    for piece in pieces:
        parser.feed(piece)
    assert len(parser._buffer) <= codec.MAX_HEADER_BYTES


SAID = [b"200 result=0", b"200 result=1 (v)", b"200 result=1 (a", b"b)", b"HANGUP", b"100 x", b"511 x", b"", b"junk"]
LINES = st.sampled_from([*SAID, *USAGE.rstrip(b"\n").split(b"\n")])


@settings(max_examples=200, deadline=None)
@given(st.lists(LINES, max_size=12), st.lists(st.integers(1, 30), max_size=12))
def test_hangups_are_counted_and_replies_end(lines: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    pieces = []
    for cut in cuts:
        pieces.append(stream[:cut])
        stream = stream[cut:]
    parser = ready()
    events = drain([*pieces, stream], parser)
    if not parser.broken:
        assert sum(isinstance(e, HungUp) for e in events) == lines.count(b"HANGUP")
    for event in events:
        if isinstance(event, Reply):
            assert event.code in (200, 511, 520)
