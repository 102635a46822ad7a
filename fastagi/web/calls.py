"""`/api/v1/calls`: answered calls and whether they were recorded; `/api/v1/channels`: channels that are up now.

The ledger follows only the calls that must be recorded (`[recordings] required`), because each costs three writes.
Other calls are known from Asterisk while they are up. The recordings of one that ended stay in the ledger.
"""

from __future__ import annotations

from itertools import islice
from math import inf
from typing import Any

from aiohttp import web

from fastagi.recording.asterisk.channel_table import LiveChannel
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.store.queries.calls import AnsweredCall
from fastagi.web import serializers
from fastagi.web.access import Role
from fastagi.web.api import QueryLimiter, RequestContext, Route
from fastagi.web.dependencies import WebDependencies
from fastagi.web.ledger_reads import NEWEST
from fastagi.web.params import LIMIT, flag, text, time_of, whole
from fastagi.web.responses import answer


class Calls:
    """The routes of calls and channels."""

    def __init__(self, sources: WebDependencies, turns: QueryLimiter) -> None:
        self._sources = sources
        self._turns = turns

    def routes(self) -> list[Route]:
        """Return all routes."""
        asterisk = text("asterisk", "`[[asterisk]] name`")
        filters = (
            time_of("since", "answered at or after"),
            time_of("until", "answered before"),
            flag("incomplete", "only ended ones that had to be recorded and were not, or not whole"),
            asterisk,
            text("uniqueid", ""),
            whole("cursor", "`next` of the page before", 0, NEWEST),
        )
        return [
            Route("GET", "/calls", self.list, Role.VIEWER,
                  "Answered calls and their recordings: those that are up, then those that had to be recorded, "
                  "with their verdict; newest first",
                  (*filters, LIMIT),
                  answers={200: "a page; `next` is the cursor of the next one, or null. `up`: how many there are that "
                                "only Asterisk knows: the first page begins with at most `limit` of them. `down` names "
                                "each Asterisk that cannot be asked now"}),
            Route("GET", "/channels", self.channels, Role.VIEWER, "Channels that are up now",
                  (asterisk, LIMIT), answers={200: "at most `limit` of them; `total` is how many there are"}),
        ]  # fmt: skip

    async def list(self, asked: RequestContext) -> web.Response:
        """Answer GET /calls."""
        query = {"limit": 50, **asked.query}
        up = _up(self._sources, query)
        first = up[: query["limit"]] if "cursor" not in query else []
        found, recordings, following = await self._turns.take(lambda: self._sources.ledger.calls(first, query))
        shown = [{**serializers.call(c), "recordings": ids} for c, ids in zip(found, recordings, strict=True)]
        down = _down(self._sources, query.get("asterisk", ""))
        return answer({"calls": shown, "next": following, "up": len(up), "down": down})

    async def channels(self, asked: RequestContext) -> web.Response:
        """Answer GET /channels."""
        wanted = asked.query.get("asterisk", "")
        pbxs = _pbxs(self._sources, wanted)
        recorder = self._sources.recorder

        def rows() -> Any:
            for pbx in pbxs:
                for channel in pbx.channels:
                    running = [job.id for job in recorder.on_channel(pbx.name, channel.uniqueid)]
                    yield serializers.channel(pbx.name, channel, running)

        found = list(islice(rows(), asked.query.get("limit", 50)))
        return answer(
            {"channels": found, "total": sum(len(p.channels) for p in pbxs), "down": _down(self._sources, wanted)}
        )


def _pbxs(sources: WebDependencies, wanted: str) -> list[Pbx]:
    return [pbx for name, pbx in sources.pbxs.items() if wanted in ("", name)]


def _down(sources: WebDependencies, wanted: str) -> list[str]:
    return [pbx.name for pbx in _pbxs(sources, wanted) if pbx.manager is not None and not pbx.up]


def _up(sources: WebDependencies, query: dict[str, Any]) -> list[AnsweredCall]:
    """Return the answered channels that are up and not in the ledger, newest first."""
    if query.get("incomplete"):
        return []  # none of them has ended
    follows = sources.recorder.follows_call
    since, until = query.get("since", -inf), query.get("until", inf)
    found = [
        _call(pbx.name, channel)
        for pbx in _pbxs(sources, query.get("asterisk", ""))
        for channel in pbx.channels
        if channel.up
        and query.get("uniqueid", channel.uniqueid) == channel.uniqueid
        and not follows(pbx.name, channel.uniqueid)
    ]
    return sorted((c for c in found if since <= c.answered_at < until), key=lambda c: -c.answered_at)


def _call(asterisk: str, channel: LiveChannel) -> AnsweredCall:
    return AnsweredCall(
        asterisk=asterisk,
        uniqueid=channel.uniqueid,
        linkedid=channel.linkedid,
        channel=channel.name,
        context=channel.first_context or channel.context,
        caller=channel.caller,
        called=channel.called,
        answered_at=channel.answered_at or channel.since,
    )
