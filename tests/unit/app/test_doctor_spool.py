"""What the doctor says of a spool, answer by answer: those that a real Asterisk run by root does not give."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastagi.app.doctor.finding import Finding, Reporter, Status
from fastagi.app.doctor.session import Session
from fastagi.app.doctor.spool import same_spool


class Answers:
    """A session whose Asterisk does with `file convert` and `Getvar` what the test says."""

    def __init__(
        self, convert: Callable[[Path, Path], str] | None, read: Callable[[Path], str] = Path.read_text
    ) -> None:
        self._convert = convert
        self._read = read

    async def ask(self, action: str, **headers: Any) -> Any:
        if action == "Command":
            if self._convert is None:
                return SimpleNamespace(message="Permission denied", content="", value="")
            sent, back = re.findall(r'"([^"]+)"', headers["Command"])
            said = self._convert(Path(sent), Path(back))
            return SimpleNamespace(message="Command output follows", content=said, value="")
        path = Path(headers["Variable"].removeprefix("AST_CONFIG(").partition(",")[0])
        try:
            found = re.search(r"value=(\w+)", self._read(path))
        except OSError:
            found = None
        return SimpleNamespace(message="", content="", value=found.group(1) if found else "")


def _left(spool: Path) -> list[Path]:
    return list(spool.iterdir())


async def _one(answers: Answers, spool: Path) -> Finding:
    found = [f async for f in same_spool(Reporter("asterisk pbx"), cast(Session, answers), spool)]
    (finding,) = [f for f in found if f.check == "spool"]
    assert _left(spool) == [], "nothing of ours stays"
    return finding


def _copy(sent: Path, back: Path) -> str:
    shutil.copy(sent, back)
    return f"Converted {sent} to {back} in 0ms"


def _elsewhere(sent: Path, back: Path) -> str:
    return f"Converted {sent} to {back} in 0ms"


def _no_input(sent: Path, back: Path) -> str:
    return f"Unable to open input file: {sent}"


def _no_output(sent: Path, back: Path) -> str:
    return f"Unable to open output file: {back}"


def _garbage(sent: Path, back: Path) -> str:
    back.write_bytes(b"something else")
    return ""


def _gone(path: Path) -> str:
    raise FileNotFoundError(path)


@pytest.mark.parametrize(
    ("answers", "status", "said"),
    [
        (Answers(_copy), Status.OK, "Asterisk read a file there and wrote one"),
        (Answers(_no_input), Status.FAIL, "does not see a file that this server has just written"),
        (Answers(_no_output), Status.FAIL, "Asterisk may not write into"),
        (Answers(_elsewhere), Status.FAIL, "this server does not see it"),
        (Answers(_garbage), Status.FAIL, "is no WAV"),
        (Answers(None), Status.WARN, "whether it may write was not tried"),
        (Answers(None, _gone), Status.FAIL, "does not see a file"),
    ],
)
async def test_spool(tmp_path: Path, answers: Answers, status: Status, said: str) -> None:
    finding = await _one(answers, tmp_path)
    assert finding.status is status
    assert said in finding.text
    assert bool(finding.remedy) is (status is not Status.OK)


async def test_probe_follows_no_planted_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asterisk's user puts a link under the name that the doctor, run as root, is about to write."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    victim.chmod(0o600)
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr(secrets, "token_hex", lambda size: "guessed")
    for name in ("fastagi-doctor.conf", "fastagi-doctor-guessed.conf"):
        (spool / name).symlink_to(victim)
    (finding,) = [f async for f in same_spool(Reporter("pbx"), cast(Session, Answers(None)), spool)]
    assert finding.status is Status.FAIL
    assert victim.read_text() == "untouched"
    assert victim.stat().st_mode & 0o777 == 0o600


async def test_link_from_asterisk_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "key").write_bytes(b"RIFF")

    def link(sent: Path, back: Path) -> str:
        back.symlink_to(tmp_path / "key")
        return ""

    finding = await _one(Answers(link), tmp_path / "spool")
    assert finding.status is Status.FAIL
    assert "is a link" in finding.text


@pytest.mark.parametrize("shared", [True, False])
async def test_user_shared_with_asterisk_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    """Nothing in the spool, nor the key, is safe from Asterisk's user then."""
    if not shared:
        true = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: true + 1)
    found = [f async for f in same_spool(Reporter("pbx"), cast(Session, Answers(_copy)), tmp_path)]
    assert [f.status for f in found if f.check == "user"] == [Status.WARN] * shared
