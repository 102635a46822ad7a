"""Reaps the demo's orphans, so that none is left as a zombie: in a container there may be no init that reaps them.

The shell that guards the demo's Asterisk ends a moment after it, without a parent. Linux gives orphans to the nearest
ancestor that asked for them (prctl(2), PR_SET_CHILD_SUBREAPER), else to process 1.
"""

from __future__ import annotations

import ctypes
import os
import time

PR_SET_CHILD_SUBREAPER = 36

BURY_SECONDS = 2.0


def adopt() -> None:
    """Make this process the parent of its children's orphans from now on. Does nothing when the kernel refuses."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (OSError, AttributeError):
        pass


def bury() -> None:
    """Reap all children that have ended, and wait a little for those about to end. Not while an event loop runs."""
    deadline = time.monotonic() + BURY_SECONDS
    while time.monotonic() < deadline:
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not found:
            time.sleep(0.02)
