"""The shipped files load from where users have them: a source tree, or the share folder of an installation.

Asterisk looks for a relative ``#include`` in its configuration folder: each file must load by its absolute path alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from fastagi.testing import AsteriskServer
from fastagi.testing.configuration import templates
from support.installed_share import ROOT, install

pytestmark = pytest.mark.asterisk


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("installed")) / "dialplan"


@pytest.fixture(params=["tree", "share"])
def shipped(request: pytest.FixtureRequest) -> Path:
    """The folder that a user names in an ``#include``."""
    return ROOT / "dialplan" if request.param == "tree" else request.getfixturevalue("installed")


def included(folder: Path, *names: str) -> str:
    """Lines of a configuration file, as the headers of the shipped files show them."""
    return "".join(f'#include "{folder / name}"\n' for name in names)


class OwnUser(AsteriskServer):
    """An Asterisk whose user `fastagi` is the shipped one: the test has another."""

    ami_user = "testing"


async def asked_routes(pbx: AsteriskServer, called: str) -> list[str]:
    """Call an extension and return the routes that the dialplan asks the recording server for until the call ends."""
    asked: list[str] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\n\n")).decode().splitlines()
        asked.extend(line.split(": ")[1] for line in head if line.startswith("agi_network_script: "))
        writer.close()

    async with await asyncio.start_server(note, "127.0.0.1", pbx.agi_port), pbx.ami() as ami:
        await pbx.cli(f"dialplan set global FASTAGI agi://127.0.0.1:{pbx.agi_port}")
        call = await pbx.originate(f"Local/{called}/n", wait=False)
        await ami.wait_event("Hangup", lambda e: e["Uniqueid"] == call.other_uniqueid)
    return asked


@pytest.mark.parametrize("version", [22, 16])
@pytest.mark.parametrize(
    ("names", "contexts"),
    [
        (["extensions.conf"], ["recorded-calls"]),
        (["record.conf"], ["sub-record-start", "hdlr-record", "sub-record-agi"]),
        (["record.conf", "queue.conf"], ["queue-recorded", "queue-recorded-talk"]),
        (["record.conf", "conference.conf"], ["conference-recorded", "conference-each-recorded"]),
        (["record.conf", "queue.conf", "conference.conf", "extensions.conf"], ["sub-record-start", "recorded-calls"]),
    ],
    ids=["extensions", "record", "queue", "conference", "all"],
)
async def test_dialplan_loads_by_absolute_path(
    version: int, shipped: Path, names: Sequence[str], contexts: list[str]
) -> None:
    """A relative include in a shipped file was looked for in /etc/asterisk, and nothing at all was loaded."""
    async with AsteriskServer(version, extra_files={"extensions.conf": included(shipped, *names)}) as pbx:
        for context in contexts:
            assert f"Context '{context}'" in await pbx.cli(f"dialplan show {context}")
        assert pbx.complaints() == []
        if "extensions.conf" in names:
            assert await asked_routes(pbx, "4711@recorded-calls") == ["record/start"]


@pytest.mark.parametrize("version", [22, 16])
async def test_features_and_manager_user_load(version: int, shipped: Path, tmp_path: Path) -> None:
    """Feature codes by ``#include``, the manager user as a copy in manager.d: as the headers say."""
    files = {
        "features.conf": templates()["features.conf"] + included(shipped, "features.conf"),
        "custom/manager.conf": '#include "manager.d/*.conf"\n',
        "manager.d/fastagi.conf": shipped / "manager.conf",
    }
    async with OwnUser(version, extra_files=files) as pbx:
        features = {line.split()[0] for line in (await pbx.cli("features show")).splitlines() if line.strip()}
        assert {"record-callee", "record-caller", "pause-callee", "pause-caller"} <= features
        user = await pbx.cli("manager show user fastagi")
        assert "system,call,user" in user
        assert "ACL: yes" in " ".join(user.split())
        assert pbx.complaints() == []


def test_no_shipped_file_includes_another() -> None:
    for file in (ROOT / "dialplan").glob("*.conf"):
        active = [line for line in file.read_text().splitlines() if line.startswith(("#include", "#tryinclude"))]
        assert active == [], file.name
