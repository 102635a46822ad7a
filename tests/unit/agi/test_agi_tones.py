"""Whether tones of Playtones sound on behind a session, by the commands that it sent."""

from __future__ import annotations

import pytest

from fastagi.agi.vocabulary import command_name, sounds_after

LINES = {
    'EXEC Playtones "dial"': True,
    "exec PLAYTONES dial": True,
    'EXEC Playback "beep"': False,
    'GET VARIABLE "X"': False,
}


@pytest.mark.parametrize("line", LINES)
def test_playtones_begins_tones(line: str) -> None:
    assert sounds_after(command_name(line), False) is LINES[line]


KEPT = (
    'GET VARIABLE "X"',
    'EXEC Wait "1"',
    "CHANNEL STATUS",
    'VERBOSE "x" 1',
    'EXEC MSet "A=1"',
    "EXEC Playtones ring",
)
ENDED = ('STREAM FILE "beep" ""', "EXEC StopPlaytones", 'EXEC ExecIf "1?NoOp()"', "ANSWER", "SET MUSIC ON", "NOOP2 x")


@pytest.mark.parametrize("line", KEPT + ENDED)
def test_only_silent_commands_keep_tones(line: str) -> None:
    """A command that may have ended them must not keep a call from being recorded."""
    assert sounds_after(command_name(line), True) is (line in KEPT)
