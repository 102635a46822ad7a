"""Background tasks with an owner: each is known by name, its death is logged and counted, and stopping waits
for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from fastagi.errors import Error, Hangup, HeldElsewhere, TakenOver

log = structlog.get_logger(__name__)


class Tasks:
    """Short tasks (`spawn`) that a drain waits for, and lasting ones (`keep`) that it cancels.

    :ivar died: how many ended by an error that nobody expected; a metric
    :ivar dead: lasting ones that are no more, each with its reason; /healthz
    """

    def __init__(self) -> None:
        self._short: set[asyncio.Task[None]] = set()
        self._lasting: set[asyncio.Task[None]] = set()
        self.died = 0
        self.dead: list[str] = []
        self._death = asyncio.Event()

    def __len__(self) -> int:
        return len(self._short)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Work that ends by itself and must not be lost on shutdown."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._short.add(task)
        task.add_done_callback(self._ended)
        return task

    def keep(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Work that goes on until the end. If it dies by itself, `death` tells: the app must not go on half alive."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._lasting.add(task)
        task.add_done_callback(self._lasting_ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._short.discard(task)
        fault = None if task.cancelled() else task.exception()
        if isinstance(fault, TakenOver) and not isinstance(fault, HeldElsewhere):
            log.warning("recording_taken_over", task=task.get_name(), error=str(task.exception()))
        elif not task.cancelled() and isinstance(task.exception(), (Error, Hangup, HeldElsewhere)):
            # a user's mistake or a call that went: whoever asked has been told
            log.debug("task_refused", task=task.get_name(), error=str(task.exception()))
        elif not task.cancelled() and task.exception() is not None:
            self.died += 1
            log.error("task_died", task=task.get_name(), exc_info=task.exception())

    def _lasting_ended(self, task: asyncio.Task[None]) -> None:
        self._lasting.discard(task)
        if task.cancelled():
            return
        self.died += 1
        exc = task.exception()
        log.critical("background_task_died", task=task.get_name(), exc_info=exc)
        reason = f"{task.get_name()}: {exc or 'ended'}"
        self.dead.append(reason)
        self._death.set()

    async def death(self) -> str:
        """Wait until a lasting task has died; returns its reason."""
        await self._death.wait()
        return self.dead[0]

    async def drain(self, seconds: float) -> bool:
        """Wait for the short tasks (and those they spawn) at most so long. True when none is left."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._short:
            left = deadline - loop.time()
            if left <= 0:
                return False
            await asyncio.wait(set(self._short), timeout=left)
        return True

    async def stop(self) -> None:
        """Cancel what is left and wait until it is gone."""
        for task in (*self._lasting, *self._short):
            task.cancel()
        left = (*self._lasting, *self._short)
        if left:
            await asyncio.wait(left, timeout=5.0)
