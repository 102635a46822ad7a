"""Settings of a fastagi server for an `AsteriskServer`: all its files are below one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastagi.settings import Settings
from fastagi.testing.asterisk import AsteriskServer
from fastagi.testing.ports import free_port


def settings_data(
    asterisk: AsteriskServer, folder: Path, /, **sections: Mapping[str, Any] | list[Any]
) -> dict[str, Any]:
    """Return the settings as tables. Makes the spool and the recordings directory, writable for Asterisk.

    :param folder: gets ``spool``, ``recordings`` and the ledger
    :param sections: changed settings, as in the TOML file: ``recordings={"adopt": True}``, ``asterisk={"name":
        "pbx2"}``
    """
    for name in ("spool", "recordings"):
        made = folder / name
        made.mkdir(exist_ok=True)
        made.chmod(0o777)
    data: dict[str, Any] = {
        "agi": {"port": free_port()},
        "recordings": {"directory": str(folder / "recordings")},
        "store": {"url": f"sqlite:///{folder}/ledger.db"},
        "http": {"enabled": False},
    }
    pbx = {
        "name": "pbx",
        "port": asterisk.ami_port,
        "username": asterisk.ami_user,
        "secret": asterisk.ami_secret,
        "spool": str(folder / "spool"),
    }
    for name, section in sections.items():
        if name == "asterisk" and isinstance(section, Mapping):
            pbx |= section
        else:
            data[name] = {**data.get(name, {}), **section} if isinstance(section, Mapping) else section
    data.setdefault("asterisk", [pbx])
    return data


def settings_for(asterisk: AsteriskServer, folder: Path, /, **sections: Mapping[str, Any] | list[Any]) -> Settings:
    """Return `settings_data`, checked.

    :raises pydantic.ValidationError: a section is wrong
    """
    return Settings.model_validate(settings_data(asterisk, folder, **sections))


def write_settings(file: Path, data: Mapping[str, Any]) -> None:
    """Write settings as a TOML file, for a server in a process of its own."""
    lines: list[str] = []
    for name, section in data.items():
        tables = section if isinstance(section, list) else [section]
        for table in tables:
            lines.append(f"[[{name}]]" if isinstance(section, list) else f"[{name}]")
            lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
    file.write_text("\n".join(lines) + "\n")


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False)  # strings, numbers and booleans are written alike in JSON and TOML
