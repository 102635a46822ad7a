"""MixMonitors that others started, on real Asterisks: found, finished, delivered; their own files are left alone."""
# ruff: noqa: ASYNC240  (a test may wait for a small file)

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile

from fastagi.ami import Manager, actions
from fastagi.ami.actions import MixMonitorRow
from fastagi.domain.states import Phase
from fastagi.store.queries import journal
from fastagi.testing import AsteriskServer
from fastagi.testing.asterisk import Originated
from support.finished_files import in_directory
from support.recorder_harness import Scene, recording_scene

ADOPT = {"adopt": True}


async def call_with(asterisk: AsteriskServer, *monitors: str) -> Originated:
    """A call whose dialplan starts these MixMonitors (application arguments), as in somebody's extensions.conf."""
    context = "adopt-" + hashlib.sha256(repr(monitors).encode()).hexdigest()[:8]
    lines = ["Answer()", *(f"MixMonitor({arguments})" for arguments in monitors), "Milliwatt()"]
    for priority, line in enumerate(lines, 1):
        await asterisk.cli(f'dialplan add extension "s,{priority},{line}" into {context} replace')
    return await asterisk.originate("Local/echo@fastagi-testing/n", context=context)


def adopted(scene: Scene) -> list[Any]:
    return [job for job in scene.recorder.parts.context.jobs if job.recording.adopted]


async def grown(scene: Scene, *paths: Path) -> None:
    """Until Asterisk has written something, which it does after two seconds."""
    await scene.until(lambda: all(p.exists() and p.stat().st_size > 1000 for p in paths))


