"""Background tasks with an owner. Each task has a name, its death is logged and counted, and stopping waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from fastagi.errors import Error, Hangup, HeldElsewhere, TakenOver

log = structlog.get_logger(__name__)


class Tasks:
    """Short tasks (`spawn`) that a drain waits for, and lasting ones (`keep`) that it cancels.

    :ivar died: number of tasks that ended by an unexpected error; a metric
    :ivar dead: lasting tasks that have ended, each with its reason; shown by /healthz
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
        """Start work that ends by itself and must not be lost on shutdown."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._short.add(task)
        task.add_done_callback(self._ended)
        return task

    def keep(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start work that goes on until shutdown. If it ends by itself, `death` returns: the app must not go on half
        alive.
        """
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
            # a user's mistake or a call that went: the caller has the error already
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
        """Wait for the short tasks, and those that they spawn, for at most `seconds`. Return True when none is left."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._short:
            left = deadline - loop.time()
            if left <= 0:
                return False
            await asyncio.wait(set(self._short), timeout=left)
        return True

    async def stop(self) -> None:
        """Cancel the remaining tasks and wait until they have ended."""
        for task in (*self._lasting, *self._short):
            task.cancel()
        left = (*self._lasting, *self._short)
        if left:
            await asyncio.wait(left, timeout=5.0)
