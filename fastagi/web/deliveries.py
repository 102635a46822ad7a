"""`/api/v1/deliveries`: deliveries, their attempts, and an operator's retry."""

from __future__ import annotations

import structlog
from aiohttp import web

from fastagi.domain.delivery import DeliveryStatus
from fastagi.errors import StoreDown, StoreError
from fastagi.web import serializers
from fastagi.web.access import Role
from fastagi.web.api import QueryLimiter, RequestContext, Route
from fastagi.web.dependencies import WebDependencies
from fastagi.web.params import CURSOR, LIMIT, Field, an_id, choice, text
from fastagi.web.responses import Refusal, answer

log = structlog.get_logger(__name__)

MOST_ATTEMPTS = 500

TO = Field("to", "another sink, by name, that gets a dead or parked one instead", (str,), {"type": "string"})


class Deliveries:
    """The routes of deliveries."""

    def __init__(self, sources: WebDependencies, turns: QueryLimiter) -> None:
        self._sources = sources
        self._turns = turns

    def routes(self) -> list[Route]:
        """Return all routes."""
        filters = (
            choice("status", "", [s.value for s in DeliveryStatus]),
            text("sink", "its name"),
            an_id("recording_id", ""),
        )
        there = {404: "there is no such delivery"}
        return [
            Route("GET", "/deliveries", self.list, Role.VIEWER, "List deliveries, newest first",
                  (*filters, CURSOR, LIMIT), answers={200: "a page; `next` is the cursor of the next one, or null"}),
            Route("GET", "/deliveries/{id}", self.show, Role.VIEWER, "One delivery and its attempts",
                  answers={200: "found", **there}),
            Route("POST", "/deliveries/{id}/retry", self.retry, Role.OPERATOR,
                  "Try it now; a dead or parked one gets a new retry period", body=(TO,),
                  answers={200: "it is due", **there, 409: "it is delivered or running, or no server has its sink"}),
        ]  # fmt: skip

    async def list(self, asked: RequestContext) -> web.Response:
        """Answer GET /deliveries."""
        query = {"limit": 50, **asked.query}
        found, following = await self._turns.take(lambda: self._sources.ledger.deliveries(query))
        return answer(
            {"deliveries": [serializers.delivery(d, self._sources.courier.held) for d in found], "next": following}
        )

    async def show(self, asked: RequestContext) -> web.Response:
        """Answer GET /deliveries/{id}."""
        found = await self._sources.ledger.whole_delivery(asked.id)
        if found is None:
            raise Refusal(404, f"there is no delivery {asked.id}")
        delivery = found.delivery
        shown = [serializers.attempt(a) for a in found.attempts[-MOST_ATTEMPTS:]]
        return answer(
            {
                **serializers.delivery(delivery, self._sources.courier.held),
                "attempts": shown,
                "attempts_made": delivery.attempts,
            }
        )

    async def retry(self, asked: RequestContext) -> web.Response:
        """Answer POST /deliveries/{id}/retry."""
        recording = await self._sources.ledger.recording_of_delivery(asked.id)
        if recording is None:
            raise Refusal(404, f"there is no delivery {asked.id}")
        try:
            await self._sources.courier.retry(asked.id, str(asked.body.get("to", "")))
        except StoreDown:
            raise
        except StoreError as exc:
            raise Refusal(409, str(exc)) from None
        found = await self._sources.ledger.delivery(asked.id)
        sink = found.sink if found is not None else ""
        log.info("delivery_retried", delivery_id=asked.id, sink=sink, **recording.ids, who=asked.who.name)
        return answer(serializers.delivery(found, self._sources.courier.held) if found is not None else {})
