"""Which HTTP connection makes way for which, decided without a socket."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from fastagi.agi.descriptors import RESERVE_HTTP, Descriptors
from fastagi.web import connections as module
from fastagi.web.connections import Connection, Connections


class Link:
    """A transport that is no `asyncio.Transport`, as uvloop's, and its socket."""

    family = socket.AF_UNIX  # aiohttp then sets no options

    def __init__(self, peer: str, number: int) -> None:
        self.peer, self.number = peer, number
        self.sent = b""
        self.closed = False
        self.unsent = 0

    def get_extra_info(self, name: str, default: object = None) -> Any:
        return {"peername": (self.peer, 1), "socket": self}.get(name, default)

    def fileno(self) -> int:
        return self.number

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def get_write_buffer_size(self) -> int:
        return self.unsent


class Server:
    """What a `web.RequestHandler` needs of its server."""

    handler_cancellation = False
    request_handler = request_factory = None

    def connection_made(self, *_: object) -> None: ...
    def connection_lost(self, *_: object) -> None: ...


class Door:
    def __init__(self) -> None:
        self.descriptors = Descriptors()
        self.descriptors.limit = 1000
        self.all = Connections({"access_log": None, "keepalive_timeout": 0, "tcp_keepalive": False}, self.descriptors)
        self.all.start(Server())  # type: ignore[arg-type]

    def open(self, peer: str = "192.0.2.1", number: int = 10) -> tuple[Connection, Link]:
        connection, link = self.all.accept(), Link(peer, number)
        assert isinstance(connection, Connection)
        connection.connection_made(link)  # type: ignore[arg-type]
        return connection, link


@pytest.fixture
async def door(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 4)
    monkeypatch.setattr(module, "MOST_WAITING_PER_PEER", 3)
    made = Door()
    yield made
    made.all.stop()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_the_longest_waiting_makes_way(door: Door) -> None:
    links = [door.open(f"192.0.2.{n}")[1] for n in range(6)]
    assert [link.closed for link in links] == [True, True, False, False, False, False]
    assert (len(door.all), door.all.dropped, door.all.refused) == (4, 2, 0)


async def test_one_peer_replaces_its_own(door: Door) -> None:
    _, other = door.open("192.0.2.9")
    links = [door.open("192.0.2.1")[1] for _ in range(10)]
    assert not other.closed
    assert sum(not link.closed for link in links) == 3


async def test_answered_connections_stay(door: Door) -> None:
    """Without one that waits the newcomer is told so and closed, whatever its transport is an instance of."""
    held = [door.open(f"192.0.2.{n}") for n in range(4)]
    for connection, _ in held:
        door.all.answering(connection)
    _, late = door.open()
    assert late.closed
    assert late.sent.startswith(b"HTTP/1.1 503 ")
    assert not any(link.closed for _, link in held)
    held[2][1].unsent = 5000  # takes nothing of its answer
    _, later = door.open()
    assert held[2][1].closed
    assert not later.closed


async def test_the_last_descriptors_are_kept(door: Door) -> None:
    _, near = door.open(number=1000 - RESERVE_HTTP)
    assert near.sent.startswith(b"HTTP/1.1 503 ")
    assert near.closed
    assert (door.descriptors.refused_http, door.descriptors.scarce) == (1, True)
    assert not door.open(number=1000 - RESERVE_HTTP - 1)[1].closed


async def test_half_headers_end_in_time(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, link = door.open()
    _, silent = door.open()
    answered, busy = door.open()
    connection.data_received(b"GET / HT")
    door.all.answering(answered)
    now = door.all.now()
    monkeypatch.setattr(door.all, "now", lambda: now + module.HEADER_SECONDS + 1)
    door.all._sweep()
    assert (link.closed, silent.closed, busy.closed) == (True, False, False)
    monkeypatch.setattr(door.all, "now", lambda: now + module.IDLE_SECONDS + 1)
    door.all._sweep()
    assert (silent.closed, busy.closed) == (True, False)
