"""Recordings that cannot be: cause ERROR with what is wrong and what to do, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog.testing

from fastagi import Cause, Error, State
from fastagi.errors import BadArgument, Hangup
from fastagi.recording.lifecycle import starting
from fastagi.testing import AsteriskServer
from support.finished_files import in_directory
from support.recorder_calls import of_call, on_call, place
from support.recorder_harness import Remembering, Scene, recording_scene

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[22, 16], ids=["asterisk22", "asterisk16"])
async def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    asterisk: AsteriskServer = request.getfixturevalue(f"asterisk{request.param}")
    async with recording_scene(asterisk, tmp_path_factory.mktemp("faulty"), recordings={"start_seconds": 0.4}) as scene:
        yield scene


def a_folder(raw: Path) -> None:
    raw.mkdir()


def a_link_to_nowhere(raw: Path) -> None:
    raw.symlink_to(raw.parent / "not" / "there.wav")


def free(raw: Path) -> None:
    raw.unlink() if raw.is_symlink() else raw.rmdir()


@pytest.mark.parametrize("block", [a_folder, a_link_to_nowhere])
async def test_a_file_that_asterisk_cannot_open(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, block: Callable[[Path], None]
) -> None:
    """Asterisk answers success and starts its thread all the same: only the file tells."""
    new_id, name = starting.new_id, "rec-" + os.urandom(13).hex()
    names = iter([name])
    raw = scene.spool / f"{name}.wav"
    block(raw)
    monkeypatch.setattr(starting, "new_id", lambda kind, *rest: next(names, None) or new_id(kind, *rest))

    async def handler(call: Any) -> Any:
        rec = call.WholeCallRecorder
        started = await rec.start("blocked", dtmf_elim=False)
        seen = started, rec.state(), rec.cause(), rec.error
        left = await scene.asterisk.cli(f"mixmonitor list {call.channel}")
        assert await rec.wait_until_finished(5) is Cause.ERROR
        free(raw)
        return seen, left, await rec.start("blocked"), rec.error, await rec.stop()

    call = await place(scene, handler)
    (started, state, cause, error), left, again, later, stopped = await call.done()
    assert (started, state, cause) == (False, State.ERROR, Cause.ERROR)
    assert str(raw) in error
    assert "writable for Asterisk" in error
    assert "0x" not in left  # no half MixMonitor on the channel
    assert (again, later, stopped) == (True, "", True)  # and the name was free again
    assert len(await call.told()) == 1
    assert [p.name for p in in_directory(scene.directory) if p.name.startswith("blocked")] == ["blocked.wav"]
    (scene.directory / "blocked.wav").unlink()


async def test_a_spool_that_is_not_there(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        rec = call.WholeCallRecorder
        scene.spool.rename(scene.spool.with_name("away"))
        try:
            cause = await rec.record("nowhere")
            with pytest.raises(Error, match="does not exist: create it"):
                await call.record_start("nowhere", sink=Remembering())
        finally:
            scene.spool.with_name("away").rename(scene.spool)
        return cause, rec.state(), rec.error

    with structlog.testing.capture_logs() as logs:
        call = await place(scene, handler)
        cause, state, error = await call.done()
    assert (cause, state) == (Cause.ERROR, State.ERROR)
    assert error == f"the spool directory {scene.spool} does not exist: create it, writable for Asterisk"
    assert [e["error"] for e in logs if e["event"] == "recording_failed"] == [error, error]
    assert not list(scene.directory.glob("nowhere*"))
    assert of_call(scene, call.uniqueid) == []  # there is no file to deliver
    assert not [e.name for e in scene.app.parts.registry if e.name.startswith("object:")]


@pytest.mark.parametrize("who", ["ours", "asterisks"])
async def test_permission_denied(scene: Scene, who: str) -> None:
    """Whatever stands in a folder's place refuses root too."""
    folder = scene.directory / "taken" if who == "ours" else scene.spool

    async def handler(call: Any) -> Any:
        rec = call.WholeCallRecorder
        away = folder.with_name(folder.name + "-away")
        if folder.exists():
            folder.rename(away)
        folder.write_text("")
        try:
            started = await rec.start("taken/x")
        finally:
            folder.unlink()
            if away.exists():
                away.rename(folder)
        return started, rec.state(), rec.cause(), rec.error

    started, state, cause, error = await on_call(scene, handler)
    assert (started, state, cause) == (False, State.ERROR, Cause.ERROR)
    assert str(folder) in error
    assert ("make [recordings] directory writable" if who == "ours" else "is no directory") in error
    assert not list((scene.directory / "taken").glob("*"))


