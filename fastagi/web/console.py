"""The console at `/`: four static files and the headers that keep foreign content out of the page.

The page has no data and no rights of its own: it reads the API with the token of the person who looks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from importlib import resources

from aiohttp import web

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src blob:; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""No script from elsewhere and none inline, so that a caller's name cannot become a script."""

FILES = {
    "/": ("index.html", "text/html"),
    "/console.css": ("console.css", "text/css"),
    "/console.js": ("console.js", "text/javascript"),
    "/sound.js": ("sound.js", "text/javascript"),
}


def add_to(app: web.Application) -> None:
    """Put the page into an application. The files are read once."""
    for path, (name, kind) in FILES.items():
        data = (resources.files("fastagi.web") / "static" / name).read_bytes()
        app.router.add_get(path, _file(data, kind))


def _file(data: bytes, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"Cache-Control": "no-cache", "ETag": tag, "Content-Security-Policy": POLICY}

    async def handle(request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=data, content_type=kind, charset="utf-8", headers=headers)

    return handle
