"""The commands on PostgreSQL: a ledger moves there from SQLite and everything is found again; the doctor knows it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fastagi.app.doctor import Status, examine
from fastagi.domain.ids import new_id
from fastagi.domain.recording import Recording
from fastagi.domain.states import Cause, Event
from fastagi.settings import load
from fastagi.store import open_store
from fastagi.store.queries import deliveries, recordings
from fastagi.testing import AsteriskServer
from support.cli_process import command, write_settings
from support.postgres_server import postgres_server, postgres_url  # noqa: F401

pytestmark = [pytest.mark.postgres, pytest.mark.asterisk]


async def _filled(url: str, folder: Path) -> Recording:
    """A finished recording that waits to be delivered."""
    begun = Recording(
        id=new_id("rec", 1_795_262_400.0, b"0123456789"), node="test", asterisk="pbx", channel="PJSIP/a-1",
        uniqueid="1.1", name="a", file_path=str(folder / "recordings" / "a.wav"), requested_at=1_795_262_400.0,
    )  # fmt: skip
    store = open_store(url, node="test")
    await store.start()
    try:
        await store.run(recordings.insert, begun)
        await store.run(recordings.advance, begun.id, Event.STARTED, begun.requested_at)
        await store.run(recordings.advance, begun.id, Event.HUNG_UP, begun.requested_at, {"cause": Cause.HANGUP})
        await store.run(recordings.advance, begun.id, Event.CLOSED, begun.requested_at)
        after, _ = await store.run(recordings.finish, begun.id, begun.requested_at, {"sha256": "00"}, ["crm"])
        return after
    finally:
        await store.stop()


async def test_move_and_find_again(
    asterisk22: AsteriskServer,
    tmp_path: Path,
    postgres_url: str,  # noqa: F811
) -> None:
    config = write_settings(asterisk22, tmp_path)
    recording = await _filled(tomllib.loads(config.read_text())["store"]["url"], tmp_path)
    moved = await command("store", "move", "--to", postgres_url, "--config", str(config), "--json")
    assert moved.code == 0, moved.err
    assert moved.json["node"] == "test"
    assert moved.json["rows"]["recording"] == 1
    assert moved.json["key_file"] == str(tmp_path / "master.key")

    there = {"FASTAGI_STORE__URL": postgres_url}
    settings = load(config, there)
    findings = [f async for f in examine(settings)]
    assert [f.text for f in findings if f.status is Status.FAIL] == []
    assert any(f.area == "store" and f.check == "rights" and "PostgreSQL" in f.text for f in findings)

    listed = await command("recordings", "list", "--json", "--config", str(config), env=there)
    assert [r["id"] for r in listed.json] == [recording.id]
    verified = await command("recordings", "verify", "--json", "--config", str(config), env=there)
    assert verified.code == 1
    assert verified.json["counts"]["missing"] == 1
    (delivery,) = (await command("deliveries", "list", "--json", "--config", str(config), env=there)).json
    again = await command("deliveries", "retry", delivery["id"], "--config", str(config), env=there)
    assert again.code == 0
    elsewhere = {**there, "FASTAGI_STORE__NODE": "other"}
    refused = await command(
        "recordings", "delete", recording.id, "--reason", "x", "--force", "--config", str(config), env=elsewhere
    )
    assert refused.code == 1
    assert "the file" in refused.err
    assert "is on test" in refused.err
    store = open_store(postgres_url, node="looks")
    await store.start()
    try:
        assert (await store.read(deliveries.of_recording, recording.id))[0].status.value == "waiting"
    finally:
        await store.stop()
