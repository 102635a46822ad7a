"""Our side of AGI against the real other side, 22 and 16: what the scripted tests play was read off here."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asterisk.agi
import pytest
import pytest_asyncio

from fastagi.agi import AgiServer, Channel, HandlerThreads, run_blocking
from fastagi.agi.encoder import MAX_COMMAND_BYTES
from fastagi.agi.vocabulary import COMMANDS
from fastagi.errors import CommandFailed, Error, Hangup
from fastagi.handlers import record
from fastagi.testing import AsteriskServer

pytestmark = pytest.mark.asterisk

SECONDS = 30.0

DIALPLAN = """
[calls]
exten => _[a-z].,1,Answer()
 same => n,AGI(agi://127.0.0.1:${PORT}/${EXTEN}?from=query%20string,one,key=two words)
 same => n,Set(GLOBAL(WHY_${EXTEN})=${RECORDING_ERROR})
 same => n,Set(GLOBAL(STATUS_${EXTEN})=${AGISTATUS})
 same => n,Wait(60)
exten => _dead.,1,Set(CHANNEL(hangup_handler_push)=late,s,1)
 same => n,Answer()
 same => n,Hangup()

[late]
exten => s,1,AGI(agi://127.0.0.1:${PORT}/late)
 same => n,Return()

[subs]
exten => s,1,Set(GOT=${ARG1}-${ARG2})
 same => n,Return(ok)

[aside]
exten => s,1,Wait(60)
"""

_numbers = itertools.count(1)


class Pbx:
    """One Asterisk and a server it calls; the handler is the test's."""

    def __init__(self, server: AsteriskServer) -> None:
        self.asterisk = server
        self.results: asyncio.Queue[Any] = asyncio.Queue()
        self.made: list[AgiServer] = []

    async def call(
        self,
        handler: Callable[[Channel], Awaitable[object]],
        name: str = "call",
        settings: Any = None,
        **variables: str,
    ) -> str:
        """Have Asterisk call `handler`; the extension it called from."""

        async def recorded(channel: Channel) -> None:
            try:
                async with asyncio.timeout(SECONDS):
                    result: object = await handler(channel)
            except BaseException as exc:
                self.results.put_nowait(exc)
                raise
            self.results.put_nowait(result)

        agi = AgiServer(recorded, port=0, **(settings or {}))
        await agi.start()
        self.made.append(agi)
        extension = f"{name}{next(_numbers)}"
        await self.asterisk.originate(
            f"Local/{extension}@calls/n", variables={"__PORT": str(agi.port), **variables}, wait=False
        )
        return extension

    async def result(self) -> Any:
        async with asyncio.timeout(SECONDS):
            result = await self.results.get()
        if isinstance(result, (AssertionError, TimeoutError)):
            raise result
        return result

    async def run(self, handler: Callable[[Channel], Awaitable[object]], **more: Any) -> Any:
        await self.call(handler, **more)
        return await self.result()

    async def status(self, extension: str) -> str:
        """AGISTATUS as the dialplan saw it."""
        async with self.asterisk.ami(events="off") as ami, asyncio.timeout(SECONDS):
            while not (status := await ami.getvar(f"STATUS_{extension}")):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.02)
        return status

    async def hang_up(self, channel: str) -> None:
        async with self.asterisk.ami(events="off") as ami:
            await ami.action("Hangup", Channel=channel)

    async def close(self) -> None:
        for agi in self.made:
            await agi.stop(0)
        async with self.asterisk.ami(events="off") as ami:
            for row in await ami.listing("CoreShowChannels"):
                await ami.action("Hangup", Channel=row["Channel"])


@pytest.fixture(scope="module", params=[22, 16], ids=["asterisk22", "asterisk16"])
def running(request: pytest.FixtureRequest) -> Any:
    server = AsteriskServer(request.param, dialplan=DIALPLAN)
    with asyncio.Runner() as runner:
        runner.run(server.start())
    yield server
    with asyncio.Runner() as runner:
        runner.run(server.close())


@pytest_asyncio.fixture
async def pbx(running: AsteriskServer) -> AsyncIterator[Pbx]:
    made = Pbx(running)
    yield made
    await made.close()


async def raised(awaitable: Awaitable[object]) -> object:
    try:
        return await awaitable
    except Exception as exc:
        return type(exc)


async def test_every_command_it_shows_is_known(pbx: Pbx) -> None:
    shown = {}
    for line in (await pbx.asterisk.cli("agi show commands")).splitlines():
        if found := re.match(r"\s*(Yes|No)\s+([a-z ]+?)   ", line):
            shown[found[2].upper()] = found[1] == "Yes"
    assert len(shown) > 40
    assert shown == COMMANDS
    for name in shown:
        assert callable(getattr(Channel, name.lower().replace(" ", "_"))), name


async def test_knows_the_call(pbx: Pbx) -> None:
    async def handler(call: Channel) -> dict[str, object]:
        return {
            "route": call.route, "args": call.args, "params": call.params, "caller": call.caller,
            "extension": call.extension, "context": call.context, "language": call.language, "peer": call.peer,
            "uniqueid": call.uniqueid == await call.get_variable("UNIQUEID"),
            "channel": call.channel == await call.get_variable("CHANNEL"),
            "linkedid": await call.fetch_linkedid() == await call.get_variable("CHANNEL(linkedid)") != "",
        }  # fmt: skip

    extension = await pbx.call(handler, name="who")
    assert await pbx.result() == {
        "route": extension, "args": ["one"], "params": {"key": "two words", "from": "query string"}, "caller": "",
        "extension": extension, "context": "calls", "language": "en", "peer": "127.0.0.1",
        "uniqueid": True, "channel": True, "linkedid": True,
    }  # fmt: skip


async def test_commands_do_what_they_say(pbx: Pbx) -> None:
    async def handler(c: Channel) -> None:
        await c.answer()
        assert await c.channel_status() == 6
        assert await c.channel_status(c.channel) == 6
        assert await c.channel_status("SIP/none") == -1
        assert await c.stream_file("beep") == ""
        assert (await c.stream_file("beep")).endpos > 0  # type: ignore[operator]
        assert await c.control_stream_file("beep") == ""
        assert await c.get_option("beep", "1", 10) == ""
        got = await c.get_data("beep", 100, 4)
        assert (got, got.timed_out) == ("", True)
        assert await c.wait_for_digit(50) == ""
        for said in (
            c.say_digits("12"),
            c.say_number(5),
            c.say_alpha("a"),
            c.say_phonetic("a"),
            c.say_alpha("a", case="n"),
        ):
            assert await said == ""
        assert await c.say_datetime(0, "", "d", "UTC") == ""
        recorded = await c.record_file("/tmp/fastagi-agi-test", "wav", "#", 200)
        assert (recorded, recorded.reason) == ("", "timeout")
        await c.send_text("hello")
        await c.send_image("none")
        assert await c.tdd_mode("off") is False
        await c.verbose("hello", 3)
        await c.noop("hello")
        await c.asyncagi_break()
        await c.set_callerid('"Bob B" <123>')
        assert await c.get_full_variable("${CALLERID(name)}/${CALLERID(num)}") == "Bob B/123"
        assert await c.get_full_variable("${CHANNEL}", c.channel) == c.channel
        assert await c.get_full_variable("x", "SIP/none") is None
        assert await c.get_variable("NEVER_SET") is None
        await c.set_variable("EMPTY", "")
        assert await c.get_variable("EMPTY") == ""
        await c.database_put("fam", "key", "a value")
        assert await c.database_get("fam", "key") == "a value"
        assert await c.database_del("fam", "key") is True
        assert await c.database_get("fam", "key") is None
        await c.database_put("fam", "key", 5)
        await c.database_deltree("fam")
        assert await c.database_get("fam", "key") is None
        await c.gosub("subs", "s", 1, "a", "b")
        assert (await c.get_variable("GOT"), await c.get_variable("GOSUB_RETVAL")) == ("a-b", "ok")
        assert await c.exec("Wait", 0.01) == "0"
        assert await c.exec("NoOp") == "0"
        assert await c.exec("MixMonitor") == "-1"
        await c.set_music(True, "default")
        await c.set_music(False)
        await c.set_autohangup(30)
        await c.set_autohangup(0)
        assert await c.speech_destroy() is False
        await c.set_context("aside")
        await c.set_extension("s")
        await c.set_priority(1)

    assert await pbx.run(handler) is None


async def test_failures_with_the_call_up(pbx: Pbx) -> None:
    async def handler(c: Channel) -> list[object]:
        found = [
            await raised(x)
            for x in (
                c.stream_file("no-such-file"), c.control_stream_file("no-such-file"), c.get_option("no-such-file", "1"),
                c.get_data("no-such-file"), c.exec("NoSuchApp"), c.hangup("SIP/none"), c.gosub("nowhere", "s", 1),
                c.record_file("/no/such/folder/x"), c.receive_char(10), c.receive_text(10), c.speech_create("none"),
                c.speech_set("a", "b"), c.speech_recognize("beep", 1), c.speech_unload_grammar("g"),
                c.speech_load_grammar("g", "p"), c.speech_activate_grammar("g"), c.speech_deactivate_grammar("g"),
            )
        ]  # fmt: skip
        assert await c.channel_status() == 6
        return found

    assert await pbx.run(handler) == [Error] * 17


async def test_refusals_and_their_text(pbx: Pbx) -> None:
    async def handler(c: Channel) -> list[CommandFailed]:
        failures = []
        for line in ("BOGUS COMMAND", "WAIT FOR DIGIT", "GET FULL VARIABLE", "SET PRIORITY nowhere"):
            with pytest.raises(CommandFailed) as failed:
                await c.command(line)
            failures.append(failed.value)
        assert await c.get_variable("CONTEXT") == "calls", "in step"
        return failures

    bogus, usage, longer, label = await pbx.run(handler)
    assert (bogus.code, bogus.text) == (510, "Invalid or unknown command")
    assert usage.code == longer.code == label.code == 520
    assert "milliseconds" in usage.text
    assert "\n" in longer.text


NASTY = [
    'a "quote"',
    "back\\slash",
    "trailing\\",
    '"',
    "\\",
    '\\"',
    " lead",
    "${X}",
    "(a) b)",
    "ä€🎙",
    "a,b|c;d",
    "'",
    "\t",
]


async def test_any_text_comes_back(pbx: Pbx) -> None:
    async def handler(c: Channel) -> list[object]:
        found = []
        for text in [*NASTY, "\udcff\udc80"]:
            await c.set_variable("X", text)
            found.append(await c.get_variable("X"))
        return found

    assert await pbx.run(handler) == [*NASTY, "\udcff\udc80"]


async def test_values_with_line_feeds_shift_nothing(pbx: Pbx) -> None:
    """FILE() reads what no dialplan could set: lines that look like the end of a value and like replies."""
    values = ["two\nlines", "a)\nb", "a\n200 result=5", "x)\n\ny", "HANG\nUP", "a\n511 dead"]
    path = pbx.asterisk.folder / "value"

    async def handler(c: Channel) -> list[object]:
        found = []
        for value in values:
            path.write_text(value)
            found.append(await c.get_full_variable("${SHELL(cat " + str(path) + ")}"))
            assert await c.get_variable("CONTEXT") == "calls"
        assert not c.hung_up
        return found

    assert await pbx.run(handler) == values


async def test_the_longest_command_is_one_command(pbx: Pbx) -> None:
    async def handler(c: Channel) -> int:
        room = MAX_COMMAND_BYTES - len('SET VARIABLE "X" ""\n')
        await c.set_variable("X", "x" * room)
        assert await c.get_variable("CONTEXT") == "calls", "in step"
        return len(await c.get_full_variable("${X}") or "") - room

    assert await pbx.run(handler) == 0


async def test_hangup_while_it_plays(pbx: Pbx) -> None:
    told: list[bool] = []

    async def handler(c: Channel) -> list[object]:
        c.on_hangup(lambda: told.append(c.hung_up))
        playing = asyncio.create_task(c.stream_file("demo-congrats"))
        await asyncio.sleep(0.1)
        assert c.current_command == "STREAM FILE"
        await pbx.hang_up(c.channel)
        first = await raised(playing)
        over = asyncio.Event()
        c.on_hangup(over.set)
        await over.wait()
        late = [
            await raised(x)
            for x in (
                c.answer(), c.stream_file("beep"), c.command("CHANNEL STATUS"), c.exec("NoOp"),
                c.set_variable("X", "late"), c.get_variable("X"), c.verbose("bye"), c.noop(),
                c.database_get("no", "such"), c.fetch_linkedid(),
            )
        ]  # fmt: skip
        return [first, *late]

    found = await pbx.run(handler)
    assert found[:4] == [Hangup] * 4
    assert found[4:10] == ["0", None, "late", None, None, None]
    assert found[10]
    assert told == [True]


async def test_hangup_while_idle_and_commands_in_flight(pbx: Pbx) -> None:
    """The line comes before the answer to what was asked at the same moment; no answer is taken for another."""

    async def handler(c: Channel) -> list[object]:
        for n in range(50):
            await c.set_variable(f"N{n}", n)
        ending = asyncio.create_task(pbx.hang_up(c.channel))
        found: list[object] = []
        while not c.hung_up or len(found) < 50:
            found.append(await c.get_variable(f"N{len(found) % 50}"))
        await ending
        return [n for n, value in enumerate(found) if value != str(n % 50)]

    assert await pbx.run(handler) == []


async def test_hangup_without_its_line(pbx: Pbx) -> None:
    """AGISIGHUP=no: only the answers tell."""

    async def handler(c: Channel) -> list[object]:
        playing = asyncio.create_task(c.stream_file("demo-congrats"))
        await asyncio.sleep(0.1)
        await pbx.hang_up(c.channel)
        return [await raised(playing), c.hung_up, await raised(c.answer()), await c.exec("NoOp")]

    assert await pbx.run(handler, __AGISIGHUP="no") == [Hangup, False, Hangup, "0"]


async def test_hangup_that_closes_the_session(pbx: Pbx) -> None:
    """AGIEXITONHANGUP=yes: HANGUP, then the end, with no answer to what was asked."""

    async def handler(c: Channel) -> list[object]:
        over = asyncio.Event()
        c.on_hangup(over.set)
        await pbx.hang_up(c.channel)
        await over.wait()
        first = await raised(c.get_variable("CONTEXT"))
        assert first in ("calls", Hangup)
        while await raised(c.get_variable("CONTEXT")) != Hangup:
            pass
        return [c.closed, await raised(c.noop()), c.hung_up]

    assert await pbx.run(handler, __AGIEXITONHANGUP="yes") == [True, Hangup, True]


async def test_a_redirect_looks_like_a_hangup(pbx: Pbx) -> None:
    """Why `hung_up` is no proof that the call is over: here it goes on."""

    async def handler(c: Channel) -> list[object]:
        over = asyncio.Event()
        c.on_hangup(over.set)
        async with pbx.asterisk.ami(events="off") as ami:
            await ami.action("Redirect", Channel=c.channel, Context="aside", Exten="s", Priority="1")
        await over.wait()
        return [c.channel, await raised(c.answer()), await raised(c.stream_file("beep"))]

    channel, *refused = await pbx.run(handler)
    assert refused == [Hangup, Hangup]
    async with pbx.asterisk.ami(events="off") as ami, asyncio.timeout(SECONDS):
        while True:
            rows = {row["Channel"]: row["Context"] for row in await ami.listing("CoreShowChannels")}
            if rows.get(channel) == "aside":
                break
            await asyncio.sleep(0.02)


async def test_on_a_channel_that_was_dead_before(pbx: Pbx) -> None:
    async def handler(c: Channel) -> list[object]:
        return [c.route, c.hung_up, await c.exec("NoOp"), await raised(c.answer()), await raised(c.stream_file("beep"))]

    assert await pbx.run(handler, name="dead") == ["late", False, "0", Hangup, Hangup]


async def test_a_cancelled_command_shifts_nothing(pbx: Pbx) -> None:
    async def handler(c: Channel) -> list[object]:
        found: list[object] = []
        for n in range(3):
            task = asyncio.create_task(c.stream_file("beep") if n else c.exec("Wait", 0.3))
            await asyncio.sleep(0.05)
            task.cancel()
            await c.set_variable("N", n)
            found.append(await c.get_variable("N"))
        return found

    assert await pbx.run(handler) == ["0", "1", "2"]


async def test_what_the_dialplan_sees(pbx: Pbx) -> None:
    async def fine(c: Channel) -> None:
        await c.noop()

    async def failing(c: Channel) -> None:
        await c.fail("no route nowhere")

    async def raising(c: Channel) -> None:
        await c.noop()
        raise Error("on purpose")

    async def playing(c: Channel) -> None:
        task = asyncio.create_task(c.stream_file("demo-congrats"))
        await asyncio.sleep(0.1)
        task.cancel()
        raise Error("while it plays")

    seen = [
        await pbx.status(await pbx.call(fine)),
        await pbx.status(await pbx.call(failing)),
        await pbx.status(await pbx.call(raising)),
        await pbx.status(await pbx.call(playing)),
        await pbx.status(await pbx.call(fine, settings={"max_sessions": 0})),
    ]
    assert seen == ["SUCCESS", "FAILURE", "FAILURE", "FAILURE", "FAILURE"]
    assert "no route nowhere" in pbx.asterisk.log.read_text()
    assert [type(await pbx.result()) for _ in range(4)] == [type(None), type(None), Error, Error]


async def test_a_refused_call_is_told_why(pbx: Pbx) -> None:
    """Its header is not read: reason and AGISTATUS=FAILURE are sent in one piece."""
    refusal = {"max_sessions": 0, "refusal": record.refusal}
    extension = await pbx.call(raised, settings=refusal)
    assert await pbx.status(extension) == "FAILURE"
    async with pbx.asterisk.ami(events="off") as ami:
        said = await ami.getvar(f"WHY_{extension}")
    assert said == "fastagi refused this call: 0 sessions already (agi.max_sessions)"


async def test_a_stop_lets_the_dialplan_go_on(pbx: Pbx) -> None:
    started = asyncio.Event()

    async def handler(c: Channel) -> None:
        started.set()
        await c.stream_file("demo-congrats")

    extension = await pbx.call(handler)
    (server,) = pbx.made
    async with asyncio.timeout(SECONDS):
        await started.wait()
    await server.stop(0)
    assert await pbx.status(extension) == "FAILURE"


async def test_plain_handlers_and_pyst2_on_one_session(pbx: Pbx) -> None:
    pool = HandlerThreads(2)

    def script(channel: Any) -> list[object]:
        agi = channel.agi
        agi.answer()
        agi.set_variable("X", "from pyst2")
        found = [channel.get_variable("X"), agi.get_variable("X"), agi.channel_status(), channel.channel_status()]
        assert agi.stream_file("beep") == agi.control_stream_file("beep") == agi.wait_for_digit(50) == ""
        agi.say_digits("1"), agi.say_number("1"), agi.say_alpha("a"), agi.say_phonetic("a"), agi.send_text("x")
        agi.say_datetime(0, "", "d"), agi.get_option("beep", "1", 10), agi.send_image("x")
        assert agi.get_data("beep", 50, 2) == ""
        agi.database_put("f", "k", "v")
        found.append(agi.database_get("f", "k"))
        agi.database_del("f", "k")
        with pytest.raises(asterisk.agi.AGIDBError):
            agi.database_get("f", "k")
        agi.noop(), agi.verbose("x"), agi.set_callerid(5), agi.set_autohangup(0), agi.get_full_variable("${X}")
        found += [agi.appexec("NoOp", "x"), agi.exec_command("NoOp", "x", 5)["result"][0]]
        agi.goto_on_exit("aside", "s", "1")
        with pytest.raises(asterisk.agi.AGIAppError) as failed:
            agi.stream_file("no-such-file")
        assert not isinstance(failed.value, asterisk.agi.AGIHangup)
        with pytest.raises(asterisk.agi.AGIAppError):
            agi.appexec("NoSuchApp")
        with pytest.raises(asterisk.agi.AGIInvalidCommand):
            agi.execute("BOGUS")
        with pytest.raises(asterisk.agi.AGIUsageError):
            agi.execute("WAIT FOR DIGIT")
        agi.hangup()
        with pytest.raises(asterisk.agi.AGIHangup):
            agi.wait_for_digit(20_000)
        with pytest.raises(Hangup):
            channel.stream_file("beep")
        return found

    try:
        found = await pbx.run(lambda call: run_blocking(script, call, pool))
        assert found == ["from pyst2", "from pyst2", 6, 6, "v", "0", "0"]
    finally:
        await pool.stop(10)


async def test_many_calls_at_once(pbx: Pbx) -> None:
    """Each call hears only its own answers."""
    calls = 30
    together = asyncio.Barrier(calls)

    async def handler(c: Channel) -> bool:
        await c.set_variable("MINE", c.uniqueid)
        async with asyncio.timeout(SECONDS):
            await together.wait()
        found = [await c.get_variable("MINE") for _ in range(20)]
        return set(found) == {c.uniqueid}

    for _ in range(calls):
        await pbx.call(handler)
    assert [await pbx.result() for _ in range(calls)] == [True] * calls
