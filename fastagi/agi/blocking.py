"""The channel for handlers that are plain functions: the same names, but every call blocks until it is done.

`BlockingChannel` adds nothing but waiting. Whatever the channel has, now or in a subclass, is here by the same name: a
coroutine method blocks the worker thread while the event loop runs it; an object that has coroutine methods (such as a
recorder) comes wrapped in the same way; everything else passes as it is.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from fastagi.agi.channel import Channel
from fastagi.agi.threads import HandlerThreads
from fastagi.errors import Error, Hangup

if TYPE_CHECKING:
    from fastagi.agi.pyst2 import SessionAGI

T = TypeVar("T")


class Bridge:
    """From one handler's thread to the event loop. Closed, every wait ends and every later one fails with `Hangup`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._lock = threading.Lock()
        self._waits: set[concurrent.futures.Future[Any]] = set()
        self._closed = False

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` in the event loop and wait for it.

        :raises Hangup: the session has ended meanwhile; :raises Error: this is the event loop's own thread, which would
            wait for itself for ever
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
        """The session is over: wake whoever waits. Idempotent."""
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
        """`value` as a blocking handler should see it."""
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
            # Only a coroutine is waited for: State and Cause can be awaited too, and are the answer already.
            return self.adapt(self.wait(result) if inspect.iscoroutine(result) else result)

        return _named(call, method)


class BlockingObject:
    """Any object, its coroutine methods blocking. Equal to another one of the same object."""

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


class BlockingChannel(BlockingObject):
    """A `Channel` for a worker thread. Make it in the event loop, use it in the thread.

    `agi` is a pyst2 `AGI` over the same session. Callbacks given to `on_hangup` run in the event loop: keep them short.
    """

    __slots__ = ("_agi",)

    _agi: SessionAGI | None

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(channel, Bridge(loop))
        object.__setattr__(self, "_agi", None)

    @property
    def agi(self) -> SessionAGI:
        """pyst2's `asterisk.agi.AGI` speaking over this session; the same one each time."""
        if self._agi is None:
            from fastagi.agi.pyst2 import SessionAGI  # most handlers never ask for it, and it takes time to import

            object.__setattr__(self, "_agi", SessionAGI(self._target, self._bridge))
        assert self._agi is not None
        return self._agi

    def on_hangup(self, callback: Callable[[], object]) -> None:
        """As `Channel.on_hangup`."""
        try:
            self._bridge.loop.call_soon_threadsafe(self._target.on_hangup, callback)
        except RuntimeError:
            raise Hangup("the server has stopped") from None

    def release(self) -> None:
        """Every wait of the thread ends with `Hangup`, and every later call. Idempotent; from any thread."""
        self._bridge.close()


async def run_blocking(handler: Callable[[Any], T], channel: Channel, pool: HandlerThreads) -> T:
    """Run a plain handler in a thread of `pool`, with a `BlockingChannel`; its result.

    Cancelled, it returns at once: the handler's blocking call, and each that it makes later, raises `Hangup` in its
    thread. A handler that calls nothing cannot be stopped; its thread stays busy until it ends.

    :raises Error: no thread was free in time; :raises Exception: what the handler raised
    """
    blocking = BlockingChannel(channel, asyncio.get_running_loop())
    try:
        return await pool.run(lambda: handler(blocking))
    finally:
        blocking.release()


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
