"""Side files as somebody plants them, as another version or another master key wrote them, and in great number."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from test_lost_journal import Ledger
from test_lost_sweep import HOUR, Place

from fastagi.domain.recording import Recording, Segment
from fastagi.domain.states import Cause, Phase
from fastagi.recording.ledger.spill_file import FORM, SpillFile, SpillFolder
from fastagi.store.queries import deliveries, keys, recordings
from fastagi.testing.scripted_ami import ScriptedAmi
from fastagi.testing.sound import save, speech_samples
from support.crash_harness import until
from support.planted_files import NOBODY
from support.web_harness import web_scene

ROOT = os.geteuid() == 0
FOREIGN = pytest.param("foreign", marks=pytest.mark.skipif(not ROOT, reason="only root gives files away"))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    (tmp_path / "spool").mkdir()
    async with ScriptedAmi(spool=tmp_path / "spool") as ami:
        yield Place(tmp_path, ami)


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    made = Ledger(tmp_path)
    await made.store.start()
    yield made
    await made.store.stop()


def unsigned(folder: Path, row: Recording, key: bytes = b"") -> Path:
    """A side file in the form of the version before, which is the one that anybody can write."""
    content: dict[str, Any] = {"at": time.time(), "recording": recordings.to_row(row)}
    if key:
        content["key"] = ["aes-256-gcm", base64.b64encode(key).decode()]
    path = folder / f"{row.id}.journal"
    path.write_text(json.dumps(content))
    return path


async def plant(place: Place, how: str, row: Recording, key: bytes = b"") -> None:
    """Put a side file into the spool.

    :param how: `own`: as if the server had written it, at the first start of this version; `foreign`: the same by
        another user; `later`: as if the server had written it, at a later start
    """
    if how == "later":
        async with place.server():
            pass
    path = unsigned(place.spool, row, key)
    if how == "foreign":
        os.chown(path, NOBODY, NOBODY)


def content(path: str) -> bytes:
    return Path(path).read_bytes()


def with_retention(place: Place, days: int) -> None:
    changed = place.settings.recordings.model_copy(update={"retention_days": days})
    place.settings = place.settings.model_copy(update={"recordings": changed})


@pytest.mark.parametrize("how", ["own", "later", FOREIGN])
async def test_planted_row_serves_no_foreign_file(place: Place, how: str) -> None:
    """A viewer would be given any file that the server may read."""
    secret = place.folder / "shadow"
    secret.write_bytes(b"root:")
    row = replace(place.finished(HOUR), file_path=str(secret), sinks=("recording_sink",))
    await plant(place, how, row)
    async with place.server() as app:
        assert await app.parts.store.read(recordings.get, row.id) is None
        assert app.parts.recorder.parts.context.journal.left.refused == 1
    assert place.sink.got == []
    (reason,) = (place.spool / "set-aside").glob("*.reason")
    assert reason.read_text()


@pytest.mark.parametrize("how", ["own", "later", FOREIGN])
async def test_planted_key_replaces_none(place: Place, how: str) -> None:
    held = replace(place.finished(HOUR), legal_hold=True)
    await place.write(recordings.insert, held)
    await place.write(keys.put, held.id, "aes-256-gcm", b"true")
    await plant(place, how, held, key=b"false")
    async with place.server() as app:
        assert await app.parts.store.read(keys.get, held.id) == ("aes-256-gcm", b"true")
    assert not list(place.spool.glob("*.journal"))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("how", ["own", "later", FOREIGN])
async def test_planted_row_takes_no_finished_file(place: Place, how: str, signed: bool) -> None:
    """Its own raw file would be finished over the file of a recording on legal hold."""
    held = replace(place.finished(HOUR), legal_hold=True)
    await place.write(recordings.insert, held)
    before = content(held.file_path)
    row = place.recording(60.0, phase=Phase.CLOSING, cause=Cause.HANGUP, ended_at=time.time() - 50)
    row = replace(row, file_path=held.file_path)
    place.raw(row.id, 4.0, age=50)
    await plant(place, how, row)
    if signed:
        (place.spool / f"{row.id}.journal").unlink()
        place.sides.write(SpillFile(row, time.time()))
    async with place.server() as app:
        assert app.parts.recorder.parts.context.journal.left.refused == 1
        assert await app.parts.store.read(recordings.get, row.id) is None
    assert content(held.file_path) == before


@pytest.mark.parametrize("how", ["own", "later", FOREIGN])
async def test_planted_row_deletes_nothing(place: Place, how: str) -> None:
    """Retention would remove the file of a row that is said to be old."""
    victim = place.folder / "victim"
    victim.write_bytes(b"anything")
    row = replace(place.finished(100 * 24 * HOUR), file_path=str(victim))
    await plant(place, how, row)
    with_retention(place, 1)
    async with place.server() as app:
        await app.parts.recorder.parts.evidence.sweep()
        assert app.parts.recorder.parts.evidence.deleted == 0
    assert victim.read_bytes() == b"anything"


@pytest.mark.parametrize("how", ["own", "later", FOREIGN])
@pytest.mark.parametrize("path", ["{folder}/victim.wav", "{directory}/../victim.wav", "{directory}/link/victim.wav"])
async def test_planted_row_overwrites_nothing_outside(place: Place, how: str, path: str) -> None:
    victim = place.folder / "victim.wav"
    victim.write_bytes(b"anything")
    (place.directory / "link").symlink_to(place.folder)
    row = place.recording(60.0, phase=Phase.CLOSING, cause=Cause.HANGUP, ended_at=time.time() - 50)
    row = replace(row, file_path=path.format(folder=place.folder, directory=place.directory))
    place.raw(row.id, 2.0, age=50)
    await plant(place, how, row)
    async with place.server() as app:
        assert app.parts.recorder.parts.context.journal.left.refused == 1
        assert await app.parts.store.read(recordings.get, row.id) is None
    assert victim.read_bytes() == b"anything"


@pytest.mark.parametrize("raw", ["elsewhere", "another recording's", "of no Asterisk"])
async def test_planted_row_names_no_foreign_raw_file(place: Place, raw: str) -> None:
    """Another call's audio would become this recording."""
    other = place.recording(30.0)
    paths = {"elsewhere": place.folder / "other.wav", "another recording's": place.raw(other.id, 2.0, age=20)}
    save(place.folder / "other.wav", speech_samples(1.0, 3))
    row = place.recording(60.0, phase=Phase.CLOSING, cause=Cause.HANGUP, ended_at=time.time() - 50)
    row = replace(row, pieces=(Segment(str(paths.get(raw, place.spool / f"{row.id}.wav"))),))
    if raw == "of no Asterisk":
        row = replace(row, asterisk="elsewhere")
    unsigned(place.spool, row)
    async with place.server() as app:
        assert app.parts.recorder.parts.context.journal.left.refused == 1
        assert await app.parts.store.read(recordings.get, row.id) is None
    assert place.sink.got == []


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
async def test_link_in_place_of_a_side_file_is_refused(place: Place, kind: str) -> None:
    row = place.recording(60.0, phase=Phase.CLOSING, cause=Cause.HANGUP, ended_at=time.time() - 50)
    there = unsigned(place.folder, row)
    planted = place.spool / there.name
    if kind == "link":
        planted.symlink_to(there)
    elif kind == "hard link":
        os.link(there, planted)
    else:
        os.mkfifo(planted)
    async with place.server() as app:
        assert app.parts.recorder.parts.context.journal.left.refused == 1
        assert await app.parts.store.read(recordings.get, row.id) is None
    assert planted.name not in os.listdir(place.spool)
    assert there.exists()


