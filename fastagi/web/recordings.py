"""`/api/v1/recordings`: list, show, start, stop, pause, resume, hold, delete.

The rules are in the recording service and in `recording.compliance`, not here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import fields
from typing import Any

import structlog
from aiohttp import web

from fastagi.domain.formats import ENGINES, FORMATS, MODES
from fastagi.domain.recording import Recording
from fastagi.domain.spec import PAUSE_MODES, RecordingSpec
from fastagi.domain.states import OPEN, Cause, Phase, State
from fastagi.errors import FastAGIError
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.store.queries import catalogue
from fastagi.web import serializers
from fastagi.web.access import Role
from fastagi.web.api import PREFIX, QueryLimiter, RequestContext, Route
from fastagi.web.dependencies import WebDependencies
from fastagi.web.params import CURSOR, LIMIT, Field, choice, flag, needed, text, time_of, whole
from fastagi.web.responses import Refusal, answer

log = structlog.get_logger(__name__)

MOST_ENTRIES = 500
"""Most journal lines and deliveries shown of one recording."""

WAIT = whole("wait", "seconds to wait for the finished file; 10 if left out", 0, 60)

FILTERS = (
    choice("state", "", [s.value for s in State]),
    choice("phase", "where it is, inside", [p.value for p in Phase]),
    choice("cause", "why it ended", [c.value for c in Cause]),
    text("asterisk", "`[[asterisk]] name`"),
    text("channel", "exact name of the channel"),
    text("uniqueid", ""),
    text("linkedid", ""),
    text("caller", "exact number"),
    text("called", "exact number"),
    text("node", "server that has the file"),
    choice("file_format", "", list(FORMATS)),
    time_of("since", "requested at or after"),
    time_of("until", "requested before"),
    text("search", "part of name, file, numbers, channels, uniqueid or linkedid, any case"),
    flag("deleted", "only deleted ones, or only others"),
)


def _of_spec() -> tuple[Field, ...]:
    """Return the parameters of a recording, from the domain's definition."""
    allowed = {
        "file_format": list(FORMATS),
        "recording_mode": list(MODES),
        "engine": list(ENGINES),
        "pause_mode": list(PAUSE_MODES),
    }
    found = []
    for parameter in fields(RecordingSpec):
        if parameter.name == "encryption":
            continue
        kinds: tuple[type, ...] = (type(parameter.default),)
        schema: dict[str, Any] = {"type": {str: "string", int: "integer", bool: "boolean"}.get(kinds[0], "number")}
        if parameter.name == "seconds_timeout":
            kinds = (int, float, type(None))
        if parameter.name in allowed:
            schema["enum"] = allowed[parameter.name]
        found.append(Field(parameter.name, "as in record(); [recordings.defaults] if left out", kinds, schema))
    return tuple(found)


_TEXT: dict[str, Any] = {"type": "string"}

START = (
    Field("channel", "its name or uniqueid", (str,), _TEXT, required=True),
    Field("filename", "below the recordings directory; made up if left out", (str,), _TEXT),
    Field("asterisk", "on which PBX; needed where several have that channel", (str,), _TEXT),
    Field("recorder", "which of several recordings of that call", (str,), _TEXT),
    Field("sink", "name of the sink that gets it instead of the default ones", (str,), _TEXT),
    Field("mid_call", "also while it is bridged; true if left out", (bool,), {"type": "boolean"}),
    *_of_spec(),
)

REASON = needed("reason", "why; journalled with the token's name")

FORCE = flag("force", "also where something is still to be delivered; never over a legal hold")


