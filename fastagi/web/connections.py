"""Limits of the HTTP server's connections: how many there may be, from one peer and in all, and how long one may wait.

A connection *waits* until a whole request is there: it is silent, or has sent half a header block. Closing a waiting
connection loses nothing, so when there is no room the one that waits longest makes way for the newcomer. Only when
every connection is being answered the newcomer gets 503.

Requests are answered in other modules. Nothing here depends on the event loop's kind of transport.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import structlog
from aiohttp import web

from fastagi.agi.descriptors import Descriptors
from fastagi.web.responses import HEADERS, Handler, fault

log = structlog.get_logger(__name__)

MOST_CONNECTIONS = 500
"""Prometheus, a proxy and some dozens of consoles; each idle connection costs some 20 kB."""

MOST_WAITING_PER_PEER = 100
"""A proxy's pool of idle connections has some dozens; one peer that opens and sends nothing must not take all room."""

HEADER_SECONDS = 10.0
"""Seconds from the first byte of a header block to its end: a round trip or two, however bad the line."""

IDLE_SECONDS = 30.0
"""Seconds without a byte: before the first request, and before the next one on a kept connection."""

SWEEP_SECONDS = 1.0

_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nServer: fastagi\r\nRetry-After: 5\r\nConnection: close\r\n\r\n"


class Connection(web.RequestHandler):
    """One connection, which reports to its `Connections` when it waits and when it is answered."""

    __slots__ = ("_bytes", "_connections", "begun", "peer", "refused", "since")

    def __init__(self, connections: Connections, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop, **connections.options)
        self._connections = connections
        self._bytes: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self.peer = ""
        self.refused = False
        self.since = 0.0  # loop time from which it waits
        self.begun = 0.0  # loop time of the first byte of a header block, 0 before

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio promises a transport with `write`; uvloop's is no instance of asyncio.Transport
        self._bytes = transport  # type: ignore[assignment]
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if name else ""
        self.refused = not self._connections.enter(self, transport)
        if self.refused:
            self._bytes.write(_BUSY)
            self._bytes.close()
            return
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self.refused:
            return
        if not self.begun:
            self.begun = self._connections.now()
        super().data_received(data)

    def eof_received(self) -> None:
        if not self.refused:
            super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.refused:
            self._connections.leave(self)
            super().connection_lost(exc)

    @property
    def unsent(self) -> int:
        """Return how many bytes of an answer the peer has not taken."""
        return self._bytes.get_write_buffer_size()

    def drop(self) -> None:
        """Close at once, whatever is unsent. Idempotent."""
        self._bytes.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP, or what failed outside the routes, in the form of every other answer."""
        super().handle_error(request, status, exc, message)  # logs it; raises where an answer has begun
        said = "something went wrong here: the log says what" if status >= 500 else "this is no proper HTTP request"
        answer = fault(status, said, **HEADERS)
        answer.force_close()
        return answer


class Connections:
    """All connections of one HTTP server.

    :param options: of `web.RequestHandler`
    :param descriptors: the process's own; near their limit newcomers are refused
    :ivar refused: newcomers that got 503; :ivar dropped: connections that were closed because they waited
    """

    def __init__(self, options: dict[str, Any], descriptors: Descriptors) -> None:
        self.options = options
        self.refused = 0
        self.dropped = 0
        self._descriptors = descriptors
        self._loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment]  # set by start
        self._server: web.Server | None = None
        self._waiting: dict[Connection, None] = {}  # longest first
        self._answered: dict[Connection, None] = {}
        self._peers: Counter[str] = Counter()  # waiting connections by address
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting) + len(self._answered)

    def start(self, server: web.Server) -> None:
        """Let connections in, for that server."""
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._sweep()

    def stop(self) -> None:
        """Stop checking time limits. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def accept(self) -> asyncio.BaseProtocol:
        """Make the protocol of a new connection: the factory for `asyncio.loop.create_server`."""
        assert self._server is not None
        return Connection(self, self._server, self._loop)

    def now(self) -> float:
        """Loop time in seconds."""
        return self._loop.time()

    def enter(self, connection: Connection, transport: asyncio.BaseTransport) -> bool:
        """Register a new connection. False: there is no room, and the peer must get 503."""
        if self._descriptors.refuses_http(transport):
            self.refused += 1
            return False
        if self._peers[connection.peer] >= MOST_WAITING_PER_PEER:
            self._drop(next(c for c in self._waiting if c.peer == connection.peer))
        if len(self) >= MOST_CONNECTIONS:
            # a peer that does not take its answer can go on later (Range); one that is being answered well cannot
            stuck = (c for c in self._answered if c.unsent)
            longest = next(iter(self._waiting), None) or next(stuck, None)
            if longest is None:
                self.refused += 1
                return False
            self._drop(longest)
        self._wait(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """Remove a closed connection. Idempotent."""
        self._answered.pop(connection, None)
        if connection in self._waiting:
            del self._waiting[connection]
            self._peers[connection.peer] -= 1
            if not self._peers[connection.peer]:
                del self._peers[connection.peer]

    def answering(self, connection: Connection) -> None:
        """Note that a whole request is there."""
        self.leave(connection)
        self._answered[connection] = None

    def answered(self, connection: Connection) -> None:
        """Note that a request is answered: the connection waits for the next one."""
        if self._answered.pop(connection, self) is not self:  # else it was closed meanwhile
            self._wait(connection)

    def _wait(self, connection: Connection) -> None:
        connection.since, connection.begun = self.now(), 0.0
        self._waiting[connection] = None
        self._peers[connection.peer] += 1

    def _drop(self, connection: Connection) -> None:
        self.leave(connection)
        self.dropped += 1
        connection.drop()

    def _sweep(self) -> None:
        now = self.now()
        for connection in list(self._waiting):
            late = connection.begun and now - connection.begun >= HEADER_SECONDS
            if (late or now - connection.since >= IDLE_SECONDS) and not connection.unsent:
                self._drop(connection)
        self._timer = self._loop.call_later(min(SWEEP_SECONDS, HEADER_SECONDS / 4, IDLE_SECONDS / 4), self._sweep)


@web.middleware
async def mark_answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Note in the connection's `Connections` how long a request is being answered. A middleware."""
    connection = request.protocol
    if not isinstance(connection, Connection):  # no Connections: served by a test's own server
        return await handler(request)
    connections = connection._connections
    connections.answering(connection)
    try:
        return await handler(request)
    finally:
        connections.answered(connection)
