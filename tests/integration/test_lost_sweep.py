"""What a start finds in the spool: side files, leftovers, orphans; against the ledger, with a scripted Asterisk."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile

from fastagi import App
from fastagi.cipher import AesGcmCipher, MasterKey
from fastagi.domain.ids import new_id
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Cause, Phase
from fastagi.recording.asterisk import raw_files
from fastagi.recording.ledger.spill_file import PURPOSE, SpillFile, SpillFolder
from fastagi.recording.lifecycle.starting import Request
from fastagi.settings import Settings
from fastagi.store import open_store
from fastagi.store.queries import deliveries, journal, keys, recordings
from fastagi.testing.ports import free_port
from fastagi.testing.scripted_ami import ScriptedAmi
from fastagi.testing.sound import save, speech_samples
from support.crash_harness import until
from support.finished_files import below
from support.recorder_harness import Remembering

HOUR = 3600.0


class Place:
    """A server's folders and settings, with a scripted Asterisk on which nobody talks."""

    def __init__(self, folder: Path, ami: ScriptedAmi) -> None:
        self.ami = ami
        self.folder, self.spool, self.directory = folder, folder / "spool", folder / "recordings"
        self.directory.mkdir()
        self.sink = Remembering()
        self.master = MasterKey.load_or_create(folder / "master.key")
        self.sides = SpillFolder(self.directory / ".side-files", self.master.derive(PURPOSE))
        self.settings = Settings.model_validate(
            {
                "agi": {"port": free_port()},
                "recordings": {"directory": str(self.directory), "min_free_mb": 0},
                "store": {"url": f"sqlite:///{folder}/ledger.db", "node": "one"},
                "http": {"enabled": False},
                "asterisk": [
                    {"name": "pbx", "port": ami.port, "username": ami.user, "secret": ami.secret, "spool": self.spool}
                ],
            }
        )

    @asynccontextmanager
    async def server(self) -> AsyncIterator[App]:
        app = App(self.settings, recording_sink=self.sink)
        await app.start()
        try:
            await until(lambda: app.parts.recorder.parts.sweep.last_at > 0)
            yield app
        finally:
            await app.stop(5)

    async def write(self, unit: Any, *args: Any) -> Any:
        """One unit on the ledger while no server runs."""
        store = open_store(self.settings.store.url, node="one")
        await store.start()
        try:
            return await store.run(unit, *args)
        finally:
            await store.stop()

    def raw(self, recording_id: str, seconds: float, *, age: float, closed: bool = True, role: str = "") -> Path:
        """A raw file as Asterisk leaves it; not closed: with zeros for sizes."""
        path = save(self.spool / f"{recording_id}{role}.wav", speech_samples(seconds, 3))
        if not closed:
            with path.open("r+b") as file:
                for place in (4, 40):
                    file.seek(place)
                    file.write(bytes(4))
        then = time.time() - age
        os.utime(path, (then, then))
        return path

    def recording(self, age: float, **fields: Any) -> Recording:
        """A row as it stands when its call began `age` seconds ago."""
        at = time.time() - age
        recording_id = new_id("rec", at, os.urandom(10))
        piece = Segment(str(self.spool / f"{recording_id}.wav"), channel="SIP/a-1", uniqueid=f"{at:.3f}", started_at=at)
        values: dict[str, Any] = {
            "node": "one",
            "asterisk": "pbx",
            "channel": "SIP/a-1",
            "uniqueid": f"{at:.3f}",
            "name": recording_id,
            "file_path": str(self.directory / f"{recording_id}.wav"),
            "pieces": (piece,),
            "sinks": ("recording_sink",),
            "requested_at": at,
            "started_at": at,
            **fields,
        }
        return Recording(recording_id, **values)

    def finished(self, age: float) -> Recording:
        """A finished one, with its file."""
        row = self.recording(age)
        path = save(Path(row.file_path), speech_samples(2.0, 3))
        content = path.read_bytes()
        return replace(
            row,
            phase=Phase.FINISHED,
            cause=Cause.HANGUP,
            ended_at=row.requested_at + 2,
            finished_at=row.requested_at + 3,
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            sinks=(),
        )


def spoil(path: Path, size: int) -> None:
    path.write_bytes(b"\0" * size)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    (tmp_path / "spool").mkdir()
    async with ScriptedAmi(spool=tmp_path / "spool") as ami:
        yield Place(tmp_path, ami)