async def test_link_in_place_of_a_draft_is_not_written(place: Place) -> None:
    """The version before wrote `rec-ID.journal-tmp` over whatever it led to."""
    victim = place.folder / "victim"
    victim.write_text("untouched")
    row = place.recording(60.0)
    for folder in (place.spool, place.directory):
        (folder / f"{row.id}.journal-tmp").symlink_to(victim)
    place.sides.write(SpillFile(row, 1.0))
    assert victim.read_text() == "untouched"
    assert [path.name for path in place.sides.path.iterdir()] == [f"{row.id}.journal"]


async def test_changed_side_file_is_refused(place: Place) -> None:
    row = place.recording(60.0, phase=Phase.CLOSING, cause=Cause.HANGUP, ended_at=time.time() - 50)
    place.raw(row.id, 2.0, age=50)
    place.sides.write(SpillFile(row, time.time()))
    path = place.sides.path / f"{row.id}.journal"
    path.write_bytes(path.read_bytes().replace(b"SIP/a-1", b"SIP/b-1"))
    async with place.server() as app:
        assert app.parts.recorder.parts.context.journal.left.refused == 1
        assert await app.parts.store.read(recordings.get, row.id) is None
        assert app.parts.recorder.parts.sweep.set_aside == 1
    assert (place.sides.path / "set-aside" / path.name).exists()


