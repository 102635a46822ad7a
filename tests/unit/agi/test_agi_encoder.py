"""Commands as bytes: quoting, and nothing that Asterisk would read as a second command."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastagi.agi.codec import encode, encode_exec, encode_line
from fastagi.agi.encoder import MAX_COMMAND_BYTES
from fastagi.agi.vocabulary import COMMANDS, command_name
from fastagi.errors import BadArgument


def parse_args(line: str) -> list[str]:
    """What res_agi.c's parse_args makes of a line, step by step as it reads it."""
    words: list[str] = []
    quoted = escaped = False
    whitespace = True
    for char in line:
        if char == '"' and not escaped:
            quoted = not quoted
            if quoted and whitespace:
                words.append("")
                whitespace = False
        elif char in " \t" and not quoted and not escaped:
            whitespace = True
        elif char == "\\" and not escaped:
            escaped = True
            continue
        else:
            if whitespace:
                words.append("")
                whitespace = False
            words[-1] += char
        escaped = False
    return words


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.text(st.characters(blacklist_characters="\r\n\0", blacklist_categories=["Cs"]), max_size=40), max_size=5
    )
)
def test_asterisk_reads_back_what_was_quoted(arguments: list[str]) -> None:
    line = encode("SET VARIABLE", *arguments).decode()
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert parse_args(line[:-1]) == ["SET", "VARIABLE", *arguments]


def test_numbers_are_bare() -> None:
    assert encode("GET DATA", "welcome", 3000, 4) == b'GET DATA "welcome" 3000 4\n'
    assert encode("SET AUTOHANGUP", 1.5) == b"SET AUTOHANGUP 1.5\n"


@pytest.mark.parametrize("evil", ["a\nHANGUP", "a\rb", "a\0b", "\n", "a\r\nANSWER"])
def test_line_ends_are_refused_anywhere(evil: str) -> None:
    for make in (
        lambda: encode("VERBOSE", evil, 1),
        lambda: encode_line(f'NOOP "{evil}"'),
        lambda: encode_exec("Playback", [evil]),
        lambda: encode_exec("Playback" + evil, []),
    ):
        with pytest.raises(BadArgument) as caught:
            make()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [None, True, b"x", ["a"]])
def test_only_text_and_numbers(bad: object) -> None:
    with pytest.raises(BadArgument):
        encode("SET VARIABLE", "X", bad)  # type: ignore[arg-type]
    with pytest.raises(BadArgument):
        encode_exec("NoOp", [bad])  # type: ignore[list-item]


def test_the_longest_command_and_one_more() -> None:
    """16.28 answers 2,048 bytes and more with two replies."""
    room = MAX_COMMAND_BYTES - len(encode("NOOP", ""))
    assert len(encode("NOOP", "x" * room)) == MAX_COMMAND_BYTES
    with pytest.raises(BadArgument, match="2047"):
        encode("NOOP", "x" * (room + 1))
    with pytest.raises(BadArgument):
        encode("NOOP", "ä" * (room // 2 + 1))


def test_too_many_arguments() -> None:
    with pytest.raises(BadArgument, match="127"):
        encode("NOOP", *["x"] * 127)


@pytest.mark.parametrize("line", ["", " ", "\t"])
def test_nothing_is_no_command(line: str) -> None:
    with pytest.raises(BadArgument):
        encode_line(line)


def test_bytes_without_utf8_round_trip() -> None:
    assert encode("NOOP", b"\xc3\xa4\xff".decode("utf-8", "surrogateescape")) == b'NOOP "\xc3\xa4\xff"\n'
    with pytest.raises(BadArgument):
        encode("NOOP", "\ud800")


def test_exec_always_has_an_argument() -> None:
    assert encode_exec("StopMixMonitor", []) == b'EXEC StopMixMonitor ""\n'
    assert encode_exec("Dial", ["PJSIP/100", 30]) == b'EXEC Dial "PJSIP/100,30"\n'
    for name in ("", "No Op", 'a"b', "A" * 81):
        with pytest.raises(BadArgument, match="application"):
            encode_exec(name, [])


def test_command_names_hold_no_argument() -> None:
    assert command_name("EXEC Playback secret") == "EXEC Playback"
    assert command_name('exec "secret thing"') == "EXEC"
    assert command_name("get full variable ${X}") == "GET FULL VARIABLE"
    assert command_name("GET VARIABLE secret") == "GET VARIABLE"
    assert command_name("secret words") == "?"
    assert all(command_name(name.lower()) == name for name in COMMANDS)
