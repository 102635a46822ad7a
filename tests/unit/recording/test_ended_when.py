"""When a recording ended of which only the files tell: by the clock that it was recorded by, not by the machine's."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastagi.domain.recording import Recording, Segment
from fastagi.domain.states import Phase
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.lifecycle.stopping import Stopper


class Here:
    """Carries out what is for a thread."""

    async def run(self, function: Any, *args: Any) -> Any:
        return function(*args)


@pytest.mark.parametrize("ahead", [0.0, 86_400.0, -86_400.0], ids=["right", "machine-behind", "machine-ahead"])
@pytest.mark.parametrize(("written", "ended"), [(8.0, 8.0), (90.0, 0.0)], ids=["ago", "before-it-began"])
async def test_a_file_says_only_how_long_ago_it_was_closed(
    tmp_path: Path, ahead: float, written: float, ended: float
) -> None:
    """
    :param ahead: of our clock, seconds; :param written: seconds ago; :param ended: seconds ago, 0 for now
    """
    now = time.time() + ahead
    raw = tmp_path / "a.wav"
    raw.write_bytes(b"")
    os.utime(raw, (now - ahead - written,) * 2)
    row = Recording(
        id="rec-1", node="n", asterisk="pbx", channel="a", uniqueid="1", name="x", file_path="/r/x.wav",
        phase=Phase.ACTIVE, requested_at=now - 60, started_at=now - 60, pieces=(Segment(str(raw)),),
    )  # fmt: skip
    stopper: Any = SimpleNamespace(_threads=Here(), _clock=lambda: now)
    assert await Stopper._last_written(stopper, ActiveRecording(row)) == pytest.approx(now - ended, abs=1.0)
