"""How recorded calls end, and how they do not: real SIP calls through Dial, hung up by either side or from outside, and
redirected, while an AGI session is there or gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import soundfile

from fastagi import Cause, Hangup, State
from fastagi.domain.recording import Recording
from fastagi.testing import AmiSession, AsteriskServer, SippAgent, SippCall
from fastagi.testing.sound import correlation, load, rms, share_found, speech, tone_samples
from support.recorder_calls import of_call, route_for
from support.recorder_harness import Scene, recording_scene

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="module")]

DIALPLAN = """
[from-sipp]
; the caller's number names the route
exten => agi,1,Answer()
 same => n,AGI(${FASTAGI}/${CALLERID(num)})
 same => n,Wait(60)
exten => unsaid,1,Answer()
 same => n,Set(AGISIGHUP=no)
 same => n,AGI(${FASTAGI}/${CALLERID(num)})
exten => leaves,1,Answer()
 same => n,Set(AGIEXITONHANGUP=yes)
 same => n,AGI(${FASTAGI}/${CALLERID(num)})
exten => timed,1,Answer()
 same => n,Set(TIMEOUT(absolute)=1.5)
 same => n,AGI(${FASTAGI}/${CALLERID(num)})
exten => T,1,Set(TIMEOUT(absolute)=0)
 same => n,Milliwatt(o)
exten => dial,1,Answer()
 same => n,AGI(${FASTAGI}/${CALLERID(num)})
 same => n,Dial(PJSIP/agent1,20)
