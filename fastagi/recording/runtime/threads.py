"""The threads that touch files: a few for names and stats, fewer for audio. The event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

FILE_THREADS = 8
"""A dead network mount holds one thread a call; eight leave room for the others until it is noticed."""


class FileThreads:
    """Two pools with a name each: `run` for quick file work, `finish` for audio.

    :param finishers: files finished at once; 0 for one less than the cores (at least one), so that the loop keeps a
        core
    """

    def __init__(self, finishers: int = 0) -> None:
        self.finishers = finishers or max(1, (os.cpu_count() or 2) - 1)
        self._files = ThreadPoolExecutor(FILE_THREADS, "fastagi-files")
        self._audio = ThreadPoolExecutor(self.finishers, "fastagi-audio")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Quick file work."""
        return await asyncio.get_running_loop().run_in_executor(self._files, lambda: function(*args, **kwargs))

    async def finish(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Audio work; waits for its turn."""
        return await asyncio.get_running_loop().run_in_executor(self._audio, lambda: function(*args, **kwargs))

    def close(self) -> None:
        """Wait for what runs, drop what has not begun."""
        self._files.shutdown(wait=True, cancel_futures=True)
        self._audio.shutdown(wait=True, cancel_futures=True)
