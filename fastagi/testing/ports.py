"""Ports that nobody uses now."""

from __future__ import annotations

import random
import socket

LOWEST, HIGHEST = 20_500, 32_000
"""Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes one between choice and use; above
Asterisk's RTP range (10000 to 20000)."""

_random = random.SystemRandom()


def free_port(host: str = "127.0.0.1") -> int:
    """A port on which both TCP and UDP can be bound now.

    :raises OSError: 200 of them in a row are taken
    """
    for _ in range(200):
        port = _random.randrange(LOWEST, HIGHEST)
        if _free(host, port):
            return port
    raise OSError("no free port found")


def free_rtp_port(host: str = "127.0.0.1") -> int:
    """The first of four consecutive free ports, an even one: RTP and RTCP of audio and video as sipp numbers them."""
    for _ in range(200):
        port = _random.randrange(LOWEST, HIGHEST, 4)
        if all(_free(host, port + step) for step in range(4)):
            return port
    raise OSError("no free ports found")


def _free(host: str, port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