async def test_raw_files_go_only_when_the_finished_file_is_proved(place: Place) -> None:
    good, changed, gone = (place.finished(HOUR) for _ in range(3))
    for row in (good, changed, gone):
        await place.write(recordings.insert, row)
        place.raw(row.id, 2.0, age=HOUR - 2)
        place.raw(row.id, 2.0, age=HOUR - 2, role="-rx")
    spoil(Path(changed.file_path), changed.bytes or 0)
    Path.unlink(Path(gone.file_path))
    async with place.server() as app:
        left = sorted({path.name[:30] for path in place.spool.glob("rec-*")})
        assert left == sorted((changed.id, gone.id))
        assert app.parts.recorder.parts.sweep.removed == 2
        assert app.parts.recorder.parts.sweep.unproved == 2
    assert place.sink.got == []


async def test_orphans_become_recordings(place: Place) -> None:
    closed, broken, young = (place.recording(age) for age in (HOUR, 2 * HOUR, 30.0))
    place.raw(closed.id, 3.0, age=120)
    place.raw(broken.id, 5.0, age=2 * HOUR - 5, closed=False)
    place.raw(broken.id, 5.0, age=2 * HOUR - 5, closed=False, role="-rx")
    place.raw(broken.id, 5.0, age=2 * HOUR - 5, closed=False, role="-tx")
    held = place.raw(place.recording(300).id, 1.0, age=240, closed=False)
    waiting = place.raw(young.id, 1.0, age=5)
    async with place.server() as app:
        await until(lambda: len(place.sink.got) == 2)
        assert app.parts.recorder.parts.sweep.adopted == 2
    told = {m.extra["recording_id"]: m for m in place.sink.got}
    assert set(told) == {closed.id, broken.id}
    for row, seconds, salvaged in ((closed, 3.0, False), (broken, 5.0, True)):
        metadata = told[row.id]
        assert (metadata.extra["adopted"], metadata.extra["salvaged"]) == (True, salvaged)
        assert metadata.extra["cause"] == "HANGUP"
        assert soundfile.info(metadata.file_path).duration == pytest.approx(seconds, abs=0.05)
    assert told[broken.id].duration_seconds == pytest.approx(5.0, abs=1.0), "its id says when it began"
    assert sorted(place.spool.glob("rec-*")) == sorted((held, waiting)), "what may be somebody's is left alone"


async def test_what_was_to_be_encrypted_is_never_delivered_in_clear_for_want_of_a_ledger(place: Place) -> None:
    """Of a recording that began before the ledger was lost, nothing is left but Asterisk's files and their names."""
    database, copy = place.folder / "ledger.db", place.folder / "copy.db"
    cipher = AesGcmCipher(bytes(range(32)))
    call = place.ami.call()
    async with place.server() as app:
        pbx = app.parts.pbxs["pbx"]
        await until(lambda: pbx.channels.get(call.uniqueid))
        spec = RecordingSpec(encryption=cipher.scheme)
        request = Request(pbx, call.name, call.uniqueid, "secrets/one", spec, cipher=cipher, sinks=("recording_sink",))
        job = await app.parts.recorder.start(request)
        assert job.phase is Phase.ACTIVE
        await until(lambda: min(p.stat().st_size for p in place.spool.glob("rec-*.wav")) > 44)
    place.ami.hangup(call)
    database.rename(copy)
    raw = sorted(place.spool.glob("rec-*.wav"))
    assert len(raw) == 3
    await until(lambda: raw_files.closed(tuple(map(str, raw))))
    for path in raw:
        os.utime(path, (time.time() - HOUR,) * 2)
    for adopt in (False, True):  # of the second start, too: it is tried again
        place.settings = place.settings.model_copy(
            update={"recordings": place.settings.recordings.model_copy(update={"adopt": adopt})}
        )
        async with place.server() as app:
            row = await app.parts.store.read(recordings.get, job.id)
            assert (row.phase, row.cause, row.spec.encryption) == (Phase.FAILED, Cause.ERROR, "unknown")
            assert "to be encrypted" in row.error
            assert "put back a copy of the ledger" in row.error
            assert await app.parts.store.read(deliveries.of_recording, job.id) == []
        assert sorted(place.spool.glob("rec-*.wav")) == raw
        assert [p for p in below(place.directory) if p.is_file() and p.stat().st_size] == []
        assert place.sink.got == []
    copy.replace(database)
    async with place.server() as app:
        await until(lambda: place.sink.got)
        finished = Path(place.sink.got[0].file_path)
        assert b"RIFF" not in await asyncio.to_thread(finished.read_bytes)
        cipher.decrypt_file(finished, place.folder / "clear.wav")
        assert soundfile.info(place.folder / "clear.wav").duration > 0
        assert list(place.spool.glob("rec-*.wav")) == []


