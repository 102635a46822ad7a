"""What pyproject.toml asks users to install is used, and by the package itself."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]


def imported() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "fastagi").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


def run_time_dependencies() -> list[str]:
    """What a whole installation needs, as pyproject.toml says it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(item for name in ("postgres", "objectstore", "age") for item in extras[name])]


@pytest.mark.slow
def test_every_dependency_is_imported() -> None:
    names = {Requirement(item).name.lower() for item in run_time_dependencies()}
    owners = packages_distributions()
    used = {owner.lower().replace("_", "-") for module in imported() for owner in owners.get(module, ())}
    assert names - used == set()


def test_the_lock_pins_every_dependency() -> None:
    """The container installs `deploy/requirements.lock`: `make lock` writes it anew where this fails."""
    text = (ROOT / "deploy" / "requirements.lock").read_text()
    pinned = {
        found["name"]: found for found in re.finditer(r"^(?P<name>[\w-]+)==(?P<version>\S+)(?P<rest>.*)$", text, re.M)
    }
    assert all(found["rest"] == " \\" for found in pinned.values()), "a version without a hash"
    assert text.count("--hash=sha256:") >= len(pinned)
    assert "://" not in text, "an index is the machine's to say"
    for item in map(Requirement, run_time_dependencies()):
        version = pinned[canonicalize_name(item.name)]["version"]
        assert item.specifier.contains(version), f"{item} is pinned at {version}"
