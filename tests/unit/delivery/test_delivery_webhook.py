"""WebhookSink against a real HTTP server: what it sends, and what it makes of every answer."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from fastagi.delivery.registry import SinkRegistry
from fastagi.delivery.sink import CurrentDelivery, current_delivery
from fastagi.delivery.sinks.post import retry_after
from fastagi.delivery.sinks.signing import new_secret
from fastagi.delivery.sinks.webhook import WebhookSink
from fastagi.domain.metadata import RecordingMetadata
from fastagi.errors import BadArgument, SinkError

NEW = new_secret()

METADATA = RecordingMetadata("ch-1", "né", "/var/spool/asterisk/recording/né.wav", 42.3)


@dataclass
class Receiver:
    """A receiver of webhooks that answers as `answer` says, and keeps what it got."""

    url: str = ""
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((dict(request.headers), await request.read()))
        return await self.answer(request) if self.answer else web.Response()

    def status(self, status: int, text: str = "", **headers: str) -> None:
        async def answer(request: web.Request) -> web.Response:
            return web.Response(status=status, text=text, headers={k.replace("_", "-"): v for k, v in headers.items()})

        self.answer = answer


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


async def refused(sink: WebhookSink) -> SinkError:
    with pytest.raises(SinkError) as caught:
        await sink.on_recording_complete(METADATA)
    await sink.aclose()
    return caught.value


def test_the_signature_of_the_design_page() -> None:
    body = METADATA.to_json()
    assert body == (
        rb'{"session_id":"ch-1","name":"n\u00e9","file_path":"/var/spool/asterisk/recording/n\u00e9.wav",'
        rb'"duration_seconds":42.3,"format":"wav","extra":{}}'
    )
    headers = WebhookSink("https://h/x", signing_secret="please-rotate-me").headers(body, "dlv-1")
    assert headers["X-Voxtra-Signature"] == "b8aacd3513ef392c0724996daa8b815491270489a6f7bab433d0eea15603930f"


async def test_metadata_is_sent_as_json(receiver: Receiver) -> None:
    sink = WebhookSink(receiver.url, signing_secret="please-rotate-me", clock=lambda: 1_700_000_000.9)
    token = current_delivery.set(CurrentDelivery("dlv-42", 3, "rec-1"))
    await sink.on_recording_complete(METADATA)
    current_delivery.reset(token)
    await sink.aclose()
    [(headers, body)] = receiver.requests
    assert body == METADATA.to_json()
    assert json.loads(body) == METADATA.to_dict()
    assert headers["Content-Type"] == "application/json"
    assert headers["webhook-id"] == "dlv-42"
    assert headers["webhook-timestamp"] == "1700000000"
    assert headers["X-Voxtra-Signature"] == hmac.new(b"please-rotate-me", body, hashlib.sha256).hexdigest()
    wanted = hmac.new(b"please-rotate-me", b"dlv-42.1700000000." + body, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(wanted).decode()


def test_the_standard_webhooks_test_vector() -> None:
    # the specification's own example: https://github.com/standard-webhooks/standard-webhooks (spec, "Signature scheme")
    sink = WebhookSink(
        "https://h/x", signing_secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", clock=lambda: 1_614_265_330.0
    )
    headers = sink.headers(b'{"test": 2432232314}', "msg_p5jXN8AQM9LWM0D4loKWxJek")
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    key = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert headers["X-Voxtra-Signature"] == hmac.new(key, b'{"test": 2432232314}', hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("secret", "given"),
    [
        (NEW, NEW),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS"),
        ("please-rotate-me", base64.b64encode(b"please-rotate-me").decode()),
        ("please-rotate-me", b"please-rotate-me"),
    ],
    ids=["made here", "without padding", "plain text as base64", "plain text as bytes"],
)
def test_the_official_library_verifies(secret: str, given: str | bytes) -> None:
    """What the guide says to give the library fits what was signed."""
    body = METADATA.to_json()
    headers = WebhookSink("https://h/x", signing_secret=secret).headers(body, "dlv-1")
    assert Webhook(given).verify(body, headers) == METADATA.to_dict()
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, headers)


def test_each_secret_signs_while_rotated() -> None:
    body = METADATA.to_json()
    headers = WebhookSink("https://h/x", signing_secret=[NEW, "please-rotate-me"]).headers(body, "dlv-1")
    for given in (NEW, b"please-rotate-me"):
        Webhook(given).verify(body, headers)
    assert [part[:3] for part in headers["webhook-signature"].split(" ")] == ["v1,", "v1,"]
    assert headers["X-Voxtra-Signature"] == hmac.new(NEW.encode(), body, hashlib.sha256).hexdigest()


def test_secrets_in_the_readme_verify() -> None:
    """Whoever copies README's settings can check deliveries with a Standard Webhooks library, as they stand."""
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    shown = re.findall(r'(?:signing_)?secret = "(whsec_[^"]*)"', readme)
    assert len(shown) == 2
    body = METADATA.to_json()
    for secret in shown:
        Webhook(secret).verify(body, WebhookSink("https://h/x", signing_secret=secret).headers(body, "dlv-1"))


