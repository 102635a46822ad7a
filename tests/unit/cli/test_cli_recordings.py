"""`fastagi recordings`: found, proven, exported, decrypted, held, deleted; exit codes, and JSON that is only JSON."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from fastagi.cipher import AesCbcCipher, AesGcmCipher
from fastagi.cli.moments import moment
from fastagi.cli.output import words
from fastagi.domain.states import Cause
from fastagi.errors import BadArgument
from fastagi.store import Store, open_store
from fastagi.store.queries import journal, keys, recordings

AUDIO = b"RIFF some audio"


def test_list_filters_and_limits(desk) -> None:
    first = desk.recording("first", caller="0221555")
    second = desk.recording("second", at=desk.noon + 3600, caller="030777", cause=Cause.ABORTED)
    broken = desk.failed()

    def ids(*arguments: str) -> list[str]:
        return [r["id"] for r in desk("recordings", "list", "--json", *arguments).json]

    assert set(ids()) == {first.id, second.id, broken.id}
    assert ids("--caller", "0221") == [first.id]
    assert ids("--since", "2026-11-21T12:30:00+00:00") == [second.id]
    assert ids("--until", "2026-11-21T12:30:00+00:00", "--state", "idle") == [first.id]
    assert ids("--cause", "aborted") == [second.id]
    assert ids("--state", "ERROR") == [broken.id]
    assert ids("--search", "SECOND") == [second.id]
    assert len(ids("--limit", "1")) == 1
    assert len(ids("--limit", "0")) == 3
    text = desk("recordings", "list")
    assert text.code == 0
    columns = text.out.splitlines()[0].split("\t")
    rows = [dict(zip(columns, line.split("\t"), strict=True)) for line in text.out.splitlines()[1:]]
    assert {r["id"]: r["cause"] for r in rows} == {first.id: "HANGUP", second.id: "ABORTED", broken.id: "ERROR"}
    assert {r["length"] for r in rows} == {"1:05", ""}
    assert "Asterisk could not open" in text.out
    nothing = desk("recordings", "list", "--caller", "99")
    assert (nothing.code, nothing.out) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "--state", "sleeping"), "--state 'sleeping': use one of recording, idle, error"),
        (("list", "--cause", "boredom"), "--cause 'boredom': use one of none, error, silence"),
        (("list", "--since", "someday"), "--since 'someday': write a date"),
        (("list", "--limit", "-1"), "--limit"),
        (("show",), "ID"),
        (("hold", "rec-x"), "--reason"),
    ],
)
def test_misuse(desk, arguments: tuple[str, ...], said: str) -> None:
    desk.recording()
    done = desk("recordings", *arguments)
    assert done.code == 2
    assert said in done.err
    assert done.out == ""


def test_show_takes_first_letters_or_file(desk) -> None:
    recording = desk.recording("one")
    desk.settled(recording, ok=False)
    shown = desk("recordings", "show", recording.id[:12], "--json").json
    assert shown["id"] == recording.id
    assert [e["event"] for e in shown["journal"]][:2] == ["requested", "started"]
    (delivery,) = shown["deliveries"]
    assert (delivery["status"], delivery["attempts_made"][0]["error"]) == ("dead", "answered 410: gone")
    text = desk("recordings", "show", recording.file_path)
    assert text.code == 0
    for part in (recording.sha256, "answered 410: gone", "requested", recording.channel, "2026-11-21 12:00:00"):
        assert part in text.out
    assert "{" not in text.out, "what is for people is not JSON"
    assert "2026-11-21T" not in text.out, "times are those of `list`"


def test_show_takes_uniqueid_and_name(desk) -> None:
    """A CDR has the uniqueid, a dialplan the name, a mail the bare file."""
    (desk.directory / "calls").mkdir()
    one, other = desk.recording("calls/17"), desk.recording("17", at=desk.noon + 60)
    for given in ("calls/17", "calls/17.wav", one.uniqueid, one.file_path):
        assert desk("recordings", "show", given, "--json").json["id"] == one.id, given
    for given in ("17", "17.wav"):
        both = desk("recordings", "show", given)
        assert both.code == 1
        assert f"several recordings are called {given}: {other.id}, {one.id}" in both.err
    assert desk("recordings", "show", "7.wav").code == 1, "a part of a name is no name"


def test_fact_is_shown_in_words() -> None:
    assert words({"removed": 0, "spans": [], "silent": False, "held_by": "x", "forced": True}) == (
        "removed 0, held by x, forced"
    )
    assert words({"sent": {"peak_dbfs": -4.5}}) == "sent: peak dbfs -4.5"
    assert words([[0.5, 1], [2, None]]) == "[0.5, 1], [2, …]"


def test_list_filters_by_call_and_participant(desk) -> None:
    one, other = desk.recording("one"), desk.recording("other")

    async def work(store: Store) -> None:
        facts = {"talked_with": ["PJSIP/agent7-0000002a"], "silent": False}
        await store.run(recordings.change, one.id, desk.noon, "told", {"facts": facts, "linkedid": "1700000000.1"})

    desk.write(work)

    def ids(*arguments: str) -> list[str]:
        return [r["id"] for r in desk("recordings", "list", "--json", *arguments).json]

    assert ids("--linkedid", "1700000000.1") == [one.id]
    assert ids("--channel", "PJSIP/agent7") == [one.id]
    assert ids("--channel", "agent7") == []
    assert ids("--channel", "PJSIP/other") == [other.id]
    for text in ("AGENT7", "1700000000"):
        assert ids("--search", text) == [one.id]
    assert ids("--search", "silent") == [], "only the channels are searched of the facts"


def test_ambiguous_or_unknown_name_is_refused(desk) -> None:
    one, two = desk.recording("one"), desk.recording("two")
    several = desk("recordings", "show", "rec-0")
    assert several.code == 1
    assert one.id in several.err
    assert two.id in several.err
    none = desk("recordings", "show", "rec-nothing")
    assert none.code == 1
    assert "there is no recording rec-nothing" in none.err


def test_without_a_ledger(desk) -> None:
    for arguments in (("recordings", "list"), ("deliveries", "list"), ("recordings", "show", "rec-1")):
        done = desk(*arguments)
        assert done.code == 1
        assert "there is no ledger" in done.err
    assert not (desk.folder / "ledger.db").exists(), "looking makes nothing"


def test_ledger_of_another_version(desk) -> None:
    recording = desk.recording()

    async def age(store: Store) -> None:
        await store.run(lambda conn: conn.execute(sa.text("UPDATE alembic_version SET version_num = '0000'")))

    desk.write(age)
    done = desk("recordings", "show", recording.id)
    assert done.code == 1
    assert "the ledger has schema 0000" in done.err
    assert "start this version's server once" in done.err


def test_beside_a_running_server(desk) -> None:
    """The server's lock keeps other servers out, not those who look."""
    recording = desk.recording()

    async def main() -> None:
        store = open_store(desk.url, node="test")
        await store.start()
        try:
            seen = await asyncio.to_thread(desk, "recordings", "list", "--json")
            assert [r["id"] for r in seen.json] == [recording.id]
            held = await asyncio.to_thread(desk, "recordings", "hold", recording.id, "--reason", "court")
            assert held.code == 0
            entries = await store.read(journal.history, recording.id)
            assert entries[-1].event == "hold_set"
        finally:
            await store.stop()

    asyncio.run(main())