async def test_what_others_recorded_here_while_nobody_was_there_is_adopted_if_that_is_wanted(place: Place) -> None:
    missed = place.raw("queue-7", 2.0, age=120)
    broken = place.raw("cut off", 2.0, age=HOUR, closed=False)
    left = [
        place.raw("archive", 1.0, age=25 * HOUR),
        place.raw("young", 1.0, age=5),
        place.raw("perhaps-open", 1.0, age=120, closed=False),
    ]
    noise = place.spool / "noise.wav"
    noise.write_bytes(b"no sound at all")
    os.utime(noise, (time.time() - HOUR,) * 2)
    left.append(noise)
    async with place.server() as app:
        assert app.parts.recorder.parts.sweep.adopted == 0
        assert missed.exists(), "nobody asked for it"
    place.settings = place.settings.model_copy(
        update={"recordings": place.settings.recordings.model_copy(update={"adopt": True})}
    )
    async with place.server() as app:
        await until(lambda: len(place.sink.got) == 2)
        assert app.parts.recorder.parts.sweep.adopted == 2
        told = {m.name: m for m in place.sink.got}
        assert set(told) == {"queue-7.wav", "cut off.wav"}
        for metadata in told.values():
            assert (metadata.extra["cause"], metadata.extra["adopted"], metadata.extra["orphan"]) == (
                "HANGUP",
                True,
                True,
            )
            assert soundfile.info(metadata.file_path).duration == pytest.approx(2.0, abs=0.05)
        assert told["cut off.wav"].extra["salvaged"] is True
        assert not missed.exists(), "the finished one is safe"
        assert not broken.exists()
        await app.parts.recorder.parts.sweep.round()
        assert app.parts.recorder.parts.sweep.adopted == 2
    assert all(path.exists() for path in left)
    async with place.server() as app:
        assert app.parts.recorder.parts.sweep.adopted == 0


async def test_what_cannot_be_saved_is_set_aside_with_its_reason(place: Place) -> None:
    row = place.recording(HOUR)
    empty = place.spool / f"{row.id}.wav"
    empty.touch()
    os.utime(empty, (time.time() - HOUR,) * 2)
    foreign = place.spool / "somebody-elses.wav"
    foreign.touch()
    os.utime(foreign, (0, 0))
    async with place.server() as app:
        assert app.parts.recorder.parts.sweep.set_aside == 1
    aside = place.spool / "set-aside"
    assert sorted(p.name for p in aside.iterdir()) == [empty.name, empty.name + ".reason"]
    reason = (aside / f"{empty.name}.reason").read_text()
    assert row.id in reason
    assert "empty" in reason
    assert foreign.exists()
    assert place.sink.got == []


async def test_a_recording_that_had_no_room_is_finished_once_there_is(place: Place) -> None:
    row = place.recording(
        HOUR,
        phase=Phase.FAILED,
        cause=Cause.ERROR,
        error="the finished file could not be made: no room",
        facts={"disk_full": True, "ended_by": "SILENCE"},
        ended_at=time.time() - HOUR + 4,
    )
    await place.write(recordings.insert, row)
    raw = place.raw(row.id, 4.0, age=HOUR - 4)
    async with place.server() as app:
        await until(lambda: len(place.sink.got) == 1)
        assert app.parts.recorder.parts.sweep.refinished == 1
        (metadata,) = place.sink.got
        assert (metadata.extra["state"], metadata.extra["cause"]) == ("IDLE", "SILENCE")
        assert soundfile.info(metadata.file_path).duration == pytest.approx(4.0, abs=0.05)
        await until(lambda: not raw.exists())


async def test_an_adopted_recording_that_had_no_room_is_finished_once_there_is(place: Place) -> None:
    place.settings = place.settings.model_copy(
        update={"recordings": place.settings.recordings.model_copy(update={"adopt": True})}
    )
    theirs = save(place.folder / "somewhere else.wav", speech_samples(3.0, 3))
    row = place.recording(
        HOUR,
        phase=Phase.FAILED,
        cause=Cause.ERROR,
        error="the finished file could not be made: no room",
        facts={"disk_full": True, "ended_by": "ABORTED"},
        ended_at=time.time() - HOUR + 3,
        adopted=True,
    )
    row = replace(row, pieces=(replace(row.pieces[0], mixed=str(theirs)),))
    await place.write(recordings.insert, row)
    async with place.server() as app:
        await until(lambda: len(place.sink.got) == 1)
        assert app.parts.recorder.parts.sweep.refinished == 1
        (metadata,) = place.sink.got
        assert (metadata.extra["state"], metadata.extra["cause"]) == ("IDLE", "ABORTED")
        assert soundfile.info(metadata.file_path).duration == pytest.approx(3.0, abs=0.05)
    assert theirs.exists(), "it is theirs"