NO_NUMBERS = (True, False, "5", float("nan"), float("inf"), -1, 10**5000, [])
"""True would be one second, and one millisecond, and one byte."""


async def test_what_is_no_number_is_refused_and_changes_nothing(scene: Scene) -> None:
    async def handler(call: Any) -> Any:
        rec = call.WholeCallRecorder

        async def refused(word: str, work: Any) -> None:
            with pytest.raises(BadArgument, match=f"{word}=") as caught:
                await work
            assert len(str(caught.value)) < 250

        for value in NO_NUMBERS:
            for name in ("rate", "max_bytes", "milliseconds_max_silence", "milliseconds_initial_silence"):
                await refused(name, rec.start("numbers", **{name: value}))
                await refused(name, rec.record("numbers", **{name: value}))
                await refused(name, call.record_start("numbers", **{name: value}))
            await refused("seconds_timeout", rec.record("numbers", seconds_timeout=value))
            await refused("seconds_timeout", rec.wait_until_finished(value))
            await refused("beep_seconds", rec.start("numbers", beep_seconds=value))
        assert (rec.state(), rec.cause(), rec.recording) == (State.IDLE, Cause.NONE, None)
        assert await rec.start("numbers", dtmf_elim=False)
        for value in (*NO_NUMBERS, 0, 86_401):
            await refused("seconds", rec.pause(value))
            assert rec.recording.pauses == ()
        await rec.stop()
        return rec.recording.cause

    assert await on_call(scene, handler) is Cause.ABORTED
    assert not list(scene.spool.glob("*numbers*"))


async def test_a_file_that_cannot_be_finished(scene: Scene) -> None:
    """It was recorded: Asterisk's file is kept, and the error says where."""

    async def handler(call: Any) -> Any:
        rec = call.WholeCallRecorder
        assert await rec.start("gone/x")
        shutil.rmtree(scene.directory / "gone")
        (scene.directory / "gone").write_text("")
        stopped = await rec.stop()
        seen = stopped, rec.state(), rec.cause(), rec.error
        name = await call.record_start("gone-too/x")
        shutil.rmtree(scene.directory / "gone-too")
        (scene.directory / "gone-too").write_text("")
        with pytest.raises(Error, match="could not be made"):
            await call.record_stop()
        return seen, name

    (stopped, state, cause, error), _ = await on_call(scene, handler)
    assert (stopped, state, cause) == (False, State.ERROR, Cause.ERROR)
    kept = Path(error.rpartition("kept: ")[2].rstrip(")"))
    assert kept in scene.spool.iterdir(), error
    for name in ("gone", "gone-too"):
        (scene.directory / name).unlink()


async def test_a_channel_that_goes_while_it_is_started(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the check and the command: Hangup, not ERROR, and no name left."""
    begin = scene.recorder.parts.starter.command

    async def late(job: Any, pbx: Any) -> Any:
        await scene.asterisk.cli(f"channel request hangup {job.recording.channel}")
        channel = job.recording.uniqueid
        await scene.until(lambda: pbx.channels.get(channel) is None)
        return await begin(job, pbx)

    monkeypatch.setattr(scene.recorder.parts.starter, "command", late)
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def handler(call: Any) -> None:
        async def elsewhere() -> None:
            try:
                await call.WholeCallRecorder.start("late")
            except Exception as exc:
                done.set_result(exc)

        # the session must end, so that the channel can; what is known of it then must have come before
        await scene.until(lambda: (live := call.pbx.channels.get(call.uniqueid)) and live.up)
        call.task = asyncio.create_task(elsewhere())

    await place(scene, handler)
    assert isinstance(await asyncio.wait_for(done, 20), Hangup)
    assert not list(scene.directory.glob("late*"))


async def test_what_nobody_expected_keeps_neither_the_name_nor_the_call(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*args: Any) -> None:
        raise ZeroDivisionError("a bug")

    async def handler(call: Any) -> Any:
        rec = call.WholeCallRecorder
        with monkeypatch.context() as patch:
            patch.setattr(scene.recorder.parts.starter, "command", broken)
            with pytest.raises(ZeroDivisionError):
                await rec.start("unexpected")
        seen = rec.state(), rec.cause(), rec.error
        return seen, await rec.start("unexpected")

    died = scene.recorder.parts.context.tasks.died
    call = await place(scene, handler)
    assert await call.done() == ((State.ERROR, Cause.ERROR, "a bug"), True)
    scene.recorder.parts.context.tasks.died = died
    (told,) = await call.told()
    assert Path(told.file_path).name == "unexpected.wav"
