"""The call moves: what is recorded then, on real Asterisks. The table of docs/guide/calls-that-move.md, line by line.

Parties are told by their tones: the recorded caller says 440 Hz, whom he calls 1000 Hz, the third one 1700 Hz. All is
recorded as two channels: left what came from the recorded leg, right what was sent to it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastagi import App, RecordingMetadata
from fastagi.audio import is_complete
from fastagi.recording.asterisk.channel_table import LiveChannel
from fastagi.testing import SippAgent, SippCall
from fastagi.testing.asterisk import Originated
from fastagi.testing.sip import Hold, Refer, Wait
from fastagi.testing.sound import save, tone_samples
from support.call_harness import ask, heard, last_sound, order, told_of, tones
from support.recorder_harness import Scene

LOW, HIGH, THIRD = 440.0, 1000.0, 1700.0


@dataclass
class Talk:
    """A recorded caller and whom he talks to."""

    scene: Scene
    name: str
    caller: Originated

    @property
    def channels(self) -> Any:
        return self.scene.recorder.parts.context.pbxs["pbx"].channels

    @property
    def leg(self) -> LiveChannel | None:
        return self.channels.get(self.caller.uniqueid)

    @property
    def peer(self) -> LiveChannel:
        (peer,) = self.channels.peers(self.caller.uniqueid)
        return peer

    async def act(self, action: str, **headers: str) -> None:
        async with self.scene.asterisk.ami() as ami:
            answer = await ami.action(action, headers)
            assert answer["Response"] == "Success", answer

    async def hang_up(self, uniqueid: str) -> None:
        live = self.channels.get(uniqueid)
        if live is not None:
            async with self.scene.asterisk.ami() as ami:  # it may go by itself meanwhile
                await ami.action("Hangup", Channel=live.name)

    async def caller_hangs_up(self) -> None:
        """As a phone does: the far half of its Local channel goes."""
        await self.hang_up(self.caller.other_uniqueid)

    async def done(self) -> RecordingMetadata:
        return await told_of(self.scene, self.name)


def route(scene: Scene, name: str, **options: Any) -> None:
    """A route that records as `name`, both sides apart."""

    @scene.app.route(name)
    async def start(call: Any) -> None:
        options.setdefault("recording_mode", "separate")
        assert await call.WholeCallRecorder.start(name, mid_call=True, file_format="s16bit", dtmf_elim=False, **options)


async def talk(scene: Scene, name: str, *, then: str = "", **options: Any) -> Talk:
    """The caller is recorded, then talks to the other."""
    route(scene, name, **options)
    dial = then or "Dial(Local/loop-high@whole/n,,tT)"
    made = Talk(scene, name, await ask(scene, name, "Local/loop-low@whole/n", then=dial))
    await scene.until(lambda: made.channels.peers(made.caller.uniqueid))
    return made


async def callee(scene: Scene, name: str, **options: Any) -> Talk:
    """The same, but the leg of the one who is called is recorded, from when he answers."""
    route(scene, name, **options)
    dial = "Dial(Local/loop-high@whole/n,,gtTU(whole-callee))"
    caller = await ask(scene, "", "Local/loop-low@whole/n", then=dial, variables={"__ROUTE2": name})
    made = Talk(scene, name, caller)
    await scene.until(lambda: made.channels.peers(caller.uniqueid))
    return made


def sides(told: RecordingMetadata) -> tuple[list[float], list[float]]:
    """Whose tones are heard left and right, in order."""
    both = heard(told)
    return order(both[:, 0], LOW, HIGH, THIRD), order(both[:, 1], LOW, HIGH, THIRD)


def legs(told: RecordingMetadata) -> int:
    """On how many channels it was made."""
    return len({channel for channel, _ in told.extra["segments"]})


async def test_blind_transfers(scene: Scene) -> None:
    async def other_transfers_him() -> None:
        """The recorded leg stays: nothing changes but whom he hears."""
        call = await talk(scene, "is-transferred")
        await asyncio.sleep(1.2)
        await call.act("BlindTransfer", Channel=call.peer.name, Context="whole", Exten="loop-third")
        await asyncio.sleep(1.5)
        await call.caller_hangs_up()
        told = await call.done()
        assert (sides(told), legs(told)) == (([LOW], [HIGH, THIRD]), 1)

    async def he_transfers_the_other() -> None:
        """The recorded leg leaves: the other one is recorded, and stays on its side."""
        call = await talk(scene, "transfers")
        stayer = call.peer.uniqueid
        await asyncio.sleep(1.2)
        await call.act("BlindTransfer", Channel=call.leg.name, Context="whole", Exten="loop-third")
        await scene.until(lambda: call.leg is None)
        await asyncio.sleep(1.5)
        await call.hang_up(stayer)
        told = await call.done()
        assert (sides(told), legs(told)) == (([LOW, THIRD], [HIGH]), 2)
        assert told.extra["cause"] == "HANGUP"
        assert told.extra["segments"][1][0].startswith("Local/loop-high@whole")

    async def he_does_not_want_it() -> None:
        call = await talk(scene, "not-followed", follow=False)
        stayer = call.peer.uniqueid
        await asyncio.sleep(0.6)
        await call.act("BlindTransfer", Channel=call.leg.name, Context="whole", Exten="loop-third")
        told = await call.done()
        assert legs(told) == 1
        assert call.channels.get(stayer) is not None  # the call goes on
        await call.hang_up(stayer)

    async def the_callee_is_recorded_and_transfers() -> None:
        call = await callee(scene, "callee")
        await asyncio.sleep(1.2)
        await call.act("BlindTransfer", Channel=call.peer.name, Context="whole", Exten="loop-third")
        await asyncio.sleep(1.5)
        await call.caller_hangs_up()
        told = await call.done()
        assert (sides(told), legs(told)) == (([HIGH, THIRD], [LOW]), 2)

    async def his_hangup_handler_does_not_end_it() -> None:
        """dialplan/record.conf stops the recording when the leg that began it hangs up: not where the call goes on."""
        variables = {"__SERVER": scene.url("").rstrip("/")}
        caller = await scene.asterisk.originate(
            "Local/loop-low@whole/n", context="whole", exten="handled", variables=variables
        )
        call = Talk(scene, "handled", caller)
        await scene.until(lambda: call.channels.peers(caller.uniqueid))
        stayer = call.peer.uniqueid
        await asyncio.sleep(1.2)
        await call.act("BlindTransfer", Channel=call.leg.name, Context="whole", Exten="loop-third")
        await scene.until(lambda: call.leg is None)
        await asyncio.sleep(1.5)
        await call.hang_up(stayer)
        told = await call.done()
        assert (sides(told), legs(told)) == (([LOW, THIRD], [HIGH]), 2)

    await asyncio.gather(
        his_hangup_handler_does_not_end_it(),
        other_transfers_him(),
        he_transfers_the_other(),
        he_does_not_want_it(),
        the_callee_is_recorded_and_transfers(),
    )


async def test_attended_transfers(scene: Scene) -> None:
    async def he_transfers_the_other() -> None:
        """He asks the third first (the other hears music), then hangs up: the other talks to the third."""
        call = await talk(scene, "attended")
        stayer = call.peer.uniqueid
        await asyncio.sleep(1.2)
        await call.act("Atxfer", Channel=call.leg.name, Context="whole", Exten="33")
        await scene.until(lambda: call.channels.peers(call.caller.uniqueid) and call.peer.uniqueid != stayer)
        await asyncio.sleep(1.2)
        await call.caller_hangs_up()
        await scene.until(lambda: call.leg is None)
        await asyncio.sleep(1.5)
        await call.hang_up(stayer)
        told = await call.done()
        assert (sides(told), legs(told)) == (([LOW, THIRD], [HIGH, THIRD, HIGH]), 2)

    async def the_other_transfers_him() -> None:
        call = await callee(scene, "attended-away")
        recorded = call.peer.uniqueid
        await asyncio.sleep(1.2)
        await call.act("Atxfer", Channel=call.leg.name, Context="whole", Exten="33")
        await scene.until(lambda: call.channels.peers(call.caller.uniqueid) and call.peer.uniqueid != recorded)
        await asyncio.sleep(0.5)
        await call.caller_hangs_up()
        await scene.until(lambda: call.leg is None)
        await asyncio.sleep(1.5)
        await call.hang_up(recorded)
        told = await call.done()
        left, right = sides(told)
        assert (left, right[0], right[-1], legs(told)) == ([HIGH], LOW, THIRD, 1)

    await asyncio.gather(he_transfers_the_other(), the_other_transfers_him())


async def test_parking(scene: Scene) -> None:
    async def he_parks_the_other() -> None:
        call = await talk(scene, "parks")
        stayer = call.peer.uniqueid
        await asyncio.sleep(1.2)
        await call.act("BlindTransfer", Channel=call.leg.name, Context="parkedcalls", Exten="700")
        await scene.until(lambda: call.leg is None)
        await asyncio.sleep(1.0)
        async with scene.asterisk.ami() as ami:
            (slot,) = [r for r in await ami.listing("ParkedCalls") if r.get("ParkeeUniqueid") == stayer]
        await scene.asterisk.originate(
            "Local/loop-third@whole/n", application="ParkedCall", data=f"default,{slot['ParkingSpace']}"
        )
        await scene.until(lambda: call.channels.peers(stayer))
        await asyncio.sleep(1.2)
        await call.hang_up(stayer)
        told = await call.done()
        left, right = sides(told)
        assert (left[0], left[-1], right, legs(told)) == (LOW, THIRD, [HIGH], 2)

    async def he_is_parked() -> None:
        call = await talk(scene, "is-parked")
        await asyncio.sleep(1.2)
        await call.act("BlindTransfer", Channel=call.peer.name, Context="parkedcalls", Exten="700")
        await scene.until(lambda: call.leg.on_hold_music)
        await asyncio.sleep(1.0)
        await call.caller_hangs_up()
        told = await call.done()
        left, right = sides(told)
        assert (left, right[0], legs(told)) == ([LOW], HIGH, 1)

    await asyncio.gather(he_parks_the_other(), he_is_parked())


async def test_an_ordinary_hangup_is_no_move(scene: Scene) -> None:
    async def he_hangs_up() -> None:
        call = await talk(scene, "hangs-up")
        await asyncio.sleep(0.6)
        await call.caller_hangs_up()
        told = await call.done()
        assert (legs(told), told.extra["cause"]) == (1, "HANGUP")

    async def the_callee_hangs_up_and_the_caller_goes_on() -> None:
        """The callee's leg was recorded; the caller stays in the dialplan, with nobody: the recording is over."""
        call = await callee(scene, "callee-hangs-up")
        await asyncio.sleep(0.6)
        await call.hang_up(call.peer.uniqueid)
        told = await call.done()
        assert call.leg is not None
        assert (legs(told), told.extra["cause"]) == (1, "HANGUP")
        await call.caller_hangs_up()

    async def one_leaves_a_conference() -> None:
        others = [await scene.asterisk.originate("Local/loop-high@whole/n", context="whole", exten="conference")]
        others.append(await scene.asterisk.originate("Local/mute@whole/n", context="whole", exten="conference"))
        call = await talk(scene, "conference", then="ConfBridge(whole)")
        await asyncio.sleep(2.0)
        await call.caller_hangs_up()
        told = await call.done()
        assert (sides(told), legs(told)) == (([LOW], [HIGH]), 1)
        assert all(call.channels.get(other.uniqueid) is not None for other in others)
        for other in others:
            await call.hang_up(other.uniqueid)

    await asyncio.gather(he_hangs_up(), the_callee_hangs_up_and_the_caller_goes_on(), one_leaves_a_conference())


