"""What is in deploy/ fits the program: settings are known, metrics are the ones it has."""

from __future__ import annotations

import asyncio
import configparser
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fastagi import settings
from support.metric_names import names_of

DEPLOY = Path(__file__).parents[3] / "deploy"


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What a server that runs really has."""
    return asyncio.run(names_of(tmp_path_factory.mktemp("metrics")))


def metrics_in(text: str) -> set[str]:
    return {name.removesuffix("_bucket") for name in re.findall(r"\bfastagi_\w+", text)}


def test_the_example_settings_are_accepted() -> None:
    loaded = settings.load(DEPLOY / "fastagi.toml", environ={})
    assert loaded.asterisk[0].name == "pbx1"
    assert loaded.agi.port == 4573


def test_the_compose_files_variables_are_settings() -> None:
    """Every FASTAGI_ variable of compose.yaml, read as the server reads it."""
    pairs = re.findall(r"^\s+(FASTAGI_\w+): (.+)$", (DEPLOY / "compose.yaml").read_text(), re.MULTILINE)
    variables = {key: re.sub(r"\$\{[^}]*\}", "x", value).strip("'\"") for key, value in pairs}
    loaded = settings.load(None, environ=variables)
    assert "172.16.0.0/12" in loaded.agi.allow
    assert loaded.store.url.startswith("postgresql://")
    assert loaded.asterisk[0].secret_file is not None


def test_alerts_use_existing_metrics(metrics: set[str]) -> None:
    rules = (DEPLOY / "prometheus-alerts.yaml").read_text()
    expressions = re.findall(r"expr:(?: >-\n)?(.*?)\n\s+(?:for|labels):", rules, re.DOTALL)
    assert len(expressions) == rules.count("- alert:")
    asked = set().union(*map(metrics_in, expressions))
    assert asked
    assert asked <= metrics


def test_dashboard_shows_every_metric(metrics: set[str]) -> None:
    board: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert metrics_in(" ".join(expressions)) == metrics
    assert all(e.count("(") == e.count(")") and e.count("{") == e.count("}") for e in expressions)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    places = [
        (panel["gridPos"]["x"] + dx, panel["gridPos"]["y"])
        for panel in board["panels"]
        for dx in range(panel["gridPos"]["w"])
    ]
    assert len(places) == len(set(places)), "two panels overlap"


def test_unit_is_hardened() -> None:
    """The unit names the folders of the settings."""
    unit = configparser.RawConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign,assignment]
    unit.read(DEPLOY / "fastagi.service")
    service = unit["Service"]
    loaded = settings.load(DEPLOY / "fastagi.toml", environ={})
    assert str(loaded.recordings.directory) in service["ReadWritePaths"]
    assert str(loaded.asterisk[0].spool) in service["ReadWritePaths"]
    for key in ("NoNewPrivileges", "ProtectHome", "PrivateDevices", "RestrictNamespaces"):
        assert service[key] == "yes"
