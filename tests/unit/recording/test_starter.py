"""A start is journalled before the order goes out, and proved by the file; what fails keeps no name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lifecycle_harness import BEGAN, ID, NOW, OrderBook, Scene, open_file, place

from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Cause, Phase
from fastagi.errors import (
    ActionRefused,
    ActionTimeout,
    AsteriskDown,
    AsteriskError,
    BadArgument,
    Error,
    Hangup,
    HeldElsewhere,
)
from fastagi.recording.lifecycle import starting


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


class Session:
    """An AGI session that is a way to the channel."""

    closed = False


async def test_start_is_seen(scene: Scene) -> None:
    job = await scene.starter.start(scene.request(linkedid="1.0", caller="200", called="100", sinks=("crm",)))
    row = job.recording
    assert scene.journal.entries == ["requested", "started"]
    assert (row.phase, row.started_at, row.requested_at, row.node) == (Phase.ACTIVE, NOW, NOW, "one")
    assert (row.name, row.file_path) == ("x.wav", str(scene.directory / "x.wav"))
    assert (row.linkedid, row.caller, row.called, row.sinks, row.facts) == ("1.0", "200", "100", ("crm",), {})
    assert (row.pieces[0].monitor_id, row.pieces[0].started_at, row.pieces[0].confirmed) == ("0x1", NOW, True)
    assert scene.asterisk.told == [f"start {row.id}.wav"]
    assert place(row.file_path).stat().st_size == 0
    assert scene.jobs.current(("pbx", "1.1", "")) is job
    assert job.started is not None
    assert not job.lock.locked()


async def test_second_start_is_refused(scene: Scene) -> None:
    await scene.starter.start(scene.request())
    with pytest.raises(Error, match="is being recorded already"):
        await scene.starter.start(scene.request())
    other = await scene.starter.start(scene.request(recorder="other"))
    assert other.recording.facts == {"renamed": True}
    assert other.recording.file_path == str(scene.directory / f"x-{other.id}.wav")


async def test_start_at_once_with_another(scene: Scene) -> None:
    scene.starter._starting.add(("pbx", "1.1", ""))
    with pytest.raises(Error, match="already"):
        await scene.starter.start(scene.request())


async def test_failed_start_frees_the_call(scene: Scene) -> None:
    scene.asterisk.refuse["start"] = AsteriskError("no")
    job = await scene.starter.start(scene.request())
    assert (job.phase, job.recording.cause) == (Phase.FAILED, Cause.ERROR)
    assert job.recording.error == "Asterisk did not start the recording: no"
    assert not place(job.recording.file_path).exists()
    assert await job.wait(0) is True
    assert len(scene.jobs) == 0
    scene.asterisk.refuse.clear()
    assert (await scene.starter.start(scene.request())).recording.active


@pytest.mark.parametrize(("major", "good"), [(20, True), (21, False), (0, True)])
async def test_monitor_ended_with_20(scene: Scene, major: int, good: bool) -> None:
    scene.pbx.major = major
    request = scene.request(spec=RecordingSpec(engine="monitor"))
    if good:
        assert (await scene.starter.start(request)).recording.active
    else:
        with pytest.raises(Error, match="has no Monitor any more"):
            await scene.starter.start(request)


async def test_channel_has_one_monitor(scene: Scene) -> None:
    """A second one takes the first one's files away."""
    scene.pbx.major = 16
    await scene.starter.start(scene.request())
    monitor = RecordingSpec(engine="monitor")
    await scene.starter.start(scene.request(spec=monitor, recorder="two"))
    with pytest.raises(Error, match="has a Monitor already"):
        await scene.starter.start(scene.request(spec=monitor, recorder="three"))
    assert (await scene.starter.start(scene.request(recorder="four"))).recording.active


async def test_full_ledger_begins_nothing(scene: Scene) -> None:
    scene.journal.full = "200000 recordings wait"
    job = await scene.starter.start(scene.request())
    assert (job.phase, job.recording.error) == (Phase.FAILED, "not recorded: 200000 recordings wait")
    assert (job.recording.file_path, await job.wait(0)) == ("", True)
    assert scene.journal.told == [(job.id, "failed")]
    assert scene.journal.entries == scene.asterisk.told == []
    assert scene.jobs.last(("pbx", "1.1", "")) is job.recording


