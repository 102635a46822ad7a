"""Finds a call's handler by the path of its AGI request."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fastagi.errors import ConfigError, Error

Handler = Callable[..., Any]


class Routes:
    """Handlers by route. Built-in ones can be replaced; others cannot be registered twice."""

    def __init__(self, builtin: dict[str, Handler]) -> None:
        self._builtin = dict(builtin)
        self._own: dict[str, Handler] = {}
        self._default: Handler | None = None

    def add(self, route: str, handler: Handler) -> None:
        """Register the handler of a route.

        :raises ConfigError: that route has a handler already, or the handler takes no call
        """
        path = route.strip("/")
        if path in self._own:
            raise ConfigError(f"route {path!r} has a handler already: {_name(self._own[path])}")
        _check(path, handler)
        self._own[path] = handler

    def set_default(self, handler: Handler) -> None:
        """Register the handler of calls without a route.

        :raises ConfigError: there is a default already
        """
        if self._default is not None:
            raise ConfigError(f"there is a default handler already: {_name(self._default)}")
        _check("default", handler)
        self._default = handler

    def find(self, route: str) -> Handler | None:
        """Return the handler of a route, else the default, else None."""
        path = route.strip("/")
        return self._own.get(path) or self._builtin.get(path) or self._default

    def __iter__(self) -> Any:
        return iter(sorted({*self._own, *self._builtin}))


def blocking(handler: Handler) -> bool:
    """Return whether a handler is a plain function, to run in a thread. A decorated one counts as what it wraps."""
    handler = inspect.unwrap(handler)
    return not (inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__))


def must_have_run(handler: Handler, result: object) -> None:
    """Check that a plain function returned no coroutine, which would never run.

    :raises Error: it did
    """
    if inspect.iscoroutine(result):
        result.close()
        raise Error(f"the handler {_name(handler)} is not async, and gave a coroutine: write async def")


def _name(handler: Handler) -> str:
    return getattr(handler, "__qualname__", repr(handler))


def _check(route: str, handler: Handler) -> None:
    if not callable(handler):
        raise ConfigError(f"route {route!r}: {handler!r} is no function")
