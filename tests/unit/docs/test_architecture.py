"""ARCHITECTURE.md is true: its names exist, its tables are those of the code."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from fastagi.domain.lifecycle import RESUME_AT, UNREACHED, effects, owed
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import TABLE, Phase

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
NAMES = sorted(set(re.findall(r"`([a-z_]+(?:\.\w+)+)`", PAGE)) - {"pyproject.toml"})
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| `")]


def _look_up(name: str) -> object:
    """Return what a dotted name below `fastagi` is.

    :raises AttributeError: there is no such thing
    """
    found: object = importlib.import_module("fastagi")
    path = "fastagi"
    for part in name.split("."):
        path = f"{path}.{part}"
        try:
            found = importlib.import_module(path)
        except ImportError:
            found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_each_name_exists(name: str) -> None:
    """A reader who looks for a name of the page finds it."""
    _look_up(name)


def test_a_wrong_name_is_found() -> None:
    """The check above can fail."""
    assert len(NAMES) > 40
    with pytest.raises(AttributeError):
        _look_up("recording.service.RecordingService.no_such_method")


def test_phases_lead_where_drawn() -> None:
    """The first table is `TABLE`."""
    drawn = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in ROWS[: len(Phase)]}
    assert drawn == {phase.value: {after.value for after in row.values()} for phase, row in TABLE.items()}


def _row(phase: Phase, **changes: object) -> Recording:
    segment = Segment("/spool/1.wav", channel="PJSIP/1", uniqueid="1.1", started_at=1.0)
    row = Recording(
        id="rec-1",
        node="node",
        asterisk="pbx1",
        channel="PJSIP/1",
        uniqueid="1.1",
        name="1",
        file_path="/recordings/1.wav",
        spec=RecordingSpec(),
        pieces=(segment,),
        sinks=("crm",),
        requested_at=1.0,
        phase=phase,
    )
    return row.changed(**changes)


def test_effects_are_what_rows_owe() -> None:
    """The second table is `owed`, for each of the cases that it tells apart."""
    intended = (replace(_row(Phase.ACTIVE).pieces[0], confirmed=False),)
    cases = {
        **{f"`{phase.value}`": _row(phase) for phase in Phase},
        "`active`, last segment not confirmed": _row(Phase.ACTIVE, pieces=intended),
        "`paused` for a set time": _row(Phase.PAUSED, facts={RESUME_AT: 9.0}),
        "`paused`, last segment not confirmed": _row(Phase.PAUSED, pieces=intended),
        "`paused`, started by others": _row(Phase.PAUSED, adopted=True),
        "`finished`, its Asterisk was never reached": _row(Phase.FINISHED, facts={UNREACHED: True}),
    }
    owing = {case: [type(effect).__name__ for effect in owed(row)] for case, row in cases.items()}
    drawn = {row[0]: re.findall(r"`(\w+)`", row[1]) for row in ROWS[len(Phase) :] if row[0] in cases}
    assert drawn == owing
    assert {name for row in drawn.values() for name in row} == set(effects.__dict__) & set(re.findall(r"`(\w+)`", PAGE))


@pytest.mark.parametrize("folder", ["", "recording"])
def test_every_room_is_listed(folder: str) -> None:
    """The lists of floors and rooms have every package of `fastagi`, and every module and package of `recording`."""
    listed = set(re.findall(r"^ {4,6}(.+?)(?: {2,}|$)", PAGE.partition("## Floors and rooms")[2], re.MULTILINE))
    words = {word for line in listed for word in re.findall(r"\w+", line)}
    place = ROOT / "fastagi" / folder
    there = {path.name for path in place.iterdir() if (path / "__init__.py").exists()}
    if folder:
        there |= {path.stem for path in place.glob("*.py")} - {"__init__"}
    assert there - {"testing"} <= words
