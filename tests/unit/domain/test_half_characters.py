"""Text with half of a surrogate pair: no file system, database or JSON reader takes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastagi.domain.naming import wanted_name, well_formed
from fastagi.errors import BadArgument


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("plain", "plain"), ("né", "né"), ("a\ud800b", "a\ufffdb"), ("\udcff", "\ufffd"), ("\udcc3\udca9", "é")],
)
def test_well_formed_can_be_written(text: str, wanted: str) -> None:
    assert well_formed(text) == wanted


@given(st.text(st.characters(categories=["Cs", "Ll", "Po"])))
def test_well_formed_never_raises(text: str) -> None:
    well_formed(text).encode()


@pytest.mark.parametrize("name", ["\ud800", "calls/\ud83dx"])
def test_half_characters_name_no_file(name: str) -> None:
    """It was a UnicodeEncodeError, which HTTP answered with 500."""
    with pytest.raises(BadArgument, match="half of a surrogate pair"):
        wanted_name(name)


def test_latin_1_from_a_dialplan_passes() -> None:
    assert wanted_name("Jos\udce9") == "Jos\ufffd"
