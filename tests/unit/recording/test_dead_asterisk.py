"""How long an Asterisk that is out of reach is waited for."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastagi.domain.recording import Segment
from fastagi.domain.states import Phase
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.recovery.restart import Recovery
from support.delivery_harness import recording


@pytest.mark.parametrize(
    ("here", "phase", "dead_seconds", "seconds"),
    [
        (False, Phase.ACTIVE, 120.0, 120.0),
        (True, Phase.ACTIVE, 120.0, 20.0),
        (True, Phase.ACTIVE, 2.0, 2.0),
        (True, Phase.PAUSED, 120.0, 600.0),
        (False, Phase.PAUSED, 120.0, 3600.0),
    ],
)
def test_dead_here_is_waited_for_less(here: bool, phase: Phase, dead_seconds: float, seconds: float) -> None:
    """The network to a PBX elsewhere may be what is broken; on this machine there is none."""
    pbx = cast(Any, SimpleNamespace(gone_from_here=here))
    nothing = cast(Any, None)
    settings = SimpleNamespace(dead_seconds=dead_seconds)
    context = SimpleNamespace(jobs=nothing, threads=nothing, pbxs={"pbx": pbx}, clock=time.time, settings=settings)
    recovery = Recovery(cast(Any, context), nothing, nothing, nothing, nothing)
    job = ActiveRecording(recording(1, asterisk="pbx", phase=phase, pieces=(Segment("/s/1.wav", uniqueid="1.1"),)))
    assert recovery.patience(job) == seconds
