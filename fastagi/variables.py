"""`FASTAGI_SECTION__KEY`: settings from the environment, laid over the file's.

Knows how a variable is written and where it leads; what a value must be is the settings' own to say. A variable that
leads nowhere is a fault, and so is one that was meant for a setting and would not be read (`FASTAGI_AGI_PORT`).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel

from fastagi.errors import ConfigError

ENV_PREFIX = "FASTAGI_"

Path = tuple[str | int, ...]
"""Where a setting is: the keys and indices that lead to it."""

Model = type[BaseModel]

_SECRET = re.compile(r"secret|token|pass|pwd|auth|key(__|$)")
_SECRET_IN_QUERY = re.compile(r"(?i)([?&][^=&]*(?:secret|token|pass|pwd|key)[^=&]*=)[^&\s]*")
_ORCHESTRATORS = ("tcp://", "udp://")
"""Kubernetes and Docker give the address of a service `fastagi-agi` as FASTAGI_AGI_PORT: not meant for us."""

LONGEST_SHOWN = 200

DEEPEST = 32
"""Tables and lists in each other: the settings' own need 4, a sink's options perhaps some more."""

TOO_DEEP = f": tables or lists are nested more than {DEEPEST} deep: no setting needs that"


class _Kind(NamedTuple):
    """What a field may hold: `model` is that of a section, or of each item of a list."""

    key: str
    listed: bool
    table: bool
    model: Model | None


def merge(data: dict[str, Any], environ: Mapping[str, str], model: Model) -> tuple[dict[Path, str], list[str]]:
    """Lays the variables over `data`: ``FASTAGI_AGI__PORT=4574`` and, in lists, ``FASTAGI_ASTERISK__0__SECRET=…``.

    :param model: the settings, for which keys there are
    :returns: which variable set what, and a line for each that leads nowhere
    """
    origins: dict[Path, str] = {}
    faults: list[str] = []
    for variable in sorted(environ):
        if not variable.startswith(ENV_PREFIX):
            continue
        parts = variable[len(ENV_PREFIX) :].lower().split("__")
        value = environ[variable]
        if len(parts) == 1:
            fault = _misspelt(model, parts[0], value)
        else:
            fault = TOO_DEEP if len(parts) > DEEPEST else _astray(model, parts, value)
        if not fault and len(parts) > 1:
            try:
                origins[_put(data, parts, _value(value))] = variable
            except ConfigError as exc:
                fault = f": {exc}"
        if fault:
            faults.append(f"{variable}{fault}")
    return origins, faults


def blame(
    location: Path,
    fault: str,
    missing: bool,
    origins: Mapping[Path, str],
    environ: Mapping[str, str],
    file: Mapping[str, Any],
) -> str:
    """The variable or variables that a fault at `location` comes from; empty when it is the file's.

    :param missing: nothing is there; whoever set its neighbours should have set it
    :param file: what the file alone says
    """
    for length in range(len(location), 0, -1):
        if location[:length] in origins:
            return origins[location[:length]]
    beside = any(path[: len(location) - 1] == location[:-1] for path in origins)
    if missing and beside and not _there(file, location[:-1]):
        return _spelt(location)
    under = [(path[-1], name) for path, name in origins.items() if location and path[: len(location)] == location]
    named = [name for key, name in under if re.search(rf"\b{re.escape(str(key))}\b", fault)]
    found = named or ([] if _there(file, location) else [name for _, name in under])
    return ", ".join(name + _unless_told(name, environ[name], fault) for name in found)


def _unless_told(name: str, value: str, fault: str) -> str:
    told = repr(value) in fault or f"={value} " in fault
    return "" if told else shown(name.lower(), value)


def _there(data: Any, location: Path) -> bool:
    for key in location:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def shown(key: str, value: Any) -> str:
    """`` = 'the value'`` for an error's line; empty where it is a secret or a whole table. A password in an address is
    hidden."""
    if _SECRET.search(key) or isinstance(value, (dict, list)):
        return ""
    if not isinstance(value, str):
        return f" = {value!r}"
    text = value if len(value) <= LONGEST_SHOWN else value[:LONGEST_SHOWN] + "…"
    return f" = {hide_password(text)!r}"


def hide_password(address: str) -> str:
    """``scheme://user:[hidden]@host``, also where there is no scheme, and ``?password=[hidden]``."""
    head, at, tail = address.rpartition("@")
    scheme, there, credentials = head.partition("://")
    if not there:
        scheme, credentials = "", head
    user, colon, _ = credentials.partition(":")
    if at and colon:
        address = f"{scheme}{there}{user}:[hidden]@{tail}"
    return hide_in_query(address)


def hide_in_query(address: str) -> str:
    """``?password=[hidden]``, and other secrets that stand in an address as parameters."""
    return _SECRET_IN_QUERY.sub(r"\1[hidden]", address)


def too_deep(data: Any) -> bool:
    """Whether tables and lists are nested so deeply that no setting is meant, and whoever walks them would fail."""
    layer = [data]
    for _ in range(DEEPEST):
        layer = [item for item in layer if isinstance(item, (dict, list))]
        if not layer:
            return False
        layer = [inner for item in layer for inner in (item.values() if isinstance(item, dict) else item)]
    return True


def _misspelt(model: Model, text: str, value: str) -> str:
    """The fault of a variable with single underscores, if a setting is meant; empty for somebody else's variable."""
    right = _right(model, text)
    if right is None or value.startswith(_ORCHESTRATORS):
        return ""
    return f"{shown(text, value)}: is not read: write {_spelt((*right, *_first_key(model, right)))}"