class Recordings:
    """The routes of recordings."""

    def __init__(self, sources: WebDependencies, turns: QueryLimiter) -> None:
        self._sources = sources
        self._turns = turns

    def routes(self) -> list[Route]:
        """Return all routes."""
        one = "/recordings/{id}"
        there = {404: "there is no such recording"}
        running = {**there, 409: "it does not run, or is in no state for that"}
        return [
            Route("GET", "/recordings", self.list, Role.VIEWER, "List recordings, newest first",
                  (*FILTERS, CURSOR, LIMIT), answers={200: "a page; `next` is the cursor of the next one, or null"}),
            Route("POST", "/recordings", self.start, Role.OPERATOR, "Start to record a channel", body=START,
                  answers={201: "it runs", 409: "the channel is in no state for that", 502: "Asterisk could not"}),
            Route("GET", one, self.show, Role.VIEWER, "One recording, its deliveries and its journal",
                  answers={200: "found", **there}),
            Route("DELETE", one, self.delete, Role.ADMIN, "Delete its file and its key; the row stays", (REASON, FORCE),
                  answers={200: "deleted", **there, 409: "it is on legal hold, has not ended, or is not delivered"}),
            Route("POST", one + "/stop", self.stop, Role.OPERATOR, "Stop it (cause ABORTED)", (WAIT,),
                  answers={200: "it has ended", 202: "it is ending", **running}),
            Route("POST", one + "/pause", self.pause, Role.OPERATOR, "Silence from now on",
                  body=(Field("seconds", "resume by itself after so many", (int, float), {"type": "number"}),),
                  answers={200: "paused", **running}),
            Route("POST", one + "/resume", self.resume, Role.OPERATOR, "Record again",
                  answers={200: "it records", **running}),
            Route("POST", one + "/hold", self.hold, Role.ADMIN, "Legal hold: keep it whatever happens", (REASON,),
                  answers={200: "held", **there, 409: "it is deleted"}),
            Route("POST", one + "/release", self.release, Role.ADMIN, "End a legal hold", (REASON,),
                  answers={200: "released", **there, 409: "it is not on hold"}),
        ]  # fmt: skip

    async def list(self, asked: RequestContext) -> web.Response:
        """Answer GET /recordings."""
        query = dict(asked.query)
        limit, cursor = query.pop("limit", 50), query.pop("cursor", None)
        wanted = catalogue.RecordingFilter(**query)
        found, following = await self._turns.take(lambda: self._sources.ledger.recordings(wanted, cursor, limit))
        return answer({"recordings": [serializers.recording(r) for r in found], "next": following})

    async def show(self, asked: RequestContext) -> web.Response:
        """Answer GET /recordings/{id}."""
        found = await self._sources.ledger.whole_recording(asked.id)
        if found is None:
            raise Refusal(404, f"there is no recording {asked.id}")
        body = serializers.recording(found.recording)
        job = self._sources.recorder.get(asked.id)
        if job is not None:
            body = {
                **serializers.recording(job.recording),
                "alarms": sorted(job.alarms),
                "bytes_so_far": max(0, job.size),
            }
        body["deliveries"] = [
            serializers.delivery(d, self._sources.courier.held) for d in found.deliveries[:MOST_ENTRIES]
        ]
        body["journal"] = [serializers.entry(e) for e in found.journal[-MOST_ENTRIES:]]
        return answer(body)

    async def start(self, asked: RequestContext) -> web.Response:
        """Answer POST /recordings."""
        body = dict(asked.body)
        recording = await self._own(
            self._sources.commands.start_on_channel(
                body.pop("channel"),
                body.pop("filename", ""),
                asterisk=body.pop("asterisk", ""),
                recorder=body.pop("recorder", ""),
                sink=body.pop("sink", None),
                mid_call=body.pop("mid_call", True),
                arguments=body,
            ),
            "http start",
        )
        log.info("recording_commanded", command="start", **recording.ids, who=asked.who.name)
        shown = serializers.recording(recording)
        if recording.state is State.ERROR:
            return answer({"error": recording.error, "recording": shown}, 502)
        return answer(shown, 201, Location=f"{PREFIX}/recordings/{recording.id}")

    async def stop(self, asked: RequestContext) -> web.Response:
        """Answer POST /recordings/{id}/stop."""
        job = await self._job(asked.id)
        if isinstance(job, Recording):  # the recording has ended: stopping is idempotent
            return answer(serializers.recording(job))
        log.info("recording_commanded", command="stop", **job.recording.ids, who=asked.who.name)
        await self._own(self._sources.commands.stop(job, wait=False), "http stop")
        ended = await job.wait(float(asked.query.get("wait", 10)))
        return answer(serializers.recording(job.recording), 200 if ended else 202)

    async def pause(self, asked: RequestContext) -> web.Response:
        """Answer POST /recordings/{id}/pause."""
        job = await self._running(asked.id)
        log.info("recording_commanded", command="pause", **job.recording.ids, who=asked.who.name)
        return answer(
            serializers.recording(
                await self._own(self._sources.commands.pause(job, asked.body.get("seconds")), "http pause")
            )
        )

    async def resume(self, asked: RequestContext) -> web.Response:
        """Answer POST /recordings/{id}/resume."""
        job = await self._running(asked.id)
        log.info("recording_commanded", command="resume", **job.recording.ids, who=asked.who.name)
        return answer(serializers.recording(await self._own(self._sources.commands.resume(job), "http resume")))

    async def delete(self, asked: RequestContext) -> web.Response:
        """Answer DELETE /recordings/{id}."""
        await self._row(asked.id)
        work = self._sources.recorder.delete(
            asked.id, asked.who.name, asked.query["reason"], force=bool(asked.query.get("force", False))
        )
        return answer(serializers.recording(await self._own(work, "http delete")))

    async def hold(self, asked: RequestContext) -> web.Response:
        """Answer POST /recordings/{id}/hold."""
        await self._row(asked.id)
        work = self._sources.recorder.hold(asked.id, asked.who.name, asked.query["reason"])
        return answer(serializers.recording(await self._own(work, "http hold")))

    async def release(self, asked: RequestContext) -> web.Response:
        """Answer POST /recordings/{id}/release."""
        await self._row(asked.id)
        work = self._sources.recorder.release(asked.id, asked.who.name, asked.query["reason"])
        return answer(serializers.recording(await self._own(work, "http release")))

    async def _own(self, work: Coroutine[Any, Any, Recording], name: str) -> Recording:
        """Let the recorder own the work, which goes on to its end even if the client leaves or this server stops."""
        done: Recording | FastAGIError = await asyncio.shield(self._sources.recorder.spawn(_caught(work), name))
        if isinstance(done, FastAGIError):
            raise done
        return done

    async def _running(self, recording_id: str) -> ActiveRecording:
        job = await self._job(recording_id)
        if isinstance(job, Recording):
            raise Refusal(409, f"recording {recording_id} has ended: {job.cause.value}")
        return job

    async def _job(self, recording_id: str) -> ActiveRecording | Recording:
        """Return the `ActiveRecording` of an open recording of this server, or the row of one that has ended."""
        job = self._sources.recorder.get(recording_id)
        if job is not None:
            return job
        recording = await self._row(recording_id)
        if recording.phase in OPEN:
            raise Refusal(409, f"recording {recording_id} is run by the server {recording.node}: ask that one")
        return recording

    async def _row(self, recording_id: str) -> Recording:
        recording = await self._sources.ledger.recording(recording_id)
        if recording is None:
            raise Refusal(404, f"there is no recording {recording_id}")
        return recording


async def _caught(work: Coroutine[Any, Any, Recording]) -> Recording | FastAGIError:
    """Return a refusal as a value: it is the client's answer, and the task has not died."""
    try:
        return await work
    except FastAGIError as exc:
        return exc