exten => elsewhere,1,Milliwatt(o)
"""


class Site:
    """An Asterisk with that dialplan, a recorder that serves it, and a manager session to do things to calls."""

    def __init__(self, pbx: AsteriskServer, scene: Scene, ami: AmiSession) -> None:
        self.pbx, self.scene, self.ami = pbx, scene, ami

    @contextlib.asynccontextmanager
    async def call(self, exten: str, handler: Any, **how: Any) -> AsyncIterator[LiveCall]:
        """A SIP call whose AGI session runs `handler`."""
        route, result = route_for(self.scene, handler)
        async with SippCall(self.pbx.sip_port, exten, caller=route, **{"seconds": 60, **how}) as sip:
            await sip.answered()
            live = LiveCall(self, sip, result)
            await self.scene.until(lambda: live.find(route))
            yield live


class LiveCall:
    def __init__(self, site: Site, sip: SippCall, result: asyncio.Future[Any]) -> None:
        self.site, self.sip, self.result = site, sip, result
        self.channel = self.uniqueid = ""

    def find(self, number: str) -> bool:
        for live in self.site.scene.app.parts.pbxs["pbx"].channels:
            if live.caller == number and live.name.startswith("PJSIP/sipp"):
                self.channel, self.uniqueid = live.name, live.uniqueid
        return bool(self.uniqueid)

    @property
    def recording(self) -> Recording:
        found: Recording | None = self.site.scene.recorder.last(("pbx", self.uniqueid, ""))
        assert found is not None
        return found

    async def running(self) -> None:
        await self.site.scene.until(
            lambda: any(j.started for j in self.site.scene.recorder.parts.context.jobs.on_channel("pbx", self.uniqueid))
        )

    async def hang_up(self, how: str) -> None:
        if how == "caller":
            await self.site.pbx.cli(f"channel request hangup {self.channel}")
        else:
            await self.site.ami.action("Hangup", Channel=self.channel)

    async def redirect(self) -> None:
        done = await self.site.ami.action(
            "Redirect", Channel=self.channel, Context="from-sipp", Exten="elsewhere", Priority="1"
        )
        assert done["Response"] == "Success"

    async def told(self) -> Any:
        await self.site.scene.until(lambda: of_call(self.site.scene, self.uniqueid), 30)
        (told,) = of_call(self.site.scene, self.uniqueid)
        return told

    async def result_is(self, seconds: float = 30) -> Any:
        return await asyncio.wait_for(asyncio.shield(self.result), seconds)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[22, 16], ids=["asterisk22", "asterisk16"])
async def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with AsteriskServer(request.param, dialplan=DIALPLAN) as pbx:
        folder = tmp_path_factory.mktemp("hangups")
        async with recording_scene(pbx, folder, agi={"port": pbx.agi_port}) as scene, pbx.ami() as ami:
            yield Site(pbx, scene, ami)


async def start(call: Any) -> None:
    """The shortest handler there is: the recording outlives its session."""
    assert await call.WholeCallRecorder.start("{uniqueid}", recording_mode="separate")


async def test_a_call_between_two_phones_has_both_sides_as_they_were_said(site: Site, tmp_path: Path) -> None:
    said, answered = speech(tmp_path / "caller.wav", 6, 1), speech(tmp_path / "agent.wav", 6, 2)
    async with SippAgent(site.pbx.agent_ports["agent1"], audio=answered, loop=True):
        async with site.call("dial", start, audio=said, seconds=4) as call:
            await call.result_is()
            await call.sip.wait()
        told = await call.told()
    assert (told.extra["cause"], told.extra["state"], told.extra["mode"]) == ("HANGUP", "IDLE", "separate")
    sides, rate = soundfile.read(told.file_path, dtype="float32")
    assert rate == 8000
    received, sent = sides[:, 0], sides[:, 1]
    caller, agent = load(said)[: 3 * 8000], load(answered)[: 2 * 8000]
    assert share_found(received, caller) > 0.6
    assert share_found(sent, agent) > 0.6
    assert share_found(received, agent) < 0.3
    assert share_found(sent, caller) < 0.3
    assert 2.5 < told.extra["audio_seconds"] < 15


@pytest.mark.parametrize("who", ["callee", "caller", "ami"])
async def test_whoever_hangs_up_in_a_dial_ends_the_recording(site: Site, who: str) -> None:
    async with (
        SippAgent(site.pbx.agent_ports["agent1"], seconds=1 if who == "callee" else 60) as agent,
        site.call("dial", start, seconds=1 if who == "caller" else 60) as call,
    ):
        await agent.answered()
        if who == "ami":
            await call.hang_up("ami")
        told = await call.told()
    assert (told.extra["cause"], told.extra["state"]) == ("HANGUP", "IDLE")
    assert len(load(Path(told.file_path))) == round(told.extra["audio_seconds"] * 8000)
    assert not list(site.scene.spool.glob(f"{told.extra['recording_id']}*"))


@pytest.mark.parametrize("how", ["caller", "ami"])
@pytest.mark.parametrize("exten", ["agi", "unsaid", "leaves"])
async def test_a_blocking_record_gives_hangup(site: Site, exten: str, how: str) -> None:
    """Also with AGISIGHUP=no or AGIEXITONHANGUP=yes, and after an AMI Hangup: no event tells of that while the session
    keeps the channel."""

    async def handler(call: Any) -> Any:
        return await call.WholeCallRecorder.record("blocking/{uniqueid}")

    async with site.call(exten, handler) as call:
        await call.running()
        await call.hang_up(how)
        assert await call.result_is(20) is Cause.HANGUP
    assert (await call.told()).extra["cause"] == "HANGUP"


@pytest.mark.parametrize("how", ["caller", "ami"])
async def test_a_session_that_keeps_the_dead_channel_does_not_keep_the_recording(site: Site, how: str) -> None:
    """The recording is complete before the handler asks: `record_stop()` stops nothing, and gives no name."""
    release = asyncio.Event()

    async def handler(call: Any) -> Any:
        await call.WholeCallRecorder.start("kept/{uniqueid}")
        await release.wait()
        return call.WholeCallRecorder.cause(), await call.record_stop()

    async with site.call("agi", handler) as call:
        await call.running()
        await call.hang_up(how)
        told = await call.told()  # while the handler still waits
        assert not call.result.done()
        release.set()
        assert await call.result_is() == (Cause.HANGUP, None)
    assert told.name == f"kept/{call.uniqueid}"
    assert told.extra["cause"] == "HANGUP"
    assert told.duration_seconds < 10


async def test_a_redirected_call_goes_on_being_recorded(site: Site) -> None:
    async def handler(call: Any) -> Any:
        await call.WholeCallRecorder.start("redirected/{uniqueid}")
        with contextlib.suppress(Hangup):
            while True:
                await call.stream_file("beep")
        return call.hung_up

    async with site.call("agi", handler) as call:
        await call.running()
        await call.redirect()
        assert await call.result_is() is True
        await asyncio.sleep(1.3)  # the tone of its new place
        assert call.recording.state is State.RECORDING
        assert of_call(site.scene, call.uniqueid) == []
        await call.hang_up("caller")
        told = await call.told()
    assert told.extra["cause"] == "HANGUP"
    heard = load(Path(told.file_path))[-8000:]
    assert rms(heard) > 0.01
    assert correlation(heard, tone_samples(0.5, 1000)).coefficient > 0.8


async def test_a_redirect_frees_a_session_that_waits_for_the_end(site: Site) -> None:
    """The redirect waits for the AGI session: whoever waits in it must let go, and the recording goes on."""

    async def handler(call: Any) -> Any:
        with pytest.raises(Hangup, match="goes on"):
            await call.WholeCallRecorder.record("freed/{uniqueid}")
        return call.WholeCallRecorder.state()

    async with site.call("agi", handler) as call:
        await call.running()
        await call.redirect()
        assert await call.result_is() is State.RECORDING
        await site.ami.wait_event(
            "Newexten", lambda e: e["Uniqueid"] == call.uniqueid and e["Application"] == "Milliwatt"
        )
        assert call.recording.state is State.RECORDING
        await call.hang_up("caller")
        assert (await call.told()).extra["cause"] == "HANGUP"


async def test_a_redirect_in_a_long_session_changes_nothing(site: Site) -> None:
    release = asyncio.Event()

    async def handler(call: Any) -> Any:
        await call.WholeCallRecorder.start("patient/{uniqueid}")
        await release.wait()
        return await call.has_ended(), call.WholeCallRecorder.state()

    async with site.call("agi", handler) as call:
        await call.running()
        await call.redirect()
        await asyncio.sleep(1)
        release.set()
        assert await call.result_is() == (False, State.RECORDING)
        await call.hang_up("caller")
        assert (await call.told()).extra["cause"] == "HANGUP"


async def test_an_absolute_time_out_that_goes_on_elsewhere_is_no_hangup(site: Site) -> None:
    async def handler(call: Any) -> Any:
        with pytest.raises(Hangup, match="goes on"):
            await call.WholeCallRecorder.record("timed/{uniqueid}")
        return call.WholeCallRecorder.state()

    async with site.call("timed", handler) as call:
        assert await call.result_is() is State.RECORDING
        await site.ami.wait_event(
            "Newexten", lambda e: e["Uniqueid"] == call.uniqueid and e["Application"] == "Milliwatt"
        )
        assert call.recording.state is State.RECORDING
        await call.hang_up("caller")
        assert (await call.told()).extra["cause"] == "HANGUP"
