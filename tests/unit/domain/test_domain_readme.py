"""README and guide say what the code does: the diagram is the table, every setting is listed as it is."""

from __future__ import annotations

import re
import textwrap
import tomllib
from pathlib import Path

from fastagi.delivery.registry import registry_of
from fastagi.domain.states import TABLE
from fastagi.errors import ConfigError
from fastagi.settings import load
from support import settings_guide

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()


def test_the_diagram_is_the_table() -> None:
    drawn = set(re.findall(r"^    (\w+) --> (\w+): (\w+)$", README, re.MULTILINE))
    assert drawn == {(a.value, b.value, e.value) for a, row in TABLE.items() for e, b in row.items()}


def test_every_link_leads_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_wheel_has_dialplan_and_guide() -> None:
    """`pip install` brings PREFIX/share/fastagi, in which every link of README and guide leads somewhere."""
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    there = {file for patterns in shipped.values() for pattern in patterns for file in ROOT.glob(pattern)}
    for folder, patterns in shipped.items():
        for file in (file for pattern in patterns for file in ROOT.glob(pattern)):
            assert Path("share/fastagi") / file.parent.relative_to(ROOT) == Path(folder)
    for page in (file for file in there if file.suffix == ".md"):
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            wanted = (page.parent / target).resolve()
            assert "://" in target or wanted in there or any(wanted in file.parents for file in there), target


def test_shown_settings_can_be_copied(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    shown = [
        (page, block)
        for page in [ROOT / "README.md", *(ROOT / "docs" / "guide").glob("*.md")]
        for block in re.findall(r"^ *```toml\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]
    assert len(shown) > 5
    for page, block in shown:
        file = tmp_path / "fastagi.toml"
        file.write_text(re.sub(r"/etc/fastagi/[\w-]+-secret", str(secret), textwrap.dedent(block)))
        try:
            registry_of(load(file, {}).sinks)
        except ConfigError as exc:
            raise AssertionError(f"{page.name}: {exc}") from exc


def test_the_guide_lists_every_setting() -> None:
    assert (ROOT / "docs/guide/settings.md").read_text() == settings_guide.page(), "run tests/support/settings_guide.py"
    assert all(field.description for _, model in settings_guide.sections() for field in model.model_fields.values())
