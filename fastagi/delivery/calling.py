"""Calls of what users wrote, a sink's method or its `aclose`: async ones on this loop, plain ones in threads.

Whatever comes out of them is an `Exception`, so that no sink ends the task, the loop or the server that called it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from fastagi.errors import SinkError
from fastagi.runtime.threads import Pool


class Threads(Pool):
    """Threads for the plain functions of one sink. One that does not return keeps its place to the end."""

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name, limit, as_error=_ended)


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
        answer = await threads.submit(function, *args)
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
