"""A webhook receiver like a customer's: it checks both signatures over the body as it came."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

LARGEST_BODY = 64 * 1024
"""A recording's metadata has about 2 kB."""


@dataclass(frozen=True, slots=True)
class Received:
    """One webhook.

    :param body: the JSON object
    :param signature: whether `X-Voxtra-Signature` is the HMAC of exactly these bytes
    :param standard: whether the Standard Webhooks signature fits too
    """

    body: dict[str, Any]
    signature: bool
    standard: bool
    webhook_id: str


class Receiver:
    """``async with Receiver() as receiver: receiver.url``."""

    def __init__(self) -> None:
        self.secret = secrets.token_urlsafe(24)
        self.url = ""
        self._got: asyncio.Queue[Received] = asyncio.Queue(maxsize=16)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_post("/recordings", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        port: int = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}/recordings"
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def next(self) -> Received:
        """Wait for the next webhook and return it."""
        return await self._got.get()

    async def _take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        try:
            body = json.loads(raw)
        except ValueError:
            return web.Response(status=400, text="not JSON")
        if self._got.full():
            return web.Response(status=503)
        headers = request.headers
        webhook_id = headers.get("webhook-id", "")
        signed = f"{webhook_id}.{headers.get('webhook-timestamp', '')}.".encode() + raw
        key = self.secret.encode()
        standard = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        self._got.put_nowait(
            Received(
                body,
                hmac.compare_digest(
                    headers.get("X-Voxtra-Signature", ""), hmac.new(key, raw, hashlib.sha256).hexdigest()
                ),
                hmac.compare_digest(headers.get("webhook-signature", ""), standard),
                webhook_id,
            )
        )
        return web.Response(status=204)
