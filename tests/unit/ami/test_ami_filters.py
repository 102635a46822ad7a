"""Wanted names as filters that Asterisk takes."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastagi.ami.backoff import Backoff
from fastagi.ami.filters import LONGEST, expression, filters, matcher
from fastagi.errors import BadArgument


def as_python(text: str) -> re.Pattern[str]:
    """POSIX classes as Python knows them, to try a filter without Asterisk."""
    return re.compile(text.replace("[^[:space:]]", r"[^\s]").replace("[[:space:]]", r"[\s]"))


def passes(patterns: list[str], name: str) -> bool:
    return any(as_python(f).search(f"Event: {name}\r\nPrivilege: call,all\r\n") for f in filters(patterns))


def test_a_name_passes_itself_only() -> None:
    assert passes(["Hangup"], "Hangup")
    assert not passes(["Hangup"], "HangupRequest")
    assert not passes(["Hangup"], "SoftHangup")


def test_value_cannot_match_as_name() -> None:
    (text,) = filters(["Hangup"])
    assert not as_python(text).search("Event: VarSet\r\nValue: Event: Hangup\r\n")


NAMES = ["Hangup", "HangupRequest", "QueueMemberAdded", "QueueParams", "MixMonitorStart", "Newchannel", "A-b_1"]


@settings(max_examples=300, deadline=None)
@given(
    st.text("HangupQue*?_-", min_size=1, max_size=8)
    | st.sampled_from(["Queue*", "*Start", "M?x*", "[HN]*", "[!H]*", "Han[g-h]up", "*", "A-b_1"])
)
def test_a_filter_passes_what_panoramisk_matches(pattern: str) -> None:
    for name in NAMES:
        assert passes([pattern], name) == bool(re.match(fnmatch.translate(pattern), name)), (pattern, name)
        assert bool(matcher(pattern).match(name)) == passes([pattern], name)


@pytest.mark.parametrize("bad", ["", "a b", "a\r\nb", "a|b", "(a", "a.c", "[a", "[a/b]", "ä", "a\\b", "a]"])
def test_bad_event_name_is_refused(bad: str) -> None:
    with pytest.raises(BadArgument):
        expression(bad)


def test_many_names_need_few_filters() -> None:
    names = [f"Event{i:04d}" for i in range(1000)]
    made = filters(names)
    assert all(len(f) <= LONGEST for f in made)
    assert len(made) < 15
    assert all(any(as_python(f).search(f"Event: {n}\r\n") for f in made) for n in names[::50])


def test_no_names_no_filters() -> None:
    assert filters([]) == []


def test_a_pattern_too_long_is_refused() -> None:
    with pytest.raises(BadArgument):
        filters(["x" * LONGEST])


def test_backoff_stays_between_its_bounds() -> None:
    backoff = Backoff(0.5, 30.0)
    assert [backoff.delay(n, 0.0) for n in (1, 5, 100)] == [0.5, 0.5, 0.5]
    longest = [backoff.delay(n, 1.0) for n in (1, 2, 3, 4, 5, 6, 7, 1000)]
    assert longest == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert 0.5 < backoff.delay(3, 0.5) < 4.0
