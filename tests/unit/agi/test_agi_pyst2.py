"""pyst2's AGI over a session of ours: its vocabulary, its exceptions, none of its side effects."""

from __future__ import annotations

import signal
import sys

import asterisk.agi
import pytest

from fastagi.agi import HandlerThreads, run_blocking
from fastagi.errors import BadArgument, Hangup


@pytest.fixture
async def talk(stage):
    pool = HandlerThreads(4)

    async def run(script, *replies: str, end: bool = False):
        server = await stage.serve(lambda call: run_blocking(lambda channel: script(channel.agi), call, pool))
        peer = await stage.call(server)
        commands = [await peer.answer(reply) for reply in replies]
        if end:
            await peer.close()
        else:
            await peer.rest()
        return commands, await stage.result()

    yield run
    await pool.stop(10)


OK = "200 result=0"

SCRIPT = [
    (lambda a: a.answer(), "ANSWER", OK, None),
    (lambda a: a.wait_for_digit(500), "WAIT FOR DIGIT 500", "200 result=49", "1"),
    (lambda a: a.send_text("hi"), 'SEND TEXT "hi"', OK, None),
    (lambda a: a.receive_char(1), "RECEIVE CHAR 1", "200 result=65", "A"),
    (lambda a: a.tdd_mode("on"), "TDD MODE on", "200 result=1", None),
    (lambda a: a.stream_file("f", [1, 2]), 'STREAM FILE f "12" 0', "200 result=50 endpos=8", "2"),
    (lambda a: a.control_stream_file("f"), 'CONTROL STREAM FILE "f" "" "3000" "" "" ""', "200 result=0 endpos=8", ""),
    (lambda a: a.send_image("f"), "SEND IMAGE f", OK, None),
    (lambda a: a.say_digits("12", "#"), 'SAY DIGITS "12" "#"', OK, ""),
    (lambda a: a.say_number(12), 'SAY NUMBER "12" ""', OK, ""),
    (lambda a: a.say_alpha("ab"), 'SAY ALPHA "ab" ""', OK, ""),
    (lambda a: a.say_phonetic("ab"), 'SAY PHONETIC "ab" ""', OK, ""),
    (lambda a: a.say_date(5), 'SAY DATE 5 ""', OK, ""),
    (lambda a: a.say_time(5), 'SAY TIME 5 ""', OK, ""),
    (lambda a: a.say_datetime(5, "", "ABdY", "UTC"), 'SAY DATETIME 5 "" "ABdY" UTC', OK, ""),
    (lambda a: a.get_data("f", 5, 2), "GET DATA f 5 2", "200 result=12 (timeout)", "12"),
    (lambda a: a.get_option("f", "1", 5), 'GET OPTION f "1" 5', "200 result=49 endpos=8", "1"),
    (lambda a: a.set_context("c"), "SET CONTEXT c", OK, None),
    (lambda a: a.set_extension("e"), "SET EXTENSION e", OK, None),
    (lambda a: a.set_priority(1), "set priority 1", OK, None),
    (lambda a: a.record_file("f"), 'RECORD FILE "f" gsm "#" 20000 0 beep s=0', "200 result=35 (dtmf) endpos=8", "#"),
    (lambda a: a.set_autohangup(5), "SET AUTOHANGUP 5", OK, None),
    (lambda a: a.hangup(), "HANGUP", "200 result=1", None),
    (lambda a: a.appexec("Playback", "x,y"), 'EXEC Playback "x,y"', OK, "0"),
    (lambda a: a.exec_command("Dial", "x", 30), "EXEC Dial x,30", OK, {"result": ("0", "")}),
    (lambda a: a.set_callerid(5), "SET CALLERID 5", "200 result=1", None),
    (lambda a: a.channel_status(), "CHANNEL STATUS", "200 result=6", 6),
    (lambda a: a.set_variable("x", "y"), 'SET VARIABLE "x" "y"', "200 result=1", None),
    (lambda a: a.get_variable("x"), 'GET VARIABLE "x"', "200 result=1 (y)", "y"),
    (lambda a: a.get_full_variable("${x}"), 'GET FULL VARIABLE "${x}"', "200 result=1 (y)", "y"),
    (lambda a: a.verbose("x", 2), 'VERBOSE "x" 2', "200 result=1", None),
    (lambda a: a.database_get("f", "k"), 'DATABASE GET ""f"" ""k""', "200 result=1 (v)", "v"),
    (lambda a: a.database_put("f", "k", "v"), 'DATABASE PUT "f" "k" "v"', "200 result=1", None),
    (lambda a: a.database_del("f", "k"), 'DATABASE DEL "f" "k"', "200 result=1", None),
    (lambda a: a.database_deltree("f"), 'DATABASE DELTREE "f" ""', "200 result=1", None),
    (lambda a: a.noop(), "NOOP", OK, None),
]


