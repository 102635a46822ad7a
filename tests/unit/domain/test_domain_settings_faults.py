"""Wrong settings from an operator's file: one line that names the key, the value and what is allowed; never a guess."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastagi.delivery.registry import registry_of
from fastagi.errors import ConfigError
from fastagi.settings import load

TOKEN = "0123456789abcdefg"

COMMAND_VARIABLES = [
    f"FASTAGI_{name}"
    for name in (
        *("RECORDING_ID", "FILE_PATH", "CALLER", "CALLED", "CAUSE", "NAME", "SESSION_ID", "FORMAT"),
        *("DELIVERY_ID", "ATTEMPT"),
    )
]


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
def test_wrong_value_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    """The error has the key, the value and what is allowed."""
    line = fault(tmp_path, text)
    assert [word for word in words if word not in line] == [], line


def test_secret_with_line_end_is_refused(tmp_path: Path) -> None:
    """It would be a second AMI header; the error does not show it."""
    line = fault(tmp_path, '[[asterisk]]\nsecret = "hushhush\\r\\nAction: Logoff"')
    assert "asterisk[0].secret" in line
    assert "control" in line
    assert "hush" not in line


def test_bad_token_is_not_shown(tmp_path: Path) -> None:
    line = fault(tmp_path, f'[http]\ntokens = ["{TOKEN}"]')
    assert "http.tokens[0]" in line
    assert TOKEN not in line


def test_repeated_token_is_refused(tmp_path: Path) -> None:
    """It would have two roles."""
    one = f'{{name = "a", token = "{TOKEN}", role = "viewer"}}'
    other = f'{{name = "b", token = "{TOKEN}", role = "admin"}}'
    line = fault(tmp_path, f"[http]\ntokens = [{one}, {other}]")
    assert "http.tokens" in line
    assert "'a'" in line
    assert "'b'" in line
    assert TOKEN not in line


def test_wrong_url_hides_its_password(tmp_path: Path) -> None:
    line = fault(tmp_path, '[[sinks]]\nname = "crm"\ntype = "webhook"\nurl = "ftp://me:hush@x/?token=hush"')
    assert "ftp://" in line
    assert "hush" not in line


def test_environment_values_may_be_words(tmp_path: Path) -> None:
    settings = load(None, {"FASTAGI_AGI__PORT": "4574", "FASTAGI_RECORDINGS__ADOPT": "true"})
    assert (settings.agi.port, settings.recordings.adopt) == (4574, True)


def test_fault_names_its_variable(tmp_path: Path) -> None:
    file = tmp_path / "fastagi.toml"
    file.write_text("[agi]\nport = 1\n[[asterisk]]\nport = 0\n")
    with pytest.raises(ConfigError) as caught:
        load(file, {"FASTAGI_AGI__PROT": "2", "FASTAGI_ASTERISK__0__TLS": "perhaps", "FASTAGI_CONFIG": "x"})
    lines = sorted(str(caught.value).splitlines())
    assert [line.split(": ")[0].split(" ")[0] for line in lines] == [
        str(file),
        "FASTAGI_AGI__PROT",
        "FASTAGI_ASTERISK__0__TLS",
    ]
    assert lines[1].startswith("FASTAGI_AGI__PROT = '2': agi.prot: there is no such key")
    assert lines[1].endswith("; write FASTAGI_AGI__PORT")


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        (
            "FASTAGI_ASTERISK__SECRET",
            "hush",
            ["asterisk: Input should be a valid list", "write FASTAGI_ASTERISK__0__SECRET"],
        ),
        ("FASTAGI_ASTERISK__HOST", "pbx", ["= 'pbx'", "write FASTAGI_ASTERISK__0__HOST"]),
        (
            "FASTAGI_HTTP__TOKENS__TOKEN",
            "hush",
            ["http.tokens: Input should be a valid list", "write FASTAGI_HTTP__TOKENS__0__TOKEN"],
        ),
        ("FASTAGI_BOGUS__X", "1", ["= '1': bogus: there is no such key; allowed are agi, asterisk"]),
        ("FASTAGI_AGI__PORT__X", "1", ["= '1': agi.port: Input should be a valid integer"]),
        ("FASTAGI_ASTERISK__0__PASSWORD", "hush", ["asterisk[0].password", "allowed are name, host"]),
        ("FASTAGI_ASTERISK__0__PASS", "hush", ["asterisk[0].pass", "allowed are name, host"]),
        ("FASTAGI_ASTERISK__0__SECRET__X", "hush", ["asterisk[0].secret: Input should be a valid string"]),
        ("FASTAGI_HTTP__TOKENS__ADMIN", "hush", ["http.tokens: Input should be a valid list"]),
        ("FASTAGI_HTTP__TOKENS__0__TOKEN__VALUE", "hush", ["http.tokens[0].token: Input should be a valid string"]),
        ("FASTAGI_ASTERISK__²__NAME", "pbx", ["asterisk: Input should be a valid list"]),
        (
            "FASTAGI_ASTERISK__0_SECRET",
            "hush",
            ["asterisk: Input should be a valid list", "write FASTAGI_ASTERISK__0__SECRET"],
        ),
        ("FASTAGI_AGI_PORT", "4574", ["= '4574'", "is not read", "write FASTAGI_AGI__PORT"]),
        ("FASTAGI_AGI", "4574", ["= '4574'", "is not read", "write FASTAGI_AGI__HOST"]),
        ("FASTAGI_ASTERISK", "pbx", ["is not read", "write FASTAGI_ASTERISK__0__NAME"]),
        ("FASTAGI_ASTERISK_SECRET", "hush", ["is not read", "write FASTAGI_ASTERISK__0__SECRET"]),
        ("FASTAGI_HTTP_TOKENS_1_ROLE", "viewer", ["write FASTAGI_HTTP__TOKENS__1__ROLE"]),
        ("FASTAGI_RECORDINGS_DEFAULTS_RATE", "8000", ["write FASTAGI_RECORDINGS__DEFAULTS__RATE"]),
        ("FASTAGI_SINKS_0_URL", "http://me:hush@x/", ["'http://me:[hidden]@x/'", "write FASTAGI_SINKS__0__URL"]),
        ("FASTAGI_STORE_URL", "postgresql://u:hu@sh@h/d", ["u:[hidden]@h/d", "write FASTAGI_STORE__URL"]),
        ("FASTAGI_RECORDINGS__DEFAULTS__DTMF_ELIM", "perhaps", ["dtmf_elim='perhaps' must be True or False"]),
        ("FASTAGI_RECORDINGS__DEFAULTS__FOO", "no", ["= 'no'", "has no 'foo'", "dtmf_elim"]),
        ("FASTAGI_RECORDINGS__DEFAULTS__RATE__X", "7", ["recordings.defaults: rate={'x': '7'}", "use one of"]),
        ("FASTAGI_AGI__ALLOW__0", "nonsense", ["'nonsense' is no network"]),
        ("FASTAGI_HTTP__TOKENS", '[{name = "a", token = "hush"}]', ["http.tokens[0].token", "16 characters"]),
        ("FASTAGI_STORE__URL", "mysql://u:hush@h/d?password=hush", ["'mysql://u:[hidden]@h/d?password=[hidden]'"]),
    ],
)
@pytest.mark.parametrize("file", [True, False])
def test_wrong_variable_is_named(tmp_path: Path, variable: str, value: str, words: list[str], file: bool) -> None:
    """The error has the variable's value and what would be right."""
    path = tmp_path / "fastagi.toml"
    path.write_text("[recordings.defaults]\nbeep_seconds = 5\n")
    with pytest.raises(ConfigError) as caught:
        load(path if file else None, {variable: value})
    (line,) = (line for line in str(caught.value).splitlines() if line.startswith(variable))
    assert [word for word in words if word not in line] == [], line
    assert "hush" not in str(caught.value)


