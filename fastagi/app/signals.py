"""Passes SIGTERM, SIGINT and SIGHUP to every app that is served in an event loop: there may be several."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_served: dict[asyncio.AbstractEventLoop, set[asyncio.Future[str]]] = {}

_reloading: dict[asyncio.AbstractEventLoop, set[asyncio.Event]] = {}


@contextmanager
def ended_by_signals(ended: asyncio.Future[str]) -> Iterator[None]:
    """Let a signal resolve `ended` while the context lasts. Does nothing outside the main thread, which gets all
    signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = ended.get_loop()
    served = _served.setdefault(loop, set())
    served.add(ended)
    for number in SIGNALS:
        loop.add_signal_handler(number, _end, served)
    try:
        yield
    finally:
        served.discard(ended)
        if not served:
            _served.pop(loop, None)
            for number in SIGNALS:
                loop.remove_signal_handler(number)


@contextmanager
def told_of_hangups(told: asyncio.Event) -> Iterator[None]:
    """Let SIGHUP set `told`, and end nothing, while the context lasts. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    reloading = _reloading.setdefault(loop, set())
    reloading.add(told)
    loop.add_signal_handler(signal.SIGHUP, _tell, reloading)
    try:
        yield
    finally:
        reloading.discard(told)
        if not reloading:
            _reloading.pop(loop, None)
            loop.remove_signal_handler(signal.SIGHUP)


def _tell(reloading: set[asyncio.Event]) -> None:
    for told in reloading:
        told.set()


def _end(served: set[asyncio.Future[str]]) -> None:
    for ended in served:
        if not ended.done():
            ended.set_result("")
