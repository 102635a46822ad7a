"""Place calls on which one handler runs; its result, or what it raises, comes to the test."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastagi import RecordingMetadata
from fastagi.testing.asterisk import Originated
from support.recorder_harness import Scene

HANDLER_SECONDS = 60.0

_numbers = itertools.count(1)


@dataclass
class HandledCall:
    """A call that has reached its handler's route.

    :ivar result: what the handler gave
    """

    scene: Scene
    placed: Originated
    result: asyncio.Future[Any]

    @property
    def uniqueid(self) -> str:
        return self.placed.uniqueid

    @property
    def channel(self) -> str:
        return self.placed.channel

    async def done(self) -> Any:
        """:raises Exception: what the handler raised"""
        return await asyncio.wait_for(asyncio.shield(self.result), HANDLER_SECONDS)

    async def told(self, count: int = 1) -> list[RecordingMetadata]:
        """What the app's sink got of this call, once it got so many."""
        await self.scene.until(lambda: len(of_call(self.scene, self.uniqueid)) >= count, 30)
        return of_call(self.scene, self.uniqueid)


def of_call(scene: Scene, uniqueid: str) -> list[RecordingMetadata]:
    """What the app's sink got of that channel so far."""
    return [m for m in scene.sink.got if m.session_id == uniqueid]


def route_for(scene: Scene, handler: Callable[..., Any]) -> tuple[str, asyncio.Future[Any]]:
    """A route of its own for `handler`, async or plain, and the future of what it gives."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()
    result.add_done_callback(lambda f: f.cancelled() or f.exception())  # who does not look is not warned of it

    def settle(value: Any, exc: BaseException | None) -> None:
        if not result.done():
            result.set_result(value) if exc is None else result.set_exception(exc)

    if inspect.iscoroutinefunction(handler):

        async def run(call: Any) -> None:
            try:
                settle(await handler(call), None)
            except BaseException as exc:  # pytest's own failures are no Exceptions
                settle(None, exc)
                raise

    else:

        def run(call: Any) -> None:  # type: ignore[misc]
            try:
                value = handler(call)
            except BaseException as exc:
                loop.call_soon_threadsafe(settle, None, exc)
                raise
            loop.call_soon_threadsafe(settle, value, None)

    route = f"test{next(_numbers)}"
    scene.app.route(route)(run)
    return route, result


async def place(scene: Scene, handler: Callable[..., Any], *args: str, **how: Any) -> HandledCall:
    """Call the far end and run `handler` on the channel once it answers.

    :param how: as for `Scene.call`
    """
    route, result = route_for(scene, handler)
    return HandledCall(scene, await scene.call(route, *args, **how), result)


async def on_call(scene: Scene, handler: Callable[..., Any], *args: str, **how: Any) -> Any:
    """What `handler` gives when it is run on a call.

    :raises Exception: what it raised
    """
    return await (await place(scene, handler, *args, **how)).done()
