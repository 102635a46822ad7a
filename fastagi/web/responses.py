"""The form of every answer: JSON, one line for an error, headers that keep a browser from guessing.

The only middleware that turns errors of `fastagi.errors` into a status. An unexpected error is logged with its place
and answered with 500.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web

from fastagi.errors import (
    ActionTimeout,
    AsteriskDown,
    AsteriskError,
    BadArgument,
    CipherError,
    Error,
    FastAGIError,
    Hangup,
    StoreDown,
    TakenOver,
)

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HEADERS = {
    "Server": "fastagi",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every answer. `Server` has no version, which would only help an attacker."""

CONTENT_POLICY = "default-src 'none'; frame-ancestors 'none'"
"""Content policy of every answer that is no page: a browser that is led to it runs no script."""

LONGEST_LINE = 500
"""Most characters of an error: a peer's text may be quoted in it."""

_STATUS: tuple[tuple[type[FastAGIError], int], ...] = (
    (BadArgument, 400),
    (Hangup, 409),
    (Error, 409),
    (AsteriskDown, 503),
    (ActionTimeout, 504),
    (AsteriskError, 502),
    (CipherError, 409),
    (StoreDown, 503),
    (TakenOver, 409),
)


class Refusal(Exception):
    """A request that cannot be done.

    :param status: HTTP status
    :param error: one line with the fault and its remedy
    """

    def __init__(self, status: int, error: str, **headers: str) -> None:
        super().__init__(error)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def answer(value: Any, status: int = 200, **headers: str) -> web.Response:
    """Return a JSON answer that no cache keeps."""
    return web.Response(
        body=json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace"),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **headers},
    )


def fault(status: int, error: str, **headers: str) -> web.Response:
    """Return ``{"error": "one line"}``."""
    return answer({"error": " ".join(error.split())[:LONGEST_LINE]}, status, **headers)


def status_of(exc: FastAGIError) -> int:
    """Return the HTTP status of an error of `fastagi.errors`."""
    return next((status for kind, status in _STATUS if isinstance(exc, kind)), 500)


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn an exception of a handler into an answer."""
    try:
        return await handler(request)
    except Refusal as exc:
        return fault(exc.status, str(exc), **exc.headers)
    except FastAGIError as exc:
        return fault(status_of(exc), str(exc))
    except web.HTTPException as exc:
        return _of_aiohttp(exc)
    except (ConnectionResetError, ConnectionAbortedError):
        raise  # the client has gone: there is no receiver for an answer
    except Exception:
        log.exception("http_failed", method=request.method, path=request.path[:200])
        return fault(500, "something went wrong here: the log says what")


def _of_aiohttp(exc: web.HTTPException) -> web.Response:
    match exc:
        case web.HTTPRequestEntityTooLarge():
            return fault(413, "the body is too large", Connection="close")
        case web.HTTPNotFound():
            return fault(404, "there is no such page")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(exc.allowed_methods))
            return fault(405, f"{exc.method[:20]} is not possible here: use {allowed}", Allow=allowed)
        case _:
            return fault(exc.status, exc.reason or "the request cannot be done")


async def sign(request: web.Request, response: web.StreamResponse) -> None:
    """Set the headers of every answer, errors included. Signal `on_response_prepare`."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Content-Security-Policy", CONTENT_POLICY)
