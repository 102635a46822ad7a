"""One POST to a receiver, and the meaning of its answer for a delivery. Each sink makes its own body and signatures."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
from yarl import URL

from fastagi.delivery.http_client import AnswerTooLong, bounded_session
from fastagi.delivery.sink import must_be_seconds
from fastagi.errors import BadArgument, SinkError

AGAIN = frozenset({408, 425, 429})
"""Client errors that may pass: time-out, too early, too many. All 5xx may pass too; other 4xx do not (DESIGN 3)."""

REFUSED = frozenset({401, 403, 404})
"""Answers about the sender or the address, not about one recording: a wrong secret, a path that does not exist."""

BODY_BYTES = 2000
"""Bytes of an answer that are read: enough to show why it refused."""

SHOWN_CHARACTERS = 200

ADDRESS_REMEDY = "look at the path of the url, at user and password in it"
"""Remedy for an answer of `REFUSED`."""


def receiver_remedy(retry_hours: float) -> str:
    """Return the remedy for a receiver that does not answer."""
    return f"is the receiver up, and may this machine reach it? deliveries are tried again for {retry_hours:g} h"


class Receiver:
    """An address to POST to.

    TLS is verified, redirects are not followed, no proxy and no cookie is taken from elsewhere.

    :param url: http or https; a user and password in it are sent as basic authorisation and never shown
    :param timeout_seconds: for the whole exchange
    :param http_client: a session to use; it is not closed here
    :ivar shown: the URL without its secret parts
    :ivar identity: the URL without its password: two receivers may differ only in query or user
    :raises BadArgument: the URL, the time limit or the client cannot be used (the seed's was httpx's)
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        http_client: aiohttp.ClientSession | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            self.url = URL(url)
            usable = self.url.scheme in ("http", "https") and bool(self.url.host)
        except (ValueError, TypeError):
            usable = False
        if not usable:
            raise BadArgument(f"url={without_secrets(url)!r} must be http://… or https://… with a host")
        must_be_seconds(timeout_seconds)
        kind = type(http_client)
        if kind.__module__.startswith("httpx") or not (http_client is None or callable(getattr(kind, "post", None))):
            raise BadArgument(f"http_client={kind.__module__}.{kind.__name__} must be an aiohttp.ClientSession")
        self.shown = shown_url(self.url)
        self.identity = identity_of(self.url)
        self.timeout_seconds = timeout_seconds
        self._client = http_client
        self._owned = http_client is None
        self._clock = clock

    async def post(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Send the body; returns when the answer was 2xx.

        :raises SinkError: not accepted; says whether and when to try again
        """
        try:
            async with (
                asyncio.timeout(self.timeout_seconds),
                self._session().post(
                    self.url, data=body, headers=headers, allow_redirects=False, raise_for_status=False
                ) as response,
            ):
                if 200 <= response.status < 300:
                    return
                raise await self._refused(response)
        except TimeoutError:
            raise SinkError(f"{self.shown}: no answer within {self.timeout_seconds:g} s") from None
        except aiohttp.InvalidURL:
            raise SinkError(f"{self.shown}: is no URL", retry=False) from None
        except aiohttp.ClientError as exc:
            raise SinkError(f"{self.shown}: {_reason(exc)}") from None
        except OSError as exc:
            raise SinkError(f"{self.shown}: {exc.strerror or type(exc).__name__}") from None

    async def probe(self) -> str:
        """Ask with HEAD, which delivers nothing.

        :raises SinkError: not reachable, or `refused`; with `retry` false: reachable, with a doubtful answer
        """
        try:
            async with (
                asyncio.timeout(self.timeout_seconds),
                self._session().head(self.url, allow_redirects=False, raise_for_status=False) as response,
            ):
                status = response.status
        except TimeoutError:
            raise SinkError(f"{self.shown}: no answer within {self.timeout_seconds:g} s") from None
        except aiohttp.InvalidURL:
            raise SinkError(f"{self.shown}: is no URL") from None
        except aiohttp.ClientError as exc:
            raise SinkError(f"{self.shown}: {_reason(exc)}") from None
        except OSError as exc:
            raise SinkError(f"{self.shown}: {exc.strerror or type(exc).__name__}") from None
        if status in REFUSED:
            raise SinkError(f"{self.shown}: answered HEAD with {status}", retry=False, refused=True)
        if 300 <= status < 400:
            raise SinkError(f"{self.shown}: answered {status}: redirects are not followed", retry=False)
        if status >= 500 and status != 501:  # 501: the receiver has no HEAD
            raise SinkError(f"{self.shown}: answered {status}", retry=False)
        return f"{self.shown}: answered HEAD with {status}"

    async def aclose(self) -> None:
        """Close the HTTP client, if it is owned. Idempotent; a later call opens a new one."""
        client = self._client
        if self._owned and client is not None:
            self._client = None
            await client.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._client is None:
            self._client = bounded_session()  # the time limit is asyncio.timeout's, above
        return self._client

    async def _refused(self, response: aiohttp.ClientResponse) -> SinkError:
        status = response.status
        retry = status in AGAIN or status >= 500
        said = ""
        try:
            said = (await response.content.read(BODY_BYTES)).decode("utf-8", "replace")
        except (aiohttp.ClientError, OSError):
            pass
        said = " ".join("".join(c if c.isprintable() else " " for c in said).split())[:SHOWN_CHARACTERS]
        if 300 <= status < 400:
            said = "redirects are not followed; give the address it leads to"
        after = retry_after(response.headers.get("Retry-After", ""), self._clock()) if retry else None
        text = f"{self.shown}: answered {status}" + (f": {said}" if said else "")
        return SinkError(text, retry=retry, retry_after=after, refused=status in REFUSED)


def shown_url(url: URL) -> str:
    """Return a URL for people: without user, password, query and fragment, which may hold secrets."""
    if url.host is None:
        return str(url)
    shown = url.with_user(None).with_query(None).with_fragment(None)
    return str(shown) + ("?…" if url.query_string else "")


def identity_of(url: URL) -> str:
    """Return a text that tells a target from others, the same after its password was changed. Not for people: see
    `shown_url`.
    """
    return str(url) if url.host is None else str(url.with_password(None).with_fragment(None))


def without_secrets(text: object) -> str:
    """Return a given text, which may be no URL, for people: without user, password, query and fragment."""
    return re.split("[?#]", re.sub(r"//[^/?#]*@", "//", str(text)))[0][:SHOWN_CHARACTERS]


def retry_after(value: str, now: float) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or an HTTP date (RFC 9110, 10.2.3); None for
    neither.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.fromtimestamp(now, UTC)).total_seconds())


def _reason(exc: aiohttp.ClientError) -> str:
    """Return the reason of an error, without a URL that may hold a password."""
    if isinstance(exc, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError)):
        detail = getattr(exc, "certificate_error", None) or getattr(exc, "os_error", "")
        return f"TLS failed: {detail}"[:SHOWN_CHARACTERS]
    if isinstance(exc, aiohttp.ClientConnectorError):
        return exc.os_error.strerror or str(exc.os_error) or "cannot connect"
    if isinstance(exc, AnswerTooLong):
        return f"the answer has {exc}"
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        return "the connection was closed without an answer"
    if isinstance(exc, aiohttp.ClientOSError):
        return exc.strerror or "the connection broke"
    if isinstance(exc, (aiohttp.ClientPayloadError, aiohttp.ClientResponseError)):
        return "the answer is no HTTP"
    return type(exc).__name__
