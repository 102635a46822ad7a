"""Takes over changed settings in a running server: SIGHUP, `systemctl reload`, `App.reload`.

Everything new is checked and built before anything is touched, so a fault leaves the server as it was. A setting that a
running server cannot change is left as it was and named: it needs a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import structlog
from pydantic import BaseModel

from fastagi.app import logs
from fastagi.app.runtime import Runtime
from fastagi.delivery.sink import AnySink
from fastagi.delivery.sink_type import build_sink
from fastagi.errors import ConfigError, FastAGIError
from fastagi.settings import Settings, SinkSettings

log = structlog.get_logger(__name__)

TAKEN = ("http.tokens", "log.level", "log.json", "recordings.required", "sinks")
"""Keys that a running server takes over. All others are bound to what was opened with them."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The result of a reload.

    :param settings: the settings in force now
    :param taken: keys whose new value is in force
    :param restart: keys whose new value needs a restart
    """

    settings: Settings
    taken: tuple[str, ...]
    restart: tuple[str, ...]


def reload(parts: Runtime, before: Settings, after: Settings) -> Reloaded:
    """Take over the changed settings that a running server can change.

    :param before: settings in force
    :param after: those of the file now
    :raises ConfigError: a sink cannot be built; nothing was changed
    """
    changed = tuple(_changed(before, after))
    sinks = _SinkChange(parts, before.sinks, after.sinks)
    taken = tuple(dict.fromkeys(key for key in (*changed, *sinks.keys) if key in TAKEN))
    restart = tuple(key for key in changed if key not in TAKEN)
    sinks.apply()
    if parts.http is not None:
        parts.http.api.tokens.replace(after.http.tokens)
    parts.recorder.require(after.recordings.required)
    if logs.in_use():
        logs.configure(after.log)
    now = before.model_copy(
        update={
            "http": before.http.model_copy(update={"tokens": after.http.tokens}),
            "recordings": before.recordings.model_copy(update={"required": after.recordings.required}),
            "log": after.log,
            "sinks": after.sinks,
        }
    )
    return Reloaded(now, taken, restart)


async def reload_when(told: asyncio.Event, reload: Callable[[], Awaitable[object]]) -> None:
    """Reload each time that `told` is set, until cancelled; a reload that fails is logged in one line."""
    while True:
        await told.wait()
        told.clear()
        try:
            await reload()
        except FastAGIError as exc:
            log.error("settings_not_reloaded", error="; ".join(str(exc).splitlines()))
        except Exception:
            log.exception("settings_not_reloaded")


def _changed(before: BaseModel, after: BaseModel, within: str = "") -> Iterator[str]:
    """Yield the keys that differ, as the settings write them; a list of sections is one key."""
    for name, field in type(before).model_fields.items():
        key = f"{within}{field.alias or name}"
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        if isinstance(old, BaseModel) and isinstance(new, BaseModel):
            yield from _changed(old, new, f"{key}.")
        else:
            yield key


class _SinkChange:
    """The sinks of the settings, before and after.

    :ivar keys: ``sinks`` when one comes, goes or is made anew
    """

    def __init__(self, parts: Runtime, before: list[SinkSettings], after: list[SinkSettings]) -> None:
        self._parts = parts
        self._before = {section.name: section for section in before}
        self._after = after
        self._made: list[tuple[SinkSettings, AnySink]] = []
        faults = []
        for section in after:
            old = self._before.get(section.name)
            if old is None and section.name in parts.registry:
                faults.append(f"sinks[{section.name}]: the program has a sink of that name already")
            elif old is None or _differ(old, section):
                try:
                    self._made.append((section, build_sink(section)))
                except ConfigError as exc:
                    faults.append(str(exc))
        if faults:
            raise ConfigError("\n".join(faults))
        kept = {section.name for section in after}
        self._gone = [name for name in self._before if name not in kept]
        self.keys = ("sinks",) if self._made or self._gone else ()

    def apply(self) -> None:
        registry, names = self._parts.registry, self._parts.sink_names
        for name in (*self._gone, *(section.name for section, _ in self._made)):
            if name in registry:
                registry.remove(name)
        for section, sink in self._made:
            registry.register(section.name, sink, concurrency=section.concurrency, retry_hours=section.retry_hours)
        others = [name for name in names.defaults if name not in self._before]  # default sinks of the program
        names.defaults = (*(section.name for section in self._after if section.default), *others)


def _differ(old: SinkSettings, new: SinkSettings) -> bool:
    """Return whether a sink must be made anew. The content of a file may have changed under the same name."""
    ignored = {"default": True}
    return old.model_copy(update=ignored) != new.model_copy(update=ignored) or any(
        key.endswith("_file") for key in new.options
    )
