"""Arguments of the AGI routes: text in, typed parameters out, or one line that says what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastagi.domain.spec import RecordingSpec
from fastagi.errors import BadArgument
from fastagi.handlers.arguments import CALL_KEYS, flag, number, options, seconds


def test_every_parameter_comes_in_its_type() -> None:
    given = {
        "filename": "x", "file_format": "ulaw", "rate": "6000", "seconds_timeout": "1.5", "max_bytes": "5000",
        "milliseconds_max_silence": "10", "milliseconds_initial_silence": "20", "dtmf_elim": "no",
        "recording_mode": "mixed", "engine": "monitor", "pause_mode": "cut", "beep_seconds": "15", "beep_start": "on",
        "bit_rate": "0",
        "beep_stop": "FALSE", "follow": "off", "mid_call": "yes", "sink": "crm", "recorder": "two", "asterisk": "pbx1",
    }  # fmt: skip
    typed = options(given)
    assert typed == {
        "file_format": "ulaw", "rate": 6000, "seconds_timeout": 1.5, "max_bytes": 5000, "milliseconds_max_silence": 10,
        "milliseconds_initial_silence": 20, "dtmf_elim": False, "recording_mode": "mixed", "engine": "monitor",
        "pause_mode": "cut", "beep_seconds": 15, "beep_start": True, "beep_stop": False, "follow": False,
        "bit_rate": 0,
    }  # fmt: skip
    assert set(given) == {*typed, *CALL_KEYS}
    assert {*typed} == {n for n in RecordingSpec.__dataclass_fields__ if n != "encryption"}
    RecordingSpec(**typed)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"filname": "x"}, "filname is no argument here: there are filename, "),
        ({"encryption": "aes"}, "encryption is no argument"),
        ({"max_bytes": "many"}, "max_bytes='many' must be a number"),
        ({"max_bytes": ""}, "max_bytes='' must be a number"),
        ({"rate": "8k"}, "rate='8k' must be a number"),
        ({"dtmf_elim": "perhaps"}, "dtmf_elim='perhaps' must be yes or no"),
        ({"seconds_timeout": "soon"}, "seconds_timeout='soon' must be a number"),
        ({"seconds": "3"}, "seconds is no argument"),
    ],
)
def test_what_is_wrong_is_said(params: dict[str, str], text: str) -> None:
    with pytest.raises(BadArgument) as info:
        options(params)
    assert str(info.value).startswith(text)


def test_further_names_may_be_allowed() -> None:
    assert options({"seconds": "x"}, ("seconds",)) == {}


@pytest.mark.parametrize(("text", "value"), [(None, None), ("", None), ("None", None), ("3", 3), ("0.5", 0.5)])
def test_seconds(text: str | None, value: Any) -> None:
    assert seconds("seconds_timeout", text) == value


def test_numbers_and_flags() -> None:
    assert [number("n", t) for t in ("7", " 7 ", "-7", "+7", "7.0")] == [7, 7, -7, 7, 7.0]
    assert [flag("f", t) for t in ("yes", "On", "1", " true ", "no", "OFF", "0", "false")] == [True] * 4 + [False] * 4


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from([*RecordingSpec.__dataclass_fields__, "x"]), st.text(max_size=40)))
def test_whatever_a_dialplan_writes_it_is_a_spec_or_one_line(params: dict[str, str]) -> None:
    fault = "-"
    try:
        RecordingSpec(**options(params))
    except BadArgument as exc:
        fault = str(exc)
    assert fault
    assert "\n" not in fault
