"""`/api/v1/events`: the journal as server-sent events, as it is written.

The ledger is the source here too. The journal's listener only signals new lines; one reader fetches them for all
clients, with their numbers, and keeps the newest in a ring. A client is only a place in that ring, so a slow one costs
no memory. A client that the ring has overtaken gets `event: reset` and begins again. A client that comes back with
Last-Event-ID first gets the lines that it missed, from the ledger.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterable
from typing import Any

import structlog
from aiohttp import web

from fastagi.domain.recording import Recording
from fastagi.errors import StoreError
from fastagi.store.queries import journal
from fastagi.web import serializers
from fastagi.web.access import Role
from fastagi.web.api import RequestContext, Route
from fastagi.web.dependencies import WebDependencies
from fastagi.web.params import whole
from fastagi.web.responses import Refusal

log = structlog.get_logger(__name__)

MOST_CLIENTS = 64
"""Consoles and programs that follow; each is a connection that stays open."""

RING = 2000
"""Events kept for clients that are behind, some 3 MB."""

BATCH = 200

MOST_MISSED = 10_000
"""Most events that a client gets again after a break; one that missed more must list the recordings anew."""

GATHER_SECONDS = 0.02
"""A finished call writes several entries at once: they are fetched together."""

POLL_SECONDS = 2.0
"""Seconds between reads for entries without a signal: those of other servers on the ledger, and late commits."""

OVERLAP = 100
"""On PostgreSQL a number may be committed after a higher one: this many are read again."""

PING_SECONDS = 15.0
"""Seconds between empty comments, which keep proxies from closing and find clients that are gone."""

LOOK_SECONDS = 1.0
"""A client that has gone is noticed within this time, not at the next comment."""

WRITE_SECONDS = 30.0

RESET = b"event: reset\ndata: {}\n\n"


class Events:
    """The route, and the reader behind it. The reader runs only while a client follows."""

    def __init__(self, sources: WebDependencies) -> None:
        self._sources = sources
        self._overlap = 0 if sources.store.alone else OVERLAP
        self._ring: deque[bytes] = deque(maxlen=RING)
        self._count = 0  # number of events that were ever put into the ring
        self._last = 0  # the highest number that was read
        self._seen: deque[int] = deque(maxlen=4 * OVERLAP)
        self._clients = 0
        self._reader: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        self._closed = False
        sources.recorder.listen(self._told)

    def routes(self) -> list[Route]:
        """Return the only route."""
        after = whole("after", "give what came after this number first; the same as the header Last-Event-ID", 0, 2**62)
        return [
            Route("GET", "/events", self.follow, Role.VIEWER, "The journal as it is written (server-sent events)",
                  (after,), media="text/event-stream",
                  answers={200: "events without end: `id` is the journal's number, `data` the entry and its recording; "
                                "`event: reset` says that some were missed: list anew"}),
        ]  # fmt: skip

    async def close(self) -> None:
        """End every stream and the reader."""
        self._closed = True
        self._news.set()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def _told(self, recording: Recording, event: str, detail: dict[str, Any]) -> None:
        if self._clients:
            self._wake.set()

    # -- the reader

    async def _begin(self) -> None:
        """Start the reader unless it runs; from now on no event is missed."""
        async with self._starting:
            if self._reader is None or self._reader.done():
                self._last = await self._sources.ledger.last_entry()
                self._reader = asyncio.create_task(self._read(), name="journal-events")

    async def _read(self) -> None:
        while self._clients and not self._closed:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
                await asyncio.sleep(GATHER_SECONDS)
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                while await self._fetch():
                    pass
            except StoreError as exc:
                log.warning("events_not_read", error=str(exc))

    async def _fetch(self) -> bool:
        """Put new entries into the ring; return whether there may be more."""
        after = max(0, self._last - self._overlap)
        rows = await self._sources.ledger.entries_after(after, BATCH, _rendered, frozenset(self._seen))
        for seq, text in rows:
            self._last = max(self._last, seq)
            if self._overlap:
                self._seen.append(seq)
            self._ring.append(text)
            self._count += 1
        if rows:
            self._news.set()
            self._news = asyncio.Event()
        return len(rows) >= BATCH

    # -- one client

    async def follow(self, asked: RequestContext) -> web.StreamResponse:
        """Answer GET /events."""
        request = asked.request
        since = _since(request, asked)
        if self._clients >= MOST_CLIENTS:
            raise Refusal(503, f"{MOST_CLIENTS} clients follow already", Retry_After="30")
        self._clients += 1
        try:
            await self._begin()
            place, newest = self._count, self._last
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            )
            if request.method == "HEAD":
                await response.prepare(request)
                return response
            await response.prepare(request)
            await _write(response, [b"retry: 3000\n\n"])
            try:
                if since is not None:
                    await self._replay(response, since, newest)
                await self._live(request, response, place)
            except (TimeoutError, OSError):
                if request.transport is not None:
                    request.transport.abort()
            return response
        finally:
            self._clients -= 1

    async def _replay(self, response: web.StreamResponse, since: int, newest: int) -> None:
        """Send the entries after `since`, up to where the ring takes over."""
        if since > newest or newest - since > MOST_MISSED:
            await _write(response, [RESET])
            return
        while since < newest and not self._closed:
            rows = await self._sources.ledger.entries_after(since, BATCH, _rendered)
            rows = [row for row in rows if row[0] <= newest]
            if not rows:
                return
            await _write(response, (text for _, text in rows))
            since = rows[-1][0]

    async def _live(self, request: web.Request, response: web.StreamResponse, place: int) -> None:
        quiet = 0.0
        while not self._closed and request.transport is not None:
            news = self._news
            behind = self._count - place
            if behind:
                missed = behind > len(self._ring)
                await _write(response, [RESET] if missed else list(self._ring)[-behind:])
                place, quiet = place + behind, 0.0
                continue
            try:
                async with asyncio.timeout(min(LOOK_SECONDS, PING_SECONDS)):
                    await news.wait()
            except TimeoutError:
                quiet += LOOK_SECONDS
                if quiet >= PING_SECONDS:
                    await _write(response, [b":\n\n"])
                    quiet = 0.0


async def _write(response: web.StreamResponse, texts: Iterable[bytes]) -> None:
    async with asyncio.timeout(WRITE_SECONDS):
        await response.write(b"".join(texts))


def _since(request: web.Request, asked: RequestContext) -> int | None:
    header = request.headers.get("Last-Event-ID", "")
    if header:
        if not (header.isascii() and header.isdigit()) or len(header) > 18:
            raise Refusal(400, "Last-Event-ID is no number of the journal")
        return int(header)
    after: int | None = asked.query.get("after")
    return after


def _rendered(entry: journal.Entry, recording: Recording | None) -> bytes:
    """Return an entry with its recording as it is sent."""
    body = {**serializers.entry(entry), "recording": None if recording is None else serializers.recording(recording)}
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))  # JSON writes no line ends into a line
    return f"id: {entry.seq}\ndata: {text}\n\n".encode("utf-8", "replace")
