"""WebhookSink on uvloop, as served, against a receiver that sends too much."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
import uvloop

from fastagi.delivery.http_client import bounded_session, read_at_most
from fastagi.delivery.sinks.webhook import WebhookSink
from fastagi.domain.metadata import RecordingMetadata
from fastagi.errors import SinkError

METADATA = RecordingMetadata("ch-1", "one", "/recordings/one.wav", 1.0)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LAST = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
PIECE = 256 * 1024

Sent = Callable[[], Iterator[bytes]]


def repeat(first: bytes, then: bytes) -> Sent:
    """`first`, then `then` without end, in large pieces."""
    whole = then * max(1, PIECE // len(then))

    def sent() -> Iterator[bytes]:
        yield first
        while True:
            yield whole

    return sent


@asynccontextmanager
async def receiver(sent: Sent) -> AsyncIterator[str]:
    """A receiver that answers each connection with what `sent` gives, for as long as it is taken."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"content-length:" in head:  # closing on an unread body would reset the connection
                await reader.readexactly(int(head.split(b"content-length:")[1].split()[0]))
            for piece in sent():
                writer.write(piece)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


def on_uvloop(work: Callable[[], object]) -> object:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())  # type: ignore[arg-type]


HOSTILE = {
    "endless_informational": (repeat(b"", CONTINUE), "more than 10 informational answers"),
    "endless_headers": (repeat(b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"y" * 100 + b"\r\n"), "the answer "),
    "endless_header_line": (repeat(b"HTTP/1.1 200 OK\r\nX: ", b"y"), "the answer "),
    "headers_after_informational": (
        repeat(CONTINUE * 5 + b"HTTP/1.1 103 Early Hints\r\n", b"Link: y\r\n"), "the answer ",
    ),
    "endless_error_body": (repeat(b"HTTP/1.1 500 No\r\n\r\n", b"why "), "answered 500: why why"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_endless_answers_end_soon(case: str) -> None:
    """One receiver held the event loop for seconds at a time, and memory grew, until the time limit."""
    sent, said = HOSTILE[case]

    async def work() -> str:
        async with receiver(sent) as url:
            sink = WebhookSink(url, timeout_seconds=60)
            try:
                async with asyncio.timeout(20):
                    with pytest.raises(SinkError) as raised:
                        await sink.on_recording_complete(METADATA)
            finally:
                await sink.aclose()
            return str(raised.value)

    assert said in str(on_uvloop(work))


@pytest.mark.parametrize(
    "sent",
    [repeat(b"HTTP/1.1 200 OK\r\n\r\n", b"y"), lambda: iter([CONTINUE * 3 + LAST])],
    ids=["endless_body", "some_informational"],
)
def test_accepted_is_accepted(sent: Sent) -> None:
    """What follows an answer that says 200 changes nothing, and is not kept."""

    async def work() -> None:
        async with receiver(sent) as url:
            sink = WebhookSink(url, timeout_seconds=20)
            try:
                for _ in range(3):
                    await sink.on_recording_complete(METADATA)
            finally:
                await sink.aclose()

    on_uvloop(work)


def test_nothing_is_unpacked() -> None:
    """64 kB of gzip are 64 MB of nothing."""
    packed = gzip.compress(bytes(50_000_000))
    head = b"HTTP/1.1 400 No\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)

    async def work() -> str:
        async with receiver(lambda: iter([head + packed])) as url:
            sink = WebhookSink(url, timeout_seconds=20)
            try:
                with pytest.raises(SinkError) as raised:
                    await sink.on_recording_complete(METADATA)
            finally:
                await sink.aclose()
            return str(raised.value)

    began = time.process_time()
    assert "answered 400" in str(on_uvloop(work))
    assert time.process_time() - began < 2


def test_unasked_bytes_close_the_connection() -> None:
    """Kept for the next request, it took without end what a receiver went on sending."""

    async def work() -> int:
        connections = 0
        done, closed = asyncio.Event(), asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await done.wait()
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nunasked")
            try:
                await reader.read()
            except ConnectionError:
                pass
            closed.set()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with bounded_session() as client:
            for _ in range(2):
                async with client.get(url) as response:
                    assert response.status == 200
                done.set()
                async with asyncio.timeout(20):
                    await closed.wait()
        server.close()
        return connections

    assert on_uvloop(work) == 2


def test_long_bodies_are_refused() -> None:
    async def work() -> None:
        endless = repeat(b"HTTP/1.1 200 OK\r\n\r\n", b"y")
        async with receiver(endless) as url, bounded_session() as client, client.get(url) as response:
            with pytest.raises(aiohttp.ClientError, match="beyond 1000 bytes"):
                await read_at_most(response, 1000)

    on_uvloop(work)
