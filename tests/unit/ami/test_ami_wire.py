"""The codec: bytes cut anywhere, sloppy peers, hostile values."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastagi.ami.wire import (
    MAX_BANNER,
    MAX_HEADERS,
    MAX_LINE,
    MAX_NAMES,
    Block,
    Decoder,
    WireError,
    encode,
    field,
    fields,
    follows,
    output,
)
from fastagi.errors import BadArgument

BANNER = b"Asterisk Call Manager/11.0.0\r\n"
LOGIN = b"Response: Success\r\nActionID: 1\r\nMessage: Authentication accepted"
HANGUP = b"Event: Hangup\r\nPrivilege: call,all\r\nChannel: PJSIP/a-1\r\nUniqueid: pbx-1.2\r\nCause-txt: M\xc3\xbcller"
VARSET = b"Event: VarSet\r\nPrivilege: dialplan,all\r\nVariable: X\r\nValue: \xe2\x82\xac"
ROW = b"Event: CoreShowChannel\r\nActionID: 7\r\nChannel: PJSIP/a-1"
END = b"\r\n\r\n"
STREAM = BANNER + LOGIN + END + VARSET + END + HANGUP + END + ROW + END + b"Response: Goodbye" + END


def decoder(*names: str, **options: int) -> Decoder:
    return Decoder(lambda name: name in names, **options)


def shown(blocks: list[Block]) -> list[tuple[str, bytes]]:
    return [(b.name, b.raw) for b in blocks]


def feed_all(d: Decoder, data: bytes, size: int) -> list[Block]:
    return [block for at in range(0, len(data), size) for block in d.feed(data[at : at + size])]


WANTED = [("", LOGIN), ("Hangup", HANGUP), ("", b"Response: Goodbye")]


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_split_at_every_byte(cut: int) -> None:
    d = decoder("Hangup")
    assert shown(d.feed(STREAM[:cut]) + d.feed(STREAM[cut:])) == WANTED
    assert (d.seen, d.banner, d.held) == (3, "Asterisk Call Manager/11.0.0", 0)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 64])
def test_one_byte_chunks_keep_utf8(size: int) -> None:
    blocks = feed_all(decoder("Hangup"), STREAM, size)
    assert shown(blocks) == WANTED
    assert field(blocks[1].raw, "Cause-txt") == "Müller"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_any_cuts_give_the_same(sizes: list[int]) -> None:
    d, at, out = decoder("Hangup"), 0, []
    for size in sizes:
        out += d.feed(STREAM[at : at + size])
        at += size
    out += d.feed(STREAM[at:])
    assert shown(out) == WANTED


def test_unwanted_events_are_dropped_by_name() -> None:
    d = decoder()
    broken = b"Event: RTCPSent\r\nno header at all\r\n\xff\xfe: \x00"
    assert d.feed(BANNER + broken + END) == []
    assert d.seen == 1


def test_names_must_match_whole() -> None:
    d = decoder("Hangup")
    assert d.feed(BANNER + b"Event: HangupRequest\r\nChannel: x" + END) == []


def test_pending_action_passes_its_events() -> None:
    d = decoder()
    d.expecting = True
    assert shown(d.feed(BANNER + ROW + END + VARSET + END)) == [("CoreShowChannel", ROW)]
    d.expecting = False
    assert d.feed(ROW + END) == []


def test_wanted_names_are_cached_until_forget() -> None:
    asked: list[str] = []
    names: set[str] = set()

    def wants(name: str) -> bool:
        asked.append(name)
        return name in names

    d = Decoder(wants)
    d.feed(BANNER + (VARSET + END) * 3)
    assert asked == ["VarSet"]
    names.add("VarSet")
    assert d.feed(VARSET + END) == []
    d.forget()
    assert shown(d.feed(VARSET + END)) == [("VarSet", VARSET)]


def test_invented_names_are_bounded() -> None:
    d = decoder()
    d.feed(BANNER + b"".join(b"Event: N%d\r\nA: b\r\n\r\n" % i for i in range(MAX_NAMES + 500)))
    assert len(d._verdicts) == MAX_NAMES
    assert d.seen == MAX_NAMES + 500


@pytest.mark.parametrize(
    ("sloppy", "expected"),
    [
        (b"\r\n" + HANGUP + END, [("Hangup", HANGUP)]),
        (HANGUP + END + b"\r\n\r\n\r\n" + HANGUP + END, [("Hangup", HANGUP)] * 2),
        (LOGIN + b"\r\n" + HANGUP + END, [("", LOGIN), ("Hangup", HANGUP)]),
        (b"Event:Hangup\r\nChannel: a" + END, [("Hangup", b"Event:Hangup\r\nChannel: a")]),
        (b"Event: Hangup" + END, [("Hangup", b"Event: Hangup")]),
        (b"Channel: a\r\nEvent: Hangup" + END, [("Hangup", b"Channel: a\r\nEvent: Hangup")]),
        (b"ActionID: 3\r\nResponse: Error" + END, [("", b"ActionID: 3\r\nResponse: Error")]),
        (b"Event: \r\nActionID: 1" + END, []),
    ],
    ids=[
        "empty line first",
        "many empty lines",
        "response and event with one line end between",
        "no space",
        "no other header",
        "event not first",
        "response not first",
        "no name",
    ],
)
def test_sloppy_line_ends(sloppy: bytes, expected: list[tuple[str, bytes]]) -> None:
    for size in (1, 3, 1000):
        assert shown(feed_all(decoder("Hangup"), BANNER + sloppy, size)) == expected


def test_a_peer_with_bare_line_feeds() -> None:
    data = STREAM.replace(b"\r\n", b"\n")
    for size in (1, 1000):
        blocks = feed_all(decoder("Hangup"), data, size)
        assert [b.name for b in blocks] == ["", "Hangup", ""]
        assert dict(fields(blocks[1].raw))["Uniqueid"] == "pbx-1.2"
        assert field(blocks[1].raw, "Uniqueid") == "pbx-1.2"


def test_garbage_is_counted_and_passed_over() -> None:
    d = decoder("Hangup")
    assert shown(d.feed(BANNER + b"what is this" + END + HANGUP + END)) == [("Hangup", HANGUP)]
    assert d.garbage == 1


@pytest.mark.parametrize(
    "words", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\n"]
)
def test_a_peer_that_is_no_manager(words: bytes) -> None:
    with pytest.raises(WireError, match="no Asterisk manager"):
        decoder().feed(words)


def test_a_banner_without_end() -> None:
    d = decoder()
    d.feed(b"Asterisk Call Manager" + b"x" * (MAX_BANNER - 30))
    with pytest.raises(WireError):
        d.feed(b"x" * 40)


def test_unterminated_input_is_bounded() -> None:
    d = decoder("Hangup", max_message=10_000)
    d.feed(BANNER)
    with pytest.raises(WireError, match="longer than 10000 bytes"):
        feed_all(d, b"Event: Hangup\r\nX: " + b"y" * 100_000, 1000)
    assert d.held < 12_000


def test_endless_follows_body_is_bounded() -> None:
    d = decoder(max_message=10_000)
    d.feed(BANNER + b"Response: Follows\r\nPrivilege: Command\r\n")
    with pytest.raises(WireError):
        feed_all(d, (b"y" * 1000 + END) * 100, 1004)
    assert d.held < 12_000


def test_single_bytes_cost_linear_time() -> None:
    """Eight times the bytes may cost eight times the work; copying what is held at every byte would cost 64 times."""

    def cost(count: int) -> float:
        d = decoder("Hangup")
        d.feed(BANNER + b"Event: Hangup\r\nX: ")
        begin = time.process_time()
        for _ in range(count):
            d.feed(b"y")
        spent = time.process_time() - begin
        assert len(d.feed(END)) == 1
        return spent

    assert cost(400_000) < 24 * max(cost(50_000), 0.02)


NEW_OUTPUT = (
    b"Response: Success\r\nActionID: 7\r\nMessage: Command output follows\r\n"
    b"Output: Name     State\r\nOutput: \r\nOutput: a: b   Up"
)
OLD_OUTPUT = (
    b"Response: Follows\r\nPrivilege: Command\r\nActionID: 7\r\n"
    b"Name     State\n\nEvent: not one\na: b   Up\n--END COMMAND--"
)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_command_output_of_new_asterisks(size: int) -> None:
    blocks = feed_all(decoder("Hangup"), BANNER + NEW_OUTPUT + END + HANGUP + END, size)
    assert [b.name for b in blocks] == ["", "Hangup"]
    assert output(blocks[0].raw) == ["Name     State", "", "a: b   Up"]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_command_output_of_old_asterisks(size: int) -> None:
    blocks = feed_all(decoder("Hangup"), BANNER + OLD_OUTPUT + END + HANGUP + END, size)
    assert [b.name for b in blocks] == ["", "Hangup"]
    assert output(blocks[0].raw) == ["Name     State", "", "Event: not one", "a: b   Up"]
    assert follows(blocks[0].raw)[0] == [("Response", "Follows"), ("Privilege", "Command"), ("ActionID", "7")]


def test_old_output_with_empty_lines() -> None:
    data = OLD_OUTPUT.replace(b"\n\nEvent: not one", b"\r\n\r\nmore")
    (block,) = decoder().feed(BANNER + data + END)
    assert block.raw == data


def test_old_output_without_end_mark() -> None:
    d = decoder("Hangup")
    blocks = d.feed(BANNER + b"Response: Follows\r\nActionID: 7\r\nhello" + END + HANGUP + END)
    assert [b.name for b in blocks] == ["", "Hangup"]


def test_no_output_is_an_empty_list() -> None:
    assert output(HANGUP) == []


def test_field_starts_its_line() -> None:
    raw = b"Event: X\r\nAppData: \\r\\nChannel: evil Channel: evil\r\nChannel: good\r\nEmpty: \r\nLast: \xc3\xa9"
    assert field(raw, "Channel") == "good"
    assert field(raw, "Empty") == ""
    assert field(raw, "Last") == "é"
    assert field(raw, "Nowhere") == ""


def test_fields_keep_order_and_repeats() -> None:
    """Bytes that are no UTF-8 are replaced."""
    raw = b"Event: X\r\nChanVariable: A=1\r\nChanVariable: B=2\r\nBad: \xff\xfe\r\nNone:\r\njunk"
    assert fields(raw) == [
        ("Event", "X"),
        ("ChanVariable", "A=1"),
        ("ChanVariable", "B=2"),
        ("Bad", "\ufffd\ufffd"),
        ("None", ""),
    ]


def test_encode_repeats_lists_and_writes_booleans() -> None:
    action = {"Action": "Originate", "Variable": ["A=1", "B=ü"], "Async": True, "Timeout": 3000, "EarlyMedia": False}
    assert (
        encode(action)
        == (
            "Action: Originate\r\nVariable: A=1\r\nVariable: B=ü\r\nAsync: true\r\n"
            "Timeout: 3000\r\nEarlyMedia: false\r\n\r\n"
        ).encode()
    )


@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "x\r\nAction: Originate", "x\r\n\r\nAction: Originate\r\n"])
@pytest.mark.parametrize("place", ["value", "list", "key"])
def test_smuggled_headers_are_refused(bad: str, place: str) -> None:
    action: dict[str, object] = {"Action": "Ping"}
    if place == "key":
        action["X" + bad] = "1"
    else:
        action["X"] = ["fine", bad] if place == "list" else bad
    with pytest.raises(BadArgument):
        encode(action)


@pytest.mark.parametrize("key", ["", "A:B", "A B", "Ä", " A"])
def test_key_must_be_header_name(key: str) -> None:
    with pytest.raises(BadArgument):
        encode({"Action": "Ping", key: "1"})


@pytest.mark.parametrize("value", [None, b"bytes", {"a": 1}, "\ud800"])
def test_a_value_must_be_text(value: object) -> None:
    with pytest.raises(BadArgument):
        encode({"Action": "Ping", "X": value})


def test_unreadable_action_is_refused() -> None:
    encode({"K": "x" * (MAX_LINE - 5)})
    with pytest.raises(BadArgument, match="1020"):
        encode({"K": "x" * (MAX_LINE - 4)})
    with pytest.raises(BadArgument, match="1020"):
        encode({"K": "ü" * 509})
    encode({"K": ["x"] * MAX_HEADERS})
    with pytest.raises(BadArgument, match="headers"):
        encode({"K": ["x"] * (MAX_HEADERS + 1)})
    with pytest.raises(BadArgument):
        encode({})


def test_error_does_not_show_secret() -> None:
    with pytest.raises(BadArgument) as caught:
        encode({"Action": "Login", "Secret": "hunter2\r\n"})
    assert "hunter2" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.integers(1, 50))
def test_no_input_raises_anything_else(data: bytes, size: int) -> None:
    d = Decoder(lambda name: True, max_message=300)
    d.expecting = True
    try:
        for block in feed_all(d, BANNER + data, size):
            fields(block.raw)
            output(block.raw)
            field(block.raw, "ActionID")
    except WireError:
        pass
    assert d.held <= 700
