"""README and guide say what the code does: the diagram is the table, every setting is listed as it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from fastagi.delivery.registry import _TYPES as SINK_TYPES
from fastagi.domain.states import TABLE
from fastagi.settings import Settings

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()


def test_the_diagram_is_the_table() -> None:
    drawn = set(re.findall(r"^    (\w+) --> (\w+): (\w+)$", README, re.MULTILINE))
    assert drawn == {(a.value, b.value, e.value) for a, row in TABLE.items() for e, b in row.items()}


def test_every_link_leads_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def sections() -> list[tuple[str, type[BaseModel]]]:
    found = []
    for name, field in Settings.model_fields.items():
        inner = get_args(field.annotation)
        model = inner[0] if inner else field.annotation
        assert isinstance(model, type)
        found.append((f"[[{name}]]" if inner else f"[{name}]", model))
        for sub, subfield in model.model_fields.items():
            deeper = get_args(subfield.annotation)
            if deeper and isinstance(deeper[0], type) and issubclass(deeper[0], BaseModel):
                found.append((f"[[{name}.{sub}]]", deeper[0]))
    return found + [(f"[[sinks]] type = {kind}", options) for kind, (options, _) in SINK_TYPES.items()]


@pytest.mark.parametrize(("title", "model"), sections(), ids=lambda x: x if isinstance(x, str) else "")
def test_every_setting_is_in_the_guide(title: str, model: type[BaseModel]) -> None:
    guide = (ROOT / "docs/guide/settings.md").read_text()
    assert f"## `{title}`" in guide
    section = guide.partition(f"## `{title}`")[2].partition("\n## ")[0]
    for name, field in model.model_fields.items():
        key = field.alias or name
        assert f"| `{key}` |" in section, f"{title} {key} is not in the guide"
        assert (field.description or "?") in section, f"{title} {key}: the guide says something else"