async def test_side_files_of_the_version_before_are_read_once(place: Place) -> None:
    """A restart at the upgrade while the ledger was away: what was recorded comes, a key and a finished row do not."""
    closing = place.recording(60.0, phase=Phase.CLOSING, cause=Cause.ABORTED, ended_at=time.time() - 50)
    done = replace(place.finished(60.0), sinks=("recording_sink",), sha256="f" * 64)
    behind = place.recording(60.0)
    moved = replace(behind, phase=Phase.CLOSING, cause=Cause.HANGUP, ended_at=time.time() - 50)
    await place.write(recordings.insert, behind)
    for row in (closing, done, moved):
        unsigned(place.spool, row, key=b"planted")
        place.raw(row.id, 3.0, age=50)
    async with place.server() as app:
        await until(lambda: len(place.sink.got) == 3)
        assert app.parts.recorder.parts.context.journal.left.refused == 0
        for row in (closing, done, moved):
            assert await app.parts.store.read(keys.get, row.id) is None
        found = await app.parts.store.read(recordings.get, done.id)
        assert found.sha256 not in ("", "f" * 64), "what the file is like was found out again"
    assert {m.extra["recording_id"]: m.extra["cause"] for m in place.sink.got}[closing.id] == "ABORTED"
    assert not list(place.spool.glob("*.journal"))
    late = place.recording(60.0, phase=Phase.CLOSING, cause=Cause.HANGUP, ended_at=time.time() - 50)
    unsigned(place.spool, late)
    async with place.server() as app:
        assert app.parts.recorder.parts.context.journal.left.refused == 1
        assert await app.parts.store.read(recordings.get, late.id) is None


async def test_side_files_of_a_server_not_upgraded_stay(ledger: Ledger) -> None:
    """Several servers are upgraded one after the other: the old ones write unsigned files, and read them again."""
    path = unsigned(ledger.folder, ledger.requested(1))
    for _ in range(2):
        assert await ledger.journal.left.read_old([ledger.folder], lambda node: node == "two", "two") == 0
    assert path.exists()
    assert ledger.journal.left.refused == 0


async def test_added_and_lacking_fields_are_no_fault(place: Place) -> None:
    """A column more, or one less, in another version."""
    row = place.recording(60.0, phase=Phase.CLOSING, cause=Cause.HANGUP, ended_at=time.time() - 50)
    place.raw(row.id, 2.0, age=50)
    columns = recordings.to_row(row)
    del columns["linkedid"], columns["spec"]["follow"], columns["pieces"][0]["lost"]
    columns["mood"] = columns["spec"]["colour"] = columns["pieces"][0]["smell"] = "new"
    body = json.dumps({"at": time.time(), "recording": columns, "later": 1}).encode()
    place.sides.write(SpillFile(row, 1.0))
    sides = place.sides
    head = b" ".join((FORM, sides._key_id, sides._signature(body)))
    (sides.path / f"{row.id}.journal").write_bytes(head + b"\n" + body)
    async with place.server() as app:
        await until(lambda: place.sink.got)
        assert app.parts.recorder.parts.context.journal.left.refused == 0


@pytest.mark.parametrize("other", ["master key", "version"])
async def test_side_file_for_another_time_stays(place: Place, other: str) -> None:
    """With the master key, or the version, that it is for, it is read: nothing is set aside for a mistake."""
    row = place.recording(60.0, phase=Phase.CLOSING, cause=Cause.HANGUP, ended_at=time.time() - 50)
    raw = place.raw(row.id, 2.0, age=50)
    path = place.sides.path / f"{row.id}.journal"
    if other == "master key":
        SpillFolder(place.sides.path, bytes(32)).write(SpillFile(row, time.time()))
    else:
        place.sides.write(SpillFile(row, time.time()))
        path.write_bytes(path.read_bytes().replace(FORM, b"fastagi-side-file-3"))
    with structlog.testing.capture_logs() as lines:
        async with place.server() as app:
            assert app.parts.recorder.parts.context.journal.left.refused == 0
    (line,) = [line for line in lines if line["event"] == "side_file_unreadable"]
    assert other.split()[0] in line["error"]
    assert path.exists()
    assert raw.exists(), "it is no orphan"
    assert place.sink.got == []


async def test_adopted_raw_files_lie_anywhere(place: Place) -> None:
    """Others name them: FreePBX has folders by day. A signed file is believed."""
    theirs = save(place.folder / "theirs.wav", speech_samples(2.0, 3))
    row = place.recording(60.0, phase=Phase.CLOSING, cause=Cause.HANGUP, ended_at=time.time() - 50, adopted=True)
    row = replace(row, pieces=(replace(row.pieces[0], mixed=str(theirs)),))
    place.sides.write(SpillFile(row, time.time()))
    async with place.server():
        await until(lambda: place.sink.got)
    assert theirs.exists()


