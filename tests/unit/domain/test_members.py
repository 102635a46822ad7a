"""Who was in a recorded conference, and when."""

from __future__ import annotations

from fastagi.domain.facts import Facts
from fastagi.domain.members import MOST_MEMBERS, MOST_SPANS, Members, spans_of


def test_members_come_and_go() -> None:
    members = Members(Facts())
    assert (bool(members), members.facts()) == (False, {})
    assert members.joined("1.1", "4711", 10.0)
    assert not members.joined("1.1", "4711", 11.0), "there already"
    assert members.joined("1.2", "", 12.0)
    assert members.left("1.1", 20.0)
    assert not members.left("1.1", 21.0)
    assert members.joined("1.1", "4711", 30.0)
    assert members.there == ["1.2", "1.1"]
    facts = members.facts()
    assert facts["member_numbers"] == ["4711"]
    assert spans_of(Facts(facts), "1.1") == [(10.0, 20.0), (30.0, None)]
    assert spans_of(Facts(facts), "1.3") == spans_of(Facts(), "1.1") == []


def test_members_survive_in_facts() -> None:
    """A restarted server goes on with what the row says."""
    members = Members(Facts())
    members.joined("1.1", "4711", 10.0)
    again = Members(Facts(members.facts()))
    assert again.there == ["1.1"]
    assert again.left("1.1", 9.0), "a clock that was set gives no negative span"
    assert spans_of(Facts(again.facts()), "1.1") == [(10.0, 10.0)]


def test_members_have_a_limit() -> None:
    members = Members(Facts())
    assert all(members.joined(f"1.{n}", str(n), 1.0) for n in range(MOST_MEMBERS))
    assert not members.joined("2.1", "99", 1.0)
    for number in range(2 * MOST_SPANS):
        members.left("1.1", float(number))
        members.joined("1.1", "1", float(number))
    assert len(members.facts()["members"]) == MOST_SPANS