async def test_without_a_secret_nothing_is_signed(receiver: Receiver) -> None:
    sink = WebhookSink(receiver.url)
    await sink.on_recording_complete(METADATA)
    await sink.aclose()
    [(headers, _)] = receiver.requests
    assert not {h.lower() for h in headers} & {"x-voxtra-signature", "webhook-signature"}


async def test_direct_call_has_stable_id(receiver: Receiver) -> None:
    """Called directly, the id is stable and differs by recording and URL."""
    other = RecordingMetadata("ch-2", "b")
    for url, metadata in ((receiver.url, METADATA), (receiver.url, METADATA), (receiver.url + "2", METADATA)):
        sink = WebhookSink(url)
        await sink.on_recording_complete(metadata)
        await sink.on_recording_complete(other)
        await sink.aclose()
    ids = [headers["webhook-id"] for headers, _ in receiver.requests]
    assert ids[:2] == ids[2:4]
    assert len(set(ids)) == 4


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_2xx_is_success(receiver: Receiver, status: int) -> None:
    receiver.status(status)
    sink = WebhookSink(receiver.url)
    await sink.on_recording_complete(METADATA)
    await sink.aclose()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
async def test_passing_errors_are_tried_again(receiver: Receiver, status: int) -> None:
    receiver.status(status, "come back\nlater")
    error = await refused(WebhookSink(receiver.url))
    assert error.retry
    assert error.retry_after is None
    assert str(error).endswith(f"answered {status}: come back later")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 422])
async def test_client_errors_are_dead_at_once(receiver: Receiver, status: int) -> None:
    receiver.status(status, Retry_After="5")
    error = await refused(WebhookSink(receiver.url))
    assert not error.retry
    assert error.retry_after is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("Tue, 14 Nov 2023 22:15:20 GMT", 120.0),
        ("Tue, 14 Nov 2023 22:10:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("Tue, 99 Nov 2023 22:15:20 GMT", None),
    ],
)
async def test_retry_after(receiver: Receiver, value: str, seconds: float | None) -> None:
    assert retry_after(value, 1_700_000_000.0) == seconds
    if value.isascii():
        receiver.status(429, Retry_After=value)
        error = await refused(WebhookSink(receiver.url, clock=lambda: 1_700_000_000.0))
        assert error.retry_after == seconds


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(receiver: Receiver, status: int) -> None:
    receiver.status(status, Location=receiver.url + "/elsewhere")
    error = await refused(WebhookSink(receiver.url))
    assert not error.retry
    assert "redirects are not followed" in str(error)
    assert len(receiver.requests) == 1


async def test_a_slow_receiver_is_tried_again(receiver: Receiver) -> None:
    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    receiver.answer = slow
    error = await refused(WebhookSink(receiver.url, timeout_seconds=0.2))
    assert error.retry
    assert "no answer within 0.2 s" in str(error)


async def test_dripping_answer_is_cut_off(receiver: Receiver) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        while True:
            await response.write(b".")
            await asyncio.sleep(0.02)

    receiver.answer = drip
    error = await refused(WebhookSink(receiver.url, timeout_seconds=0.5))
    assert error.retry


async def test_huge_answer_is_read_partly(receiver: Receiver) -> None:
    """Only the beginning of a huge answer is read."""
    sent = 0

    async def huge(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        for _ in range(1000):
            await response.write(b"x" * 100_000)
            sent += 100_000
        return response

    receiver.answer = huge
    error = await refused(WebhookSink(receiver.url))
    assert len(str(error)) < 400
    assert sent < 50_000_000


async def test_nobody_there_is_tried_again() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    error = await refused(WebhookSink(f"http://user:hunter2@127.0.0.1:{port}/x?token=hunter3"))
    assert error.retry
    assert "hunter" not in str(error)
    assert str(error).startswith(f"http://127.0.0.1:{port}/x?…:")


async def test_broken_peer_is_tried_again() -> None:
    """A peer that speaks no HTTP or hangs up is tried again."""
    for said in (b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"):

        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytes = said) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            writer.close()

        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        if b"200" in said:  # the status arrived whole: it was accepted
            sink = WebhookSink(f"http://127.0.0.1:{port}/")
            await sink.on_recording_complete(METADATA)
            await sink.aclose()
        else:
            assert (await refused(WebhookSink(f"http://127.0.0.1:{port}/"))).retry
        server.close()
        await server.wait_closed()


async def test_untrusted_certificate_is_refused(tmp_path: Path) -> None:
    key, certificate = tmp_path / "k.pem", tmp_path / "c.pem"
    await asyncio.to_thread(
        subprocess.run,
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    got: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read(10))
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    error = await refused(WebhookSink(f"https://localhost:{port}/"))
    assert error.retry
    assert "TLS failed" in str(error)
    assert not got, "nothing was sent before the certificate was checked"
    server.close()
    await server.wait_closed()


async def test_url_password_becomes_basic_auth(receiver: Receiver) -> None:
    """A password in the URL is sent as basic authorisation."""
    sink = WebhookSink(receiver.url.replace("http://", "http://user:hunter2@"))
    await sink.on_recording_complete(METADATA)
    await sink.aclose()
    [(headers, _)] = receiver.requests
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"user:hunter2").decode()