async def test_refused_side_files_are_alarmed(tmp_path: Path) -> None:
    async with web_scene(tmp_path) as scene:
        assert await scene.metric("fastagi_side_files_refused_total") == 0
        assert (await scene.get("/readyz"))[1]["warnings"] == []
        path = scene.spool / "rec-00000000000000000000000000.journal"
        path.write_text("{}")
        left = scene.parts.recorder.parts.context.journal.left
        with structlog.testing.capture_logs() as lines:
            await left.read_old([scene.spool], lambda node: True, "alone")
        assert [line["moved_to"] for line in lines] == [str(scene.spool / "set-aside" / path.name)]
        assert await scene.metric("fastagi_side_files_refused_total") == 1
        status, body = await scene.get("/readyz")
        assert (status, body["warnings"][0]["what"]) == (200, "side files")


async def test_folder_of_another_user_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with web_scene(tmp_path) as scene:
        folder = scene.directory / ".side-files"
        await until(folder.exists)
        folder.chmod(0o777)
        assert (await scene.get("/readyz"))[0] == 200
        assert folder.stat().st_mode & 0o777 == 0o700, "it is the server's own again"
        true = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: true + 1)
        await asyncio.sleep(0)
        scene.parts.http._disks._at = float("-inf")
        status, body = await scene.get("/readyz")
        assert status == 503
        (problem,) = [p for p in body["problems"] if p["what"] == f"recordings {folder}"]
        assert "another user" in problem["problem"]
        assert "chown" in problem["do"]
        monkeypatch.undo()


async def test_many_side_files_do_not_delay_serving(place: Place) -> None:
    """4,000 took 7 s, in which every call failed."""
    rows = []
    for number in range(4000):
        row = place.recording(HOUR - number / 10, phase=Phase.FAILED, cause=Cause.ERROR, error="no", sinks=())
        rows.append(row)
        place.sides.write(SpillFile(row, time.time()))
    begun = time.monotonic()
    async with place.server() as app:
        took = time.monotonic() - begun
        await until(lambda: place.sides.ids() == [], 60)
        for row in rows[::500]:
            assert (await app.parts.store.read(recordings.get, row.id)).error == "no"
            assert await app.parts.store.read(deliveries.of_recording, row.id) == []
    assert took < 6, "one second at most for side files, on a machine that does other things, too"


async def test_deletion_takes_the_refused_side_file(place: Place) -> None:
    """It says who called whom, and may hold the wrapped key."""
    row = place.finished(HOUR)
    await place.write(recordings.insert, row)
    place.sides.write(SpillFile(row, 1.0))
    moved = place.sides.set_aside(row.id, "because")
    assert moved is not None
    async with place.server() as app:
        await app.parts.recorder.parts.evidence.delete_recording(row.id, "me", "asked for", force=True)
    assert list(moved.parent.iterdir()) == []


async def test_folder_that_cannot_be_read_makes_no_orphans(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw file whose row waits in a side file is no orphan, also while the folder is another user's."""
    row = place.recording(HOUR, phase=Phase.CLOSING, cause=Cause.HANGUP, ended_at=time.time() - 50)
    raw = place.raw(row.id, 2.0, age=HOUR)
    place.sides.write(SpillFile(row, time.time()))
    true = os.lstat

    def closed(path: Any, **more: Any) -> os.stat_result:
        if str(path).startswith(f"{place.sides.path}/"):
            raise PermissionError(13, "Permission denied", str(path))
        return true(path, **more)

    monkeypatch.setattr(os, "lstat", closed)
    monkeypatch.setattr(SpillFolder, "ids", lambda self: [])
    async with place.server() as app:
        assert app.parts.recorder.parts.sweep.adopted == 0
    assert raw.exists()


async def test_side_files_of_a_dead_server_are_read(ledger: Ledger) -> None:
    """Several servers share the folder: those of one that lives are its own to read."""
    dead, alive = ledger.requested(1), ledger.requested(2)
    ledger.sides.write(SpillFile(replace(dead, node="two"), 1.0))
    ledger.sides.write(SpillFile(replace(alive, node="three"), 1.0))
    ids = await ledger.journal.side_files_of_others()
    assert await ledger.journal.left.read(ids, lambda node: node == "two") == 1
    assert ledger.sides.ids() == [alive.id]
    assert (await ledger.store.read(recordings.get, dead.id)).node == "two"
