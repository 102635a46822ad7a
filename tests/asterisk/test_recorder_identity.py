"""Whose call is it: sessions that name another's channel, and two Asterisks whose calls have equal names and ids."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from fastagi.app.identity import Answer, _ask
from fastagi.domain.states import Phase
from fastagi.testing import AsteriskServer
from fastagi.testing.scripted_agi import ScriptedAgi
from fastagi.testing.server_settings import settings_for
from support.ami_gate import AmiGate
from support.recorder_harness import Scene, recording_scene

TONE = "Local/tone@fastagi-testing/n"


async def liar(port: int, route: str, channel: str, uniqueid: str, *args: str) -> ScriptedAgi:
    """A session that nobody's dialplan began; returns once the server has ended it."""
    env = {"channel": channel, "uniqueid": uniqueid}
    async with ScriptedAgi(port, script=route, args=args, env=env) as session:
        await session.serve()
    return session


async def recorded(scene: Scene) -> Any:
    """A channel that is recorded, and its job."""
    call = await scene.asterisk.originate(TONE)
    await scene.until(lambda: scene.app.parts.pbxs["pbx"].channels.named(call.channel))
    await scene.app.parts.commands.start_on_channel(call.channel, "victim")
    return call


# -- one Asterisk


@pytest.mark.parametrize("route", ["record/stop", "record/pause", "record/start", "record/status", "own"])
async def test_session_with_foreign_uniqueid_is_denied(asterisk: AsteriskServer, tmp_path: Path, route: str) -> None:
    """Its channel is another one, or none: neither route, built-in or own, comes near the recording."""
    async with recording_scene(asterisk, tmp_path) as scene:
        reached = []

        @scene.app.route("own")
        async def own(call: Any) -> None:
            reached.append(call)

        victim, other = await recorded(scene), await scene.asterisk.originate(TONE)
        await scene.until(lambda: scene.app.parts.pbxs["pbx"].channels.named(other.channel))
        (job,) = scene.recorder.parts.context.jobs
        for channel in (other.channel, "PJSIP/nobody-00000001", "", "/.*/", victim.uniqueid):
            session = await liar(scene.port, route, channel, victim.uniqueid)
            assert "has the uniqueid" in session.variables["RECORDING_ERROR"]
            assert session.variables.get("RECORDING_STATE") == ("ERROR" if route == "record/start" else None)
            assert not session.variables.get("RECORDING_ID")
        assert (list(scene.recorder.parts.context.jobs), job.phase, reached) == ([job], Phase.ACTIVE, [])
        assert scene.app.parts.agi.tally.denied == 5
        assert not scene.app.parts.agi.tally.failed


