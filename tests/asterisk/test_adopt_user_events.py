"""Recordings commanded and announced by UserEvents, through the AMI connection of somebody else, on real Asterisks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import soundfile

from fastagi.domain.states import Phase
from fastagi.recording.monitoring.watch import LOOK_SECONDS
from fastagi.testing import AsteriskServer
from fastagi.testing.ami_session import AmiSession
from support.finished_files import in_directory
from support.recorder_harness import Scene, recording_scene


class Client:
    """Another AMI client: sends commands, collects announcements."""

    def __init__(self, scene: Scene, ami: AmiSession) -> None:
        self.scene, self.ami = scene, ami

    async def command(self, command: str, **headers: str) -> None:
        await self.ami.action("UserEvent", {"UserEvent": "FastAGIRecord", "Command": command, **headers})

    @property
    def told(self) -> list[dict[str, str]]:
        return [e for e in self.ami.events if e.get("UserEvent") == "FastAGIRecording"]

    @property
    def changes(self) -> list[str]:
        return [e["Change"] for e in self.told]

    async def hears(self, change: str, count: int = 1) -> dict[str, str]:
        """The last announcement of that change, once there are so many."""
        await self.scene.until(lambda: self.changes.count(change) >= count)
        return [e for e in self.told if e["Change"] == change][-1]


async def test_a_call_is_recorded_by_commands_and_every_change_is_announced(
    asterisk: AsteriskServer, tmp_path: Path
) -> None:
    async with recording_scene(asterisk, tmp_path) as scene, asterisk.ami() as ami:
        other = Client(scene, ami)
        call = await asterisk.originate("Local/echo@fastagi-testing/n", application="Milliwatt", caller_id="100")
        await other.command("start", Channel=call.channel, filename="crm/{caller}", File_Format="ulaw")
        started = await other.hears("started")
        assert (started["State"], started["Channel"], started["Uniqueid"]) == ("RECORDING", call.channel, call.uniqueid)
        await other.command("start", Channel=call.uniqueid, recorder="second", recording_mode="separate")
        second = await other.hears("started", 2)
        assert second["Recorder"] == "second"
        await other.command("pause", Channel=call.channel, seconds="600")
        await other.command("resume", Channel=call.uniqueid)
        await other.command("stop", RecordingID=second["RecordingID"])
        finished = await other.hears("finished")
        assert (finished["RecordingID"], finished["Cause"]) == (second["RecordingID"], "ABORTED")
        await other.hears("resumed")
        await scene.hangup(call)
        finished = await other.hears("finished", 2)
        assert (finished["State"], finished["Cause"]) == ("IDLE", "HANGUP")
        assert finished["File"] == str(scene.directory / "crm/100.wav")
        assert soundfile.info(finished["File"]).subtype == "ULAW"
        of_first = [e["Change"] for e in other.told if e["RecordingID"] == started["RecordingID"]]
        assert of_first == ["requested", "started", "paused", "resumed", "stopping", "finished"]
        await scene.delivered(2)
        assert scene.app.parts.user_events.taken == 5


async def test_the_dialplan_commands_its_own_channel_and_no_other(asterisk: AsteriskServer, tmp_path: Path) -> None:
    async with recording_scene(asterisk, tmp_path) as scene, asterisk.ami() as ami:
        other = Client(scene, ami)
        victim = await asterisk.originate("Local/tone@fastagi-testing/n")
        lines = (
            "Answer()",
            "UserEvent(FastAGIRecord,Command: start,filename: own)",
            f"UserEvent(FastAGIRecord,Command: start,filename: theirs,Channel: {victim.channel})",
            "Wait(60)",
        )
        for priority, line in enumerate(lines, 1):
            await asterisk.cli(f'dialplan add extension "s,{priority},{line}" into adopt-events replace')
        call = await asterisk.originate("Local/tone@fastagi-testing/n", context="adopt-events")
        assert "its own channel only" in (await other.hears("refused"))["Error"]
        await other.hears("started")
        assert [j.recording.uniqueid for j in scene.recorder.parts.context.jobs] == [call.uniqueid]


async def test_dialplan_cannot_stop_anothers_recording(asterisk: AsteriskServer, tmp_path: Path) -> None:
    """A comma in a caller's name adds a `RecordingID` to the line; the own channel's id is obeyed as ever."""
    async with recording_scene(asterisk, tmp_path) as scene, asterisk.ami() as ami:
        other = Client(scene, ami)
        victim = await asterisk.originate("Local/tone@fastagi-testing/n")
        await other.command("start", Channel=victim.channel, filename="victim")
        theirs = (await other.hears("started"))["RecordingID"]
        for context, identity, more in (
            ("adopt-foreign", theirs, ",Uniqueid: ${VICTIM}"),
            ("adopt-own", "${ID}", ""),
        ):
            lines = ("Answer()", f"UserEvent(FastAGIRecord,Command: stop,RecordingID: {identity}{more})", "Wait(60)")
            for priority, line in enumerate(lines, 1):
                await asterisk.cli(f'dialplan add extension "s,{priority},{line}" into {context} replace')
        tone = "Local/tone@fastagi-testing/n"
        await asterisk.originate(tone, context="adopt-foreign", variables={"VICTIM": victim.uniqueid})
        refused = await other.hears("refused")
        assert "is another channel's: a UserEvent of the dialplan commands its own channel only" in refused["Error"]
        assert [(job.id, job.phase) for job in scene.recorder.parts.context.jobs] == [(theirs, Phase.ACTIVE)]
        own = await asterisk.originate(tone)
        await other.command("start", Channel=own.channel, filename="own")
        started = await other.hears("started", 2)
        async with asterisk.ami() as mover:
            await mover.action("Setvar", {"Channel": own.channel, "Variable": "ID", "Value": started["RecordingID"]})
            redirect = {"Channel": own.channel, "Context": "adopt-own", "Exten": "s", "Priority": "1"}
            await mover.action("Redirect", redirect)
        assert (await other.hears("finished"))["RecordingID"] == started["RecordingID"]
        assert [job.id for job in scene.recorder.parts.context.jobs] == [theirs]


async def test_wrong_commands_are_answered_and_nothing_is_sent(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    async with recording_scene(asterisk22, tmp_path) as scene, asterisk22.ami() as ami:
        other = Client(scene, ami)
        call = await asterisk22.originate("Local/tone@fastagi-testing/n")
        wrong: list[tuple[str, dict[str, str], str]] = [
            ("format", {"Channel": call.channel}, "Command: 'format' is not known: there are start, stop"),
            ("start", {"Channel": "PJSIP/nobody-1"}, "there is no channel 'PJSIP/nobody-1'"),
            ("start", {}, "channel is missing"),
            ("start", {"Channel": call.channel, "filename": "../../etc/passwd"}, "leaves the recordings directory"),
            ("start", {"Channel": call.channel, "filename": "{secret}"}, "{secret} is not known"),
            ("start", {"Channel": call.channel, "rate": "fast"}, "rate='fast' must be a number"),
            ("start", {"Channel": call.channel, "shell": "rm"}, "shell is no argument here"),
            ("start", {"Channel": call.channel, "encryption": "none"}, "encryption is no argument here"),
            ("start", {"Channel": call.channel, "sink": "nowhere"}, "nowhere"),
            ("stop", {"Channel": call.channel}, "there is no recording on channel"),
            ("stop", {"RecordingID": "rec-unknown"}, "'rec-unknown' does not run here"),
            ("pause", {"Channel": call.channel, "seconds": "x"}, "seconds='x' must be a number"),
            ("mute", {"Channel": call.channel, "rate": "8000"}, "rate has no meaning with mute"),
        ]
        for count, (command, headers, error) in enumerate(wrong, 1):
            await other.command(command, **headers)
            refused = await other.hears("refused", count)
            assert error in refused["Error"], refused
            assert refused["Command"] == command
        assert other.changes == ["refused"] * len(wrong)
        assert list(scene.recorder.parts.context.jobs) == []
        assert await asterisk22.cli(f"mixmonitor list {call.channel}") is not None
        assert list(scene.spool.iterdir()) == in_directory(scene.directory) == []
        # one that rings is not answered, whoever asks
        await asterisk22.cli('dialplan add extension "s,1,Ringing()" into adopt-ringing replace')
        await asterisk22.cli('dialplan add extension "s,2,Wait(60)" into adopt-ringing replace')
        ringing = await asterisk22.originate("Local/s@adopt-ringing/n", wait=False)
        book = scene.app.parts.pbxs["pbx"].channels
        await scene.until(lambda: book.get(ringing.uniqueid))
        await other.command("start", Channel=ringing.uniqueid)
        assert "is not answered" in (await other.hears("refused", len(wrong) + 1))["Error"]
        # a bridged channel may be recorded from outside, unless the command says otherwise
        await other.command("start", Channel=call.channel, mid_call="no")
        await other.hears("started")


async def test_while_ami_is_away_nothing_waits_for_announcements_and_none_is_told_later(
    asterisk22: AsteriskServer, tmp_path: Path
) -> None:
    async with recording_scene(asterisk22, tmp_path) as scene, asterisk22.ami() as ami:
        other = Client(scene, ami)

        @scene.app.route("twice")
        async def twice(call: Any) -> None:
            assert await call.WholeCallRecorder.start("first")
            await other.hears("started")
            await scene.app.ami("pbx").stop()
            assert await call.WholeCallRecorder.stop()
            await scene.app.ami("pbx").start()
            await scene.until(lambda: scene.app.parts.pbxs["pbx"].up)
            assert await call.WholeCallRecorder.start("second")
            await call.exec("Wait", 60)

        await scene.call("twice", wait=False)
        await other.hears("started", 2)
        assert other.changes == ["requested", "started", "requested", "started"]
        assert scene.recorder.parts.announcer.dropped == 3  # stopping, stopped, finished


async def test_alarms_are_announced_as_they_come_and_go(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    settings = {"stalled_seconds": 1.0}
    async with recording_scene(asterisk22, tmp_path, recordings=settings) as scene, asterisk22.ami() as ami:
        other = Client(scene, ami)
        # the first 2.1 s of any recording look like this: Asterisk has not written yet
        call = await asterisk22.originate("Local/tone@fastagi-testing/n")
        await other.command("start", Channel=call.channel)
        assert (await other.hears("alarm"))["Alarm"] == "stalled"
        (job,) = scene.recorder.parts.context.jobs
        await other.hears("alarm_over")
        assert job.phase is Phase.ACTIVE


async def test_a_file_that_does_not_grow_is_alarmed_in_time(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    async with recording_scene(asterisk22, tmp_path) as scene, asterisk22.ami() as ami:
        other = Client(scene, ami)
        assert scene.settings.recordings.stalled_seconds + LOOK_SECONDS < 10  # what is promised, with the settings' own
        call = await asterisk22.originate("Local/nothing@fastagi-testing/n")  # no frame ever flows on it
        await other.command("start", Channel=call.channel)
        await other.hears("started")
        assert (await other.hears("alarm"))["Alarm"] == "stalled"
        assert scene.recorder.parts.watch.stalled == 1
