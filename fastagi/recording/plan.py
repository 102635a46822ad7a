"""From a recording's row to what the audio floor must do, and back from what it found to the row."""

from __future__ import annotations

from typing import Any

from fastagi.audio import RawPiece, Rendered, RenderPlan
from fastagi.cipher import Cipher
from fastagi.domain.recording import Recording
from fastagi.domain.states import Cause


def render_plan(recording: Recording, cipher: Cipher | None, silence_dbfs: float) -> RenderPlan:
    """What the finished file must be."""
    spec = recording.spec
    initial, longest = spec.silence_limits
    first = recording.pieces[0].started_at
    paused = tuple((s.start, s.end) for s in recording.pauses if s.end is not None)
    return RenderPlan(
        pieces=tuple(
            RawPiece(p.mixed, p.received, p.sent, offset_seconds=max(0.0, p.started_at - first) if n else 0.0)
            for n, p in enumerate(recording.pieces)
        ),
        raw_rate=spec.raw_rate,
        target=recording.file_path,
        file_format=spec.file_format,
        rate=spec.rate,
        mode=spec.recording_mode,
        dtmf_elim=spec.dtmf_elim,
        initial_silence_ms=initial,
        max_silence_ms=longest,
        silence_dbfs=silence_dbfs,
        max_bytes=spec.byte_limit,
        cipher=cipher,
        cuts=paused if spec.pause_mode == "cut" else (),
        pauses=() if spec.pause_mode == "cut" else paused,
        max_seconds=spec.seconds_timeout if recording.cause is Cause.TIMEOUT else None,
    )


def limit_cause(recording: Recording, rendered: Rendered) -> Cause:
    """Why it ended: a limit that the audio itself shows came before whatever stopped it afterwards.

    Asterisk's file is seen in steps of two seconds, so a hangup may be noticed before the limit that preceded it.
    """
    return Cause(rendered.limit) if rendered.limit else recording.cause


def facts(rendered: Rendered) -> dict[str, Any]:
    """What finishing found, for `extra`."""
    return rendered.facts()