async def test_taken_elsewhere(scene: Scene) -> None:
    async def redirected() -> None:
        """AMI Redirect of the recorded leg: it goes on being recorded, where it is sent."""
        call = await talk(scene, "redirected")
        await asyncio.sleep(1.2)
        await call.act("Redirect", Channel=call.leg.name, Context="whole", Exten="loop-third", Priority="1")
        await asyncio.sleep(1.5)
        await call.caller_hangs_up()
        told = await call.done()
        assert (sides(told), legs(told)) == (([LOW], [HIGH, THIRD]), 1)

    async def the_other_is_bridged_away() -> None:
        """AMI Bridge takes the other; the recorded leg hangs up: no transfer event told of it, the bridges do."""
        third = await scene.asterisk.originate("Local/loop-third@whole/n")
        call = await talk(scene, "bridged-away", then="Dial(Local/loop-high@whole/n)")
        stayer = call.peer.uniqueid
        await asyncio.sleep(1.2)
        await call.act("Bridge", Channel1=call.peer.name, Channel2=call.channels.get(third.uniqueid).name)
        await call.caller_hangs_up()
        await scene.until(lambda: call.leg is None)
        await asyncio.sleep(1.5)
        await call.hang_up(stayer)
        await call.hang_up(third.uniqueid)
        told = await call.done()
        assert (sides(told), legs(told)) == (([LOW, THIRD], [HIGH]), 2)

    async def queued() -> None:
        """Music, then the agent: one recording on the caller's leg."""
        call = await talk(scene, "queued", then="Queue(whole)")
        await asyncio.sleep(1.5)
        await call.caller_hangs_up()
        told = await call.done()
        left, right = sides(told)
        assert (left, right[-1], legs(told)) == ([LOW], HIGH, 1)

    async def local_without_n() -> None:
        """Recorded Local channels are not optimised away."""
        route(scene, "optimised")
        caller = await ask(scene, "optimised", "Local/loop-low@whole", then="Dial(Local/loop-high@whole)")
        call = Talk(scene, "optimised", caller)
        await scene.until(lambda: call.channels.peers(caller.uniqueid))
        await asyncio.sleep(1.5)
        await call.caller_hangs_up()
        told = await call.done()
        assert (sides(told), legs(told)) == (([LOW], [HIGH]), 1)

    async def picked_up() -> None:
        """A third one takes the call while it rings (a masquerade); his leg is recorded too."""
        route(scene, "picked-up")
        route(scene, "picks-up")
        ringing = {"variables": {"__PICKUPMARK": "whole"}}
        caller = await ask(scene, "picked-up", "Local/loop-low@whole/n", then="Dial(Local/ringing@whole/n)", **ringing)
        call = Talk(scene, "picked-up", caller)
        await scene.until(lambda: any(c.state == "5" and c.name.startswith("Local/ringing") for c in call.channels))
        await ask(scene, "picks-up", "Local/loop-third@whole/n", then="Pickup(whole@PICKUPMARK)")
        await scene.until(lambda: call.channels.peers(caller.uniqueid))
        await asyncio.sleep(1.5)
        await call.caller_hangs_up()
        told = await call.done()
        assert (sides(told), legs(told)) == (([LOW], [THIRD]), 1)
        other = await told_of(scene, "picks-up")
        assert (sides(other), other.extra["cause"]) == (([THIRD], [LOW]), "HANGUP")

    await asyncio.gather(redirected(), the_other_is_bridged_away(), queued(), local_without_n(), picked_up())


