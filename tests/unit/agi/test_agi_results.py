"""What results say beyond their number."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fastagi.agi.replies import Heard, Recognition, character, number
from fastagi.errors import Error


def reply(**fields: str) -> Any:
    return SimpleNamespace(fields=fields, data="speech", endpos=8000)


def test_guesses_of_the_engine() -> None:
    found = Recognition.of(
        reply(results="2", score0="900", text0="yes", grammar0="g", score1="", text1="no", digit="5")
    )
    assert found == Recognition("speech", "5", 8000, (Heard(900, "yes", "g"), Heard(0, "no", "")))
    assert Recognition.of(reply()) == Recognition("speech", "", 8000, ())
    assert Recognition.of(reply(results="x")).results == ()
    assert Recognition.of(reply(results="1")).results == (Heard(0, "", ""),)
    assert len(Recognition.of(reply(results="5000")).results) == 100


def test_characters_and_numbers() -> None:
    assert (character("35"), character("0"), character("-1"), character(str(0x110000))) == ("#", "", "", "")
    assert character("1") == "\x01"
    assert number("-1") == -1
    with pytest.raises(Error, match="where a number belongs"):
        number("x")