async def test_name_has_the_call_in_it(scene: Scene) -> None:
    """A dialled channel's own caller is the number that it was dialled for: the call's first channel tells."""
    scene.live("1.0", caller="200", caller_name="Ann", first_exten="100", exten="s")
    scene.live("1.1", linkedid="1.0", caller="300")
    request = scene.request(filename="{caller}-{caller_name}-{extension}-{mine}", fields={"mine": "m", "caller": "300"})
    row = (await scene.starter.start(request)).recording
    assert (row.name, row.caller, row.called) == ("200-Ann-100-m", "200", "100")
    assert row.file_path == str(scene.directory / "200-Ann-100-m.wav")


async def test_name_of_its_own(scene: Scene) -> None:
    row = (await scene.starter.start(scene.request(filename=""))).recording
    assert row.name == row.id
    assert row.file_path == str(scene.directory / f"{row.id}.wav")


async def test_bad_name_begins_nothing(scene: Scene) -> None:
    with pytest.raises(BadArgument):
        await scene.starter.start(scene.request(filename="../x"))
    assert scene.journal.entries == []


async def test_halves_of_characters_are_mended(scene: Scene) -> None:
    row = (await scene.starter.start(scene.request(channel="PJSIP/\udce4", caller="\udce4"))).recording
    assert (row.channel, row.caller) == ("PJSIP/\ufffd", "\ufffd")


async def test_unwritable_directory_fails(scene: Scene) -> None:
    scene.directory.rmdir()
    scene.directory.write_text("no directory")
    job = await scene.starter.start(scene.request())
    assert job.recording.error.endswith("make [recordings] directory writable for this server")
    assert job.recording.file_path == str(scene.directory / "x.wav")
    assert scene.journal.entries == ["requested", "failed"]
    assert scene.asterisk.told == []


async def test_missing_spool_fails(scene: Scene) -> None:
    scene.spool.rmdir()
    job = await scene.starter.start(scene.request())
    assert "does not exist" in job.recording.error
    assert scene.asterisk.told == []


async def test_held_elsewhere_keeps_no_name(scene: Scene) -> None:
    scene.journal.lost = HeldElsewhere("two records that")
    with pytest.raises(HeldElsewhere):
        await scene.starter.start(scene.request())
    assert not (scene.directory / "x.wav").exists()
    assert len(scene.jobs) == 0
    assert scene.starter._starting == set()


async def test_gone_channel_is_a_hangup(scene: Scene) -> None:
    scene.asterisk.refuse["start"] = ActionRefused("No such channel")
    with pytest.raises(Hangup):
        await scene.starter.start(scene.request())
    assert scene.journal.entries == ["requested", "failed"]
    assert scene.jobs.last(("pbx", "1.1", "")).error.startswith("the channel PJSIP/a-1 was gone")  # type: ignore[union-attr]


async def test_no_way_to_asterisk(scene: Scene) -> None:
    scene.down = AsteriskDown("no manager connection")
    job = await scene.starter.start(scene.request())
    assert job.recording.error == "Asterisk did not start the recording: no manager connection"


async def test_order_uses_the_present_name(scene: Scene) -> None:
    scene.live("1.1", "PJSIP/renamed-1")
    await scene.starter.start(scene.request())
    assert scene.asterisk.orders[0][2] == "PJSIP/renamed-1"


async def test_unopened_file_is_undone(scene: Scene) -> None:
    """Asterisk said that it records, and the file never came."""
    scene.asterisk.makes_files = False
    for count in range(3):
        job = await scene.starter.start(scene.request())
        assert f"make {scene.spool} writable for Asterisk's user" in job.recording.error
        assert scene.asterisk.told[-1] == f"stop {job.id}.wav"
        assert len(scene.starter.faults.current()) == (count == 2)
        place(job.recording.pieces[0].mixed).unlink(missing_ok=True)
    scene.asterisk.makes_files = True
    await scene.starter.start(scene.request())
    assert scene.starter.faults.current() == []


