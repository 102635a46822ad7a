"""Free ports, each reserved for this process while it lives.

A port is chosen long before it is bound (an Asterisk's configuration names the ports of its phones), and test workers
choose at once. So each choice locks a byte in a file of the cache that all processes of a user share.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
from functools import cache

from fastagi.testing.packages import cache_folder

LOWEST, HIGHEST = 20_500, 32_000
"""Range of the ports: below Linux's ephemeral range (32768 and up), so that no outgoing connection takes a chosen one;
above Asterisk's RTP range (10000 to 20000)."""

TRIES = 500

_random = random.SystemRandom()
_ours: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port on which both TCP and UDP can be bound now. Two calls never return the same port.

    :raises OSError: `TRIES` ports in a row are taken
    """
    return _found(host, 1)


def free_rtp_port(host: str = "127.0.0.1") -> int:
    """Return the first of four consecutive free ports, an even one: sipp's RTP and RTCP of audio and video."""
    return _found(host, 4)


def _found(host: str, count: int) -> int:
    for _ in range(TRIES):
        port = _random.randrange(LOWEST, HIGHEST, count)
        if all(_free(host, number) for number in range(port, port + count)) and _taken(port, count):
            return port
    raise OSError(f"no free port found between {LOWEST} and {HIGHEST}")


def _free(host: str, port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


def _taken(port: int, count: int) -> bool:
    """Try to reserve ports; the kernel releases them when this process ends."""
    ports = set(range(port, port + count))
    if ports & _ours:
        return False
    ledger = _ledger(os.getpid())
    try:
        if ledger is not None:
            fcntl.lockf(ledger, fcntl.LOCK_EX | fcntl.LOCK_NB, count, port)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass  # a file system without locks: only this process remembers its ports
    _ours.update(ports)
    return True


@cache
def _ledger(process: int) -> int | None:
    """Return the file whose byte n is locked by the owner of port n. Stays open: closing it would unlock all.

    :param process: process id; locks are not inherited by a fork
    :return: None where the cache cannot be written: then only this process remembers its ports
    """
    path = cache_folder() / "ports.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
