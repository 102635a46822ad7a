"""The guide's tables of formats are those of `fastagi.domain.formats`."""

from __future__ import annotations

import re

import pytest

from fastagi.domain.formats import FORMATS, MIN_BYTES, Format
from support.document_snippets import ROOT

GUIDE = (ROOT / "docs/guide/formats-and-limits.md").read_text()
README = (ROOT / "README.md").read_text()


def rows(title: str) -> list[list[str]]:
    """Return the cells below the table head that begins with `title`."""
    table = GUIDE[GUIDE.index(title) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def row_of(form: Format, title: str) -> list[str]:
    (found,) = (row for row in rows(title) if f"`{form.name}`" in row[0])
    return found


@pytest.mark.parametrize("form", FORMATS.values(), ids=lambda form: form.name)
def test_guide_shows_format(form: Format) -> None:
    _, content, rates, two_channels = row_of(form, "| `file_format` |")
    assert content == form.content
    shown = rates if rates != "the same" else rows("| `file_format` |")[0][2]
    assert shown == ", ".join(map(str, sorted(form.rates)))
    assert two_channels == ("yes" if form.channels == 2 else "no")
    assert f"`{form.name}`" in README


@pytest.mark.parametrize("form", [f for f in FORMATS.values() if f.bit_rates], ids=lambda form: form.name)
def test_guide_shows_bit_rates(form: Format) -> None:
    _, narrow, wide, possible = row_of(form, "| | usual at 8000")
    assert [int(narrow), int(wide)] == [form.bit_rates[rate].usual for rate in (8000, 16000)]
    limits = {r.least for r in form.bit_rates.values()} | {r.most for r in form.bit_rates.values()}
    assert {str(limit) for limit in limits} <= {*re.findall(r"\d+", possible)}


def test_guide_shows_least_bytes() -> None:
    (row,) = (row for row in rows("| limit |") if row[0] == "`max_bytes`")
    assert f"{MIN_BYTES} or more (" in row[2]
    for least in {f.least_bytes for f in FORMATS.values()} - {MIN_BYTES}:
        names = ", ".join(f.name for f in FORMATS.values() if f.least_bytes == least)
        assert f"{names}: {least};" in row[2]
