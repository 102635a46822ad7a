"""SIGTERM and SIGINT, told to every app that is served in an event loop: there may be several."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_served: dict[asyncio.AbstractEventLoop, set[asyncio.Future[str]]] = {}


@contextmanager
def ended_by_signals(ended: asyncio.Future[str]) -> Iterator[None]:
    """As long as this lasts a signal resolves `ended`. Beside the main thread none ever comes: nothing is changed."""
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


def _end(served: set[asyncio.Future[str]]) -> None:
    for ended in served:
        if not ended.done():
            ended.set_result("")
