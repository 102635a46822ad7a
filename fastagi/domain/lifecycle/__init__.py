"""Rules of a recording's life: an event and the time give the changed recording and the effects that follow.

`decide` is the only place that tells what an event changes and which effects follow. `owed` returns the effects that a
row still asks for: the same for the server that wrote the row, after a restart, and after a takeover. A decision that
moves a recording on has as its effects what the new row owes. No I/O, no clock: the engine
(`fastagi.recording.lifecycle`) journals a decision, performs its effects, and feeds back the results as events.

Which phase follows which is `fastagi.domain.states.TABLE`.
"""

from __future__ import annotations

from fastagi.domain.facts import RESUME_AT, UNREACHED
from fastagi.domain.lifecycle import effects, events
from fastagi.domain.lifecycle.effects import Effect
from fastagi.domain.lifecycle.events import Event
from fastagi.domain.lifecycle.owed import (
    can_flush,
    can_follow,
    can_replace_lost_files,
    flushed_too_often,
    is_muted,
    muted_directions,
    owed,
    position,
)
from fastagi.domain.lifecycle.rules import Decision, decide

__all__ = [
    "RESUME_AT",
    "UNREACHED",
    "Decision",
    "Effect",
    "Event",
    "can_flush",
    "can_follow",
    "can_replace_lost_files",
    "decide",
    "effects",
    "events",
    "flushed_too_often",
    "is_muted",
    "muted_directions",
    "owed",
    "position",
]
