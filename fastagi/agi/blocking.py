"""Channel for handlers that are plain functions: the same names, but every call blocks until it is done.

`BlockingChannel` only adds waiting. Every attribute of the channel or its subclass has the same name here. A coroutine
method blocks the worker thread while the event loop runs it. An object with coroutine methods (such as a recorder) is
wrapped in the same way. Any other value passes unchanged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from fastagi.agi.bridge import BlockingObject, Bridge
from fastagi.agi.channel import Channel
from fastagi.agi.threads import HandlerThreads
from fastagi.errors import Hangup

if TYPE_CHECKING:
    from fastagi.agi.pyst2 import SessionAGI

T = TypeVar("T")


class BlockingChannel(BlockingObject):
    """`Channel` for a worker thread. Make it in the event loop, use it in the thread.

    `agi` is a pyst2 `AGI` over the same session. Callbacks given to `on_hangup` run in the event loop: keep them short.
    """

    __slots__ = ("_agi",)

    _agi: SessionAGI | None

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(channel, Bridge(loop))
        object.__setattr__(self, "_agi", None)

    @property
    def agi(self) -> SessionAGI:
        """pyst2's `asterisk.agi.AGI` over this session; the same object each time."""
        if self._agi is None:
            from fastagi.agi.pyst2 import SessionAGI  # slow to import, and most handlers do not need it

            object.__setattr__(self, "_agi", SessionAGI(self._target, self._bridge))
        assert self._agi is not None
        return self._agi

    def on_hangup(self, callback: Callable[[], object]) -> None:
        """Register a callback as `Channel.on_hangup` does."""
        try:
            self._bridge.loop.call_soon_threadsafe(self._target.on_hangup, callback)
        except RuntimeError:
            raise Hangup("the server has stopped") from None

    def release(self) -> None:
        """End every wait of the thread, and every later call, with `Hangup`. Idempotent; call it from any thread."""
        self._bridge.close()


async def run_blocking(handler: Callable[[Any], T], channel: Channel, pool: HandlerThreads) -> T:
    """Run a plain handler in a thread of `pool`, with a `BlockingChannel`, and return its result.

    Returns at once when cancelled: the handler's blocking call, and each later one, raises `Hangup` in its thread. A
    handler that makes no call cannot be stopped; its thread stays busy until it ends.

    :raises Error: no thread was free in time; :raises Exception: what the handler raised
    """
    blocking = BlockingChannel(channel, asyncio.get_running_loop())
    try:
        return await pool.run(lambda: handler(blocking))
    finally:
        blocking.release()