async def test_what_the_dialplan_records_is_finished_and_delivered_and_its_files_stay(
    asterisk: AsteriskServer, tmp_path: Path
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs").chmod(0o777)
    async with recording_scene(asterisk, tmp_path, recordings=ADOPT) as scene:
        theirs = {
            "freepbx": asterisk.spool / "2026/11/21/out-100.wav",
            "gsm": tmp_path / "theirs/voice.gsm",
            "ulaw": tmp_path / "theirs/dots.in.name.ulaw",
            "wav49": tmp_path / "theirs/small.WAV",
            "g722": tmp_path / "theirs/wide.g722",
            "spool": scene.spool / "in our spool.wav",
        }
        calls = {
            "freepbx": await call_with(asterisk, "2026/11/21/out-100.wav,ai(LOCAL_MIXMON_ID)"),
            **{name: await call_with(asterisk, str(theirs[name])) for name in theirs if name != "freepbx"},
        }
        await scene.until(lambda: len(adopted(scene)) == 6)
        assert {Path(job.recording.pieces[0].mixed) for job in adopted(scene)} == set(theirs.values())
        await grown(scene, theirs["freepbx"], theirs["spool"])
        await asterisk.cli("channel request hangup all")
        await scene.delivered(6)
    told = {m.name: m for m in scene.sink.got}
    assert len(scene.sink.got) == 6
    for name, path in theirs.items():
        metadata = told[path.name]
        extra = metadata.extra
        assert (extra["adopted"], extra["cause"], extra["state"]) == (True, "HANGUP", "IDLE"), name
        assert metadata.session_id == calls[name].uniqueid
        assert 1.5 < extra["audio_seconds"] < 15, name
        finished = Path(metadata.file_path)
        assert finished.is_relative_to(scene.directory)
        assert hashlib.sha256(finished.read_bytes()).hexdigest() == extra["sha256"]
        if name == "g722":  # nobody here decodes it: as Asterisk wrote it
            assert (metadata.format, extra["file_format"], finished.suffix) == ("g722", "g722", ".g722")
            assert finished.read_bytes() == path.read_bytes()
            assert "silent" not in extra
        else:
            assert (metadata.format, extra["silent"]) == ("wav", False), name
            assert soundfile.info(finished).subtype == "ALAW"
        assert path.exists() is (name != "spool")
    theirs["freepbx"].unlink()


@pytest.mark.parametrize("stops", [1, 0])
async def test_stop_directly_before_hangup_aborts(asterisk: AsteriskServer, tmp_path: Path, stops: int) -> None:
    """The channel was gone before it could be asked which MixMonitors it still had, and the cause was HANGUP."""
    async with recording_scene(asterisk, tmp_path, recordings=ADOPT) as scene:
        file = tmp_path / "spool" / "stopped.wav"
        lines = ["Answer()", f"MixMonitor({file})", "Wait(3)", *["StopMixMonitor()"] * stops, "Hangup()"]
        for priority, line in enumerate(lines, 1):
            await asterisk.cli(f'dialplan add extension "s,{priority},{line}" into adopt-stops-{stops} replace')
        await asterisk.originate("Local/tone@fastagi-testing/n", context=f"adopt-stops-{stops}")
        (told,) = await scene.delivered(1)
        assert (told.extra["cause"], told.extra["adopted"]) == ("ABORTED" if stops else "HANGUP", True)


async def test_two_on_one_channel_end_each_for_itself(asterisk: AsteriskServer, tmp_path: Path) -> None:
    async with recording_scene(asterisk, tmp_path, recordings=ADOPT) as scene:
        call = await scene.call("missing", wait=False)  # a call that nobody records disturbs nothing
        files = [tmp_path / "spool" / name for name in ("one.wav", "two.wav")]
        legs = ",".join(f"{leg}({tmp_path}/spool/two-{leg}.wav)" for leg in "rt").replace(",", "")
        call = await call_with(asterisk, str(files[0]), f"{files[1]},{legs}")
        await scene.until(lambda: len(adopted(scene)) == 2)
        one, two = sorted(adopted(scene), key=lambda job: job.recording.name)
        assert one.recording.recorder != two.recording.recorder
        await grown(scene, *files)
        async with asterisk.ami() as other:  # somebody stops one of them, as StopMixMonitor() in the dialplan would
            await other.action("StopMixMonitor", Channel=call.channel, MixMonitorID=one.recording.pieces[0].monitor_id)
        (first,) = await scene.delivered(1)
        assert (first.name, first.extra["cause"]) == ("one.wav", "ABORTED")
        assert two.phase is Phase.ACTIVE
        # and we can stop the other: by its channel, as it is the only one now
        await scene.app.parts.commands.stop(scene.app.parts.commands.on_channel(call.uniqueid))
        (_, second) = await scene.delivered(2)
        assert (second.name, second.extra["cause"]) == ("two.wav", "ABORTED")
        assert "0x" not in await asterisk.cli(f"mixmonitor list {call.channel}")


async def test_one_whose_file_is_not_open_yet_is_looked_at_again(
    asterisk22: AsteriskServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a thread of its own, and a busy Asterisk may open the second file first."""
    asked = actions.mixmonitor_list
    looks: list[list[MixMonitorRow]] = []

    async def opened_late(manager: Manager, channel: str, **how: Any) -> list[MixMonitorRow]:
        if not looks:
            await asyncio.sleep(0.3)  # both are there by then
        rows = await asked(manager, channel, **how)
        if not looks:
            rows = [replace(row, file="") if row.file.endswith("one") else row for row in rows]
        looks.append(rows)
        return rows

    monkeypatch.setattr(actions, "mixmonitor_list", opened_late)
    async with recording_scene(asterisk22, tmp_path, recordings=ADOPT) as scene:
        await call_with(asterisk22, *(f"{tmp_path}/spool/{name}.wav" for name in ("one", "two")))
        await scene.until(lambda: len(adopted(scene)) == 2, 5)
        assert sorted(bool(row.file) for row in looks[0]) == [False, True]


async def test_what_ran_before_the_server_is_found_and_goes_on_over_a_restart(
    asterisk: AsteriskServer, tmp_path: Path
) -> None:
    path = tmp_path / "before.wav"
    tmp_path.chmod(0o777)
    call = await call_with(asterisk, str(path))
    async with recording_scene(asterisk, tmp_path, recordings=ADOPT) as scene:
        await scene.until(lambda: adopted(scene))
        (job,) = adopted(scene)
        assert job.recording.uniqueid == call.uniqueid
        await scene.restart()
        await scene.until(lambda: adopted(scene))
        await scene.until(lambda: scene.recorder.parts.adoption.idle)
        assert [j.id for j in adopted(scene)] == [job.id]
        await grown(scene, path)
        await scene.hangup(call)
        (told,) = await scene.delivered(1)
        assert (told.extra["recording_id"], told.extra["cause"], told.format) == (job.id, "HANGUP", "wav")
        for _ in range(200):  # the sink is told a moment before that is written
            entries = await scene.app.parts.store.read(journal.history, job.id)
            if entries[-1].event == "delivered":
                break
            await asyncio.sleep(0.02)
        assert [e.event for e in entries][-3:] == ["closed", "finished", "delivered"]


async def test_ours_are_not_adopted_and_without_the_setting_nobodys(asterisk: AsteriskServer, tmp_path: Path) -> None:
    async with recording_scene(asterisk, tmp_path, recordings=ADOPT) as scene:

        @scene.app.route("ours")
        async def ours(call) -> None:  # type: ignore[no-untyped-def]
            assert await call.WholeCallRecorder.start("ours")
            assert await call.recorder("second").start("second", recording_mode="separate")
            await call.exec("Wait", 60)

        call = await scene.call("ours", wait=False)
        await scene.until(lambda: [j.phase for j in scene.recorder.parts.context.jobs] == [Phase.ACTIVE] * 2)
        # a third one of somebody else on the same channel shows that the list was read
        theirs = tmp_path / "spool" / "theirs.wav"
        async with asterisk.ami() as other:
            row = next(c for c in scene.app.parts.pbxs["pbx"].channels if c.uniqueid == call.uniqueid)
            await other.action("MixMonitor", Channel=row.name, File=str(theirs))
        await scene.until(lambda: adopted(scene))
        await scene.until(lambda: scene.recorder.parts.adoption.idle)
        assert [j.recording.name for j in adopted(scene)] == ["theirs.wav"]
    (tmp_path / "off").mkdir()
    async with recording_scene(asterisk, tmp_path / "off") as scene:
        call = await call_with(asterisk, str(tmp_path / "off/spool/nobodys.wav"))
        await grown(scene, tmp_path / "off/spool/nobodys.wav")
        assert list(scene.recorder.parts.context.jobs) == []
        await scene.hangup(call)
    assert (tmp_path / "off/spool/nobodys.wav").exists()


async def test_a_foreign_file_that_vanishes_is_a_failure_that_says_so(
    asterisk22: AsteriskServer, tmp_path: Path
) -> None:
    async with recording_scene(asterisk22, tmp_path, recordings=ADOPT) as scene:
        path = tmp_path / "spool" / "gone.wav"
        call = await call_with(asterisk22, str(path))
        await scene.until(lambda: adopted(scene))
        (job,) = adopted(scene)
        path.unlink()
        await scene.hangup(call)
        assert await job.wait(20)
        assert job.phase is Phase.FAILED
        assert str(path) in job.recording.error
        assert in_directory(scene.directory) == []


async def test_what_a_caller_starts_with_a_feature_code_is_adopted(asterisk22: AsteriskServer, tmp_path: Path) -> None:
    async with recording_scene(asterisk22, tmp_path, recordings=ADOPT) as scene, asterisk22.ami() as ami:
        lines = ("Answer()", "Set(FEATUREMAP(automixmon)=*3)", "Dial(Local/tone@fastagi-testing/n,,X)")
        for priority, line in enumerate(lines, 1):
            await asterisk22.cli(f'dialplan add extension "s,{priority},{line}" into adopt-touch replace')
        call = await asterisk22.originate("Local/nothing@fastagi-testing/n", context="adopt-touch")
        book = scene.app.parts.pbxs["pbx"].channels
        await scene.until(lambda: (live := book.get(call.uniqueid)) is not None and live.bridge)

        async def press() -> None:
            for digit in "*3":
                await ami.action("PlayDTMF", Channel=call.channel, Digit=digit, Receive="true", Duration="100")

        await press()
        await scene.until(lambda: adopted(scene))
        (job,) = adopted(scene)
        theirs = Path(job.recording.pieces[0].mixed)
        assert (theirs.parent, theirs.name[:5]) == (asterisk22.spool, "auto-")
        await grown(scene, theirs)
        await press()  # and the same again ends it
        (told,) = await scene.delivered(1)
        assert (told.name, told.extra["cause"]) == (theirs.name, "ABORTED")
        assert book.get(call.uniqueid) is not None
        theirs.unlink()
