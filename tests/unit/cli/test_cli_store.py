"""`fastagi store`: a backup that is whole beside a running server, and a new master key."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fastagi.app.rekeying import rekey
from fastagi.cipher import AesCbcCipher, MasterKey
from fastagi.settings import load
from fastagi.store import open_store

KEY, IV = b"k" * 32, b"i" * 16
CLEAR = b"RIFF some audio"


def _opened(desk, recording) -> bytes:
    out = desk.folder / "opened.wav"
    done = desk("recordings", "decrypt", recording.id, "-o", str(out), "--force")
    assert done.code == 0, done.err
    return out.read_bytes()


def test_restored_backup_has_all_rows(desk, tmp_path: Path) -> None:
    """A backup is put back and has what there was."""
    one = desk.recording("one", cipher=AesCbcCipher(KEY, IV))
    copy = tmp_path / "copy.db"

    async def beside_its_server() -> None:
        store = open_store(desk.url, node="test")
        await store.start()
        try:
            done = await asyncio.to_thread(desk, "store", "backup", "--to", str(copy), "--json")
            assert done.code == 0, done.err
            assert done.json == {
                "file": str(copy), "bytes": copy.stat().st_size, "key_file": str(desk.folder / "master.key"),
            }  # fmt: skip
        finally:
            await store.stop()

    asyncio.run(beside_its_server())
    assert copy.stat().st_mode & 0o777 == 0o600
    later = desk.recording("later")
    for file in desk.folder.glob("ledger.db*"):
        file.unlink()
    shutil.copy(copy, desk.folder / "ledger.db")
    assert _opened(desk, one) == CLEAR
    assert desk("recordings", "show", later.id).code == 1, "it was made after the backup"


def test_a_backup_takes_nobodys_place(desk, tmp_path: Path) -> None:
    there = tmp_path / "there.db"
    missing = desk("store", "backup", "--to", str(there))
    assert (missing.code, "there is no ledger" in missing.err) == (1, True)
    desk.recording()
    there.write_text("something else")
    done = desk("store", "backup", "--to", str(there))
    assert done.code == 1
    assert "is there already" in done.err
    assert there.read_text() == "something else"
    nowhere = desk("store", "backup", "--to", str(tmp_path / "no" / "folder"))
    assert (nowhere.code, "No such file" in nowhere.err) == (1, True)
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_ledger_is_no_backup(desk, tmp_path: Path) -> None:
    for n in range(40):
        desk.recording(f"r{n}")
    with closing(sqlite3.connect(desk.folder / "ledger.db")) as raw, raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    with (desk.folder / "ledger.db").open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 6)
    done = desk("store", "backup", "--to", str(tmp_path / "copy.db"))
    assert done.code == 1
    assert "damaged" in done.err or "cannot be copied" in done.err
    assert not (tmp_path / "copy.db").exists()


def test_new_master_key_opens_old_recordings(desk) -> None:
    recordings = [desk.recording(name, cipher=AesCbcCipher(KEY, IV)) for name in ("one", "two")]
    key = desk.folder / "master.key"
    before = key.read_text()
    done = desk("store", "rekey", "--json")
    assert done.code == 0, done.err
    assert done.json["keys"] == 2
    assert key.read_text() != before
    assert Path(done.json["old_key_file"]).read_text() == before
    assert [_opened(desk, r) for r in recordings] == [CLEAR, CLEAR]
    assert not (desk.folder / "master.key.new").exists()
    key.write_text(before)
    assert desk("recordings", "decrypt", recordings[0].id, "-o", str(desk.folder / "x")).code == 1, "the old one is out"


@pytest.mark.parametrize("written", [False, True])
def test_interrupted_rekey_is_finished(desk, written: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the keys are wrapped anew, or between that and the new file's taking its place."""
    one = desk.recording("one", cipher=AesCbcCipher(KEY, IV))

    def dies(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"fastagi.app.rekeying.{'_replace' if written else '_wrap_anew'}", dies)
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(rekey(load(desk.config)))
    assert (desk.folder / "master.key.new").exists()
    assert desk("store", "rekey").code == 0
    assert _opened(desk, one) == CLEAR


def test_rekey_refuses_to_lose_keys(desk) -> None:
    """No new master key where it would lose something."""
    one = desk.recording("one", cipher=AesCbcCipher(KEY, IV))

    async def beside_its_server() -> None:
        store = open_store(desk.url, node="test")
        await store.start()
        try:
            done = await asyncio.to_thread(desk, "store", "rekey")
            assert (done.code, "server 'test'" in done.err) == (1, True)
        finally:
            await store.stop()

    asyncio.run(beside_its_server())
    spool = desk.folder / "spool"
    spool.mkdir()
    with desk.config.open("a") as file:
        file.write(f'[[asterisk]]\nsecret = "x"\nspool = "{spool}"\n')
    sides = desk.directory / ".side-files"
    sides.mkdir()
    for folder in (spool, sides):
        (folder / "rec-1.journal").touch()
        waits = desk("store", "rekey")
        assert (waits.code, "waits for the ledger" in waits.err) == (1, True)
        (folder / "rec-1.journal").unlink()
    assert _opened(desk, one) == CLEAR, "nothing has changed"

    key = desk.folder / "master.key"
    key.rename(desk.folder / "away")
    assert "there is no master key" in desk("store", "rekey").err
    MasterKey.load_or_create(key)  # another one
    other = desk("store", "rekey")
    assert (other.code, "another master key" in other.err) == (1, True)
    (desk.folder / "away").replace(key)
    assert _opened(desk, one) == CLEAR


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes what another user may not use")
def test_rekey_by_root_keeps_the_owner(desk) -> None:
    """A master key of root's would end the next start of the server's own user."""
    desk.recording("one", cipher=AesCbcCipher(KEY, IV))
    (desk.folder / "ledger.db.lock").unlink()
    for path in (desk.folder, *desk.folder.glob("ledger.db*"), desk.folder / "master.key"):
        os.chown(path, 65534, 65534)
    assert desk("store", "rekey").code == 0
    made = [desk.folder / "ledger.db.lock", *desk.folder.glob("master.key*"), *desk.folder.glob("ledger.db*")]
    assert {path.name: path.stat().st_uid for path in made} == {path.name: 65534 for path in made}
    assert {path.stat().st_mode & 0o777 for path in desk.folder.glob("master.key*")} == {0o600}
