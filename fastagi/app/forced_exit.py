"""The end of a process in which something does not end: a sink or a handler that takes no notice of being cancelled, a
thread of its own that waits, a disk on the network that does not answer. Everything of ours is closed by then.
"""

from __future__ import annotations

import os
import sys
import threading

import structlog

log = structlog.get_logger(__name__)

LEAVE_SECONDS = 5.0
"""After the drain; with it the end comes well within systemd's 90 s, and Docker's 30 s."""


def leave_within(seconds: float, code: int) -> None:
    """This process ends so soon, by itself or by force.

    :param code: its exit code where force is needed
    """
    timer = threading.Timer(seconds, _leave, (code,))
    timer.daemon = True  # it holds nobody who ends by himself
    timer.start()


def _leave(code: int) -> None:
    threads = [t.name for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    log.error(
        "left_behind", threads=threads, hint="a sink or a handler of your own did not end, or a disk is not there"
    )
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
