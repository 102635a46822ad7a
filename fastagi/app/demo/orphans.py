"""So that nothing of the demo is left, not even as a zombie: in a container nobody may reap what loses its parent.

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
    """From now on orphans of this process's children are its own. Where that cannot be, nothing changes."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (OSError, AttributeError):
        pass


def bury() -> None:
    """Wait for all that have ended, and a little for those that are about to. Not while an event loop runs."""
    deadline = time.monotonic() + BURY_SECONDS
    while time.monotonic() < deadline:
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not found:
            time.sleep(0.02)
