"""The sinks by name: from settings, from `app.sink(name, sink)`, or an object that a call brought along.

Deliveries store the name. A name from settings or `register` means the same sink after a restart. An object without a
name is named after its process, so no other object gets its name after a restart, and its deliveries are parked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from fastagi.delivery.closing import close
from fastagi.delivery.identity import child_names
from fastagi.delivery.runner import SinkRunner, Where, must_be_where
from fastagi.delivery.sink import (
    CONCURRENCY,
    MOST_AT_ONCE,
    TIME_LIMIT_SECONDS,
    AnySink,
    flag_of,
    must_be_sink,
    number_of,
)
from fastagi.delivery.sink_loop import SinkLoop
from fastagi.delivery.sink_type import build_sink, is_built_in
from fastagi.delivery.sinks.composite import splits
from fastagi.domain.delivery import GIVE_UP_SECONDS, MOST_RETRY_HOURS, OBJECT, RETRY_HOURS
from fastagi.errors import BadArgument, ConfigError
from fastagi.settings import SinkSettings


@dataclass(slots=True)
class Entry:
    """A sink as the delivery worker sees it.

    :param runner: calls it, where it runs
    :param holds: number of recordings that still need an object without a name; 0 for sinks that stay
    """

    name: str
    sink: AnySink
    runner: SinkRunner
    concurrency: int = CONCURRENCY
    time_limit_seconds: float = TIME_LIMIT_SECONDS
    needs_file: bool = True
    delete_local: bool = False
    retry_seconds: float = GIVE_UP_SECONDS
    holds: int = 0


class SinkRegistry:
    """The sinks of this process. Not thread-safe: used on the event loop.

    :ivar blocked: how often a sink was found blocking its event loop, by name; `OBJECT` for those without one
    :ivar changed: called with the name when a sink came or went; set by the delivery worker
    """

    def __init__(self) -> None:
        self.changed: Callable[[str], None] = lambda name: None
        self._entries: dict[str, Entry] = {}
        self._groups: dict[str, tuple[str, ...]] = {}
        self._names: dict[int, str] = {}
        self._process = os.urandom(5).hex()
        self._count = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._ending = asyncio.Event()
        self._class_loops: dict[type, SinkLoop] = {}
        self.blocked: Counter[str] = Counter()

    @property
    def process(self) -> str:
        """Return the common prefix of the names of this process's unnamed objects."""
        return self._process

    def register(
        self,
        name: str,
        sink: AnySink,
        *,
        concurrency: int | None = None,
        retry_hours: float | None = None,
        loop: Where = "own",
    ) -> tuple[str, ...]:
        """Register `sink` under `name`. A `CompositeSink` becomes one entry per leaf, named by its `identity`:
        `name/WebhookSink.crm.example.com.3fa9c1d2`. A leaf that is registered by itself keeps its name.

        :param concurrency: calls at once; the sink's own `concurrency` or 8 when None
        :param retry_hours: how long a delivery is tried again; the sink's own `retry_hours` or 72 when None
        :param loop: ``main`` runs a user's async sink on the event loop of the server, like the built-in sinks
        :returns: the names of its deliveries
        :raises ConfigError: the name is taken
        :raises BadArgument: the name cannot be used, or the object is no sink
        """
        must_be_name(name)
        must_be_where(loop)
        if name in self._entries or name in self._groups:
            raise ConfigError(f"there is a sink {name!r} already")
        if splits(sink):
            leaves = {id(leaf): leaf for leaf in sink.leaves()}
            unnamed = [leaf for leaf in leaves.values() if self._own_name(leaf) is None]
            given = dict(zip(map(id, unnamed), (f"{name}/{child}" for child in child_names(unnamed)), strict=True))
            for child in given.values():
                if child in self._entries or child in self._groups:
                    raise ConfigError(f"there is a sink {child!r} already")
            names = tuple(
                self._add(given[key], leaf, concurrency, retry_hours, loop) if key in given else self._names[key]
                for key, leaf in leaves.items()
            )
            self._groups[name] = names
        else:
            names = (self._add(name, sink, concurrency, retry_hours, loop),)
        return names

    def names(self, wanted: AnySink | str) -> tuple[str, ...]:
        """Return the names under which a recording for this sink is delivered; for a composite, those of its leaves.

        An object that was not registered is kept until its deliveries are done: call this once per recording.

        :param wanted: a sink, or a registered name
        :raises BadArgument: no sink of that name, or the object is no sink
        """
        if isinstance(wanted, str):
            if wanted in self._groups:
                return self._groups[wanted]
            if wanted not in self._entries:
                known = ", ".join(sorted({*self._entries, *self._groups})) or "none"
                raise BadArgument(f"there is no sink {wanted!r}; registered are {known}")
            return (wanted,)
        leaves = wanted.leaves() if splits(wanted) else iter((wanted,))
        return tuple(dict.fromkeys(self._hold(leaf) for leaf in leaves))

    def get(self, name: str) -> Entry | None:
        """Return the sink of that name, or None."""
        return self._entries.get(name)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def release(self, name: str) -> None:
        """Note that a recording needs this unnamed object no longer. After the last one the object is forgotten, and
        closed if it `reopens`. Named sinks stay.
        """
        entry = self._entries.get(name)
        if entry is None or not name.startswith(OBJECT):
            return
        entry.holds -= 1
        if entry.holds <= 0:
            del self._entries[name]
            if self._names.get(id(entry.sink)) == name:  # it may have been registered since
                del self._names[id(entry.sink)]
            self.changed(name)
            if flag_of(entry.sink, "reopens", False):
                task = asyncio.get_running_loop().create_task(self._close_forgotten(entry))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    def remove(self, name: str) -> None:
        """Remove a sink with a name. Running attempts go on; the sink is closed after them, or with the others."""
        entry = self._entries.pop(name)
        del self._names[id(entry.sink)]
        self.changed(name)
        task = asyncio.get_running_loop().create_task(self._close_removed(entry))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def serves(self, name: str, processes: Iterable[str]) -> bool:
        """Return whether that unnamed object belongs to one of these living processes."""
        return name.startswith(OBJECT) and any(name.endswith(f"@{process}") for process in processes)

    def _own_name(self, sink: AnySink) -> str | None:
        """Return the name that the sink was registered under."""
        name = self._names.get(id(sink))
        return None if name is None or name.startswith(OBJECT) else name

    async def aclose(self) -> None:
        """Close the sinks that can be closed. Takes a bounded time and raises nothing, whatever the sinks do."""
        self._ending.set()
        if self._closing:
            await asyncio.wait(set(self._closing))
        entries = list(self)
        await close({e.name: e.sink for e in entries}, {e.name: e.runner.close for e in entries})
        loops = {id(loop): loop for loop in (*self._class_loops.values(), *(e.runner.own for e in entries)) if loop}
        await asyncio.gather(*(loop.stop() for loop in loops.values()))

    async def _close_forgotten(self, entry: Entry) -> None:
        if id(entry.sink) not in self._names:  # otherwise a recording came meanwhile that needs it
            await close({entry.name: entry.sink}, {entry.name: entry.runner.close})

    async def _close_removed(self, entry: Entry) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(entry.time_limit_seconds):
                await self._ending.wait()
        await close({entry.name: entry.sink}, {entry.name: entry.runner.close})

    def _hold(self, sink: AnySink) -> str:
        name = self._names.get(id(sink))
        if name is None:
            self._count += 1
            name = self._add(f"{OBJECT}{type(sink).__name__}:{self._count}@{self._process}", sink)
        if name.startswith(OBJECT):
            self._entries[name].holds += 1
        return name

    def _add(
        self,
        name: str,
        sink: AnySink,
        concurrency: int | None = None,
        retry_hours: float | None = None,
        loop: Where = "own",
    ) -> str:
        must_be_sink(sink)
        limit = concurrency or int(number_of(sink, "concurrency", CONCURRENCY, MOST_AT_ONCE))
        self._entries[name] = Entry(
            name,
            sink,
            SinkRunner(name, sink, limit, self._loop_for(name, sink, loop), partial(self._held, name)),
            concurrency=limit,
            time_limit_seconds=float(number_of(sink, "time_limit_seconds", TIME_LIMIT_SECONDS)),
            needs_file=flag_of(sink, "needs_file", True),
            delete_local=flag_of(sink, "delete_local", False),
            retry_seconds=3600.0 * (retry_hours or number_of(sink, "retry_hours", RETRY_HOURS, MOST_RETRY_HOURS)),
        )
        self._names[id(sink)] = name
        self.changed(name)
        return name

    def _loop_for(self, name: str, sink: AnySink, loop: Where) -> SinkLoop | None:
        """Return the loop of a sink: the one that it has under another name, or a new one.

        Objects without a name share one loop per class, because each call may bring a new object.
        """
        if loop == "main" or is_built_in(sink):
            return None
        for entry in self._entries.values():
            if entry.sink is sink:
                return entry.runner.own
        if not name.startswith(OBJECT):
            return SinkLoop(name, partial(self._held, name))
        kind = type(sink)
        if kind not in self._class_loops:
            self._class_loops[kind] = SinkLoop(f"{OBJECT}{kind.__name__}", partial(self._held, name))
        return self._class_loops[kind]

    def _held(self, name: str) -> None:
        self.blocked[OBJECT if name.startswith(OBJECT) else name] += 1


def must_be_name(name: object) -> None:
    """Check the name of a sink.

    :raises BadArgument: no sink can be registered under it
    """
    if not isinstance(name, str) or not name or name.startswith(OBJECT) or not name.isprintable():
        raise BadArgument(
            f"sink name {name!r} cannot be used: it must be printable text, and not begin with {OBJECT!r}"
        )


def registry_of(settings: Iterable[SinkSettings]) -> SinkRegistry:
    """Return a registry with all sinks of the settings.

    :raises ConfigError: every fault, one per line
    """
    registry = SinkRegistry()
    faults: list[str] = []
    for section in settings:
        try:
            registry.register(
                section.name, build_sink(section), concurrency=section.concurrency, retry_hours=section.retry_hours
            )
        except ConfigError as exc:
            faults.append(str(exc))
        except BadArgument as exc:
            faults.append(f"sinks[{section.name}]: {exc}")
    if faults:
        raise ConfigError("\n".join(faults))
    return registry
