"""`kill -9` at any moment, then a restart: every call is accounted for, on a real Asterisk."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from fastagi.testing import AsteriskServer
from fastagi.testing.ports import free_port
from support.ami_gate import AmiGate
from support.crash_harness import DIALPLAN, Calls, Receiver, Serving, account, killing, until, watched_calls
from support.finished_files import below

SERVER = Path(__file__).parents[1] / "support" / "crash_server.py"

STRICT = """
; A call that ends where a server says that it is not recorded. Once it is, it asks for the same again.
[strict]
exten => s,1,AGI(${SERVER}/record/start?filename=calls/${UNIQUEID})
 same => n,UserEvent(Told,Id: ${RECORDING_ID},State: ${RECORDING_STATE},Error: ${RECORDING_ERROR})
 same => n,GotoIf($["${RECORDING_STATE}" = "ERROR"]?off)
 same => n,ExecIf($["${RECORDING_STATE}" != "RECORDING"]?Wait(0.2))
 same => n,Goto(1)
 same => n(off),Hangup()
"""


@pytest.fixture
async def asterisk_of_calls() -> AsyncIterator[AsteriskServer]:
    async with AsteriskServer(22, dialplan=DIALPLAN + STRICT) as asterisk:
        yield asterisk


async def test_twelve_kills_under_twenty_calls_lose_nothing(asterisk_of_calls: AsteriskServer, tmp_path: Path) -> None:
    moments = random.Random(7)
    async with Receiver() as receiver, watched_calls(asterisk_of_calls) as calls:
        server = Serving(asterisk_of_calls, tmp_path, sink=receiver.url)
        try:
            await server.start()
            killer = asyncio.create_task(killing(server, 12, seed=20, longest=2.0))
            for _ in range(20):
                await calls.one(server, moments.uniform(2.0, 8.0))
                await asyncio.sleep(0.6)
            await killer
            await server.start()
            await until(lambda: calls.up == 0, 60, "all calls are over")
            await until(lambda: not server.unsettled(), 60, "all is finished and delivered")
            figures = account(calls.made, server, receiver)
        finally:
            await server.close()
    assert figures["calls"] == 20
    assert figures["latest_start_seconds"] < 15


HANGUP_SEAMS = [
    "reserve:1",
    "write:1",
    "start:before",
    "start:after",
    "write:2",
    "write:3",
    "write:4",
    "render:1",
    "write:5",
    "remove:1",
]
TIMEOUT_SEAMS = ["write:3", "stop:before", "stop:after", "write:4"]


async def test_a_kill_at_any_seam_loses_nothing(asterisk_of_calls: AsteriskServer, tmp_path: Path) -> None:
    lanes = asyncio.Semaphore(5)

    async def one(calls: Calls, point: str, limit: float | None) -> None:
        folder = tmp_path / f"{point.replace(':', '-')}-{limit or 'hangup'}"
        server = Serving(asterisk_of_calls, folder, sink=receiver.url, script=SERVER, environ={"LOST_AT": point})
        async with lanes:
            try:
                await server.start()
                more = f"&seconds_timeout={limit}" if limit else ""
                call = await calls.one(server, 2.5 if limit is None else 6.0, more=more)
                if limit is not None:
                    call.cause, call.limit = "TIMEOUT", limit
                assert await server.wait() == -9, f"it was not at {point}:\n{server.tail()}"
                server.environ.clear()
                await server.start()
                await until(lambda: call.ended_at is not None, 60, f"{point}: the call is over")
                await until(lambda: not server.unsettled(), 60, f"{point}: all is finished and delivered")
                account({call.uniqueid: call}, server, receiver)
            except AssertionError as exc:
                raise AssertionError(f"{point} {limit or ''}: {exc}") from None
            finally:
                await server.close()

    async with Receiver() as receiver, watched_calls(asterisk_of_calls) as calls, asyncio.TaskGroup() as group:
        for point in HANGUP_SEAMS:
            group.create_task(one(calls, point, None))
        for point in TIMEOUT_SEAMS:
            group.create_task(one(calls, point, 2.0))


@pytest.mark.parametrize("point", ["write:1", "start:after", "write:2"])
async def test_start_asked_again_is_answered(asterisk_of_calls: AsteriskServer, tmp_path: Path, point: str) -> None:
    """A start that died with its server was refused as a second one: the dialplan read that nothing recorded it.

    What is asked for a third time, though the call was told, is a second start and is refused.
    """
    async with (
        Receiver() as receiver,
        watched_calls(asterisk_of_calls) as calls,
        asterisk_of_calls.ami(events="user") as ami,
    ):
        server = Serving(asterisk_of_calls, tmp_path, sink=receiver.url, script=SERVER, environ={"LOST_AT": point})
        try:
            await server.start()
            call = await calls.one(server, 0, context="strict")
            assert await server.wait() == -9, f"it was not at {point}:\n{server.tail()}"
            server.environ.clear()
            await server.start()
            told = await ami.wait_event(
                "UserEvent", lambda e: e["UserEvent"] == "Told" and bool(e["State"]), timeout=20
            )
            refused = await ami.wait_event("UserEvent", lambda e: e.get("State") == "ERROR", timeout=20)
            await until(lambda: call.ended_at is not None and not server.unsettled(), 30)
            (row,) = server.recordings()
            account(calls.made, server, receiver)
        finally:
            await server.close()
    assert (told["State"], told["Id"], told["Error"]) == ("RECORDING", row["id"], "")
    assert (refused["Id"], "recorded already" in refused["Error"]) == ("", True)


async def test_kill_before_the_journal_loses_nothing(asterisk_of_calls: AsteriskServer, tmp_path: Path) -> None:
    """The name that was taken stays an empty file; the call that asks again is recorded under another one."""
    async with Receiver() as receiver, watched_calls(asterisk_of_calls) as calls:
        environ = {"LOST_AT": "reserve:1"}
        server = Serving(asterisk_of_calls, tmp_path, sink=receiver.url, script=SERVER, environ=environ)
        try:
            await server.start()
            call = await calls.one(server, 2.5)
            assert await server.wait() == -9
            (name,) = (path for path in below(server.directory) if path.is_file())
            assert name.stat().st_size == 0
            server.environ.clear()
            await server.start()
            await until(lambda: call.ended_at is not None and not server.unsettled(), 30)
            account(calls.made, server, receiver)
        finally:
            await server.close()


async def test_resume_outlives_its_server(asterisk_of_calls: AsteriskServer, tmp_path: Path) -> None:
    """An adopted recording is paused by muting: no piece tells the next server that it was being resumed."""
    pbx = asterisk_of_calls
    port, token = free_port(), "resume-token-0123456789"
    environ = {
        **{f"FASTAGI_HTTP__TOKENS__0__{key}": value for key, value in (("NAME", "test"), ("TOKEN", token))},
        "FASTAGI_HTTP__TOKENS__0__ROLE": "operator",
    }
    async with AmiGate(pbx.ami_port) as gate, aiohttp.ClientSession() as client:
        server = Serving(
            *(pbx, tmp_path),
            ami_port=gate.port,
            environ=environ,
            recordings={"adopt": True},
            http={"enabled": True, "port": port},
        )

        async def post(command: str) -> None:
            url = f"http://127.0.0.1:{port}/api/v1/recordings/{row['id']}/{command}"
            async with client.post(url, headers={"Authorization": f"Bearer {token}"}) as answer:
                assert answer.status < 300, await answer.text()

        try:
            await server.start()
            await until(lambda: server.events("asterisk_in_step"))
            for priority, line in enumerate(("Answer()", f"MixMonitor({tmp_path}/spool/theirs.wav)", "Wait(120)"), 1):
                await pbx.cli(f'dialplan add extension "s,{priority},{line}" into lost-adopted replace')
            await pbx.originate("Local/tone@fastagi-testing/n", context="lost-adopted")
            await until(lambda: [r for r in server.recordings() if r["phase"] == "active"], what="it is adopted")
            (row,) = server.recordings()
            await post("pause")
            await until(lambda: server.recordings()[0]["phase"] == "paused")
            gate.mute()
            resuming = asyncio.create_task(post("resume"))
            await until(lambda: "resume_at" in server.recordings()[0]["facts"], what="the intent is on disk")
            await server.kill()
            await asyncio.gather(resuming, return_exceptions=True)
            assert server.recordings()[0]["phase"] == "paused"
            gate.open()
            await server.start()
            await until(lambda: server.recordings()[0]["phase"] == "active", what="it is resumed")
        finally:
            await pbx.cli("channel request hangup all")
            await server.close()
