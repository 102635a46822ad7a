"""What README, guide and deployment notes show can be typed as it stands."""

from __future__ import annotations

import base64
import re

import pytest
from typer.main import get_command

from fastagi import WebhookSink, settings
from fastagi.cli import cli
from support.document_snippets import PAGES, ROOT, blocks, command_lines
from support.settings_guide import sections

COMMANDS = list(dict.fromkeys((where, tuple(words)) for where, words in command_lines()))


def parsed(words: tuple[str, ...]) -> None:
    """Parse a command line as the program does, without carrying it out. A group alone is a mention of it."""
    command, rest, parent = get_command(cli), list(words), None
    while hasattr(command, "commands"):
        if not rest or rest[0].startswith(("-", "…")):
            return
        name = rest.pop(0)
        assert name in command.commands, f"there is no command {name!r}"
        command, parent = command.commands[name], name
    if rest:
        command.make_context(parent, rest)


@pytest.mark.parametrize(("where", "words"), COMMANDS, ids=[f"{w}-{'-'.join(x[:2])}" for w, x in COMMANDS])
def test_shown_commands_are_parsed(where: str, words: tuple[str, ...]) -> None:
    parsed(words)


def test_command_lines_are_found() -> None:
    shown = {words[:2] for _, words in COMMANDS}
    assert {("serve",), ("recordings", "list"), ("store", "backup"), ("deliveries", "retry")} <= shown


@pytest.mark.parametrize(("words", "wrong"), [("recordings lost", "lost"), ("recordings list --sinze x", "sinze")])
def test_unknown_words_are_refused(words: str, wrong: str) -> None:
    """The check itself can fail."""
    with pytest.raises(Exception, match=wrong):
        parsed(tuple(words.split()))


def test_shown_python_runs(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every module is executed, in a folder with the settings that README shows."""
    shown = list(blocks())
    (settings_file,) = [b.text for b in shown if b.language == "toml" and b.where.startswith("README")]
    (tmp_path / "fastagi.toml").write_text(settings_file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTAGI_CONFIG", str(tmp_path / "fastagi.toml"))
    modules = [b for b in shown if b.language == "python"]
    assert len(modules) >= 4
    secret, body = "whsec_" + base64.b64encode(b"a secret of 32 bytes for a test..").decode(), b'{"a":1}'
    headers = WebhookSink("https://h/x", signing_secret=secret).headers(body, "d")
    names = {"__name__": "shown", "body": body, "headers": headers}
    for block in modules:
        exec(compile(block.text.replace("whsec_…", secret), block.where, "exec"), dict(names))


def test_shown_variables_are_settings() -> None:
    text = "".join(page.read_text() for page in PAGES)
    shown = dict(re.findall(r"`(FASTAGI_[A-Z0-9]+(?:__[A-Z0-9_]+)+)=([^`…]+)`", text))
    assert shown
    settings.load(None, shown)


def test_shown_keys_are_settings() -> None:
    """`[section] key` in a text names a key that there is."""
    known = {title.strip("[]"): model.model_fields for title, model in sections() if "type" not in title}
    sinks = [model.model_fields for title, model in sections() if "sinks" in title]
    known["sinks"] = {name: field for fields in sinks for name, field in fields.items()}
    for page in PAGES:
        for section, key in re.findall(r"`\[\[?([a-z.]+)\]?\] ([a-z_]+)(?= *[`=])", page.read_text()):
            names = {field.alias or name for name, field in known.get(section, {}).items()}
            assert key in names, f"{page.relative_to(ROOT)}: [{section}] {key}"
