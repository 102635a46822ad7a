"""Real SIP calls: what is said arrives, key presses, holds, transfers and hangups happen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fastagi.testing import AsteriskServer, SippAgent, SippCall
from fastagi.testing.sip import Digits, Hold, Play, Quiet, Refer, SipError, Wait
from fastagi.testing.sound import load, rms, share_found, speech

pytestmark = pytest.mark.asterisk

DIALPLAN = """
[from-sipp]
exten => agent1,1,Dial(PJSIP/agent1,20)
exten => agent2,1,Dial(PJSIP/agent2,20)
exten => busy,1,Busy(2)
exten => recorded,1,Answer()
 same => n,MixMonitor(${CALLERID(num)}.wav,Sr(${CALLERID(num)}-in.wav)t(${CALLERID(num)}-out.wav))
 same => n,Dial(PJSIP/agent1,20)
exten => digits,1,Answer()
 same => n,Read(GOT,,3,,1,10)
 same => n,Set(GLOBAL(GOT)=${GOT})
exten => playing,1,Answer()
 same => n,MixMonitor(${CALLERID(num)}.wav,Sr(${CALLERID(num)}-in.wav))
 same => n,Playback(demo-congrats)
 same => n,Wait(20)
"""


@pytest.fixture(scope="module", params=[22, 16], ids=["asterisk22", "asterisk16"])
def pbx(request: pytest.FixtureRequest) -> Iterator[AsteriskServer]:
    server = AsteriskServer(request.param, dialplan=DIALPLAN)
    asyncio.run(server.start())
    yield server
    asyncio.run(server.close())


@pytest.fixture
async def agent(pbx: AsteriskServer, tmp_path: Path) -> AsyncIterator[SippAgent]:
    audio = speech(tmp_path / "agent.wav", 6, 2)
    async with SippAgent(pbx.agent_ports["agent1"], audio=audio, loop=True) as agent:
        yield agent


@pytest.mark.parametrize("codec", ["ulaw", "alaw"])
async def test_both_sides_arrive_as_they_were_said(
    pbx: AsteriskServer, agent: SippAgent, tmp_path: Path, codec: str
) -> None:
    said = speech(tmp_path / "caller.wav", 3, 1)
    async with SippCall(pbx.sip_port, "recorded", audio=said, seconds=4, codec=codec, caller=codec) as call:
        await call.wait()
    heard = {leg: load(pbx.spool / f"{codec}{leg}.wav") for leg in ("-in", "-out", "")}
    caller, agents = load(said), load(tmp_path / "agent.wav")[: 2 * 8000]
    assert share_found(heard["-in"], caller) > 0.6
    assert share_found(heard["-out"], agents) > 0.6
    assert share_found(heard["-in"], agents) < 0.3
    assert share_found(heard[""], caller) > 0.3
    assert len(heard["-in"]) == len(heard["-out"])


async def test_the_agent_hangs_up(pbx: AsteriskServer, tmp_path: Path) -> None:
    async with SippAgent(pbx.agent_ports["agent2"], seconds=1) as agent:
        async with SippCall(pbx.sip_port, "agent2", seconds=60) as call:
            begin = time.monotonic()
            await call.wait()
            assert time.monotonic() - begin < 30
        assert agent.calls_up == 1


async def test_keys(pbx: AsteriskServer) -> None:
    async with SippCall(pbx.sip_port, "digits", steps=[Wait(0.5), Digits("*10"), Wait(5)]) as call:
        await call.wait()
    async with pbx.ami() as ami:
        assert await ami.getvar("GOT") == "*10"


async def test_hold_and_take_back(pbx: AsteriskServer, agent: SippAgent) -> None:
    async with pbx.ami() as ami:
        steps = [Wait(0.3), Hold(), Wait(0.3), Hold("sendrecv"), Wait(0.3)]
        async with SippCall(pbx.sip_port, "agent1", steps=steps) as call:
            await call.wait()
        assert [e["Event"] for e in ami.events if e["Event"] in ("Hold", "Unhold")] == ["Hold", "Unhold"]


async def test_blind_transfer_by_refer(pbx: AsteriskServer, agent: SippAgent) -> None:
    async with pbx.ami() as ami, SippAgent(pbx.agent_ports["agent2"]) as other:
        async with SippCall(pbx.sip_port, "agent1", steps=[Wait(0.5), Refer("agent2"), Wait(2)]) as call:
            await call.wait()
        await other.answered()
        event = await ami.wait_event("BlindTransfer")
        assert event["Result"] == "Success"
        await ami.action("Hangup", Channel=event["TransfereeChannel"])


async def test_a_caller_that_stops_talking_and_starts_again(pbx: AsteriskServer, tmp_path: Path) -> None:
    said = speech(tmp_path / "caller.wav", 20, 1)
    steps = [Wait(2), Quiet(), Wait(3), Play(said), Wait(2)]
    async with SippCall(pbx.sip_port, "playing", audio=said, steps=steps, caller="gap") as call:
        await call.wait()
    heard = load(pbx.spool / "gap-in.wav")
    seconds = [rms(heard[i : i + 8000]) > 0.01 for i in range(0, len(heard) - 4000, 8000)]
    assert seconds[0]
    assert not seconds[3]
    assert seconds[6]
    assert len(heard) == len(load(pbx.spool / "gap.wav"))


async def test_a_caller_that_vanishes_leaves_the_call_up(pbx: AsteriskServer, agent: SippAgent) -> None:
    async with pbx.ami() as ami:
        async with SippCall(pbx.sip_port, "agent1", seconds=60) as call:
            await call.answered()
            await call.kill()
        rows = await ami.listing("CoreShowChannels")
        assert len(rows) == 2
        for row in rows:
            await ami.action("Hangup", Channel=row["Channel"])


async def test_a_refused_call_says_why(pbx: AsteriskServer) -> None:
    async with SippCall(pbx.sip_port, "busy") as call:
        with pytest.raises(SipError, match=r"486|Busy"):
            await call.wait()


async def test_many_calls_at_once(pbx: AsteriskServer, agent: SippAgent) -> None:
    async with SippCall(pbx.sip_port, "agent1", seconds=2, calls=8, rate=20) as call:
        await call.answered(8)
        assert agent.calls_up == 8
        await call.wait()


@pytest.mark.parametrize("number", ["100\r\nX-Evil: 1", "a b", "", "100@elsewhere"])
def test_numbers_that_are_no_numbers_are_refused(number: str) -> None:
    with pytest.raises(ValueError, match="SIP user"):
        SippCall(5060, number)