def _astray(model: Model, parts: list[str], value: str) -> str:
    """The fault of a variable that leads to no setting; empty when it leads to one."""
    inner: Model | None = model
    for depth, part in enumerate(parts):
        here = ".".join(parts[:depth])
        if inner is None:
            return _fault(model, parts, value, f"{here} has no keys of its own")
        kind = _kind(inner, part)
        if kind is None:
            if inner.model_config.get("extra") == "allow":
                return ""
            known = ", ".join(k.key for k in _kinds(inner))
            return _fault(model, parts, value, f"there is no such key; allowed are {known}")
        inner = kind.model
        following = parts[depth + 1 :]
        if kind.listed and following:
            if not _is_index(following[0]):
                return _fault(model, parts, value, f"{'.'.join(parts[: depth + 1])} is a list")
            if inner is None:
                return "" if len(following) == 1 else _fault(model, parts, value, "it has no keys of its own")
            return _astray_in(model, inner, parts, depth + 2, value)
        if kind.table and following:
            return "" if len(following) == 1 else _fault(model, parts, value, "it has no keys of its own")
    return ""


def _astray_in(model: Model, item: Model, parts: list[str], start: int, value: str) -> str:
    """As `_astray`, in an item of a list."""
    if _astray(item, parts[start:], value):
        known = ", ".join(k.key for k in _kinds(item))
        return _fault(model, parts, value, f"there is no such key; allowed are {known}")
    return ""


def _fault(model: Model, parts: list[str], value: str, what: str) -> str:
    right = _right(model, "_".join(part for part in parts if part))
    hint = f"; write {_spelt((*right, *_first_key(model, right)))}" if right and right != parts else ""
    return f": {'.'.join(parts)}{shown('__'.join(parts), value)}: {what}{hint}"


def _right(model: Model, text: str) -> list[str] | None:
    """The keys that are meant by words with single underscores between them; None when there is no such setting."""
    for kind in sorted(_kinds(model), key=lambda k: -len(k.key)):
        if text == kind.key:
            return [text]
        if not text.startswith(kind.key + "_"):
            continue
        rest, found = text[len(kind.key) + 1 :], [kind.key]
        if kind.listed:
            index = re.match(r"([0-9]+)(_|$)", rest)
            rest, found = (rest[index.end() :], [*found, index[1]]) if index else (rest, [*found, "0"])
        if not rest:
            return found
        deeper = _right(kind.model, rest) if kind.model else [rest] if kind.table else None
        if deeper is not None:
            return [*found, *deeper]
    return [text] if model.model_config.get("extra") == "allow" else None


def _first_key(model: Model, path: list[str]) -> list[str]:
    """For a section or a list that is named alone: how one of its keys is reached."""
    inner: Model | None = model
    kind: _Kind | None = None
    for part in path:
        if inner is None:
            return []
        if kind is not None and kind.listed and _is_index(part):
            kind = kind._replace(listed=False)
            continue
        kind = _kind(inner, part)
        inner = kind.model if kind else None
    if kind is None or inner is None:
        return []
    return [*(["0"] if kind.listed else []), _kinds(inner)[0].key]


def _kinds(model: Model) -> list[_Kind]:
    found = []
    for name, field in model.model_fields.items():
        inside = (field.annotation, *get_args(field.annotation))
        section = next((t for t in inside if isinstance(t, type) and issubclass(t, BaseModel)), None)
        origin = get_origin(field.annotation)
        found.append(_Kind(field.alias or name, origin is list, origin is dict, section))
    return found


def _kind(model: Model, key: str) -> _Kind | None:
    return next((k for k in _kinds(model) if k.key == key), None)


def _spelt(path: Path | list[str]) -> str:
    return ENV_PREFIX + "__".join(str(part).upper() for part in path)


def _put(data: dict[str, Any], parts: list[str], value: Any) -> Path:
    """Sets it in `data`; where that was. :raises ConfigError: what is there is another thing"""
    where: Any = data
    keys: list[str | int] = []
    for depth, part in enumerate(parts):
        key: str | int = part
        if isinstance(where, list):
            if not _is_index(part) or int(part) > len(where):
                raise ConfigError(f"{part!r} is no index of that list (0 to {len(where)})")
            if int(part) == len(where):
                where.append({})
            key = int(part)
        keys.append(key)
        if depth == len(parts) - 1:
            where[key] = value
            break
        if isinstance(where, dict):
            where.setdefault(key, [] if _is_index(parts[depth + 1]) else {})
        where = where[key]
        if not isinstance(where, (dict, list)):
            raise ConfigError(f"{'.'.join(parts[: depth + 1])} is a value, not a section")
    return tuple(keys)


def _value(text: str) -> Any:
    """Numbers, booleans, lists and tables as TOML writes them; anything else is the text itself.

    :raises ConfigError: it is nested too deeply
    """
    if re.fullmatch(r"(true|false|\[.*\]|\{.*\})", text, re.DOTALL):
        try:
            value = tomllib.loads(f"v = {text}")["v"]
        except tomllib.TOMLDecodeError:
            return text
        except RecursionError:
            raise ConfigError(TOO_DEEP.removeprefix(": ")) from None
        if too_deep(value):
            raise ConfigError(TOO_DEEP.removeprefix(": "))
        return value
    return text


def _is_index(part: str) -> bool:
    return part.isascii() and part.isdecimal()
