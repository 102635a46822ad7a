"""`/api/v1`: one table of routes, from which the routing, the rights, the checks and the OpenAPI text are made.

The work of the routes is in `recordings`, `sound`, `deliveries`, `calls` and `events`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from fastagi.web.access import Role, Tokens, Who
from fastagi.web.params import Field, Parameter, body_of, query_of
from fastagi.web.responses import Refusal

PREFIX = "/api/v1"

LEDGER_READS = 2
"""Requests that may query the ledger at once: a search reads all of it, and deliveries, probes and scrapes query it
too.
"""

TURN_SECONDS = 10.0

_id = "{id:[a-z0-9-]{1,40}}"


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A request that has passed the checks of its route.

    :param query: values by name
    :param body: values by key
    :param id: from the path; empty for a path without one
    """

    request: web.Request
    who: Who
    query: Mapping[str, Any]
    body: Mapping[str, Any]
    id: str = ""


Action = Callable[[RequestContext], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One route.

    :param path: below `PREFIX`, or complete when it begins with ``/api/``; ``{id}`` is an id that this API gave
    :param role: the lowest role that may use it
    :param summary: one line, for OpenAPI
    :param body: keys of the JSON body
    :param answers: meaning of each status
    :param media: media type of an answer that is not JSON
    """

    method: str
    path: str
    action: Action
    role: Role
    summary: str
    query: tuple[Parameter, ...] = ()
    body: tuple[Field, ...] = ()
    answers: Mapping[int, str] = field(default_factory=lambda: {200: "done"})
    media: str = "application/json"

    @property
    def url(self) -> str:
        """Return the complete path."""
        return self.path if self.path.startswith("/api/") else PREFIX + self.path


class Api:
    """The routes, each with its checks."""

    def __init__(self, tokens: Tokens, routes: list[Route]) -> None:
        self.tokens = tokens
        self.routes = routes

    def add_to(self, app: web.Application) -> None:
        """Add the routes to an application. Below `/api` nothing answers without a token, not even a path that does not
        exist.
        """
        for route in self.routes:
            path = route.url.replace("{id}", _id)
            app.router.add_route(route.method, path, self._guarded(route))
            if route.method == "GET":
                app.router.add_route("HEAD", path, self._guarded(route))
        app.router.add_route("*", "/api/{rest:.*}", self._nothing)

    def _guarded(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            who = self.tokens.who(request)
            if who.role < route.role:
                raise Refusal(
                    403, f"that needs the role {route.role.word}; the token {who.name} has the role {who.role.word}"
                )
            query = query_of(request, route.query)
            body = {} if route.method == "GET" else await body_of(request, route.body)
            return await route.action(RequestContext(request, who, query, body, request.match_info.get("id", "")))

        return handle

    async def _nothing(self, request: web.Request) -> web.Response:
        self.tokens.who(request)
        known = [r for r in self.routes if _matches(r.url, request.path)]
        if known and request.method not in {r.method for r in known}:
            methods = ", ".join(sorted({r.method for r in known}))
            raise Refusal(405, f"{request.method[:20]} is not possible here: use {methods}", Allow=methods)
        if known:
            raise Refusal(404, "nothing has this id")
        raise Refusal(404, "there is no such route: /api/openapi.json lists them")


def _matches(pattern: str, path: str) -> bool:
    """Return whether a path is one of that route's, with any text for the id."""
    wanted, given = pattern.split("/"), path.split("/")
    return len(wanted) == len(given) and all(w in ("{id}", g) for w, g in zip(wanted, given, strict=True))


class QueryLimiter:
    """Lets a few requests at a time query the ledger."""

    def __init__(self, at_once: int = LEDGER_READS) -> None:
        self._room = asyncio.Semaphore(at_once)

    async def take(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Await `work` once there is room, and return its value.

        :raises Refusal: 503, the others take too long
        """
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._room.acquire()
        except TimeoutError:
            raise Refusal(503, "the ledger is busy with other searches: try again", Retry_After="5") from None
        try:
            return await work()
        finally:
            self._room.release()