def test_verify(desk) -> None:
    good, changed, missing = (desk.recording(name) for name in ("good", "changed", "missing"))
    assert desk("recordings", "verify").code == 0
    Path(changed.file_path).write_bytes(b"RIFF same length")
    Path(missing.file_path).unlink()
    done = desk("recordings", "verify", "--json")
    assert done.code == 1
    found = {r["id"]: r["proof"] for r in done.json["recordings"]}
    assert found == {good.id: "ok", changed.id: "changed", missing.id: "missing"}
    assert done.json["ok"] is False
    assert done.json["counts"]["ok"] == 1
    text = desk("recordings", "verify")
    assert text.code == 1
    assert good.id not in text.out
    assert "3 recordings: 1 ok, 1 changed, 1 missing" in text.err
    assert desk("recordings", "verify", good.id).code == 0
    assert desk("recordings", "verify", good.id, missing.id).code == 1
    assert desk("recordings", "verify", "--since", "2027-01-01").code == 0, "none is no fault"


def test_verify_fails_for_failed_recording(desk) -> None:
    broken = desk.failed()
    done = desk("recordings", "verify", broken.id, "--json")
    assert (done.code, done.json["recordings"][0]["proof"]) == (1, "unfinished")
    assert desk("recordings", "verify").code == 0, "it has no file to prove"


