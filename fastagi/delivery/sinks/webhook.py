"""WebhookSink: sends the metadata as a signed POST (seed: recording-sink, class WebhookSink).

Beside the seed's header it signs by the Standard Webhooks specification (webhook-id, webhook-timestamp,
webhook-signature), so that receivers can use any of its libraries. Several secrets give several signatures: a receiver
may know the new one or still the old one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp
from pydantic import Field, SecretStr, field_validator

from fastagi.delivery.sink import current_delivery, recording_id_of
from fastagi.delivery.sink_type import ConfiguredSink, SinkOptions, sink_type
from fastagi.delivery.sinks.post import ADDRESS_REMEDY, Receiver, receiver_remedy
from fastagi.delivery.sinks.signing import signing_secrets, standard_key, standard_signature
from fastagi.domain.ids import new_id
from fastagi.domain.metadata import RecordingMetadata
from fastagi.domain.timestamps import rfc3339
from fastagi.errors import ConfigError
from fastagi.settings import read_secrets


class WebhookOptions(SinkOptions):
    """Keys of a sink of type webhook."""

    url: str = Field(description="http or https address that takes a POST")
    signing_secret: list[SecretStr] = Field(
        [],
        description="key of the signatures; a list signs with each, the newest first; `fastagi secret` makes one",
    )
    signing_secret_file: Path | None = Field(
        None, description="a file that holds it, or several, one a line, instead of `signing_secret`"
    )
    timeout_seconds: float = Field(10.0, gt=0, le=600, description="for the whole exchange")

    @field_validator("signing_secret", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return ([value] if value else []) if isinstance(value, str) else value


@sink_type("webhook")
class WebhookSink(ConfiguredSink[WebhookOptions]):
    """POSTs the metadata as JSON; `fastagi.delivery.sinks.post` interprets the answer.

    :param url: http or https; a user and password in it are sent as basic authorisation and never shown
    :param signing_secret: key of the signatures, or several, the newest first; empty for none. Each of them makes a
        Standard Webhooks signature: ``whsec_…`` is base64 (their convention), any other text is the key itself. The
        seed's `X-Voxtra-Signature` is made with the text of the first one as it stands
    :param timeout_seconds: for the whole exchange
    :param http_client: a session to use; `aclose` does not close it
    :param clock: unix seconds, for webhook-timestamp
    :raises BadArgument: the URL, the secret or the time limit cannot be used
    """

    options = WebhookOptions
    summary = "POSTs the metadata as JSON, signed."
    needs_file = False
    reopens = True

    def __init__(
        self,
        url: str,
        *,
        signing_secret: str | Sequence[str] = "",
        timeout_seconds: float = 10.0,
        http_client: aiohttp.ClientSession | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        signing = signing_secrets(signing_secret)
        self._receiver = Receiver(url, timeout_seconds=timeout_seconds, http_client=http_client, clock=clock)
        self.time_limit_seconds = timeout_seconds + 5.0
        self._plain_key = signing[0].encode() if signing else b""
        self._standard_keys = [standard_key(secret) for secret in signing]
        self._clock = clock

    @classmethod
    def from_options(cls, options: WebhookOptions, key: str) -> Self:
        signing = [secret.get_secret_value() for secret in options.signing_secret]
        if options.signing_secret_file is not None:
            if signing:
                raise ConfigError(f"{key}: has both signing_secret and signing_secret_file: keep one")
            signing = read_secrets(options.signing_secret_file, f"{key}.signing_secret_file")
        return cls(options.url, signing_secret=signing, timeout_seconds=options.timeout_seconds)

    @property
    def url(self) -> str:
        """Return the URL without its secret parts."""
        return self._receiver.shown

    @property
    def identity(self) -> str:
        """Return a text that tells this sink from others of its class (see `fastagi.delivery.sink`)."""
        return self._receiver.identity

    def __repr__(self) -> str:
        return f"WebhookSink({self.url!r}{', signed' if self._plain_key else ''})"

    async def on_recording_complete(self, metadata: RecordingMetadata) -> None:
        """POST the metadata.

        :raises SinkError: not accepted; says whether and when to try again
        """
        body = metadata.to_json()
        await self._receiver.post(body, self.headers(body, self._id(metadata)))

    def headers(self, body: bytes, delivery_id: str) -> dict[str, str]:
        """Return the headers of a request: content type, the seed's signature, and the three of Standard Webhooks."""
        stamp = str(int(self._clock()))
        headers = {"Content-Type": "application/json", "webhook-id": delivery_id, "webhook-timestamp": stamp}
        if self._plain_key:
            headers["X-Voxtra-Signature"] = hmac.new(self._plain_key, body, hashlib.sha256).hexdigest()
            signed = b".".join((delivery_id.encode(), stamp.encode(), body))
            headers["webhook-signature"] = " ".join(standard_signature(key, signed) for key in self._standard_keys)
        return headers

    async def probe(self) -> str:
        """Check that the receiver answers; nothing is delivered.

        :raises SinkError: it does not
        """
        return await self._receiver.probe()

    def remedy(self, retry_hours: float) -> str:
        return receiver_remedy(retry_hours)

    def remedy_of_refusal(self, *, pinged: bool) -> str:
        where = f"{ADDRESS_REMEDY}, and whether signing_secret is the receiver's"
        if pinged:
            return where
        return f"{where}; a receiver that knows POST alone: fastagi doctor --send-ping tells for certain"

    async def ping(self) -> str:
        """Post a signed event of type ``ping``, which is no recording; return a line that says that it was accepted.

        :raises SinkError: it was not, as with a recording
        """
        now = self._clock()
        event: dict[str, Any] = {"type": "ping", "timestamp": rfc3339(now), "data": {}}
        body = json.dumps(event, separators=(",", ":")).encode("ascii")
        await self._receiver.post(body, self.headers(body, new_id("ping", now, os.urandom(10))))
        return f"{self.url}: accepted a {'signed ' if self._plain_key else ''}ping"

    async def aclose(self) -> None:
        """Close the HTTP client, if it is owned (seed). Idempotent; a later call opens a new one."""
        await self._receiver.aclose()

    def _id(self, metadata: RecordingMetadata) -> str:
        """Return the delivery's id. Called directly, without a delivery, it is the same for each call with this
        recording and URL.
        """
        delivery = current_delivery.get()
        if delivery is not None:
            return delivery.id
        text = f"{recording_id_of(metadata)}\n{self._receiver.url}"
        return "dlv-" + hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:26]
