"""`/api/v1/calls`: answered calls and whether they were recorded; `/api/v1/channels`: what is up now, to start on."""

from __future__ import annotations

from itertools import islice
from typing import Any

from aiohttp import web

from fastagi.store.units import calls as units
from fastagi.web import shapes
from fastagi.web.access import Role
from fastagi.web.answers import answer
from fastagi.web.api import Asked, Route, Turns
from fastagi.web.asking import LIMIT, flag, text, time_of, whole
from fastagi.web.sources import Sources


class Calls:
    """The routes of calls and channels."""

    def __init__(self, sources: Sources, turns: Turns) -> None:
        self._sources = sources
        self._turns = turns

    def routes(self) -> list[Route]:
        """All of them."""
        asterisk = text("asterisk", "`[[asterisk]] name`")
        filters = (
            time_of("since", "answered at or after"),
            time_of("until", "answered before"),
            flag("incomplete", "only ended ones that had to be recorded and were not, or not whole"),
            asterisk,
            text("uniqueid", ""),
            whole("cursor", "`next` of the page before", 0, 2**53),
        )
        return [
            Route("GET", "/calls", self.list, Role.VIEWER, "Answered calls and their verdict, newest first",
                  (*filters, LIMIT), answers={200: "a page; `next` is the cursor of the next one, or null"}),
            Route("GET", "/channels", self.channels, Role.VIEWER, "Channels that are up now",
                  (asterisk, LIMIT), answers={200: "at most `limit` of them; `total` is how many there are"}),
        ]  # fmt: skip

    async def list(self, asked: Asked) -> web.Response:
        """GET /calls."""
        query = {"limit": 50, **asked.query}
        found, following = await self._turns.take(lambda: self._sources.store.search(units.page, **query))
        return answer({"calls": [shapes.call(c) for c in found], "next": following})

    async def channels(self, asked: Asked) -> web.Response:
        """GET /channels."""
        wanted = asked.query.get("asterisk", "")
        pbxs = [p for name, p in self._sources.pbxs.items() if wanted in ("", name)]
        jobs = self._sources.recorder.jobs

        def rows() -> Any:
            for pbx in pbxs:
                for channel in pbx.book:
                    running = [job.id for job in jobs.on_channel(pbx.name, channel.uniqueid)]
                    yield shapes.channel(pbx.name, channel, running)

        found = list(islice(rows(), asked.query.get("limit", 50)))
        down = [p.name for p in pbxs if p.manager is not None and not p.up]
        return answer({"channels": found, "total": sum(len(p.book) for p in pbxs), "down": down})
