"""Evidence: what a file proves, holds, deletions and retention, and a server killed in the middle of a deletion."""
# ruff: noqa: ASYNC240  (a test may wait for a small file)

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastagi.domain.delivery import DeliveryStatus, Outcome, Verdict
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.states import Cause, Event, Phase
from fastagi.errors import BadArgument, Error, StoreError
from fastagi.recording.compliance.evidence import Evidence, Proof, check_file
from fastagi.runtime.threads import FileThreads
from fastagi.store import Store, open_store
from fastagi.store.queries import deliveries, journal, keys, recordings
from fastagi.store.queries.evidence import condemn

AUDIO = b"RIFF" + bytes(range(256)) * 4
NOW = 1_700_000_000.0
DAY = 86_400.0


class Archive:
    """A ledger with finished recordings whose files are below one folder.

    :ivar now: the clock
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store, self.now = folder, store, NOW
        self.threads = FileThreads(1)
        self.told: list[tuple[str, str]] = []

    def evidence(self, node: str = "one", **options: Any) -> Evidence:
        return Evidence(
            self.store,
            self.threads,
            node=node,
            clock=lambda: self.now,
            tell=lambda recording, event, detail: self.told.append((recording.id, event)),
            **options,
        )

    async def finished(self, n: int = 1, *, age_days: float = 0, sinks: tuple[str, ...] = (), key: bool = False) -> str:
        path = self.folder / f"call-{n}.wav"
        path.write_bytes(AUDIO)
        at = self.now - age_days * DAY
        row = Recording(
            id=f"rec-{n:026}",
            node="one",
            asterisk="pbx",
            channel="SIP/a",
            uniqueid=f"{n}.1",
            name=f"call-{n}",
            file_path=str(path),
            requested_at=at,
            pieces=(Segment(str(self.folder / f"rec-{n:026}.wav")),),
        )
        await self.store.run(recordings.insert, row)
        if key:
            await self.store.run(keys.put, row.id, "aes-256-gcm", b"WRAPPED-KEY-" + b"k" * 40)
        for event in (Event.STARTED, Event.HUNG_UP, Event.CLOSED):
            await self.store.run(recordings.advance, row.id, event, at)
        changes = {"sha256": hashlib.sha256(AUDIO).hexdigest(), "bytes": len(AUDIO), "cause": Cause.HANGUP}
        await self.store.run(recordings.finish, row.id, at, changes, sinks)
        return row.id

    async def row(self, recording_id: str) -> Recording:
        found = await self.store.read(recordings.get, recording_id)
        assert found is not None
        return found

    async def events(self, recording_id: str) -> list[tuple[str, dict[str, Any]]]:
        return [(e.event, e.detail) for e in await self.store.read(journal.history, recording_id)]


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    store = open_store(f"sqlite:///{tmp_path}/ledger.db", node="one")
    await store.start()
    made = Archive(tmp_path, store)
    yield made
    made.threads.close()
    await store.stop()


async def test_a_file_is_held_against_its_checksum(archive: Archive) -> None:
    row = await archive.row(await archive.finished())
    path = Path(row.file_path)
    assert check_file(row).proof is Proof.OK
    path.write_bytes(AUDIO[:-1] + b"!")
    changed = await archive.evidence().verify(row)
    assert (changed.proof, changed.sha256) == (Proof.CHANGED, hashlib.sha256(AUDIO[:-1] + b"!").hexdigest())
    path.write_bytes(AUDIO + b"!")
    assert "1029 bytes instead of 1028" in check_file(row).detail
    path.unlink()
    assert check_file(row).proof is Proof.MISSING
    path.mkdir()
    assert check_file(row).proof is Proof.UNREADABLE
    assert check_file(replace(row, phase=Phase.ACTIVE)).proof is Proof.UNFINISHED
    assert check_file(replace(row, deleted_at=NOW)).proof is Proof.DELETED


async def test_a_deletion_is_journalled_takes_file_and_key_and_leaves_the_row(archive: Archive) -> None:
    recording_id = await archive.finished(key=True)
    evidence = archive.evidence()
    archive.now += 5
    await evidence.delete_recording(recording_id, "ann\r\nEvil: 1", "asked by the caller")
    row = await archive.row(recording_id)
    assert (row.deleted_at, row.sha256) == (archive.now, hashlib.sha256(AUDIO).hexdigest())
    assert not Path(row.file_path).exists()
    assert await archive.store.read(keys.get, recording_id) is None
    assert b"WRAPPED-KEY" not in (archive.folder / "ledger.db").read_bytes()
    assert (await archive.events(recording_id))[-2:] == [
        ("deleting", {"who": "ann Evil: 1", "reason": "asked by the caller", "forced": False, "key_removed": True}),
        ("deleted", {}),
    ]
    assert [event for _, event in archive.told] == ["deleting", "deleted"]
    # once more changes nothing, and a new file of that name is not this recording's
    Path(row.file_path).write_bytes(b"another call's")
    await evidence.delete_recording(recording_id, "bob", "again")
    assert await evidence.sweep() == 0
    assert Path(row.file_path).read_bytes() == b"another call's"
    assert len(await archive.events(recording_id)) == 7


async def test_a_legal_hold_is_stronger_than_any_deletion(archive: Archive) -> None:
    recording_id = await archive.finished(age_days=100)
    evidence = archive.evidence(retention_days=30)
    assert (await evidence.hold(recording_id, "counsel", "case 7")).legal_hold
    with pytest.raises(Error, match="legal hold"):
        await evidence.delete_recording(recording_id, "ann", "room", force=True)
    assert await evidence.sweep() == 0
    assert Path((await archive.row(recording_id)).file_path).exists()
    await evidence.release(recording_id, "counsel", "case closed")
    with pytest.raises(Error, match="is not on legal hold"):  # and nothing is journalled
        await evidence.release(recording_id, "counsel", "case closed")
    assert await evidence.sweep() == 1
    names = [event for event, _ in await archive.events(recording_id)]
    assert names[-4:] == ["hold_set", "hold_released", "deleting", "deleted"]
    with pytest.raises(Error, match="is deleted"):
        await evidence.hold(recording_id, "counsel", "too late")


async def test_what_is_not_delivered_is_not_deleted_unless_forced(archive: Archive) -> None:
    recording_id = await archive.finished(sinks=("crm", "archive"))
    evidence = archive.evidence()
    by_sink = {d.sink: d for d in await archive.store.read(deliveries.of_recording, recording_id)}
    crm, other = by_sink["crm"], by_sink["archive"]
    claimed = await archive.store.run(deliveries.claim, crm.id, archive.now, "one")
    assert claimed is not None
    with pytest.raises(Error, match=r"not delivered to (?=.*crm \(running\))(?=.*archive \(waiting\))"):
        await evidence.delete_recording(recording_id, "ann", "room")
    await evidence.delete_recording(recording_id, "ann", "room", force=True)
    after = await archive.store.read(deliveries.of_recording, recording_id)
    assert {d.status for d in after} == {DeliveryStatus.DEAD}
    # the one that was under way comes back: its outcome is of no account any more
    verdict, ok = Verdict(DeliveryStatus.DELIVERED), Outcome(True)
    settled = await archive.store.run(deliveries.settle, crm.id, claimed.fence, verdict, ok, archive.now, 1.0)
    assert settled is None
    assert await archive.store.run(deliveries.claim, other.id, archive.now, "one") is None


async def test_nothing_expires_by_a_clock_that_was_just_set(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    await archive.finished(1, age_days=1)
    evidence = archive.evidence(retention_days=30)
    assert await evidence.sweep() == 0
    archive.now += 400 * DAY
    for by in (60.0, -400 * DAY, 400 * DAY):  # only the last could make anything too old
        evidence.doubt_clock(by)
    assert await evidence.sweep() == 0
    later = time.monotonic() + DAY
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert await evidence.sweep() == 1, "nobody set it back for a day"


async def test_retention_takes_only_what_is_old_enough_ended_and_delivered(archive: Archive) -> None:
    old = [await archive.finished(n, age_days=31) for n in (1, 2)]
    young = await archive.finished(3, age_days=29)
    waiting = await archive.finished(4, age_days=31, sinks=("crm",))
    assert await archive.evidence(retention_days=0).sweep() == 0
    evidence = archive.evidence(retention_days=30)
    assert (await evidence.sweep(), await evidence.sweep(), evidence.deleted) == (2, 0, 2)
    for recording_id, there in [(i, False) for i in old] + [(young, True), (waiting, True)]:
        row = await archive.row(recording_id)
        assert (Path(row.file_path).exists(), row.deleted_at is None) == (there, there)
    assert (await archive.events(old[0]))[-2][1]["who"] == "retention"


async def test_retention_leaves_no_key(archive: Archive) -> None:
    """Neither in the ledger nor in its write-ahead log, though nothing is written afterwards."""
    for n in range(1, 60):
        await archive.finished(n, age_days=31, key=True)
    assert await archive.evidence(retention_days=30).sweep() == 59
    async with asyncio.timeout(20):
        while any(b"WRAPPED-KEY" in path.read_bytes() for path in archive.folder.glob("ledger.db*")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_who_and_why_are_asked_for_and_open_or_unknown_recordings_refused(archive: Archive) -> None:
    recording_id = await archive.finished()
    evidence = archive.evidence()
    for who, reason in (("", "why"), ("ann", " \r\n")):
        with pytest.raises(BadArgument):
            await evidence.delete_recording(recording_id, who, reason)
    with pytest.raises(StoreError, match="no recording"):
        await evidence.delete_recording("rec-nobody", "ann", "room")
    row = replace(await archive.row(recording_id), id="rec-open", phase=Phase.ACTIVE)
    await archive.store.run(recordings.insert, row)
    with pytest.raises(Error, match="not ended"):
        await evidence.delete_recording("rec-open", "ann", "room")


async def test_a_failed_recordings_raw_files_go_only_where_they_are_ours(archive: Archive) -> None:
    spool = archive.folder / "spool"
    spool.mkdir()
    recording_id = f"rec-{7:026}"
    ours, foreign = spool / f"{recording_id}-rx.wav", archive.folder / "somebody-else.wav"
    alike = archive.folder / f"{recording_id}.wav"  # our name, but not in our spool
    aside = spool / "set-aside" / f"{recording_id}-tx.wav.reason"
    aside.parent.mkdir()
    for path in (ours, aside, foreign, alike, archive.folder / "taken.wav"):
        path.write_bytes(AUDIO)
    row = Recording(
        id=recording_id,
        node="one",
        asterisk="pbx",
        channel="SIP/a",
        uniqueid="7.1",
        name="x",
        file_path=str(archive.folder / "taken.wav"),  # its name was given back, and another recording has it now
        phase=Phase.FAILED,
        requested_at=NOW,
        pieces=(Segment(str(foreign), received=str(ours), sent=str(alike)),),
    )
    await archive.store.run(recordings.insert, row)
    await archive.evidence(spools={"pbx": spool}).delete_recording(recording_id, "ann", "room")
    assert (ours.exists(), aside.exists()) == (False, False)
    assert [p.exists() for p in (foreign, alike, archive.folder / "taken.wav")] == [True, True, True]


async def test_a_name_that_another_recording_has_by_now_is_left_to_it(archive: Archive) -> None:
    recording_id = await archive.finished()
    await archive.store.run(condemn, recording_id, archive.now, "ann", "room")  # and there the server was killed
    path = Path((await archive.row(recording_id)).file_path)
    successor = replace(await archive.row(recording_id), id="rec-successor", deleted_at=None)
    await archive.store.run(recordings.insert, successor)
    assert (await archive.evidence().sweep(), path.read_bytes()) == (1, AUDIO)
    assert (await archive.events(recording_id))[-1][0] == "deleted"


async def test_the_file_on_another_servers_disk_is_left_to_that_server(archive: Archive) -> None:
    recording_id = await archive.finished()
    path = Path((await archive.row(recording_id)).file_path)
    elsewhere = path.rename(path.with_suffix(".on-one"))
    await archive.evidence("two").delete_recording(recording_id, "ann", "room")
    assert (await archive.events(recording_id))[-1][0] == "deleting", "decided, and not done yet"
    assert await archive.evidence("two").sweep() == 0
    elsewhere.rename(path)
    assert (await archive.evidence("one").sweep(), path.exists()) == (1, False)
    assert (await archive.events(recording_id))[-1][0] == "deleted"


async def test_a_file_that_cannot_be_removed_is_tried_again(archive: Archive) -> None:
    recording_id = await archive.finished()
    path = Path((await archive.row(recording_id)).file_path)
    path.unlink()
    path.mkdir()  # what unlink refuses, even to root
    evidence = archive.evidence()
    await evidence.delete_recording(recording_id, "ann", "room")
    assert (await evidence.sweep(), evidence.deleted) == (0, 0)
    assert check_file(await archive.row(recording_id)).detail == "its file is still there"
    path.rmdir()
    path.write_bytes(AUDIO)
    archive.now -= 1000  # the clock was set back
    assert (await evidence.sweep(), path.exists(), await evidence.sweep()) == (1, False, 0)


KILLED = """
import asyncio, os, sys
from fastagi.recording.compliance import evidence
from fastagi.runtime.threads import FileThreads
from fastagi.store import open_store
point, url, recording_id = sys.argv[1:]
unlink = evidence._unlink
def killed(paths):
    if point == "decided": os._exit(9)
    unlink(paths)
    if point == "unlinked": os._exit(9)
    return ""