async def test_leftovers_of_a_finishing_that_was_broken_off_are_removed(place: Place) -> None:
    (place.directory / "2026").mkdir()
    old, young = (place.directory / "2026" / f".{name}.wav.fastagi-tmp" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"clear audio")
    os.utime(old, (time.time() - HOUR,) * 2)
    (place.directory / ".hidden").touch()
    async with place.server():
        await until(lambda: not old.exists())
    assert young.exists()
    assert (place.directory / ".hidden").exists()


async def test_side_files_are_brought_into_the_ledger(place: Place) -> None:
    unknown = place.recording(60.0, phase=Phase.CLOSING, cause=Cause.HANGUP, ended_at=time.time() - 50)
    behind = place.recording(60.0)
    ahead = place.recording(60.0)
    whole = place.finished(60.0)
    done = replace(whole, sinks=("recording_sink",))
    await place.write(recordings.insert, behind)
    await place.write(recordings.insert, replace(ahead, phase=Phase.FAILED, cause=Cause.ERROR, error="no"))
    cipher = AesGcmCipher(bytes(range(32)))
    now = time.time()
    place.sides.write(SpillFile(unknown, now))
    place.sides.write(SpillFile(replace(behind, phase=Phase.CLOSING, cause=Cause.ABORTED, ended_at=now - 55), now))
    place.sides.write(SpillFile(ahead, ahead.requested_at))
    place.sides.write(SpillFile(done, now, (cipher.scheme, b"wrapped")))
    for row in (unknown, behind):
        place.raw(row.id, 3.0, age=50)
    (place.sides.path / "rec-00000000000000000000000000.journal").write_text("{half")
    async with place.server():
        await until(lambda: len(place.sink.got) == 3)
    told = {m.extra["recording_id"]: m for m in place.sink.got}
    assert set(told) == {unknown.id, behind.id, done.id}
    assert told[behind.id].extra["cause"] == "ABORTED"
    assert place.sides.ids() == []
    assert (place.sides.path / "set-aside" / "rec-00000000000000000000000000.journal").exists()
    there = await place.write(recordings.get, ahead.id)
    assert there.phase is Phase.FAILED, "an old side file changes nothing"
    assert await place.write(keys.get, done.id) == (cipher.scheme, b"wrapped")

    # again, as if the process had been killed before the files were removed
    for row in told:
        place.sides.write(SpillFile(replace(await place.write(recordings.get, row), phase=Phase.ACTIVE), now))
    async with place.server():
        assert place.sides.ids() == []
    assert len(place.sink.got) == 3
    for row in told:
        assert (await place.write(recordings.get, row)).phase is Phase.FINISHED
        assert len(await place.write(deliveries.of_recording, row)) == 1
        assert [e.event for e in await place.write(journal.history, row)].count("restored") == 1


async def test_a_side_file_holds_no_clear_key(place: Place) -> None:
    cipher = AesGcmCipher(bytes(range(32)))
    row = place.recording(1.0)
    place.sides.write(SpillFile(row, 1.0, (cipher.scheme, b"wrapped")))
    path = place.sides.path / f"{row.id}.journal"
    assert place.sides.path.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600
    assert base64.b64encode(bytes(range(32))).decode() not in path.read_text()
    assert place.sides.read(row.id).key == (cipher.scheme, b"wrapped")


async def test_half_written_side_files_of_a_crash_are_removed(place: Place) -> None:
    """They say who called whom."""
    names = ("rec-1.journal-tmp", "rec-2.journal-tmp", "foreign.journal-tmp")
    place.sides.path.mkdir(mode=0o700)
    old, young, foreign = (place.sides.path / name for name in names)
    for path, age in ((old, HOUR), (young, 5.0), (foreign, HOUR)):
        path.write_text('{"at": 1')
        os.utime(path, (time.time() - age,) * 2)
    async with place.server():
        assert sorted(p for p in place.sides.path.iterdir() if p.suffix == ".journal-tmp") == sorted((young, foreign))


async def test_a_side_file_does_not_bring_a_deleted_key_back(place: Place) -> None:
    """It outlived its row's way into the ledger by a crash, and the recording was deleted before the next start."""
    deleted, there = (place.finished(HOUR) for _ in range(2))
    for row in (deleted, there):
        place.sides.write(SpillFile(row, time.time() - HOUR, ("aes-256-gcm", b"wrapped")))
        await place.write(recordings.insert, row)
    await place.write(lambda conn: recordings.change(conn, deleted.id, deleted_at=time.time()))
    async with place.server() as app:
        assert await app.parts.store.read(keys.get, deleted.id) is None
        assert await app.parts.store.read(keys.get, there.id) == ("aes-256-gcm", b"wrapped")
        assert place.sides.ids() == []
