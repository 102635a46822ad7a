"""Ids, times and numbers as text."""

from __future__ import annotations

import pytest

from fastagi.domain.asterisk_versions import MAJORS, too_old
from fastagi.domain.ids import new_id
from fastagi.domain.metadata import RecordingMetadata
from fastagi.domain.numbers import LARGEST, check_seconds, shown
from fastagi.domain.timestamps import rfc3339
from fastagi.errors import BadArgument


def decoded(text: str) -> int:
    """The number that an id's letters stand for."""
    value = 0
    for letter in text:
        value = value * 32 + "0123456789abcdefghjkmnpqrstvwxyz".index(letter)
    return value


def test_id_holds_time_and_noise() -> None:
    noise = bytes(range(246, 256))
    made = new_id("rec", 1_800_000_000.5, noise + b"more")
    assert (made[:4], len(made)) == ("rec-", 30)
    assert decoded(made[4:]) == 1_800_000_000_500 << 80 | int.from_bytes(noise, "big")
    assert new_id("rec", 0, bytes(10)) == "rec-" + "0" * 26
    assert decoded(new_id("x", 2.0**48 / 1000 + 1, bytes(10))[2:]) == 1000 << 80, "48 bits of time"


def test_ids_sort_by_time() -> None:
    assert new_id("rec", 1.001, b"\xff" * 10) < new_id("rec", 1.002, b"\0" * 10)


def test_times_are_utc() -> None:
    assert rfc3339(1_800_000_000.1234) == "2027-01-15T08:00:00.123Z"
    assert rfc3339(None) is None


def test_body_has_the_seeds_order() -> None:
    metadata = RecordingMetadata("1.1", "näme", extra={"a": 1})
    assert metadata.to_json() == (
        b'{"session_id":"1.1","name":"n\\u00e4me","file_path":"","duration_seconds":null,"format":"wav",'
        b'"extra":{"a":1}}'
    )


@pytest.mark.parametrize("value", [1, 0.5, 10, None])
def test_seconds_that_are_good(value: float | None) -> None:
    check_seconds("seconds", value, 10, none="for ever")


@pytest.mark.parametrize("value", [0, -1, 11, 10.1, True, "1", float("nan")])
def test_seconds_that_are_refused(value: object) -> None:
    with pytest.raises(BadArgument, match="must be more than 0 and at most 10 seconds, or None for ever"):
        check_seconds("seconds", value, 10, none="for ever")


def test_zero_seconds_where_told() -> None:
    check_seconds("seconds", 0, 10, none="x", zero=True)
    with pytest.raises(BadArgument, match="0 or more"):
        check_seconds("seconds", -1, 10, none="x", zero=True)


def test_long_numbers_are_not_shown() -> None:
    assert LARGEST == 9_007_199_254_740_992
    assert shown(LARGEST) == "9007199254740992"
    assert shown(LARGEST + 1) == "(more than 9007199254740992)"
    assert shown(-(10**5000)) == "-(more than 9007199254740992)"
    assert len(shown("x" * 500)) == 100


@pytest.mark.parametrize(
    ("version", "old"),
    [((15, 99), True), ((16, 16), True), ((16, 17), False), ((18, 2), True), ((18, 3), False), ((19, 0), False)],
)
def test_versions_without_events(version: tuple[int, int], old: bool) -> None:
    assert too_old(*version) is old


def test_majors_that_work() -> None:
    assert (MAJORS[0], MAJORS[-1]) == (16, 22)