def test_export_proves_itself_and_goes_on(desk, tmp_path: Path) -> None:
    one = desk.recording("one")
    two = desk.recording("two", cipher=AesGcmCipher(os.urandom(32)))
    gone = desk.recording("gone")
    Path(gone.file_path).unlink()
    folder = tmp_path / "out"
    arguments = (
        "recordings",
        "export",
        "--to",
        str(folder),
        "--decrypt",
        "--template",
        "{caller}/{recording_id}.{suffix}",
    )
    done = desk(*arguments, "--json")
    assert done.code == 1
    faults = {e["id"]: e["fault"] for e in done.json}
    assert faults[one.id] is None
    assert faults[two.id] is None
    assert "is not there" in faults[gone.id]
    for recording in (one, two):
        copy = folder / "0221555" / f"{recording.id}.wav"
        assert copy.read_bytes() == AUDIO
        assert json.loads(copy.with_name(copy.name + ".json").read_text())["extra"]["recording_id"] == recording.id
    check = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=False)
    assert (check.returncode, check.stdout.count(": OK")) == (0, 2)
    again = desk(*arguments, one.id, two.id)
    assert again.code == 0
    assert (folder / "SHA256SUMS").read_text().count("\n") == 2
    (folder / "0221555" / f"{one.id}.wav").write_bytes(b"another")
    assert "is another file" in desk(*arguments, one.id).out
    assert desk("recordings", "export", "--to", str(folder), "--template", "../{name}").code == 2


def test_decrypt_with_the_ledgers_key(desk, tmp_path: Path) -> None:
    secret = desk.recording("secret", cipher=AesGcmCipher(os.urandom(32)))
    plain = desk.recording("plain")
    out = tmp_path / "out.wav"
    done = desk("recordings", "decrypt", secret.id, "-o", str(out))
    assert done.code == 0
    assert out.read_bytes() == AUDIO
    assert out.stat().st_mode & 0o077 == 0, "only its owner may listen"
    again = desk("recordings", "decrypt", secret.id, "-o", str(out))
    assert again.code == 2
    assert "is there already" in again.err
    assert desk("recordings", "decrypt", secret.file_path, "-o", str(out), "--force").code == 0
    refused = desk("recordings", "decrypt", plain.id, "-o", str(tmp_path / "p"))
    assert refused.code == 1
    assert "is not encrypted" in refused.err
    (desk.folder / "master.key").rename(desk.folder / "away")
    lost = desk("recordings", "decrypt", secret.id, "-o", str(tmp_path / "q"))
    assert lost.code == 1
    assert "master key is not there" in lost.err
    assert not (desk.folder / "master.key").exists(), "a new one would open nothing"


@pytest.mark.parametrize(
    ("folder", "file"),
    [
        ("recordings", "secret.wav"),
        ("recordings", "./secret.wav"),
        ("recordings/below", "../secret.wav"),
        (".", "recordings/secret.wav"),
        ("link", "./secret.wav"),
        (".", "link/secret.wav"),
    ],
)
def test_decrypt_resolves_relative_paths(desk, monkeypatch, folder: str, file: str) -> None:
    """The recording's, the clear file's and the key's."""
    key = os.urandom(32)
    desk.recording("secret", cipher=AesGcmCipher(key))
    (desk.directory / "below").mkdir()
    (desk.folder / "link").symlink_to(desk.directory)
    (desk.folder / "key").write_bytes(key)
    monkeypatch.chdir(desk.folder / folder)
    for n, more in enumerate(((), ("--key-file", os.path.relpath(desk.folder / "key")))):
        done = desk("recordings", "decrypt", file, "-o", f"out{n}", *more)
        assert done.code == 0, done.err
        assert (desk.folder / folder / f"out{n}").read_bytes() == AUDIO


