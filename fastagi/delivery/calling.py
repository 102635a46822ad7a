"""Calls users' code, a sink's method or its `aclose`: async code on this loop, plain functions in threads.

Anything that the code raises becomes an `Exception`, so that no sink ends the task, the loop or the server.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from fastagi.errors import SinkError
from fastagi.runtime.threads import Pool


class Threads(Pool):
    """Threads for the plain functions of one sink. A function that never returns keeps its thread for good."""

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name, limit, as_error=_ended)


async def call(function: Callable[..., Any], *args: Any, threads: Threads) -> None:
    """Call an async or a plain function.

    Cancelling this task passes. KeyboardInterrupt passes on the loop, where it is Ctrl-C.

    :raises SinkError: it raised no `Exception` but `sys.exit`, a panic in an extension, or the cancellation of
        something that it waited for
    :raises Exception: the exception that it raised
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
    """Return whether a call gives an awaitable, without calling."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _ended(exc: BaseException, why: str = "") -> SinkError:
    return SinkError(f"{type(exc).__name__}: {why or exc}")
