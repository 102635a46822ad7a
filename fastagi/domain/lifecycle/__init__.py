"""What a recording does next: from a recording, an event and the time to the recording after it and the effects.

`decide` is the only place that says what an event changes and what must be done about it. `owed` says what a row still
asks for, whether its server has just written it or was restarted, or took it over from a dead one: the effects of a
decision that moves a recording on are what the row owes after it. No I/O, no clock: the engine
(`fastagi.recording.lifecycle`) journals a decision, performs its effects, and feeds back what came of them as events.

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
