"""fastagi.domain.spec: what no recording can be is one line, before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from fastagi.domain.numbers import check_seconds
from fastagi.domain.spec import LONGEST_SECONDS, RecordingSpec, with_defaults
from fastagi.errors import BadArgument

HUGE: Any = pytest.param(10**5000, id="huge")
"""Python refuses to write it out."""


@pytest.mark.parametrize(
    "value", [0, -1, 0.0, float("nan"), float("inf"), 1e300, HUGE, True, False, "5", LONGEST_SECONDS * 2]
)
def test_endless_time_limit_is_refused(value: Any) -> None:
    """No clock can wait so long."""
    with pytest.raises(BadArgument, match="seconds_timeout=") as caught:
        RecordingSpec(seconds_timeout=value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [0.1, 1, 3600, LONGEST_SECONDS, None])
def test_every_other_one_is_taken(value: Any) -> None:
    assert RecordingSpec(seconds_timeout=value).seconds_timeout == value


@pytest.mark.parametrize(("file_format", "least"), [("alaw", 400), ("opus", 4000)])
def test_too_small_size_is_refused(file_format: str, least: int) -> None:
    """A header and a sample of A-law have 59 bytes: that they do not fit would be untrue."""
    with pytest.raises(BadArgument) as caught:
        RecordingSpec(file_format=file_format, max_bytes=least - 1)
    assert str(caught.value) == (
        f"max_bytes={least - 1} leaves no room for sound that could be heard: use {least} or more"
    )
    assert RecordingSpec(file_format=file_format, max_bytes=least).max_bytes == least


@pytest.mark.parametrize(
    "name", ["max_bytes", "milliseconds_max_silence", "milliseconds_initial_silence", "beep_seconds"]
)
def test_limit_is_a_whole_number(name: str) -> None:
    wrong: tuple[Any, ...] = (-1, 1.5, True, None, "1", 2**63, 10**5000)
    for value in wrong:
        with pytest.raises(BadArgument, match=f"{name}=") as caught:
            RecordingSpec(**{name: value})
        assert len(str(caught.value)) < 200
    large: dict[str, Any] = {name: 2**31}
    assert getattr(RecordingSpec(**large), name) == 2**31


@pytest.mark.parametrize("value", [True, 8000.0, "8000", None, 7999, HUGE])
def test_unknown_rate_is_refused(value: Any) -> None:
    with pytest.raises(BadArgument, match="rate=") as caught:
        RecordingSpec(rate=value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("zero", [True, False])
def test_seconds_are_in_range_or_none(zero: bool) -> None:
    for good in (None, 0.5, 1, 60, *([0, 0.0] if zero else [])):
        check_seconds("seconds", good, 60, none="for ever", zero=zero)
    for wrong in (True, False, "1", [], -1, 60.1, float("nan"), float("inf"), 10**5000, *([] if zero else [0, 0.0])):
        with pytest.raises(BadArgument, match=r"^seconds=.* at most 60 seconds, or None for ever$"):
            check_seconds("seconds", wrong, 60, none="for ever", zero=zero)


def test_default_bit_rate_keeps_its_codec() -> None:
    """One call that asks for another codec must not be refused for a bit rate that nobody gave it."""
    defaults = {"file_format": "opus", "bit_rate": 12_000, "dtmf_elim": False}
    assert RecordingSpec(**with_defaults(defaults, {})).bit_rate == 12_000
    assert RecordingSpec(**with_defaults(defaults, {"rate": 8000, "max_bytes": 9000})).bit_rate == 12_000
    for asked in ({"file_format": "alaw"}, {"file_format": "mp3"}, {"rate": 16000}, {"recording_mode": "separate"}):
        assert RecordingSpec(**with_defaults(defaults, asked)).bit_rate == 0
    assert RecordingSpec(**with_defaults(defaults, {"rate": 16000, "bit_rate": 9000})).bit_rate == 9000
    with pytest.raises(BadArgument, match="bit_rate=12000 is nothing that alaw has"):
        RecordingSpec(**with_defaults({}, {"bit_rate": 12_000}))