async def test_undo_that_fails_is_no_fault(scene: Scene) -> None:
    scene.asterisk.makes_files = False
    scene.asterisk.refuse["stop"] = AsteriskError("no")
    job = await scene.starter.start(scene.request())
    assert "could not open" in job.recording.error


@pytest.mark.parametrize("answer", [ActionTimeout("no answer"), AsteriskDown("lost"), TimeoutError()])
async def test_unanswered_order_may_be_done(scene: Scene, answer: Exception) -> None:
    """The file is the proof."""
    start = scene.asterisk.start

    async def unanswered(piece: Any, spec: Any) -> str:
        await start(piece, spec)
        raise answer

    scene.asterisk.start = unanswered  # type: ignore[method-assign]
    job = await scene.starter.start(scene.request())
    assert (job.phase, job.recording.pieces[0].monitor_id) == (Phase.ACTIVE, "")


async def test_silent_manager_falls_back(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first order may be carried out yet: the second one names another file."""
    by_session = OrderBook()
    monkeypatch.setattr(starting, "AgiControl", lambda agi: by_session)
    scene.asterisk.makes_files = False
    scene.asterisk.refuse["start"] = ActionTimeout("no answer")
    job = await scene.starter.start(scene.request(agi=Session()))
    assert by_session.told == [f"start {job.id}-9000.wav"]
    assert scene.journal.entries == ["requested", "second_way", "started"]
    assert len(job.recording.pieces) == 1
    assert job.recording.active


@pytest.mark.parametrize("closed", [None, True])
async def test_silent_manager_without_a_session(scene: Scene, closed: bool | None) -> None:
    scene.asterisk.makes_files = False
    scene.asterisk.refuse["start"] = ActionTimeout("no answer")
    agi = Session() if closed else None
    if agi is not None:
        agi.closed = True
    job = await scene.starter.start(scene.request(agi=agi))
    assert job.recording.error == "Asterisk did not answer the order to record: no answer"


async def test_lost_mute_is_no_failure(scene: Scene) -> None:
    scene.asterisk.refuse["mute"] = AsteriskError("no")
    piece = scene.job(Phase.REQUESTED, files=False).recording.pieces[0]
    began = await scene.starter.begin(piece, RecordingSpec(), scene.pbx, None, ["read", "write"])  # type: ignore[arg-type]
    assert (began.started_at, scene.asterisk.told[1:]) == (NOW, ["mute read", "mute write"])


@pytest.mark.parametrize("known", [True, False])
async def test_restart_finds_it_running(scene: Scene, known: bool) -> None:
    job = scene.job(Phase.REQUESTED)
    if not known:
        scene.asterisk.refuse["find"] = AsteriskError("no such function")
    async with job.lock:
        await scene.starter.command(job, scene.pbx, perhaps_running=True)  # type: ignore[arg-type]
    piece = job.recording.pieces[0]
    assert (piece.monitor_id, piece.started_at) == ("0xfound" if known else "", BEGAN)
    assert scene.asterisk.told == [f"find {ID}.wav"]


async def test_restart_orders_what_is_lacking(scene: Scene) -> None:
    job = scene.job(Phase.REQUESTED, files=False)
    async with job.lock:
        await scene.starter.command(job, scene.pbx, perhaps_running=True)  # type: ignore[arg-type]
    assert scene.asterisk.told == [f"find {ID}.wav", f"start {ID}.wav"]
    assert job.recording.started_at == NOW


async def test_first_order_looks_for_nothing(scene: Scene) -> None:
    job = scene.job(Phase.REQUESTED)
    open_file(job.recording.pieces[0].mixed)
    async with job.lock:
        await scene.starter.command(job, scene.pbx)  # type: ignore[arg-type]
    assert scene.asterisk.told == [f"start {ID}.wav"]
    assert replace(job.recording.pieces[0], monitor_id="").started_at == NOW
