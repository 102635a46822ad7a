"""Listening sockets of the server. `server` accepts the connections, `session` speaks AGI on them."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from typing import Final

KEEPALIVE: Final = (60, 15, 4)
"""TCP keep-alive: idle seconds, interval, probes. A PBX that lost its power is noticed after two minutes. A FastAGI
connection may be silent for the whole call, so only the kernel can check it."""


async def bind(host: str, port: int) -> list[socket.socket]:
    """Bind a socket for each address of `host`. Addresses that this machine lacks (::1 without IPv6) are left out.

    :param host: address or name, empty for all; :param port: 0 picks a free one, the same for every address
    :raises OSError: an address cannot be bound, or `host` has none
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                listening = socket.socket(family, kind, protocol)
            except OSError as exc:  # a family that the kernel lacks
                missing = exc
                continue
            sockets.append(listening)
            _prepare(listening)
            chosen = bound_port(sockets) if len(sockets) > 1 else port  # port 0: one free port for all
            try:
                listening.bind((address[0], chosen, *address[2:]))
            except OSError as exc:
                if exc.errno != errno.EADDRNOTAVAIL:
                    raise
                missing = exc
                sockets.remove(listening)
                listening.close()
        if missing is not None and not sockets:
            raise missing
    except OSError:
        for listening in sockets:
            listening.close()
        raise
    return sockets


async def listen(
    sockets: Sequence[socket.socket],
    protocol: Callable[[], asyncio.BaseProtocol],
    *,
    backlog: int,
    servers: list[asyncio.Server],
) -> None:
    """Listen on each of these sockets and add its server to `servers`.

    When this fails or is cancelled, `servers` has the servers made so far; the other sockets are closed.

    :raises OSError: listening on a socket failed
    """
    loop = asyncio.get_running_loop()
    left = list(sockets)
    try:
        while left:
            left[0].setblocking(False)
            server = await loop.create_server(protocol, sock=left[0], backlog=backlog, start_serving=False)
            servers.append(server)
            del left[0]
            await server.start_serving()
    finally:
        for listening in left:
            listening.close()


def bound_port(sockets: list[socket.socket]) -> int:
    """Return the port that the sockets share."""
    return int(sockets[0].getsockname()[1])


def _prepare(listening: socket.socket) -> None:
    """Set the options of a listening socket. Accepted sockets inherit the keep-alive without a system call each."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listening.family == socket.AF_INET6:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in zip(("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"), KEEPALIVE, strict=True):
        if hasattr(socket, option):  # other systems have other names, or none
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
