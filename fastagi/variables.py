"""Lays settings from the environment (`FASTAGI_SECTION__KEY`) over the file's.

Also names the variable that a fault comes from. The settings (pydantic) define the keys and check the values. A
variable with single underscores that would be a setting with double ones (`FASTAGI_AGI_PORT`) is a fault; any other
belongs to another program.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from fastagi.errors import ConfigError

ENV_PREFIX = "FASTAGI_"

Path = tuple[str | int, ...]
"""The place of a setting: the keys and indices that lead to it."""

Model = type[BaseModel]

_SECRET = re.compile(r"secret|token|pass|pwd|auth|key(__|$)")
_SECRET_IN_QUERY = re.compile(r"(?i)([?&][^=&]*(?:secret|token|pass|pwd|key)[^=&]*=)[^&\s]*")
_ORCHESTRATORS = ("tcp://", "udp://")
"""Kubernetes and Docker give the address of a service `fastagi-agi` as FASTAGI_AGI_PORT, which is no setting."""

LONGEST_SHOWN = 200

DEEPEST = 32
"""Most levels of nested tables and lists: the settings need 4, a sink's options perhaps some more."""

TOO_DEEP = f": tables or lists are nested more than {DEEPEST} deep: no setting needs that"


def merge(data: dict[str, Any], environ: Mapping[str, str], model: Model) -> tuple[dict[Path, str], list[str]]:
    """Lay the variables over `data`: ``FASTAGI_AGI__PORT=4574`` and, in lists, ``FASTAGI_ASTERISK__0__SECRET=…``.

    :param model: the settings, which define the keys
    :returns: which variable set which place, and a line for each variable that cannot be read
    """
    origins: dict[Path, str] = {}
    faults: list[str] = []
    for variable in sorted(environ):
        if not variable.startswith(ENV_PREFIX):
            continue
        parts, value = variable[len(ENV_PREFIX) :].lower().split("__"), environ[variable]
        fault = ""
        if len(parts) == 1:
            if not value.startswith(_ORCHESTRATORS) and (meant := _spelt_otherwise(variable, model)):
                fault = f"{shown(parts[0], value)}: is not read: write {meant}"
        else:
            try:
                origins[_put(data, parts, _value(value))] = variable
            except ConfigError as exc:
                fault = f"{shown(variable.lower(), value)}: {exc}{hint(variable, model)}"
        if fault:
            faults.append(f"{variable}{fault}")
    return origins, faults


def hint(variable: str, model: Model) -> str:
    """Return ``; write FASTAGI_…`` for a variable that is no setting's and resembles one; else empty."""
    names = list(_names(model))
    first = re.sub(r"__[0-9]+", "__0", variable)
    if any(f"{name}__".startswith(f"{first}__") or (name.endswith("__") and first.startswith(name)) for name in names):
        return ""
    parent, _, key = first.rpartition("__")
    beside = [name.rpartition("__")[2] for name in names if name.rpartition("__")[0] == parent]
    close = [f"{variable.rpartition('__')[0]}__{found}" for found in difflib.get_close_matches(key, beside, 1)]
    right = _spelt_otherwise(variable, model) or "".join(close)
    return f"; write {right}" if right else ""


def _spelt_otherwise(variable: str, model: Model) -> str:
    """Return the setting's variable that differs only in underscores and indices; empty when there is none."""
    index = re.search(r"_([0-9]+)(_|$)", variable)
    plain = _plain(variable)
    for name in _names(model):
        known = _plain(name)
        if plain == known or known.startswith(plain + "_"):  # the setting, or a section that is named alone
            right = name
        elif name.endswith("__") and plain.startswith(known):
            right = name + plain[len(known) :]
        else:
            continue
        return right.replace("__0", f"__{index[1]}") if index else right
    return ""


def _plain(variable: str) -> str:
    return re.sub(r"_+([0-9]+(_+|$))?", "_", variable)


def _names(model: Model, prefix: str = ENV_PREFIX) -> Iterator[str]:
    """Yield the variables of all settings, each list with its first item; `__` at the end allows any key."""
    for name, field in model.model_fields.items():
        inside = (field.annotation, *get_args(field.annotation))
        section = next((t for t in inside if isinstance(t, type) and issubclass(t, BaseModel)), None)
        origin = get_origin(field.annotation)
        here = prefix + (field.alias or name).upper() + ("__0" if origin is list else "")
        if section is not None:
            yield from _names(section, here + "__")
        else:
            yield here + ("__" if origin is dict else "")
    if model.model_config.get("extra") == "allow":
        yield prefix


def blame(
    location: Path,
    fault: str,
    missing: bool,
    origins: Mapping[Path, str],
    file: Mapping[str, Any],
) -> list[str]:
    """Return the variables that a fault at `location` comes from; empty when the file caused it.

    :param missing: the setting is missing; variables that set its neighbours should have set it
    :param file: the content of the file alone
    """
    for length in range(len(location), 0, -1):
        if location[:length] in origins:
            return [origins[location[:length]]]
    beside = any(path[: len(location) - 1] == location[:-1] for path in origins)
    if missing and beside and not _there(file, location[:-1]):
        return [ENV_PREFIX + "__".join(str(part).upper() for part in location)]
    under = [(path[-1], name) for path, name in origins.items() if location and path[: len(location)] == location]
    named = [name for key, name in under if re.search(rf"\b{re.escape(str(key))}\b", fault)]
    return named or ([] if _there(file, location) else [name for _, name in under])


def named(variable: str, value: str | None, fault: str) -> str:
    """Return the variable, with its value when the fault does not show it."""
    told = value is None or repr(value) in fault or f"={value} " in fault
    return variable if told else variable + shown(variable.lower(), value)


def _there(data: Any, location: Path) -> bool:
    for key in location:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def shown(key: str, value: Any) -> str:
    """Return `` = 'the value'`` for an error's line; empty for a secret or a whole table. A password in an address is
    hidden.
    """
    if _SECRET.search(key) or isinstance(value, (dict, list)):
        return ""
    if not isinstance(value, str):
        return f" = {value!r}"
    text = value if len(value) <= LONGEST_SHOWN else value[:LONGEST_SHOWN] + "…"
    return f" = {hide_password(text)!r}"


def hide_password(address: str) -> str:
    """Return the address as ``scheme://user:[hidden]@host``, also without a scheme, and with ``?password=[hidden]``."""
    head, at, tail = address.rpartition("@")
    scheme, there, credentials = head.partition("://")
    if not there:
        scheme, credentials = "", head
    user, colon, _ = credentials.partition(":")
    if at and colon:
        address = f"{scheme}{there}{user}:[hidden]@{tail}"
    return hide_in_query(address)


def hide_in_query(address: str) -> str:
    """Hide ``?password=`` and other secrets among an address's parameters."""
    return _SECRET_IN_QUERY.sub(r"\1[hidden]", address)


def too_deep(data: Any) -> bool:
    """Return whether tables and lists are nested too deeply for any setting; code that walks them would fail."""
    layer = [data]
    for _ in range(DEEPEST):
        layer = [item for item in layer if isinstance(item, (dict, list))]
        if not layer:
            return False
        layer = [inner for item in layer for inner in (item.values() if isinstance(item, dict) else item)]
    return True


def _put(data: dict[str, Any], parts: list[str], value: Any) -> Path:
    """Set a value in `data` and return its place.

    :raises ConfigError: the place holds another kind of value
    """
    if len(parts) > DEEPEST:
        raise ConfigError(TOO_DEEP.removeprefix(": "))
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
    """Parse numbers, booleans, lists and tables as TOML; anything else is the text itself.

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