def test_decrypt_error_is_one_line(desk, monkeypatch) -> None:
    secret = desk.recording("secret", cipher=AesGcmCipher(os.urandom(32)))
    monkeypatch.chdir(desk.folder)
    Path("copy.wav").write_bytes(Path(secret.file_path).read_bytes())
    for arguments, code, said in (
        (("copy.wav", "-o", "out"), 1, "needs --key-file"),
        (("nothing.wav", "-o", "out"), 1, "there is no recording nothing.wav in"),
        ((secret.id, "-o", ".", "--force"), 2, "--output .: is a folder: name the file"),
        ((secret.id, "-o", "no/out"), 1, "no/out"),
    ):
        done = desk("recordings", "decrypt", *arguments)
        assert done.code == code
        assert said in done.err
        assert done.err.count("\n") == 1


def _hex(key: bytes) -> bytes:
    return key.hex().encode() + b"\n"


@pytest.mark.parametrize("written", [bytes, _hex, base64.b64encode], ids=["raw", "hex", "base64"])
def test_decrypt_with_key_from_file(desk, tmp_path: Path, written) -> None:
    key, iv = os.urandom(32), os.urandom(16)
    keyfile = tmp_path / "key"
    keyfile.write_bytes(written(key))
    for n, (cipher, more) in enumerate(((AesGcmCipher(key), ()), (AesCbcCipher(key, iv), ("--iv", iv.hex())))):
        (tmp_path / "clear").write_bytes(AUDIO)
        cipher.encrypt_file(tmp_path / "clear", tmp_path / "enc")
        out = tmp_path / f"out{n}"
        done = desk("recordings", "decrypt", str(tmp_path / "enc"), "-o", str(out), "--key-file", str(keyfile), *more)
        assert done.code == 0, done.err
        assert out.read_bytes() == AUDIO


def test_decrypt_with_an_age_identity(desk, tmp_path: Path) -> None:
    pyrage = pytest.importorskip("pyrage")
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "identity").write_text(f"# mine\n{identity}\n")
    (tmp_path / "enc").write_bytes(pyrage.encrypt(AUDIO, [identity.to_public()]))
    arguments = ("recordings", "decrypt", str(tmp_path / "enc"), "--key-file")
    assert desk(*arguments, str(tmp_path / "identity"), "-o", str(tmp_path / "out")).code == 0
    assert (tmp_path / "out").read_bytes() == AUDIO
    (tmp_path / "identity").write_text(str(pyrage.x25519.Identity.generate()))
    assert desk(*arguments, str(tmp_path / "identity"), "-o", str(tmp_path / "out2")).code == 1
    assert not (tmp_path / "out2").exists()


def test_wrong_keys_leave_nothing(desk, tmp_path: Path) -> None:
    (tmp_path / "clear").write_bytes(AUDIO)
    AesGcmCipher(os.urandom(32)).encrypt_file(tmp_path / "clear", tmp_path / "gcm")
    AesCbcCipher(os.urandom(32), os.urandom(16)).encrypt_file(tmp_path / "clear", tmp_path / "cbc")
    (tmp_path / "wrong").write_text(os.urandom(32).hex())
    (tmp_path / "none").write_text("hello")
    for file, key, code, said in (
        ("gcm", "wrong", 1, "wrong key"),
        ("gcm", "none", 2, "holds no key"),
        ("cbc", "wrong", 2, "give its IV"),
    ):
        paths = (str(tmp_path / file), "-o", str(tmp_path / "out"), "--key-file", str(tmp_path / key))
        done = desk("recordings", "decrypt", *paths)
        assert done.code == code, done.err
        assert said in done.err
        assert not (tmp_path / "out").exists()


def test_hold_release_delete(desk) -> None:
    recording = desk.recording(cipher=AesGcmCipher(os.urandom(32)))
    desk.settled(recording, ok=True)
    assert desk("recordings", "hold", recording.id, "--reason", "court", "--who", "ann", "--json").json["legal_hold"]
    refused = desk("recordings", "delete", recording.id, "--reason", "asked for")
    assert refused.code == 1
    assert "is on legal hold" in refused.err
    assert Path(recording.file_path).exists()
    assert desk("recordings", "release", recording.id, "--reason", "over").code == 0
    again = desk("recordings", "release", recording.id, "--reason", "over")
    assert (again.code, "is not on legal hold: there is nothing to release" in again.err) == (1, True)
    assert desk("recordings", "delete", recording.id, "--reason", "asked for", "--who", "ann").code == 0
    assert not Path(recording.file_path).exists()
    shown = desk("recordings", "show", recording.id, "--json").json
    events = {e["event"]: e["detail"] for e in shown["journal"]}
    assert events["hold_set"] == {"who": "ann", "reason": "court"}
    assert events["hold_released"]["who"].startswith("cli:")
    assert events["deleting"]["who"] == "ann"
    assert events["deleting"]["key_removed"] is True
    assert shown["deleted_at"]
    assert desk("recordings", "decrypt", recording.id, "-o", str(desk.folder / "x")).code == 1
    assert desk("recordings", "verify", recording.id).code == 1
    assert desk("recordings", "delete", recording.id, "--reason", "again").code == 0, "deleted is deleted"


