"""Names, order and defaults of the seed "whole-call-recorder"."""

from __future__ import annotations

import inspect
from typing import Any

from fastagi import UASWholeCallFileRecorder


def test_the_signatures_are_the_seeds() -> None:
    def seed(method: Any) -> str:
        given = [p for p in inspect.signature(method).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        return ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in given[1:])

    recorder = UASWholeCallFileRecorder
    assert seed(recorder.record) == (
        "filename, file_format='alaw', rate=8000, seconds_timeout=None, max_bytes=0, milliseconds_max_silence=0, "
        "milliseconds_initial_silence=0, dtmf_elim=True, recording_mode='mixed', cipher=None"
    )
    assert seed(recorder.start) == (
        "filename, file_format='alaw', rate=8000, max_bytes=0, milliseconds_max_silence=0, "
        "milliseconds_initial_silence=0, dtmf_elim=True, recording_mode='mixed', cipher=None"
    )
    assert seed(recorder.wait_until_finished) == "seconds_timeout=120"
    assert seed(recorder.stop) == seed(recorder.state) == seed(recorder.cause) == ""


def test_states_and_causes_are_the_seeds() -> None:
    assert [s.name for s in UASWholeCallFileRecorder.State] == ["RECORDING", "IDLE", "ERROR"]
    assert {c.name for c in UASWholeCallFileRecorder.Cause} == {
        "ERROR", "SILENCE", "SIZE", "ABORTED", "HANGUP", "TIMEOUT", "NONE",
    }  # fmt: skip
