"""The server's HTTP client: aiohttp's, with bounds on what a receiver may send.

aiohttp takes informational answers (100 Continue) without end, and parses all data of one read before other tasks run:
an endless stream of them holds the event loop, and with it every call. Use the session made here for every connection.
Time limits are the caller's.
"""

from __future__ import annotations

import functools
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

HEAD_BYTES = 64 * 1024
"""Bytes of informational answers and the header block together. Servers keep a header block below 16 kB."""

MOST_INFORMATIONAL = 10
"""Answers 1xx before the final one. A server sends one, or none."""

PIECE_BYTES = 2048
"""Bytes of a header block that are parsed between two checks of its bounds: 80 of the shortest informational answers.
"""


class AnswerTooLong(aiohttp.ClientPayloadError):
    """A receiver sent more than it may; the text names what."""


class BoundedAnswer(ResponseHandler):
    """aiohttp's side of one connection, which ends it when the receiver sends too much."""

    def __init__(self, loop: Any) -> None:
        super().__init__(loop)
        self._head_bytes = 0
        self._informational = 0
        self._body: Any = None  # of the final answer; None before its header block is there
        self._broken = False

    def set_response_params(self, **params: Any) -> None:
        """Expect the answer to the next request."""
        self._head_bytes = self._informational = 0
        self._body = None
        super().set_response_params(**params)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take one parsed answer, informational or not."""
        message, payload = data
        if 100 <= message.code < 200 and message.code != 101:
            self._informational += 1
        else:
            self._body = payload
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        if self._broken:
            return
        if self._body is not None and self._body.is_eof():
            self._break_off("bytes without a request")
            return
        while data and self._body is None:
            piece, data = data[:PIECE_BYTES], data[PIECE_BYTES:]
            self._head_bytes += len(piece)
            super().data_received(piece)
            if self._body is None and self._head_bytes > HEAD_BYTES:
                self._break_off(f"a header block beyond {HEAD_BYTES // 1024} kB")
            if self._informational > MOST_INFORMATIONAL:
                self._break_off(f"more than {MOST_INFORMATIONAL} informational answers")
            if self._broken:
                return
        if data:
            super().data_received(data)  # a body: its reader's buffer is bounded, and pauses the connection

    def _break_off(self, what: str) -> None:
        self._broken = True
        if self.transport is not None:
            self.transport.abort()
        self.set_exception(AnswerTooLong(what))


class BoundedConnector(aiohttp.TCPConnector):
    """Makes `BoundedAnswer` connections."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # aiohttp has no other way to choose a connection's protocol; a test fails when this has no effect
        self._factory = functools.partial(BoundedAnswer, loop=self._loop)  # type: ignore[assignment]  # a subclass of it


def bounded_session() -> aiohttp.ClientSession:
    """Make a session whose answers are bounded. Takes no proxy and no cookie from elsewhere, and unpacks nothing."""
    return aiohttp.ClientSession(
        connector=BoundedConnector(),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,  # 64 kB can unpack to 64 MB
        headers={"Accept-Encoding": "identity"},
    )


async def read_at_most(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Read a whole body.

    :param most: bytes
    :raises AnswerTooLong: it is longer
    """
    body = b""
    while part := await response.content.read(most + 1 - len(body)):
        body += part
        if len(body) > most:
            raise AnswerTooLong(f"a body beyond {most} bytes")
    return body
