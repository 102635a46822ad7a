"""Wrong settings from an operator's file: one line that names the key, the value and what is allowed; never a guess."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastagi.delivery.registry import registry_of
from fastagi.errors import ConfigError
from fastagi.settings import load

TOKEN = "0123456789abcdefg"


def fault(tmp_path: Path, text: str) -> str:
    """The one line that an operator reads."""
    path = tmp_path / "fastagi.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        registry_of(load(path, {}).sinks)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f'[http]\ntokens = [{{name = "a", token = "{TOKEN}", role = "boss"}}]',
            ["http.tokens[0].role = 'boss'", "operator"],
        ),
        ("[agi]\nport = true", ["agi.port = True", "number"]),
        ("[recordings]\nretention_days = true", ["recordings.retention_days = True", "number"]),
        ("[recordings]\nstalled_seconds = true", ["recordings.stalled_seconds = True", "number"]),
        ('[[asterisk]]\nusername = "a\\r\\nAction: Logoff"\nsecret = "s"', ["asterisk[0].username", "control"]),
        ('[[sinks]]\nname = "crm"\ntype = "webhook"\nurl = "ftp://x"', ["sinks[crm]", "url", "'ftp://x'", "https://"]),
        ('[[sinks]]\nname = "a"\ntype = "objectstore"\nurl = "ftp://x/y"', ["sinks[a]", "url", "'ftp://x/y'", "s3://"]),
    ],
    ids=["role", "port", "days", "seconds", "username", "webhook", "objectstore"],
)
def test_a_wrong_value_is_named_with_its_key_and_what_is_allowed(tmp_path: Path, text: str, words: list[str]) -> None:
    line = fault(tmp_path, text)
    assert [word for word in words if word not in line] == [], line


def test_a_secret_that_would_be_a_second_ami_header_is_refused_and_not_shown(tmp_path: Path) -> None:
    line = fault(tmp_path, '[[asterisk]]\nsecret = "hushhush\\r\\nAction: Logoff"')
    assert "asterisk[0].secret" in line
    assert "control" in line
    assert "hush" not in line


def test_a_token_that_is_no_table_is_not_shown(tmp_path: Path) -> None:
    line = fault(tmp_path, f'[http]\ntokens = ["{TOKEN}"]')
    assert "http.tokens[0]" in line
    assert TOKEN not in line


def test_a_token_that_is_there_twice_would_have_two_roles(tmp_path: Path) -> None:
    one = f'{{name = "a", token = "{TOKEN}", role = "viewer"}}'
    other = f'{{name = "b", token = "{TOKEN}", role = "admin"}}'
    line = fault(tmp_path, f"[http]\ntokens = [{one}, {other}]")
    assert "http.tokens" in line
    assert "'a'" in line
    assert "'b'" in line
    assert TOKEN not in line


def test_a_wrong_url_is_shown_without_the_password_in_it(tmp_path: Path) -> None:
    line = fault(tmp_path, '[[sinks]]\nname = "crm"\ntype = "webhook"\nurl = "ftp://me:hush@x/?token=hush"')
    assert "ftp://" in line
    assert "hush" not in line


def test_numbers_and_switches_from_the_environment_are_still_words(tmp_path: Path) -> None:
    settings = load(None, {"FASTAGI_AGI__PORT": "4574", "FASTAGI_RECORDINGS__ADOPT": "true"})
    assert (settings.agi.port, settings.recordings.adopt) == (4574, True)


def test_a_fault_of_a_variable_names_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "fastagi.toml"
    file.write_text("[agi]\nport = 1\n[[asterisk]]\nport = 0\n")
    with pytest.raises(ConfigError) as caught:
        load(file, {"FASTAGI_AGI__PROT": "2", "FASTAGI_ASTERISK__0__TLS": "perhaps", "FASTAGI_CONFIG": "x"})
    lines = sorted(str(caught.value).splitlines())
    assert [line.partition(": ")[0] for line in lines] == [str(file), "FASTAGI_AGI__PROT", "FASTAGI_ASTERISK__0__TLS"]
    assert lines[1].startswith("FASTAGI_AGI__PROT: agi.prot: there is no such key")