async def test_all_its_methods(talk, capsys: pytest.CaptureFixture[str]) -> None:
    def script(agi):
        assert isinstance(agi, asterisk.agi.AGI)
        assert agi.env["agi_uniqueid"] == "1700000000.1"
        return [call(agi) for call, *_ in SCRIPT]

    before = signal.getsignal(signal.SIGHUP)
    commands, results = await talk(script, *[reply for _, _, reply, _ in SCRIPT])
    assert commands == [line for _, line, _, _ in SCRIPT]
    assert results == [result for *_, result in SCRIPT]
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", ""), "pyst2 writes every line to stderr"
    assert signal.getsignal(signal.SIGHUP) is before


def test_no_method_of_pyst2_is_untried() -> None:
    public = {name for name, value in vars(asterisk.agi.AGI).items() if callable(value) and not name.startswith("_")}
    tried = {code for call, *_ in SCRIPT for code in call.__code__.co_names}
    assert public - tried == {"test_hangup", "execute", "send_command", "get_result", "goto_on_exit"}


async def test_goto_on_exit_uses_the_environment(talk) -> None:
    commands, _ = await talk(lambda agi: agi.goto_on_exit(priority="2"), OK, OK, OK)
    assert commands == ["SET CONTEXT from-trunk", "SET EXTENSION 2000", "set priority 2"]


async def test_its_parts_by_hand(talk) -> None:
    def script(agi):
        agi.stdout.write("ANSWER\nNOOP\n")
        agi.stdout.flush()
        first, second, none = agi.stdin.readline(), agi.stdin.readline(), agi.stdin.readline()
        agi.send_command("GET VARIABLE", "x")
        return [first, second, none, agi.get_result()["result"], agi.execute("NOOP")]

    commands, result = await talk(script, OK, "200 result=7", "200 result=1 (v)", OK)
    assert commands == ["ANSWER", "NOOP", "GET VARIABLE x", "NOOP"]
    assert result == ["200 result=0\n", "200 result=7\n", "", ("1", "v"), {"result": ("0", "")}]


@pytest.mark.parametrize(
    ("reply", "raised"),
    [
        ("510 Invalid or unknown command", asterisk.agi.AGIInvalidCommand),
        ("520-Invalid\nUsage\n520 End of proper usage.", asterisk.agi.AGIUsageError),
        ("200 result=-2", asterisk.agi.AGIAppError),
    ],
)
async def test_errors_keep_replies_in_step(talk, reply: str, raised: type[Exception]) -> None:
    def script(agi):
        with pytest.raises(raised):
            agi.appexec("x")
        return agi.get_variable("x")

    assert (await talk(script, reply, "200 result=1 (in step)"))[1] == "in step"


async def test_two_line_value_keeps_step(talk) -> None:
    _, result = await talk(
        lambda agi: [agi.execute("GET VARIABLE x")["result"][0], agi.get_variable("y")],
        "200 result=1 (two\nlines)",
        "200 result=1 (y)",
    )
    assert result == ["1", "y"]


async def test_minus_one_checks_the_call(talk) -> None:
    def script(agi):
        with pytest.raises(asterisk.agi.AGIAppError) as failed:
            agi.stream_file("missing")
        assert not isinstance(failed.value, asterisk.agi.AGIHangup)
        with pytest.raises(asterisk.agi.AGIResultHangup):
            agi.stream_file("x")
        return "told apart"

    commands, result = await talk(script, "200 result=-1", "200 result=6", "200 result=-1", "511 dead")
    assert commands[1] == commands[3] == "CHANNEL STATUS"
    assert result == "told apart"


async def test_hangups_are_its_own_and_ours(talk) -> None:
    def script(agi):
        with pytest.raises(asterisk.agi.AGIHangup):
            agi.answer()  # 511
        with pytest.raises(asterisk.agi.AGISIGHUPHangup):
            agi.verbose("x")  # HANGUP has come with the reply before
        with pytest.raises(asterisk.agi.AGIHangup):
            agi.test_hangup()
        with pytest.raises(Hangup):
            agi.noop()
        return "all"

    assert (await talk(script, "HANGUP\n511 Command Not Permitted on a dead channel"))[1] == "all"


async def test_session_end_is_a_broken_pipe(talk) -> None:
    def script(agi):
        agi.answer()
        with pytest.raises(asterisk.agi.AGISIGPIPEHangup):
            agi.answer()
        with pytest.raises(asterisk.agi.AGIHangup):
            agi.noop()
        return "ended"

    assert (await talk(script, OK, end=True))[1] == "ended"


async def test_script_may_let_hangup_pass(talk, stage) -> None:
    def script(agi):
        agi.answer()
        agi.verbose("never sent")

    _, result = await talk(script, "HANGUP\n200 result=0")
    assert isinstance(result, asterisk.agi.AGISIGHUPHangup)
    assert stage.servers[-1].tally.failed == 0


async def test_line_ends_are_refused(talk) -> None:
    def script(agi):
        for call in (
            lambda: agi.verbose("a\nHANGUP"),
            lambda: agi.set_variable("x\r", "y"),
            lambda: agi.send_command("a\0"),
        ):
            with pytest.raises(BadArgument):
                call()
        return "refused"

    assert await talk(script) == ([], "refused")


async def test_a_script_may_exit(talk, stage) -> None:
    def script(agi):
        agi.answer()
        sys.exit(0)

    assert (await talk(script, OK))[1] is None
    assert stage.servers[-1].tally.failed == 0