async def test_a_followed_recording_survives_a_restart(scene22: Scene) -> None:
    scene = scene22
    call = await talk(scene, "restarted", seconds_timeout=600.0)
    stayer = call.peer.uniqueid
    await asyncio.sleep(1.0)
    await call.act("BlindTransfer", Channel=call.leg.name, Context="whole", Exten="loop-third")
    await scene.until(lambda: call.leg is None)
    await asyncio.sleep(0.5)
    await scene.restart()
    (job,) = scene.recorder.parts.context.jobs
    assert [piece.reason for piece in job.recording.pieces] == ["", "move"]
    await asyncio.sleep(1.0)
    assert job.phase.value == "active"
    await call.hang_up(stayer)
    told = await call.done()
    assert (sides(told), legs(told)) == (([LOW, THIRD], [HIGH]), 2)


async def test_the_pieces_are_joined_without_a_hole(scene22: Scene) -> None:
    """Mixed: the party who stays is heard from the first to the last quarter of a second."""
    scene = scene22
    call = await talk(scene, "joined", recording_mode="mixed")
    stayer = call.peer.uniqueid
    await asyncio.sleep(1.2)
    await call.act("BlindTransfer", Channel=call.leg.name, Context="whole", Exten="mute")
    await scene.until(lambda: call.leg is None)
    await asyncio.sleep(1.5)
    await call.hang_up(stayer)
    told = await call.done()
    parts = [HIGH in part for part in tones(heard(told), LOW, HIGH)]
    assert all(parts[2:-1]), parts  # not before he answered
    assert abs(told.extra["audio_seconds"] - told.duration_seconds) < 1.0


