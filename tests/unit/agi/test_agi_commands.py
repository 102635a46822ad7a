"""Every command: what is sent, what its replies mean, and how hangup and failure are told apart."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from fastagi.agi import Channel
from fastagi.agi.replies import Digits, Heard, Recognition
from fastagi.agi.vocabulary import COMMANDS
from fastagi.errors import BadArgument, CommandFailed, Error, Hangup

Call = Callable[[Channel], Awaitable[Any]]

OK = "200 result=0"
ONE = "200 result=1"

CASES: list[tuple[Call, str, str, object]] = [
    (lambda c: c.answer(), "ANSWER", OK, None),
    (lambda c: c.asyncagi_break(), "ASYNCAGI BREAK", OK, None),
    (lambda c: c.channel_status(), "CHANNEL STATUS", "200 result=6", 6),
    (lambda c: c.channel_status("SIP/x-1"), 'CHANNEL STATUS "SIP/x-1"', "200 result=-1", -1),
    (
        lambda c: c.control_stream_file("f", "12", pause="0"),
        'CONTROL STREAM FILE "f" "12" 3000 "#" "*" "0" 0',
        "200 result=49 endpos=80",
        "1",
    ),
    (lambda c: c.database_del("f", "k"), 'DATABASE DEL "f" "k"', ONE, True),
    (lambda c: c.database_del("f", "k"), 'DATABASE DEL "f" "k"', OK, False),
    (lambda c: c.database_deltree("f"), 'DATABASE DELTREE "f"', OK, None),
    (lambda c: c.database_deltree("f", "t"), 'DATABASE DELTREE "f" "t"', ONE, None),
    (lambda c: c.database_get("f", "k"), 'DATABASE GET "f" "k"', "200 result=1 (v)", "v"),
    (lambda c: c.database_get("f", "k"), 'DATABASE GET "f" "k"', OK, None),
    (lambda c: c.database_put("f", "k", 5), 'DATABASE PUT "f" "k" 5', ONE, None),
    (lambda c: c.exec("Playback", "a&b", "noanswer"), 'EXEC Playback "a&b,noanswer"', OK, "0"),
    (lambda c: c.get_data("f"), 'GET DATA "f"', "200 result=12 (timeout)", "12"),
    (lambda c: c.get_data("f", 500), 'GET DATA "f" 500', "200 result= (timeout)", ""),
    (lambda c: c.get_data("f", max_digits=2), 'GET DATA "f" 0 2', "200 result=07", "07"),
    (lambda c: c.get_full_variable("${X}"), 'GET FULL VARIABLE "${X}"', "200 result=1 (v)", "v"),
    (lambda c: c.get_full_variable("${X}", "c"), 'GET FULL VARIABLE "${X}" "c"', OK, None),
    (lambda c: c.get_option("f", "1#"), 'GET OPTION "f" "1#"', "200 result=35 endpos=1", "#"),
    (lambda c: c.get_option("f", "1", 100), 'GET OPTION "f" "1" 100', "200 result=0 endpos=1", ""),
    (lambda c: c.get_variable("X"), 'GET VARIABLE "X"', "200 result=1 ()", ""),
    (lambda c: c.gosub("ctx", "s", "label"), 'GOSUB "ctx" "s" "label"', "200 result=0 Gosub complete", None),
    (lambda c: c.gosub("ctx", "s", 1, "a", 2), 'GOSUB "ctx" "s" "1" "a,2"', "200 result=0 Gosub complete", None),
    (lambda c: c.hangup(), "HANGUP", ONE, None),
    (lambda c: c.hangup("SIP/x-1"), 'HANGUP "SIP/x-1"', ONE, None),
    (lambda c: c.noop(), "NOOP", OK, None),
    (lambda c: c.noop("hi"), 'NOOP "hi"', OK, None),
    (lambda c: c.receive_char(100), "RECEIVE CHAR 100", "200 result=65", "A"),
    (lambda c: c.receive_char(), "RECEIVE CHAR 0", "200 result=0 (timeout)", ""),
    (lambda c: c.receive_text(100), "RECEIVE TEXT 100", "200 result=1 (hello you)", "hello you"),
    (
        lambda c: c.record_file("f", beep=True, silence_seconds=3),
        'RECORD FILE "f" "wav" "#" -1 0 "BEEP" "s=3"',
        "200 result=35 (dtmf) endpos=8000",
        "#",
    ),
    (
        lambda c: c.record_file("f", "gsm", "", 500),
        'RECORD FILE "f" "gsm" "" 500 0',
        "200 result=0 (timeout) endpos=1",
        "",
    ),
    (lambda c: c.say_alpha("ab", "1"), 'SAY ALPHA "ab" "1"', OK, ""),
    (lambda c: c.say_alpha("ab", case="a"), 'SAY ALPHA "ab" "" "a"', OK, ""),
    (lambda c: c.say_date(86400), 'SAY DATE 86400 ""', "200 result=50", "2"),
    (lambda c: c.say_time(datetime(1970, 1, 2, tzinfo=UTC)), 'SAY TIME 86400 ""', OK, ""),
    (lambda c: c.say_datetime(0), 'SAY DATETIME 0 ""', OK, ""),
    (lambda c: c.say_datetime(0, "1", "ABdY"), 'SAY DATETIME 0 "1" "ABdY"', OK, ""),
    (
        lambda c: c.say_datetime(0, timezone="UTC"),
        'SAY DATETIME 0 "" "ABdY \'digits/at\' IMp" "UTC"',
        OK,
        "",
    ),
    (lambda c: c.say_digits("007"), 'SAY DIGITS "007" ""', OK, ""),
    (lambda c: c.say_number(-5, "1", "f"), 'SAY NUMBER -5 "1" "f"', OK, ""),
    (lambda c: c.say_phonetic("x"), 'SAY PHONETIC "x" ""', OK, ""),
    (lambda c: c.send_image("x"), 'SEND IMAGE "x"', OK, None),
    (lambda c: c.send_text("x"), 'SEND TEXT "x"', OK, None),
    (lambda c: c.set_autohangup(1.5), "SET AUTOHANGUP 1.5", OK, None),
    (lambda c: c.set_callerid('"A" <1>'), 'SET CALLERID "\\"A\\" <1>"', ONE, None),
    (lambda c: c.set_context("c"), 'SET CONTEXT "c"', OK, None),
    (lambda c: c.set_extension("e"), 'SET EXTENSION "e"', OK, None),
    (lambda c: c.set_priority(2), 'SET PRIORITY "2"', OK, None),
    (lambda c: c.set_music(), "SET MUSIC ON", OK, None),
    (lambda c: c.set_music(True, "jazz"), 'SET MUSIC ON "jazz"', OK, None),
    (lambda c: c.set_music(False), "SET MUSIC OFF", OK, None),
    (lambda c: c.set_variable("X", 'a "b" \\'), 'SET VARIABLE "X" "a \\"b\\" \\\\"', ONE, None),
    (lambda c: c.set_variable("X", 5), 'SET VARIABLE "X" 5', ONE, None),
    (lambda c: c.speech_activate_grammar("g"), 'SPEECH ACTIVATE GRAMMAR "g"', ONE, None),
    (lambda c: c.speech_create("e"), 'SPEECH CREATE "e"', ONE, None),
    (lambda c: c.speech_deactivate_grammar("g"), 'SPEECH DEACTIVATE GRAMMAR "g"', ONE, None),
    (lambda c: c.speech_destroy(), "SPEECH DESTROY", OK, False),
    (lambda c: c.speech_load_grammar("g", "p"), 'SPEECH LOAD GRAMMAR "g" "p"', ONE, None),
    (
        lambda c: c.speech_recognize("f", 5),
        'SPEECH RECOGNIZE "f" 5',
        '200 result=1 (speech) endpos=7 results=1 score0=900 text0="yes" grammar0=g',
        Recognition("speech", "", 7, (Heard(900, "yes", "g"),)),
    ),
    (
        lambda c: c.speech_recognize("f", 5, 80),
        'SPEECH RECOGNIZE "f" 5 80',
        "200 result=1 (digit) digit=5 endpos=7",
        Recognition("digit", "5", 7),
    ),
    (lambda c: c.speech_set("a", "b"), 'SPEECH SET "a" "b"', ONE, None),
    (lambda c: c.speech_unload_grammar("g"), 'SPEECH UNLOAD GRAMMAR "g"', ONE, None),
    (lambda c: c.stream_file("f", "1", 80), 'STREAM FILE "f" "1" 80', "200 result=49 endpos=8000", "1"),
    (lambda c: c.tdd_mode("on"), 'TDD MODE "on"', OK, False),
    (lambda c: c.verbose("x", 3), 'VERBOSE "x" 3', ONE, None),
    (lambda c: c.wait_for_digit(100), "WAIT FOR DIGIT 100", "200 result=42", "*"),
    (lambda c: c.wait_for_digit(), "WAIT FOR DIGIT -1", OK, ""),
    (lambda c: c.fetch_linkedid(), 'GET FULL VARIABLE "${CHANNEL(linkedid)}"', "200 result=1 (1.1)", "1.1"),
]


@pytest.mark.parametrize(("make", "line", "reply", "expected"), CASES)
async def test_command_line_and_result(stage, make: Call, line: str, reply: str, expected: object) -> None:
    assert await stage.talk(make, reply) == [line]
    assert await stage.result() == expected


def test_every_command_has_a_test() -> None:
    for name in COMMANDS:
        assert inspect.iscoroutinefunction(getattr(Channel, name.lower().replace(" ", "_"), None)), name
        assert any(line == name or line.startswith(name + " ") for _, line, _, _ in CASES), name


async def test_digits_say_more_than_the_digits(stage) -> None:
    await stage.talk(lambda c: c.get_data("f"), "200 result=12 (timeout)")
    found = await stage.result()
    assert isinstance(found, Digits)
    assert (found.timed_out, found.reason, found.endpos) == (True, "timeout", None)
    await stage.talk(lambda c: c.stream_file("f", "1"), "200 result=49 endpos=8000")
    found = await stage.result()
    assert (found.timed_out, found.reason, found.endpos) == (False, "", 8000)


AMBIGUOUS: list[Call] = [
    lambda c: c.stream_file("f"),
    lambda c: c.control_stream_file("f"),
    lambda c: c.get_option("f", "1"),
    lambda c: c.get_data("f"),
    lambda c: c.say_number(5),
    lambda c: c.receive_char(),
    lambda c: c.receive_text(),
    lambda c: c.send_text("x"),
    lambda c: c.record_file("f"),
    lambda c: c.gosub("c", "s", 1),
]


@pytest.mark.parametrize("make", AMBIGUOUS)
@pytest.mark.parametrize(
    ("status", "raised"),
    [
        ("200 result=6", Error),
        ("200 result=4", Error),
        ("511 Command Not Permitted on a dead channel or intercept routine", Hangup),
        ("200 result=0", Hangup),
        ("200 result=-1", Hangup),
        ("HANGUP\n511 Command Not Permitted", Hangup),
    ],
)
async def test_minus_one_is_hangup_or_failure(stage, make: Call, status: str, raised: type[Exception]) -> None:
    """A missing file and a hangup give the same reply; the HANGUP line comes after it, or never (AGISIGHUP=no)."""
    commands = await stage.talk(make, "200 result=-1", status)
    assert commands[1] == "CHANNEL STATUS"
    assert type(await stage.result()) is raised


async def test_minus_one_after_hangup_asks_nothing(stage) -> None:
    assert len(await stage.talk(lambda c: c.stream_file("f"), "HANGUP\n200 result=-1 endpos=0")) == 1
    assert isinstance(await stage.result(), Hangup)


@pytest.mark.parametrize(
    ("make", "reply", "raised"),
    [
        (lambda c: c.answer(), "200 result=-1", Hangup),
        (lambda c: c.wait_for_digit(), "200 result=-1", Hangup),
        (lambda c: c.record_file("f"), "200 result=-1 (hangup) endpos=8", Hangup),
        (lambda c: c.speech_recognize("f", 1), "200 result=1 (hangup) endpos=0", Hangup),
        (lambda c: c.hangup("SIP/x"), "200 result=-1", Error),
        (lambda c: c.exec("NoSuchApp"), "200 result=-2", Error),
        (lambda c: c.database_put("a", "b", "c"), OK, Error),
        (lambda c: c.speech_create("e"), OK, Error),
        (lambda c: c.speech_unload_grammar("g"), OK, Error),
        (lambda c: c.speech_recognize("f", 1), OK, Error),
        (lambda c: c.channel_status(), "200 result=odd", Error),
        (lambda c: c.answer(), "511 Command Not Permitted on a dead channel", Hangup),
        (lambda c: c.get_variable("X"), "511 Command Not Permitted on a dead channel", Hangup),
        (lambda c: c.command("BOGUS"), "510 Invalid or unknown command", CommandFailed),
        (
            lambda c: c.set_priority("nowhere"),
            "520-Invalid\nSets the priority\n520 End of proper usage.",
            CommandFailed,
        ),
    ],
)
async def test_what_failures_raise(stage, make: Call, reply: str, raised: type[Exception]) -> None:
    await stage.talk(make, reply)
    assert type(await stage.result()) is raised


async def test_exec_that_gave_minus_one(stage) -> None:
    await stage.talk(lambda c: c.exec("MixMonitor"), "200 result=-1", "200 result=6")
    assert await stage.result() == "-1", "the application did not like its arguments; the call is up"
    await stage.talk(lambda c: c.exec("Dial", "x"), "200 result=-1", "511 dead")
    assert isinstance(await stage.result(), Hangup)


async def test_a_refused_argument_sends_nothing(stage) -> None:
    for make in (
        lambda c: c.set_variable("X", "a\nHANGUP"),
        lambda c: c.verbose("a\0"),
        lambda c: c.verbose("a", 9),
        lambda c: c.command("NOOP\r\nHANGUP"),
        lambda c: c.raw("\n"),
        lambda c: c.exec("No Op"),
        lambda c: c.set_variable("X", None),
    ):
        assert await stage.talk(make) == []
        assert isinstance(await stage.result(), BadArgument)


async def test_the_usage_is_in_the_error(stage) -> None:
    await stage.talk(lambda c: c.command("WAIT FOR DIGIT"), "520-Invalid\nWaits up to x\n520 End of proper usage.")
    failure = await stage.result()
    assert (failure.code, failure.text) == (520, "Waits up to x")


async def test_command_raises_and_raw_does_not(stage) -> None:
    await stage.talk(lambda c: c.command('GET VARIABLE "X"'), "200 result=1 (v)")
    reply = await stage.result()
    assert (reply.code, reply.result, reply.data, reply.endpos) == (200, "1", "v", None)
    await stage.talk(lambda c: c.raw("BOGUS"), "510 Invalid or unknown command")
    reply = await stage.result()
    assert (reply.code, reply.text) == (510, "Invalid or unknown command")


async def test_linkedid_is_asked_for_once(stage) -> None:
    async def handler(call: Channel) -> list[str]:
        before = call.linkedid
        return [before, await call.fetch_linkedid(), await call.fetch_linkedid(), call.linkedid]

    assert len(await stage.talk(handler, "200 result=1 (9.9)")) == 1
    assert await stage.result() == ["", "9.9", "9.9", "9.9"]
