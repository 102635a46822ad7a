"""`fastagi secret`: made new each time, for every Standard Webhooks library."""

from __future__ import annotations

import base64
import json

from typer.testing import CliRunner

from fastagi.cli import cli


def test_a_secret_is_made_anew() -> None:
    """It holds 32 random bytes."""
    texts = [CliRunner().invoke(cli, ["secret"]).stdout for _ in range(2)]
    texts.append(json.loads(CliRunner().invoke(cli, ["secret", "--json"]).stdout)["secret"] + "\n")
    assert len(set(texts)) == 3
    for text in texts:
        assert text.startswith("whsec_")
        assert text.endswith("\n")
        assert len(base64.b64decode(text.strip().removeprefix("whsec_"), validate=True)) == 32
