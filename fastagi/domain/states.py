"""States of a recording: the seed's public states, the inner phases, and the table of transitions.

No other code decides which phase follows. `advance` is the only way from phase to phase; a transition is journalled
(`fastagi.store`) before its effects. The README's diagram is drawn from `TABLE`.
"""

from __future__ import annotations

from collections.abc import Generator
from enum import StrEnum
from typing import Any, Self

from fastagi.errors import IllegalTransition


class _Answer(StrEnum):
    """Enum whose members may be awaited: ``await rec.state()`` and ``rec.state()`` are the same."""

    def __await__(self) -> Generator[Any, None, Self]:
        return self
        yield  # makes this a generator; never reached


class State(_Answer):
    """Public state (seed: class State)."""

    RECORDING = "RECORDING"
    IDLE = "IDLE"
    ERROR = "ERROR"


class Cause(_Answer):
    """Cause of a recording's end (seed: class Cause). NONE while it runs, or when none ever ran."""

    NONE = "NONE"
    ERROR = "ERROR"
    SILENCE = "SILENCE"
    SIZE = "SIZE"
    ABORTED = "ABORTED"
    HANGUP = "HANGUP"
    TIMEOUT = "TIMEOUT"


class Phase(StrEnum):
    """Inner phase of a recording."""

    REQUESTED = "requested"  # intent is journalled; Asterisk has not been seen to record
    ACTIVE = "active"  # Asterisk was seen to record
    PAUSED = "paused"  # Asterisk records silence
    STOPPING = "stopping"  # the cause is decided; Asterisk is being told to stop
    CLOSING = "closing"  # the recording has ended; Asterisk may still be closing the raw file
    FINISHING = "finishing"  # the raw file is whole; the finished one is being made
    FINISHED = "finished"  # the finished file is synced, its deliveries are rows
    FAILED = "failed"  # could not start, or could not be finished; existing files are kept


class Event(StrEnum):
    """Event that moves a recording from phase to phase."""

    STARTED = "started"  # the raw file exists, or `mixmonitor list` shows it
    PAUSED = "paused"
    RESUMED = "resumed"
    STOP = "stop"  # stop(), a limit or a timer; carries the cause
    STOPPED = "stopped"  # Asterisk confirmed the stop
    HUNG_UP = "hung_up"  # the channel is gone, however late that was noticed
    CLOSED = "closed"  # the raw file's header is whole, or will never be
    FINISHED = "finished"
    FAILED = "failed"
    REFINISH = "refinish"  # an operator, or room on the disk again: try to finish once more


LIVE = frozenset({Phase.REQUESTED, Phase.ACTIVE, Phase.PAUSED, Phase.STOPPING})
"""Phases in which Asterisk may be writing."""

RUNNING = frozenset({Phase.ACTIVE, Phase.PAUSED})
"""Phases of a recording that runs: nothing has ended it yet."""

OPEN = LIVE | {Phase.CLOSING, Phase.FINISHING}
"""Phases with work left, which a restart takes up."""

TABLE: dict[Phase, dict[Event, Phase]] = {
    Phase.REQUESTED: {
        Event.STARTED: Phase.ACTIVE,
        Event.STOP: Phase.STOPPING,
        Event.HUNG_UP: Phase.CLOSING,
        Event.FAILED: Phase.FAILED,
    },
    Phase.ACTIVE: {
        Event.PAUSED: Phase.PAUSED,
        Event.STOP: Phase.STOPPING,
        Event.STOPPED: Phase.CLOSING,
        Event.HUNG_UP: Phase.CLOSING,
        Event.FAILED: Phase.FAILED,
    },
    Phase.PAUSED: {
        Event.RESUMED: Phase.ACTIVE,
        Event.STOP: Phase.STOPPING,
        Event.STOPPED: Phase.CLOSING,
        Event.HUNG_UP: Phase.CLOSING,
        Event.FAILED: Phase.FAILED,
    },
    Phase.STOPPING: {
        Event.STOPPED: Phase.CLOSING,
        Event.HUNG_UP: Phase.CLOSING,
        Event.FAILED: Phase.FAILED,
    },
    Phase.CLOSING: {
        Event.CLOSED: Phase.FINISHING,
        Event.FAILED: Phase.FAILED,
    },
    Phase.FINISHING: {
        Event.FINISHED: Phase.FINISHED,
        Event.FAILED: Phase.FAILED,
    },
    Phase.FINISHED: {},
    Phase.FAILED: {Event.REFINISH: Phase.FINISHING},
}


def advance(phase: Phase, event: Event) -> Phase:
    """Return the phase that `event` leads to from `phase`.

    :raises IllegalTransition: the table has no such pair
    """
    try:
        return TABLE[phase][event]
    except KeyError:
        raise IllegalTransition(f"a recording that is {phase.value} cannot take the event {event.value}") from None


def public_state(phase: Phase) -> State:
    """Return the seed's state of a phase: RECORDING until the finished file is there, then IDLE, or ERROR."""
    if phase in OPEN:
        return State.RECORDING
    return State.IDLE if phase is Phase.FINISHED else State.ERROR