def test_secrets_are_in_no_repr() -> None:
    sink = WebhookSink("https://user:hunter2@h/x?token=hunter3#hunter4", signing_secret="hunter5")
    assert repr(sink) == "WebhookSink('https://h/x?…', signed)"
    assert "hunter" not in str(vars(sink).get("url", sink.url))


async def test_aclose_closes_only_an_owned_client(receiver: Receiver) -> None:
    async with aiohttp.ClientSession() as session:
        sink = WebhookSink(receiver.url, http_client=session)
        await sink.on_recording_complete(METADATA)
        await sink.aclose()
        await sink.aclose()
        assert not session.closed
        await sink.on_recording_complete(METADATA)
    own = WebhookSink(receiver.url)
    await own.on_recording_complete(METADATA)
    client = own._receiver._client
    assert client is not None
    await own.aclose()
    await own.aclose()
    assert client.closed
    await own.on_recording_complete(METADATA)  # opens a new one
    await own.aclose()


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "ftp://h/x"},
        {"url": "h/x"},
        {"url": "https://"},
        {"url": "http://[::1"},
        {"url": "https://h", "timeout_seconds": 0},
        {"url": "https://h", "timeout_seconds": float("inf")},
        {"url": "https://h", "signing_secret": "whsec_not base64!"},
        {"url": "https://h", "signing_secret": ["whsec_AAAA", "whsec_not base64!"]},
        {"url": "https://h", "signing_secret": "whsec_"},
    ],
)
def test_unusable_sink_is_refused_before_call(arguments: dict[str, object]) -> None:
    """A sink that cannot be used is refused before a call."""
    with pytest.raises(BadArgument) as caught:
        WebhookSink(**arguments)  # type: ignore[arg-type]
    assert "not base64!" not in str(caught.value)


class Client:
    """What httpx.AsyncClient looks like from here."""

    __module__ = "httpx"

    async def post(self, url: str) -> None: ...


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"http_client": Client()}, "http_client=httpx.Client must be an aiohttp.ClientSession"),
        ({"http_client": "https://proxy"}, "http_client=builtins.str must be an aiohttp.ClientSession"),
        ({"timeout_seconds": "10"}, "timeout_seconds='10' must be"),
        ({"timeout_seconds": None}, "timeout_seconds=None must be"),
        ({"signing_secret": None}, "signing_secret must be text or a list of texts, not NoneType"),
        ({"signing_secret": ["hidden", ""]}, "one of several is empty"),
        ({"signing_secret": ["hidden", 5]}, "not of int"),
        ({"signing_secret": b"hidden"}, "signing_secret must be text or a list of texts, not bytes"),
    ],
)
def test_undeliverable_sink_is_refused_when_made(given: dict[str, Any], said: str) -> None:
    """A sink that could never deliver is refused when it is made."""
    with pytest.raises(BadArgument, match=said) as caught:
        WebhookSink("https://h.example/x", **given)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(("status", "retry", "after"), [(404, False, None), (429, True, 30.0)])
async def test_raising_client_loses_no_answer(
    receiver: Receiver, status: int, retry: bool, after: float | None
) -> None:
    """A client that raises for a status takes no answer away."""
    receiver.status(status, Retry_After="30")
    async with aiohttp.ClientSession(raise_for_status=True) as client:
        sink = WebhookSink(receiver.url, http_client=client)
        error = await refused(sink)
        if status == 404:
            with pytest.raises(SinkError, match="answered HEAD with"):
                await sink.probe()
        else:
            assert "answered HEAD with" in await sink.probe()
    assert (error.retry, error.retry_after) == (retry, after)
    assert f"answered {status}" in str(error)


@pytest.mark.parametrize(("status", "refuses"), [(401, True), (403, True), (404, True), (400, False), (503, False)])
async def test_a_refused_sender_is_told_apart(receiver: Receiver, status: int, refuses: bool) -> None:
    """These answers are about the sender or the address; three in a row hold the sink."""
    receiver.status(status)
    sink = WebhookSink(receiver.url)
    assert (await refused(sink)).refused is refuses
    with pytest.raises(SinkError) as caught:
        await sink.ping()
    await sink.aclose()
    assert caught.value.refused is refuses


async def test_call_sink_leaves_no_client_open(receiver: Receiver) -> None:
    """A sink that a call brought along leaves no client open."""
    registry = SinkRegistry()
    sink = WebhookSink(receiver.url)
    for n in (1, 2):
        [name] = registry.names(sink)
        await sink.on_recording_complete(METADATA)
        client = sink._receiver._client
        assert client is not None
        registry.release(name)
        await registry.aclose()
        assert client.closed
        assert len(receiver.requests) == n, "a closed one opens again"
