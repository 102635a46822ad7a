"""What pyproject.toml asks users to install is used, and by the package itself."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

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


def test_every_dependency_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(item for name in ("postgres", "objectstore", "age") for item in extras[name])]
    names = {re.split(r"[<>=\[ ;]", item)[0].lower() for item in wanted}
    owners = packages_distributions()
    used = {owner.lower().replace("_", "-") for module in imported() for owner in owners.get(module, ())}
    assert names - used == set()
