"""Bridge from a handler's thread to the event loop: coroutines, and objects with coroutine methods, become blocking.

`fastagi.agi.blocking` builds the blocking channel on it; pyst2's `AGI` waits through it as well.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from fastagi.errors import Error, Hangup

T = TypeVar("T")


class Bridge:
    """Bridge from one handler's thread to the event loop. Once closed, every wait ends with `Hangup`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._lock = threading.Lock()
        self._waits: set[concurrent.futures.Future[Any]] = set()
        self._closed = False

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` in the event loop and wait for it.

        :raises Hangup: the session has ended; :raises Error: called in the event loop's own thread, which would wait
            for itself for ever
        """
        try:
            self._refuse_loop_thread()
            with self._lock:
                if self._closed:
                    raise Hangup("the AGI session is over")
                try:
                    future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
                except RuntimeError:
                    raise Hangup("the server has stopped") from None
                self._waits.add(future)
        except BaseException:
            coroutine.close()
            raise
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Hangup("the AGI session is over") from None
        finally:
            with self._lock:
                self._waits.discard(future)

    def close(self) -> None:
        """Wake all waiting calls: the session is over. Idempotent."""
        with self._lock:
            self._closed = True
            waits = list(self._waits)
        for future in waits:
            future.cancel()

    @staticmethod
    def _refuse_loop_thread() -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise Error("a blocking channel belongs to its worker thread: in a coroutine await the async channel instead")

    def adapt(self, value: Any) -> Any:
        """Return `value` in the form that a blocking handler uses."""
        if inspect.isroutine(value):
            return self._blocking(value) if inspect.iscoroutinefunction(value) else self._plain(value)
        if isinstance(value, (type, BlockingObject)) or not _has_coroutines(type(value)):
            return value
        return BlockingObject(value, self)

    def _blocking(self, method: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self.adapt(self.wait(method(*map(_bare, args), **{k: _bare(v) for k, v in kwargs.items()})))

        return _named(call, method)

    def _plain(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*map(_bare, args), **{k: _bare(v) for k, v in kwargs.items()})
            # Only a coroutine is waited for: State and Cause can be awaited too, but are the result already.
            return self.adapt(self.wait(result) if inspect.iscoroutine(result) else result)

        return _named(call, method)


class BlockingObject:
    """Wrapper of any object that makes its coroutine methods blocking. Equal to another wrapper of the same object."""

    __slots__ = ("_bridge", "_target")

    _bridge: Bridge
    _target: Any

    def __init__(self, target: object, bridge: Bridge) -> None:
        object.__setattr__(self, "_target", target)
        object.__setattr__(self, "_bridge", bridge)

    def __getattr__(self, name: str) -> Any:
        return self._bridge.adapt(getattr(self._target, name))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._target, name, _bare(value))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._target)})

    def __eq__(self, other: object) -> bool:
        return bool(self._target == _bare(other))

    def __hash__(self) -> int:
        return hash(self._target)

    def __repr__(self) -> str:
        return f"<blocking {self._target!r}>"


def _bare(value: Any) -> Any:
    return value._target if isinstance(value, BlockingObject) else value


def _named(call: Callable[..., Any], method: Callable[..., Any]) -> Callable[..., Any]:
    call.__name__ = getattr(method, "__name__", call.__name__)
    call.__doc__ = method.__doc__
    return call


_KINDS: WeakKeyDictionary[type, bool] = WeakKeyDictionary()


def _has_coroutines(kind: type) -> bool:
    found = _KINDS.get(kind)
    if found is None:
        found = any(inspect.iscoroutinefunction(inspect.getattr_static(kind, name, None)) for name in dir(kind))
        _KINDS[kind] = found
    return found
