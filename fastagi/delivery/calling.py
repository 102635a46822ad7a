"""Calls of what users wrote, a sink's method or its `aclose`: async ones on this loop, plain ones in threads.

Whatever comes out of them is an `Exception`, so that no sink ends the task, the loop or the server that called it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Callable
from typing import Any

from fastagi.errors import SinkError


class Threads:
    """Threads for the plain functions of one sink: at most `limit` at once, never waited for at exit.

    A thread cannot be killed. One that does not return keeps its place, and dies with the process: a
    ThreadPoolExecutor's would be joined when the interpreter ends, and keep a stopped server alive.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._free = asyncio.Semaphore(limit)

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Its result; waits for a place. Cancelling stops the waiting, not the function."""
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        await self._free.acquire()
        future: asyncio.Future[Any] = loop.create_future()

        def answer(value: Any, error: Exception | None) -> None:
            self._free.release()
            if future.done():  # nobody waits any more
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        def work() -> None:
            value: Any = None
            error: Exception | None = None
            try:
                value = context.run(function, *args)
            except StopIteration as exc:  # no future can carry it
                error = _ended(exc)
            except Exception as exc:
                error = exc
            except (
                BaseException
            ) as exc:  # handed to who awaits it; no signal is raised in a thread, KeyboardInterrupt is its own
                error = _ended(exc)
            with contextlib.suppress(RuntimeError):  # the loop is gone, and with it everybody who waited
                loop.call_soon_threadsafe(answer, value, error)

        try:
            threading.Thread(target=work, name=self._name, daemon=True).start()
        except RuntimeError:
            self._free.release()
            raise
        return await future


async def call(function: Callable[..., Any], *args: Any, threads: Threads) -> None:
    """Calls an async or a plain function.

    Cancelling passes when it is this task that is cancelled. KeyboardInterrupt passes on the loop, where it is Ctrl-C.

    :raises SinkError: it ended by what is no `Exception`: `sys.exit`, a panic in an extension, or the cancellation of
        something that it waited for; :raises Exception: what it raised
    """
    task = asyncio.current_task()
    assert task is not None
    cancelled = task.cancelling()
    try:
        if is_async(function):
            await function(*args)
            return
        answer = await threads.run(function, *args)
        if inspect.isawaitable(answer):
            await answer
    except asyncio.CancelledError as exc:
        if task.cancelling() > cancelled:
            raise
        raise _ended(exc, "what it waited for was cancelled") from None
    except (Exception, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as exc:
        raise _ended(exc) from None


def is_async(function: Callable[..., Any]) -> bool:
    """Does calling it give something to await, without running it?"""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _ended(exc: BaseException, why: str = "") -> SinkError:
    return SinkError(f"{type(exc).__name__}: {why or exc}")