async def test_hold_and_refer_by_real_phones(scene22: Scene, tmp_path: Path) -> None:
    """A SIP phone calls, is recorded, holds, takes back and transfers by REFER; the agent stays with the third."""
    scene = scene22
    route(scene, "phone")
    low, high = (save(tmp_path / f"{hz}.wav", tone_samples(60, hz)) for hz in (LOW, HIGH))
    await scene.asterisk.cli(f"dialplan set global SERVER {scene.url('').rstrip('/')}")
    pbx = scene.asterisk
    steps = [Wait(1.2), Hold(), Wait(1), Hold("sendrecv"), Wait(1), Refer("third"), Wait(1.5)]
    async with (
        SippAgent(pbx.agent_ports["agent1"], audio=high, seconds=6.5),
        SippCall(pbx.sip_port, "phone", audio=low, steps=steps) as phone,
    ):
        await phone.wait()
        told = await told_of(scene, "phone")
    left, right = sides(told)
    assert (left[0], left[-1], right, legs(told)) == (LOW, THIRD, [HIGH], 2)
    assert told.extra["segments"][1][0].startswith("PJSIP/agent1-")
    assert told.extra["audio_seconds"] > 3.5


async def test_what_was_on_its_way_when_the_server_died_is_done_by_the_next(scene: Scene) -> None:
    """A move, a resume and a pause, journalled and not commanded yet."""

    async def never(*_: object) -> None:
        await asyncio.sleep(600)

    moved = await talk(scene, "moved")
    resumed = await talk(scene, "resumed")
    paused = await talk(scene, "paused")
    stayer = moved.peer.uniqueid
    await asyncio.sleep(1.2)
    (job,) = [j for j in scene.recorder.parts.context.jobs if j.recording.name == "resumed"]
    await scene.recorder.parts.pauser.pause(job)
    (pausing,) = [j for j in scene.recorder.parts.context.jobs if j.recording.name == "paused"]
    scene.recorder.parts.starter.begin = scene.recorder.parts.pauser._segments.end = never
    under_way = [asyncio.create_task(scene.recorder.parts.pauser.pause(pausing))]
    await moved.act("BlindTransfer", Channel=moved.leg.name, Context="whole", Exten="loop-third")
    under_way.append(asyncio.create_task(scene.recorder.parts.pauser.resume(job)))
    jobs = list(scene.recorder.parts.context.jobs)
    await scene.until(lambda: all(j is pausing or not j.recording.pieces[-1].confirmed for j in jobs))
    await scene.until(lambda: pausing.phase.value == "paused")
    for task in under_way:
        task.cancel()
    raw = pausing.recording.pieces[-1].mixed
    assert not is_complete(raw)
    await scene.app.stop(0.1)
    scene.app = App(scene.settings, recording_sink=scene.sink)
    await scene.start()
    await scene.until(lambda: all(j.recording.pieces[-1].confirmed for j in scene.recorder.parts.context.jobs))
    await scene.until(lambda: is_complete(raw))  # it is not recorded any more
    await asyncio.sleep(1.5)
    await moved.hang_up(stayer)
    await resumed.caller_hangs_up()
    await paused.caller_hangs_up()
    told = await paused.done()
    assert (told.extra["cause"], legs(told)) == ("HANGUP", 1)
    assert told.extra["audio_seconds"] < told.duration_seconds + 0.1
    assert last_sound(np.abs(heard(told)).max(axis=1)) < told.duration_seconds - 1.0
    told = await moved.done()
    assert (sides(told), legs(told)) == (([LOW, THIRD], [HIGH]), 2)
    told = await resumed.done()
    ((_, end),) = told.extra["gaps"]
    both = heard(told)
    assert order(both[round(end * 8000) :, 0], LOW, HIGH, THIRD) == [LOW]
    assert len(both) / 8000 - end > 1.0
