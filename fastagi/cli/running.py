"""Runs a command's coroutine so that Ctrl-C and SIGTERM cancel it and let it clean up."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import typer

T = TypeVar("T")

TERMINATED = 143
"""128 + SIGTERM, as in shells."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine and return its result.

    :raises KeyboardInterrupt: Ctrl-C, after the coroutine has cleaned up
    :raises typer.Exit: SIGTERM, likewise
    """
    terminated = False

    async def main() -> T:
        def end() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        if threading.current_thread() is not threading.main_thread():
            return await task  # only the main thread gets signals
        loop.add_signal_handler(signal.SIGTERM, end)
        try:
            return await task
        finally:
            loop.remove_signal_handler(signal.SIGTERM)

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if terminated:
            raise typer.Exit(TERMINATED) from None
        raise
