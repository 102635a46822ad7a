"""Ports that are given out, and bound much later."""

from __future__ import annotations

import subprocess
import sys

from fastagi.testing.ports import free_port, free_rtp_port

MANY = 40

OTHER = f"""
from fastagi.testing.ports import free_port, free_rtp_port
media = [free_rtp_port() + step for _ in range({MANY}) for step in range(4)]
print(*media, *(free_port() for _ in range({MANY})), flush=True)
input()
"""


def test_no_port_is_given_twice() -> None:
    """Two processes never get the same port either."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as one:
        assert one.stdout is not None
        theirs = [int(port) for port in one.stdout.readline().split()]
        singles = [free_port() for _ in range(MANY)]
        media = [free_rtp_port() for _ in range(MANY)]
        one.communicate("\n", timeout=20)
    assert one.returncode == 0
    ours = singles + [port + step for port in media for step in range(4)]
    assert len({*ours, *theirs}) == len(ours) + len(theirs) == 10 * MANY
    assert all(port % 2 == 0 for port in media)