async def test_call_before_its_event_is_recorded(
    asterisk22: AsteriskServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channel table comes late by a slow connection: Asterisk itself is asked."""
    answers = []

    async def ask(pbx: Any, call: Any) -> Any:
        answers.append(await _ask(pbx, call))
        return answers[-1]

    monkeypatch.setattr("fastagi.app.identity._ask", ask)
    async with (
        AmiGate(asterisk22.ami_port) as gate,
        recording_scene(asterisk22, tmp_path, asterisk={"port": gate.port}) as scene,
    ):
        gate.delay = 0.3

        @scene.app.route("own")
        async def own(call: Any) -> None:
            assert await call.WholeCallRecorder.start("young")

        await scene.call("own")
        gate.delay = 0.0
        assert len(await scene.delivered(1)) == 1
        assert answers == [Answer.HAS]
        assert scene.app.parts.agi.tally.denied == 0


async def test_manager_that_answers_nothing_denies_nobody(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    """It is connected and mute: a call that it has not told of is let in, and none that it told of by another name."""
    async with (
        AmiGate(asterisk22.ami_port) as gate,
        recording_scene(asterisk22, tmp_path, asterisk={"port": gate.port}) as scene,
    ):
        known = await asterisk22.originate(TONE)
        pbx = scene.app.parts.pbxs["pbx"]
        await scene.until(lambda: pbx.channels.named(known.channel))
        gate.mute()
        reached = asyncio.Event()

        @scene.app.route("own")
        async def own(call: Any) -> None:
            reached.set()

        await scene.call("own")
        await asyncio.wait_for(reached.wait(), 20)
        assert pbx.up, "nobody has noticed yet that it answers nothing"
        await liar(scene.port, "record/stop", "PJSIP/nobody-00000001", known.uniqueid)
        assert scene.app.parts.agi.tally.denied == 1
        gate.open()


# -- two Asterisks on one address, without system names


class Twins:
    """Two Asterisks that count alike, and one app between them."""

    def __init__(self, new: Scene, old: Scene, gate: AmiGate) -> None:
        self.new, self.old, self.gate = new, old, gate
        self.calls = 0

    async def calls_alike(self, route: str) -> str:
        """On both a call of the same channel name and uniqueid, at the same time; returns the uniqueid."""
        self.calls += 1
        uniqueid = f"1700000000.{self.calls}"
        headers = {"Channel": TONE, "ChannelId": uniqueid, "Application": "AGI", "Async": "true"}

        async def one(scene: Scene) -> None:
            async with scene.asterisk.ami() as ami:
                answer = await ami.action("Originate", {**headers, "Data": f"{self.new.url(route)}"})
                assert answer["Response"] == "Success"

        await asyncio.gather(one(self.new), one(self.old))
        return uniqueid


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Twins]:
    async with AsteriskServer(22) as new, AsteriskServer(16) as old, AmiGate(old.ami_port) as gate:
        pbxs = [
            {
                "name": name,
                "port": port,
                "username": pbx.ami_user,
                "secret": pbx.ami_secret,
                "spool": f"{tmp_path}/spool",
            }
            for name, pbx, port in (("new", new, new.ami_port), ("old", old, gate.port))
        ]
        scenes = [Scene(pbx, tmp_path, settings_for(new, tmp_path, asterisk=pbxs)) for pbx in (new, old)]
        scenes[1].app, scenes[1].sink = scenes[0].app, scenes[0].sink
        with capture_logs() as logs:
            await scenes[0].start()
        warned = [line for line in logs if line["event"] == "asterisks_not_told_apart"]
        assert [line["asterisks"] for line in warned] == [["new", "old"]]
        assert "systemname" in warned[0]["hint"]
        yield Twins(*scenes, gate)
        await scenes[0].app.stop(5)


async def test_equal_uniqueids_never_mix_recordings(both: Twins) -> None:
    """Each session shows by a variable on which Asterisk it is; one that cannot is denied, and told what to do."""
    given: dict[str, list[str]] = {}

    @both.new.app.route("own")
    async def own(call: Any) -> None:
        await call.record_start("{asterisk}/{uniqueid}")
        version = await call.get_full_variable("${ASTVERSION}") or call.env["agi_version"]
        given.setdefault(call.uniqueid, []).append(call.pbx.name)
        assert call.env["agi_version"].startswith("22" if call.pbx.name == "new" else "16"), version
        await call.exec("Wait", 60)

    for _ in range(4):
        uniqueid = await both.calls_alike("own")
        await both.new.until(lambda: len(given.get(uniqueid, [])) == 2)  # noqa: B023
        assert sorted(given[uniqueid]) == ["new", "old"]
    names = {
        name: {c.name for c in both.new.app.parts.pbxs[name].channels if c.uniqueid in given} for name in ("new", "old")
    }
    assert names["new"] == names["old"], "the calls are not alike"
    session = await liar(both.new.port, "record/stop", min(names["new"]), "1700000000.1")
    assert "asterisk=NAME" in session.variables["RECORDING_ERROR"]
    assert "systemname" in session.variables["RECORDING_ERROR"]
    assert len(both.new.recorder.parts.context.jobs) == 8
    for scene in (both.new, both.old):
        await scene.asterisk.cli("channel request hangup all")
    told = await both.new.delivered(8)
    assert sorted(m.extra["asterisk"] for m in told) == ["new"] * 4 + ["old"] * 4


async def test_unreachable_twin_keeps_its_calls(both: Twins) -> None:
    """The other one has a channel of that name and uniqueid, too: it is not given the call of the one that is away."""
    places = []

    @both.new.app.route("own")
    async def own(call: Any) -> None:
        places.append((call.env["agi_version"][:2], call.pbx.name))
        await call.exec("Wait", 60)

    both.gate.shut()
    await both.new.until(lambda: not both.new.app.parts.pbxs["old"].up)
    await both.calls_alike("own")
    await both.new.until(lambda: len(places) == 2)
    assert sorted(places) == [("16", "old"), ("22", "new")]
