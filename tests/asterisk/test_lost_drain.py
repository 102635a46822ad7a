"""SIGTERM to a real server with real calls: until it has gone, the dialplan is heard."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastagi.testing import AsteriskServer
from support.crash_harness import DIALPLAN, Receiver, Serving, until, watched_calls

CALLS = """
[drain-holds]   ; a session that the drain waits for
exten => s,1,AGI(${SERVER}/record?filename=holds)
 same => n,Hangup()

[drain-runs]    ; recorded before the drain; paused, resumed and stopped in it
exten => s,1,AGI(${SERVER}/record/start?filename=runs)
 same => n(again),Wait(0.1)
 same => n,GotoIf($["${GLOBAL(DRAINING)}" = ""]?again)
 same => n,AGI(${SERVER}/record/pause)
 same => n,Set(PAUSED=${AGISTATUS} ${RECORDING_ERROR})
 same => n,AGI(${SERVER}/record/resume)
 same => n,Set(RESUMED=${AGISTATUS} ${RECORDING_ERROR})
 same => n,AGI(${SERVER}/record/stop)
 same => n,Set(STOPPED=${RECORDING_STATE} ${RECORDING_CAUSE} ${RECORDING_ERROR})
 same => n,UserEvent(Drain,Call: runs,Paused: ${PAUSED},Resumed: ${RESUMED},Stopped: ${STOPPED})
 same => n,Hangup()

[drain-comes]   ; comes in it
exten => s,1,AGI(${SERVER}/record?filename=refused)
 same => n,Set(WAITING=${AGISTATUS})
 same => n,AGI(${SERVER}/survey)
 same => n,Set(SURVEY=${AGISTATUS})
 same => n,AGI(${SERVER}/record/start?filename=comes)
 same => n,UserEvent(Drain,Call: comes,Waiting: ${WAITING},Survey: ${SURVEY},Started: ${RECORDING_STATE})
 same => n,Wait(6)
 same => n,Hangup()
"""


@pytest.fixture
async def draining_calls() -> AsyncIterator[AsteriskServer]:
    async with AsteriskServer(22, dialplan=[DIALPLAN, CALLS]) as asterisk:
        yield asterisk


async def test_while_it_drains_the_dialplan_is_heard(draining_calls: AsteriskServer, tmp_path: Path) -> None:
    asterisk = draining_calls
    async with Receiver() as receiver, watched_calls(asterisk), asterisk.ami(events="user") as ami:
        server = Serving(asterisk, tmp_path, sink=receiver.url)

        async def call(context: str) -> str:
            placed = await asterisk.originate(
                "Local/tone@fastagi-testing/n", context=context, variables={"SERVER": server.url}
            )
            return placed.channel

        def told(name: str) -> dict[str, str]:
            found = [dict(e) for e in ami.events if e.get("UserEvent") == "Drain" and e.get("Call") == name]
            return found[0] if found else {}

        try:
            await server.start()
            holds = await call("drain-holds")
            await call("drain-runs")
            await until(lambda: len(server.events("recording_started")) == 2)
            begun = time.monotonic()
            ending = asyncio.create_task(server.end(signal.SIGTERM))
            await until(lambda: server.events("stopping"))
            await asterisk.cli("dialplan set global DRAINING yes")
            await call("drain-comes")
            await until(lambda: told("runs") and told("comes"), 9, "both are answered before the drain is over")
            assert not ending.done()
            assert told("runs")["Paused"].strip() == told("runs")["Resumed"].strip() == "SUCCESS"
            assert told("runs")["Stopped"].split() == ["IDLE", "ABORTED"]
            assert (told("comes")["Waiting"], told("comes")["Survey"]) == ("FAILURE", "FAILURE")
            assert told("comes")["Started"] == "RECORDING"
            await asterisk.cli(f"channel request hangup {holds}")
            assert await ending == 0
            assert time.monotonic() - begun < 15, "nothing was left to wait for"
            assert {r["name"]: r["phase"] for r in server.recordings()} == {
                "holds": "finished",
                "runs": "finished",
                "comes": "active",
            }
            await server.start()
            await until(lambda: not server.unsettled(), 30)
            causes = {r["name"]: r["cause"] for r in server.recordings()}
            assert causes == {"holds": "HANGUP", "runs": "ABORTED", "comes": "HANGUP"}
            assert len(receiver.got) == 3
        finally:
            await server.close()