def test_missing_value_is_asked_as_variable(tmp_path: Path) -> None:
    path = tmp_path / "fastagi.toml"
    path.write_text('[[sinks]]\nname = "a"\ntype = "local"\n')
    with pytest.raises(ConfigError) as caught:
        load(path, {"FASTAGI_SINKS__1__NAME": "b"})
    assert str(caught.value) == "FASTAGI_SINKS__1__TYPE: sinks[1].type: is missing"


def test_fault_between_variables_names_both(tmp_path: Path) -> None:
    words = {"NAME": "a", "TOKEN": TOKEN, "ROLE": "viewer"}
    variables = {f"FASTAGI_HTTP__TOKENS__0__{key}": word for key, word in words.items()}
    variables |= {f"FASTAGI_HTTP__TOKENS__1__{key}": word for key, word in {**words, "NAME": "b"}.items()}
    with pytest.raises(ConfigError) as caught:
        load(None, variables)
    (line,) = str(caught.value).splitlines()
    where, _, fault = line.partition(": ")
    assert {"FASTAGI_HTTP__TOKENS__0__TOKEN", "FASTAGI_HTTP__TOKENS__1__TOKEN"} <= set(where.split(", "))
    assert "same token" in fault
    assert TOKEN not in line


def test_fault_of_file_names_no_variable(tmp_path: Path) -> None:
    path = tmp_path / "fastagi.toml"
    path.write_text("[recordings.defaults]\nrate = 7000\n")
    with pytest.raises(ConfigError) as caught:
        load(path, {"FASTAGI_RECORDINGS__DEFAULTS__BEEP_START": "yes"})
    assert str(caught.value).startswith(f"{path}: recordings.defaults: rate=7000")


