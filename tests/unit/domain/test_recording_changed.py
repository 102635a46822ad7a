"""A recording with other values is what `dataclasses.replace` makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fastagi.domain.recording import Recording, Segment, Span
from fastagi.domain.states import Cause, Phase

BEFORE = Recording(
    "rec-1", "n", "pbx", "SIP/a", "1.1", "x", "/x.wav", pieces=(Segment("/r.wav"),), ended_at=7.0, facts={"a": 1}
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"id": "rec-2"},
        {"facts": {}, "ended_at": None, "error": ""},
        {"phase": Phase.PAUSED, "cause": Cause.SILENCE, "pauses": (Span(1.0),), "started_at": 0.0},
    ],
)
def test_it_is_what_replace_makes(changes: dict[str, object]) -> None:
    assert BEFORE.changed(**changes) == replace(BEFORE, **changes)  # type: ignore[arg-type]
    assert BEFORE.facts == {"a": 1}


def test_every_field_is_kept() -> None:
    values: dict[str, object] = {name: f"value of {name}" for name in Recording.__dataclass_fields__}
    full = Recording(**values | {"facts": {"a": 1}})  # type: ignore[arg-type]
    assert full.changed() == full
    for name in Recording.__dataclass_fields__:
        assert full.changed(**{name: None}) == replace(full, **{name: None})


def test_a_field_that_there_is_not() -> None:
    with pytest.raises(TypeError, match="colour"):
        BEFORE.changed(colour="red", error="x")
