"""Facts of a recording: what steers it, what others wrote, and what must not be believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastagi.domain.facts import Facts, Steering
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.states import Cause
from fastagi.store.rows import recording_columns, recording_of, recording_of_copy

STORED: dict[str, Any] = {
    "resume_at": 1700000060.0,
    "salvaged": False,
    "invented_next_year": {"deep": [1, None]},
    "muted": {"sent": [[1.0, 2.0], [3.0, None]]},
    "ended_by": "SIZE",
    "asterisk_unreached": True,
    "disk_full": True,
    "as_recorded": True,
    "bridged_seconds": None,
}


def recording(facts: Any) -> Recording:
    return Recording("rec-1", "n", "pbx", "SIP/a", "1.1", "x", "/x.wav", facts=facts)


def test_unknown_facts_are_kept() -> None:
    """What another version wrote goes through a row, in its order, and into the payload."""
    row = json.loads(json.dumps(recording_columns(recording(STORED))))
    again = recording_of(row).changed(error="x")
    assert json.dumps(recording_columns(again)["facts"]) == json.dumps(STORED)
    extra = again.metadata().extra
    assert list(extra)[-len(STORED) :] == list(STORED)
    assert json.loads(again.metadata().to_json())["extra"]["invented_next_year"] == {"deep": [1, None]}


def test_steering_is_read() -> None:
    assert Facts(STORED).steering == Steering(1700000060.0, True, Cause.SIZE, True, True)


def test_absent_facts_have_defaults() -> None:
    """An older version wrote none of them."""
    facts = Facts()
    assert facts.steering == Steering(None, False, None, False, False)
    assert (facts.resume_at, facts.muted, facts.members, facts.member_numbers) == (None, {}, [], [])
    assert (facts.talked_with, facts.file_format, facts.silent, facts.one_sided) == ([], "", False, False)
    assert (facts.bridge_noted, facts.bridged_seconds) == (False, None)
    assert Facts(STORED).bridge_noted


def test_facts_never_change() -> None:
    """A recording before a decision is not touched by the one after it."""
    facts = Facts(STORED)
    more = facts.without("resume_at").merged({"digits": 2}).with_muted("sent", []).with_lost(1.0, 2.0)
    facts.muted["sent"].append([9.0, None])
    assert facts == STORED
    assert "muted" not in more
    assert (more["digits"], more["lost"]) == (2, [[1.0, 2.0]])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resume_at", "soon"),
        ("resume_at", True),
        ("ended_by", "WHIM"),
        ("muted", 5),
        ("muted", {"sent": [[1.0]]}),
        ("muted", {"sent": 7}),
        ("lost", [["a", "b"]]),
        ("members", [["1.1", None, None]]),
        ("members", [5]),
        ("member_numbers", "4711"),
        ("talked_with", [None]),
        ("disk_full", "yes"),
        ("bridged_seconds", []),
    ],
)
def test_wrong_kind_is_refused(name: str, value: Any) -> None:
    """A copy outside of the ledger that says such a thing is set aside: the task that would read it would die of it."""
    copy = json.loads(json.dumps(recording_columns(recording({**STORED, name: value}))))
    with pytest.raises(ValueError, match=name):
        recording_of_copy(copy)


@pytest.mark.parametrize("facts", [None, [], "facts", 3])
def test_facts_must_be_mapping(facts: Any) -> None:
    with pytest.raises(ValueError, match="no mapping"):
        Facts.checked(facts)


def test_right_kinds_are_taken() -> None:
    """Whatever a version has written so far is of the right kind."""
    more = {
        "salvaged": True,
        "silent": False,
        "one_sided": True,
        "clipped": 3,
        "limited": True,
        "level": {},
        "legs": {},
        "dtmf": {"removed": 2, "spans": [[1.0, 2.0]]},
        "gaps": [[1.0, 2.5]],
        "warnings": ["w"],
        "orphan": True,
        "lost": [[0.0, 1.0]],
        "members": [["1.1", 10.0, None]],
        "member_numbers": ["4711"],
        "renamed": True,
        "talked_with": ["SIP/a"],
        "spool_full": True,
        "file_format": "gsm",
        "bridged_seconds": 2.5,
    }
    assert Facts.checked({**STORED, **more}) == {**STORED, **more}


def test_row_of_newer_version_reads() -> None:
    """Who goes back to the version before still lists and finishes what the newer one has recorded."""
    row = json.loads(json.dumps(recording_columns(recording({}).changed(pieces=(Segment("/r.wav", reason="move"),)))))
    row["spec"]["smell"] = "roses"
    row["pieces"][0]["weather"] = "fair"
    row["mood"] = "good"
    assert recording_of(row).pieces == (Segment("/r.wav", reason="move"),)


def test_row_of_older_version_reads() -> None:
    """What an older version did not write has its default."""
    row = json.loads(json.dumps(recording_columns(recording({}).changed(pieces=(Segment("/r.wav"),)))))
    del row["spec"]["bit_rate"], row["pieces"][0]["seen"], row["pieces"][0]["lost"]
    assert recording_of(row) == recording({}).changed(pieces=(Segment("/r.wav"),))
