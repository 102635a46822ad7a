"""The key of an AGI line: taken out of everything that is shown, compared, and held to what a URL can hold."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastagi.agi.channel import Channel
from fastagi.errors import ConfigError
from fastagi.settings import load

KEY = "0123456789abcdef"


def channel_of(query: str, **more: str) -> Channel:
    env = {"agi_network_script": f"record/start{query}", "agi_request": f"agi://127.0.0.1:4573/record/start{query}"}
    return Channel(cast(Any, SimpleNamespace(env={**env, **more})))


@pytest.mark.parametrize(
    ("query", "right", "left"),
    [
        (f"?key={KEY}", True, ""),
        (f"?a=1&key={KEY}&b=2", True, "?a=1&b=2"),
        (f"?%6bey=%30{KEY[1:]}", True, ""),
        (f"?key=wrong&key={KEY}", True, ""),
        (f"?key={KEY}x", False, ""),
        ("?key=", False, ""),
        ("?key=%ff", False, ""),
        ("?monkey=1", False, "?monkey=1"),
        ("?", False, "?"),
        ("", False, ""),
    ],
)
def test_key_leaves_no_trace(query: str, right: bool, left: str) -> None:
    call = channel_of(query)
    assert call.has_key(KEY) is right
    assert call.has_key("")
    assert call.env["agi_network_script"] == f"record/start{left}"
    assert call.env["agi_request"] == f"agi://127.0.0.1:4573/record/start{left}"
    assert "key" not in call.params
    assert KEY not in f"{call.env} {call.params} {call.args} {call!r}"


def test_key_argument_is_no_key() -> None:
    """Arguments are parameters: they get into logs and file names."""
    assert not channel_of("", agi_arg_1=f"key={KEY}").has_key(KEY)


@pytest.mark.parametrize("key", ["short", "0123456789abcde", "with,comma,0123456789", "with&and=0123456789", "x" * 257])
def test_unfit_keys_are_refused_unseen(key: str, tmp_path: Path) -> None:
    for environ in ({"FASTAGI_AGI__KEY": key}, {"FASTAGI_AGI__KEY_FILE": str(tmp_path / "key")}):
        (tmp_path / "key").write_text(key + "\n")
        with pytest.raises(ConfigError, match="must be 16 to 256 letters") as caught:
            load(None, environ).agi.shared_key()
        assert key not in str(caught.value)


def test_key_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    assert load(None, {"FASTAGI_AGI__KEY_FILE": str(tmp_path / "key")}).agi.shared_key() == KEY
    assert load(None, {}).agi.shared_key() == ""
    with pytest.raises(ConfigError, match=r"agi\.key_file"):
        load(None, {"FASTAGI_AGI__KEY_FILE": str(tmp_path / "none")}).agi.shared_key()
    with pytest.raises(ConfigError, match="has both key and key_file"):
        load(None, {"FASTAGI_AGI__KEY": KEY, "FASTAGI_AGI__KEY_FILE": str(tmp_path / "key")})
