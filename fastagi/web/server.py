"""The HTTP server: its parts, its routes, the limits of a request. Limits of connections are in `connections`."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from fastagi.agi.listening import bind, bound_port, listen
from fastagi.errors import ConfigError
from fastagi.web import console
from fastagi.web.access import Role, Tokens
from fastagi.web.api import Api, QueryLimiter, RequestContext, Route
from fastagi.web.calls import Calls
from fastagi.web.connections import IDLE_SECONDS, Connections, mark_answered
from fastagi.web.counters import Observations
from fastagi.web.deliveries import Deliveries
from fastagi.web.dependencies import WebDependencies
from fastagi.web.disks import Disks
from fastagi.web.events import Events
from fastagi.web.health import Health
from fastagi.web.lag import LoopLag
from fastagi.web.malformed import MalformedRequests
from fastagi.web.metrics import Metrics
from fastagi.web.openapi import document
from fastagi.web.recordings import Recordings
from fastagi.web.responses import answer, guard, sign
from fastagi.web.sound import Sound
from fastagi.web.version import VERSION

log = structlog.get_logger(__name__)

_requests = logging.getLogger("fastagi.web.requests")
"""The logger of aiohttp's server for single requests."""

BACKLOG = 128

BODY_BYTES = 1 << 16
"""Bytes of the largest body: the start of a recording has some hundred."""

LINE_BYTES = 8190
"""Bytes of the request line and of each header: a limit that browsers and proxies keep to."""

DRAIN_SECONDS = 2.0
"""Seconds that a stop gives to answers that have begun. A broken download continues with Range."""


class HttpServer:
    """Serves HTTP from `start` to `stop`.

    :param observed: the registry that the journal and the delivery worker report to
    """

    def __init__(self, sources: WebDependencies, observed: Observations) -> None:
        self._sources = sources
        settings = sources.settings
        self._host, self._port = settings.http.host, settings.http.port
        faults = sources.recorder.start_faults
        spools = [pbx.spool for pbx in sources.pbxs.values()]
        self._disks = Disks([settings.recordings.directory, *_ledger_folder(settings.store.url)], spools, faults)
        self._health = Health(sources, self._disks)
        self._lag = LoopLag()
        self.connections = Connections(_options(), sources.descriptors)
        self.metrics = Metrics(sources, observed, self._disks, self._lag, self.connections)
        self._sound = Sound(sources)
        self._events = Events(sources)
        self.api = self._api()
        self._malformed = MalformedRequests()
        self._runner: web.AppRunner | None = None
        self._servers: list[asyncio.Server] = []

    @property
    def port(self) -> int:
        """Return the port that the server listens on; before the start, the configured one."""
        return self._port

    def _api(self) -> Api:
        turns = QueryLimiter()
        routes = [
            *Recordings(self._sources, turns).routes(),
            *self._sound.routes(),
            *Deliveries(self._sources, turns).routes(),
            *Calls(self._sources, turns).routes(),
            *self._events.routes(),
        ]

        async def openapi(asked: RequestContext) -> web.Response:
            return answer(document([*routes, itself], VERSION))

        itself = Route("GET", "/api/openapi.json", openapi, Role.VIEWER, "This text", answers={200: "OpenAPI 3.1"})
        return Api(Tokens(self._sources.settings.http.tokens), [*routes, itself])

    def application(self) -> web.Application:
        """Return the application with all routes."""
        app = web.Application(middlewares=[mark_answered, guard], client_max_size=BODY_BYTES)
        app.on_response_prepare.append(sign)
        app.router.add_get("/healthz", self._health.healthz)
        app.router.add_get("/readyz", self._health.readyz)
        app.router.add_get("/metrics", self.metrics.handle)
        self.api.add_to(app)
        console.add_to(app)
        return app

    async def start(self) -> None:
        """Listen. Returns when clients can connect.

        :raises ConfigError: the address cannot be listened on
        """
        _requests.addFilter(self._malformed)
        self._runner = web.AppRunner(
            self.application(), handle_signals=False, shutdown_timeout=DRAIN_SECONDS, **self.connections.options
        )
        await self._runner.setup()
        assert self._runner.server is not None
        self.connections.start(self._runner.server)
        try:
            sockets = await bind(self._host, self._port)
            self._port = bound_port(sockets)
            await listen(sockets, self.connections.accept, backlog=BACKLOG, servers=self._servers)
        except OSError as exc:
            await self.stop()
            where = f"{self._host or '*'}:{self._port}"
            raise ConfigError(
                f"http: cannot listen on {where}: {exc.strerror or exc}: see [http] host and port"
            ) from None
        self._lag.start()
        log.info("http_serving", host=self._host, port=self._port, tokens=len(self._sources.settings.http.tokens))

    async def stop(self) -> None:
        """Accept nothing more, let running requests end (`DRAIN_SECONDS`), close. Idempotent."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        self._lag.stop()
        await self._events.close()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        self.connections.stop()
        await self.metrics.close()
        self._sound.close()
        _requests.removeFilter(self._malformed)
        self._disks.close()


def _options() -> dict[str, Any]:
    """Return the options of each connection."""
    return {
        "logger": _requests,
        "access_log": None,
        "keepalive_timeout": IDLE_SECONDS,
        "max_line_size": LINE_BYTES,
        "max_field_size": LINE_BYTES,
        "lingering_time": 2.0,
        # a body of 64 kB needs no compression, and a compressed gigabyte must not be unpacked
        "auto_decompress": False,
    }


def _ledger_folder(url: str) -> list[Path]:
    """Return the folder of a SQLite ledger: when its disk is full, nothing can be journalled any more."""
    return [Path(url.removeprefix("sqlite:///")).parent] if url.startswith("sqlite:///") else []