def test_delete_of_undelivered_needs_force(desk) -> None:
    recording = desk.recording()
    refused = desk("recordings", "delete", recording.id, "--reason", "asked for")
    assert refused.code == 1
    assert "is not delivered to crm (waiting)" in refused.err
    assert desk("recordings", "delete", recording.id, "--reason", "asked for", "--force").code == 0
    (delivery,) = desk("recordings", "show", recording.id, "--json").json["deliveries"]
    assert delivery["status"] == "dead"


def test_hostile_values_are_escaped_on_terminal(desk) -> None:
    desk.recording(caller="\x1b[31m0221\tx")
    text = (
        desk("recordings", "list").out
        + desk("recordings", "show", desk("recordings", "list", "--json").json[0]["id"]).out
    )
    assert "\x1b" not in text
    assert "\t0221" not in text


SATURDAY = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("2026-11-20", "2026-11-20T00:00"),
        ("2026-11-20 14:05", "2026-11-20T14:05"),
        ("2026-11-20T14:05:00+02:00", "2026-11-20T12:05"),
        ("14:05", "2026-11-21T14:05"),
        ("today", "2026-11-21T00:00"),
        ("Yesterday", "2026-11-20T00:00"),
        ("friday", "2026-11-20T00:00"),
        ("sat", "2026-11-21T00:00"),
        ("sunday", "2026-11-15T00:00"),
        ("90m", "2026-11-21T10:30"),
        ("36h", "2026-11-20T00:00"),
        ("7d", "2026-11-14T12:00"),
        ("36h ago", "2026-11-20T00:00"),  # as --help shows it
        ("36 hours ago", "2026-11-20T00:00"),
        ("1 day ago", "2026-11-20T12:00"),
        ("90 Min ago", "2026-11-21T10:30"),
    ],
)
def test_moments(text: str, expected: str | None) -> None:
    wanted = None if expected is None else datetime.fromisoformat(expected).replace(tzinfo=UTC).timestamp()
    assert moment("--since", text, SATURDAY) == wanted


@pytest.mark.parametrize("text", ["someday", "25:00", "2026-13-01", "5x", "-3d", "36hago", "ago", "9" * 5000 + "d"])
def test_moments_not_understood(text: str) -> None:
    with pytest.raises(BadArgument, match="--since"):
        moment("--since", text, SATURDAY)


def test_arguments_that_are_no_text(desk) -> None:
    """Bytes that are no UTF-8 ended in a traceback of the database driver."""
    desk.recording("one")
    done = subprocess.run(
        [sys.executable, "-m", "fastagi", "recordings", "list", "--caller", b"\xff", "--config", desk.config],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.decode().strip() == "fastagi: an argument is not UTF-8: write it as the terminal's UTF-8 text"


def test_deleted_key_is_in_no_file(desk) -> None:
    """Beside a server that is idle: the command itself takes it out of the ledger and its write-ahead log."""
    recording = desk.recording("secret", cipher=AesCbcCipher(b"k" * 32, b"i" * 16))
    wrapped = desk.write(lambda store: store.read(keys.get, recording.id))[1]

    def traces() -> list[str]:
        return [path.name for path in desk.folder.glob("ledger.db*") if wrapped in path.read_bytes()]

    async def beside_its_server(store: Store) -> None:
        assert traces()
        arguments = ("recordings", "delete", recording.id, "--reason", "asked for", "--force")
        done = await asyncio.to_thread(desk, *arguments)
        assert done.code == 0, done.err
        assert traces() == []

    desk.write(beside_its_server)