@pytest.mark.parametrize(
    "variables",
    [
        {"FASTAGI_CONFIG": "x", "FASTAGI_CACHE": "x", "FASTAGI_DEBIAN_MIRROR": "x"},
        dict.fromkeys(COMMAND_VARIABLES, "x"),  # a command sink that asks this server's CLI
        {"FASTAGI_AGI_PORT": "tcp://10.0.0.1:4573", "FASTAGI_AGI_PORT_4573_TCP_ADDR": "10.0.0.1"},  # Kubernetes
        {"FASTAGI_AGI_SERVICE_HOST": "10.0.0.1", "FASTAGI_PORT": "tcp://10.0.0.1:4573", "FASTAGI_": "x"},
    ],
)
def test_variables_of_others_are_left_alone(variables: dict[str, str]) -> None:
    assert load(None, variables).agi.port == 4573


@pytest.mark.parametrize(("text", "value"), [("no", False), ("off", False), ("0", False), ("yes", True), ("on", True)])
def test_default_switches_are_read(text: str, value: bool) -> None:
    settings = load(None, {"FASTAGI_RECORDINGS__DEFAULTS__DTMF_ELIM": text, "FASTAGI_RECORDINGS__ADOPT": text})
    assert (settings.recordings.defaults["dtmf_elim"], settings.recordings.adopt) == (value, value)


def test_refused_ledger_url_hides_password(tmp_path: Path) -> None:
    for url in ("mysql://u:hush@h/d", "u:hu/sh@hush@h/d", "mysql://h/d?user=u&password=hush"):
        line = fault(tmp_path, f'[store]\nurl = "{url}"')
        assert "store.url = '" in line
        assert "[hidden]" in line
        assert "hush" not in line
        assert "must start with sqlite:///" in line


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5000 + "]" * 5000,
        "x" + ".x" * 5000 + " = 1",
        "[recordings.defaults]\nrate = " + "[" * 300 + "]" * 300,
    ],
)
def test_deep_nesting_is_one_line(tmp_path: Path, text: str) -> None:
    """Whatever walks such a file (the TOML reader, a copy) ends in a RecursionError, which names no file."""
    assert fault(tmp_path, text).endswith(
        "fastagi.toml: tables or lists are nested more than 32 deep: no setting needs that"
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [("FASTAGI_AGI__ALLOW", "[" * 5000 + "]" * 5000), ("FASTAGI_SINKS__0" + "__X" * 5000, "1")],
)
def test_deeply_nested_variables_are_refused(variable: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {variable: value})
    assert str(caught.value).splitlines()[0].endswith("nested more than 32 deep: no setting needs that")
