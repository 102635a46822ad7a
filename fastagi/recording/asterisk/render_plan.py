"""From a recording's row to what the audio floor must do, and back from what it found to the row."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

from fastagi.audio import Permit, RawPiece, Rendered, RenderPlan
from fastagi.cipher import Cipher
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.states import Cause


def render_plan(
    recording: Recording, cipher: Cipher | None, silence_dbfs: float, permit: Permit | None = None
) -> RenderPlan:
    """Return the plan of the finished file. Blocking: an intended segment counts if Asterisk made its file."""
    spec = recording.spec
    initial, longest = spec.silence_limits
    pieces = made(recording)
    gaps = [0.0, *(gap_seconds(recording, before, after) for before, after in pairwise(pieces))]
    paused = tuple((s.start, s.end) for s in recording.pauses if s.end is not None)
    return RenderPlan(
        pieces=tuple(_raw(piece, gap) for piece, gap in zip(pieces, gaps, strict=True)),
        raw_rate=spec.raw_rate,
        target=recording.file_path,
        file_format=spec.file_format,
        rate=spec.rate,
        bit_rate=spec.bit_rate,
        mode=spec.recording_mode,
        dtmf_elim=spec.dtmf_elim,
        initial_silence_ms=initial,
        max_silence_ms=longest,
        silence_dbfs=silence_dbfs,
        max_bytes=spec.byte_limit,
        cipher=cipher,
        permit=permit,
        # only a recording that others started is muted; in ours a pause is between two pieces, to the sample
        cuts=paused if recording.adopted and spec.pause_mode == "cut" else (),
        pauses=paused if recording.adopted and spec.pause_mode != "cut" else (),
        tail_seconds=_tail_seconds(recording, pieces[-1]),
        # who dies before Asterisk has heard of a pause leaves a piece that is longer than the ledger says
        most_seconds=recording.duration_seconds or 0.0,
        max_seconds=spec.seconds_timeout if recording.cause is Cause.TIMEOUT else None,
        silent=recording.cause is Cause.SILENCE,
    )


def made(recording: Recording) -> list[Segment]:
    """The pieces that have files. Blocking."""
    found = [p for p in recording.pieces if not p.empty and not p.lost and (p.confirmed or os.path.exists(p.paths[0]))]
    return found or list(recording.pieces[:1])


def gap_seconds(recording: Recording, before: Segment, after: Segment) -> float:
    """Return the seconds of silence between two consecutive segments in the finished file."""
    if after.reason == "still" or (after.reason == "pause" and recording.spec.pause_mode == "cut"):
        return 0.0
    return max(0.0, after.started_at - before.ended_at) if before.ended_at else 0.0


def _tail_seconds(recording: Recording, last: Segment) -> float:
    """Return the seconds between the last segment and the end: a pause in which the call ended, or 0."""
    if recording.spec.pause_mode == "cut" or not last.ended_at or not recording.pauses or not recording.ended_at:
        return 0.0
    return max(0.0, recording.ended_at - last.ended_at)


def _raw(piece: Segment, gap: float) -> RawPiece:
    """Return the segment's files with the sides as on the leg where the recording began: left stays left."""
    received, sent = (piece.sent, piece.received) if piece.sides_swapped else (piece.received, piece.sent)
    return RawPiece(piece.mixed, received, sent, gap_seconds=gap)


def facts(rendered: Rendered) -> dict[str, Any]:
    """Return the facts that finishing found, for `extra`."""
    return rendered.facts()