evidence._unlink = killed
async def main():
    store = open_store(url, node="one")
    await store.start()
    if point == "before": os._exit(9)
    await evidence.Evidence(store, FileThreads(1), node="one").delete_recording(recording_id, "ann", "room")
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("point", "decided", "file_left"), [("before", False, True), ("decided", True, True), ("unlinked", True, False)]
)
@pytest.mark.slow
async def test_a_server_killed_while_it_deletes_ends_it_at_its_next_start(
    tmp_path: Path, point: str, decided: bool, file_left: bool
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    store = open_store(url, node="one")
    await store.start()
    archive = Archive(tmp_path, store)
    recording_id = await archive.finished(key=True)
    path = Path((await archive.row(recording_id)).file_path)
    await store.stop()
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, point, url, recording_id)
    assert await child.wait() == 9
    assert path.exists() is file_left

    archive.store = store = open_store(url, node="one")
    await store.start()
    try:
        row = await archive.row(recording_id)
        assert (row.deleted_at is not None) is decided
        assert (await store.read(keys.get, recording_id) is None) is decided
        assert await archive.evidence().sweep() == int(decided)
        assert path.exists() is not decided
        last = (await archive.events(recording_id))[-1][0]
        assert last == ("deleted" if decided else "finished")
    finally:
        archive.threads.close()
        await store.stop()
