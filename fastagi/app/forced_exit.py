"""Ends a process in which something does not end: a sink or a handler that ignores its cancellation, a waiting thread,
a network disk that does not answer. The app's own parts are closed by then.
"""

from __future__ import annotations

import os
import sys
import threading

import structlog

log = structlog.get_logger(__name__)

LEAVE_SECONDS = 5.0
"""Seconds after the drain. The exit then comes well within systemd's 90 s, and Docker's 30 s."""


def leave_within(seconds: float, code: int) -> None:
    """End this process within `seconds`, by itself or by force.

    :param code: exit code of a forced end
    """
    timer = threading.Timer(seconds, _leave, (code,))
    timer.daemon = True  # a daemon: it does not delay a process that ends by itself
    timer.start()


def _leave(code: int) -> None:
    threads = [t.name for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    log.error(
        "left_behind", threads=threads, hint="a sink or a handler of your own did not end, or a disk is not there"
    )
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
