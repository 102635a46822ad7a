"""Runs a sink's methods: built-in ones on the main event loop, users' ones on a loop and thread of their own.

Plain functions run in threads in either case. A sink that blocks its loop is counted and named.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Generator
from types import FunctionType, MethodType, ModuleType
from typing import Any, Literal

import structlog

from fastagi.delivery.calling import Threads, call, is_async
from fastagi.delivery.sink_loop import SinkLoop
from fastagi.errors import BadArgument

log = structlog.get_logger(__name__)

Where = Literal["own", "main"]

HELD_SECONDS = 1.0
"""Seconds of one step on the main loop that count as held: every call has waited for it."""

MOST_LOOKED_AT = 500
DEEPEST = 4
"""Levels of attributes that are searched for a client of the main loop: composite, child, receiver, client."""


class SinkRunner:
    """Calls the methods of one sink.

    :param own: the sink's loop; None for the main one
    :param on_held: called each time that the sink held the main loop
    :ivar bound: the attribute for which a sink with a loop of its own runs on the main one all the same
    """

    def __init__(
        self, name: str, sink: object, limit: int, own: SinkLoop | None, on_held: Callable[[], None] = lambda: None
    ) -> None:
        self.name = name
        self.own = own
        self.bound = ""
        self._sink = sink
        self._on_held = on_held
        self._threads = Threads(f"fastagi-sink-{name[:40]}", limit)
        self._called = False
        self._look()

    async def deliver(self, *args: Any) -> None:
        """Call `on_recording_complete`.

        :raises SinkError: it raised no `Exception` (see `calling.call`)
        :raises Exception: the exception that it raised
        """
        await self._call(self._sink.on_recording_complete, args, self._threads)  # type: ignore[attr-defined]

    async def close(self) -> None:
        """Call `aclose`, on the loop that the sink ran on.

        :raises SinkError: as with `deliver`
        :raises Exception: the exception that it raised
        """
        function = getattr(self._sink, "aclose", None)
        if callable(function):  # in a thread of its own: the threads of deliveries may all be stuck
            await self._call(function, (), Threads(f"fastagi-close-{self.name[:40]}", 1))

    async def stop(self) -> None:
        """End the loop, if the sink has one."""
        if self.own is not None:
            await self.own.stop()

    async def _call(self, function: Callable[..., Any], args: tuple[Any, ...], threads: Threads) -> None:
        if not self._called:
            self._called = True
            self._look()
        if self.own is None:
            await call(self._timed(function), *args, threads=threads)
        elif is_async(function):
            await self.own.run(function, *args)
        else:
            await call(self._awaited_there(function, threads), *args, threads=threads)

    def _look(self) -> None:
        """Look for a client of another loop, which would not work on the sink's own. Called at registration and before
        the first call.
        """
        if self.own is None:
            return
        self.bound = bound_attribute(self._sink)
        if self.bound:
            self.own = None
            log.warning(
                "sink_on_main_loop",
                sink=self.name,
                attribute=self.bound,
                hint="it belongs to the main event loop: make it in on_recording_complete, so that the sink has a loop "
                "of its own and cannot hold calls",
            )

    def _awaited_there(self, function: Callable[..., Any], threads: Threads) -> Callable[..., Any]:
        """Return a plain function whose awaitable result, if it gives one, is awaited on the sink's loop."""
        own = self.own
        assert own is not None

        async def run(*args: Any) -> None:
            answer = await threads.submit(function, *args)
            if inspect.isawaitable(answer):
                await own.run(_identity, answer)

        return run

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if not is_async(function):
            return function

        async def run(*args: Any) -> None:
            await _Timed(function(*args), self._held)

        return run

    def _held(self, seconds: float) -> None:
        log.warning(
            "sink_blocks",
            sink=self.name,
            seconds=round(seconds, 1),
            hint="every call and every sink waited: register it without loop='main', or let it await",
        )
        self._on_held()


def must_be_where(loop: object) -> None:
    """Check the name of a loop.

    :raises BadArgument: it is neither ``own`` nor ``main``
    """
    if loop not in ("own", "main"):
        raise BadArgument(f"loop={loop!r} must be 'own' or 'main'")


def bound_attribute(sink: object) -> str:
    """Return the path of the first attribute that belongs to an event loop; empty when there is none."""
    seen: set[int] = set()
    level = [("", sink)]
    for _ in range(DEEPEST):
        level = [found for path, item in level for found in _parts(path, item) if id(found[1]) not in seen]
        for path, item in level:
            if _has_loop(item):
                return f"{path} ({type(item).__name__})"
        seen.update(id(item) for _, item in level)
        if len(seen) > MOST_LOOKED_AT:
            break
    return ""


def _parts(path: str, item: object) -> list[tuple[str, object]]:
    if isinstance(item, (list, tuple, set, frozenset)):
        return [(path, part) for part in list(item)[:MOST_LOOKED_AT]]
    if isinstance(item, dict):
        return [(path, part) for part in list(item.values())[:MOST_LOOKED_AT]]
    if isinstance(item, (ModuleType, type, FunctionType, MethodType, asyncio.AbstractEventLoop)):
        return []
    named = list(getattr(item, "__dict__", {}).items())[:MOST_LOOKED_AT]
    return [(f"{path}.{name}" if path else name, part) for name, part in named]


def _has_loop(item: object) -> bool:
    """Return whether an object belongs to a loop: aiohttp's sessions, asyncpg's pools, asyncio's locks in use."""
    if not hasattr(type(item), "_loop") and "_loop" not in getattr(item, "__dict__", {}):
        return False  # checked before `getattr`, because a mock has every attribute
    return isinstance(getattr(item, "_loop", None), asyncio.AbstractEventLoop)


async def _identity(answer: Awaitable[Any]) -> Any:
    return await answer


class _Timed:
    """Awaits, and reports each step that takes so long that it held the loop."""

    def __init__(self, awaitable: Awaitable[Any], held: Callable[[float], None]) -> None:
        self._awaitable = awaitable
        self._held = held

    def __await__(self) -> Generator[Any, Any, Any]:
        inner: Any = self._awaitable.__await__()
        step, given = inner.send, None
        while True:
            began = time.monotonic()
            try:
                asked = step(given)
            except StopIteration as done:
                return done.value
            finally:
                if (seconds := time.monotonic() - began) >= HELD_SECONDS:
                    self._held(seconds)
            try:
                given = yield asked
                step = inner.send
            except GeneratorExit:
                inner.close()
                raise
            except BaseException as exc:
                step, given = inner.throw, exc
