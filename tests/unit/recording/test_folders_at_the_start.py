"""A spool that the server may not use is named at its start, not call by call."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog.testing

from fastagi import App
from fastagi.settings import Settings


@pytest.mark.parametrize("usable", [True, False])
async def test_a_folder_that_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usable: bool) -> None:
    (tmp_path / "spool").mkdir()
    access = os.access  # root may do everything: the answer is made up
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and (usable or Path(path).name != "spool"))
    app = App(
        Settings.model_validate(
            {
                "agi": {"port": 0},
                "http": {"enabled": False},
                "asterisk": [{"port": 1, "secret": "x", "spool": str(tmp_path / "spool")}],
                "recordings": {"directory": str(tmp_path / "made-later")},
                "store": {"url": f"sqlite:///{tmp_path}/ledger.db"},
            }
        )
    )
    with structlog.testing.capture_logs() as logs:
        await app.start()
        await app.stop()
    told = [e["path"] for e in logs if e["event"] == "folder_not_writable"]
    assert told == ([] if usable else [str(tmp_path / "spool")])
