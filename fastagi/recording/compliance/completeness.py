"""Completeness: every answered call that the settings want recorded, against its recordings (`[recordings] required`).

A call is one channel that was answered in one of these contexts. It is in the ledger from its answer on, and judged
once it has ended and what was recorded of it is finished; a restart goes on with those that were open. A recording on
another channel of the same call (the caller's, where the callee's context is named) counts as well, and so does
that of a conference which the call was in. Asterisk is believed about answers and ends; while AMI or the ledger is
away the verdict waits, and no recording waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from fastagi.domain.recording import Recording
from fastagi.domain.states import LIVE
from fastagi.errors import StoreDown, StoreError
from fastagi.recording.asterisk.call_state import CallState, call_state
from fastagi.recording.asterisk.channel_table import EVENTS as CHANNEL_EVENTS
from fastagi.recording.asterisk.channel_table import LiveChannel
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.compliance.judging import judge
from fastagi.recording.ledger.active import ActiveRecording, ActiveRecordings
from fastagi.store import Store
from fastagi.store.queries import calls as units
from fastagi.store.queries.calls import RECORDED, AnsweredCall

log = structlog.get_logger(__name__)

EVENTS = (*CHANNEL_EVENTS, "MixMonitorStart", "MixMonitorStop", "MonitorStart")
"""Any of them may be the first that tells of an answered channel, or of the context that it is in."""

FINISHING_SECONDS = 3600.0
"""A recording that is not finished an hour after its call (a full disk) is judged as it is."""

MOST_CALLS = 20_000
"""Calls followed at once, some 10 MB; four times the sessions that the server takes."""

LONGEST_REASON = 300
"""Characters of a refusal that a verdict repeats."""

Listener = Callable[[AnsweredCall], None]


class Completeness:
    """Follows the calls that must be recorded.

    :param required: contexts; ``*`` is every one
    :ivar counts: verdicts since the start, for a metric
    :ivar unfollowed: calls that were too many, since the start
    """

    def __init__(
        self,
        store: Store,
        jobs: ActiveRecordings,
        pbxs: Mapping[str, Pbx],
        required: Sequence[str],
        *,
        clock: Callable[[], float] = time.time,
        listeners: Iterable[Listener] = (),
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._pbxs = pbxs
        self._required = frozenset(required)
        self._tasks: set[asyncio.Task[None]] = set()
        self._clock = clock
        self._calls: dict[tuple[str, str], AnsweredCall] = {}
        self._noted: dict[tuple[str, str], asyncio.Event] = {}
        self._rooms: dict[tuple[str, str], dict[str, ActiveRecording]] = {}
        self._refusals: dict[tuple[str, str], str] = {}
        self._listeners: list[Listener] = list(listeners)
        self.counts: Counter[str] = Counter()
        self.unfollowed = 0

    def require(self, required: Sequence[str]) -> None:
        """Follow the calls of these contexts from now on, those that are up included. Calls that are followed stay."""
        self._required = frozenset(required)
        for pbx in self._pbxs.values():
            if pbx.up:
                self.synced(pbx)

    @property
    def open(self) -> int:
        """Calls that are up and must be recorded."""
        return len(self._calls)

    def follows(self, asterisk: str, uniqueid: str) -> bool:
        """Return whether that channel is a call that is up and must be recorded; such a call is in the ledger."""
        return (asterisk, uniqueid) in self._calls

    def listen(self, listener: Listener) -> None:
        """Call `listener(call)` with each call that was judged. Must not block or raise."""
        self._listeners.append(listener)

    async def load(self) -> None:
        """Take up what the last process left: open calls wait for `synced`, ended ones are judged now."""
        for name in self._pbxs:
            for call in await self._store.read(units.open_calls, name):
                self._calls[name, call.uniqueid] = call
            for call in await self._store.read(units.unjudged, name):
                related = self._related((name, call.uniqueid), {call.linkedid}, call.recording_id)
                self._spawn(self._judge(call, {call.linkedid}, related), f"judge {call.uniqueid}")

    async def close(self) -> None:
        """Wait for nothing: the next start judges what is not judged. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        # not among the recorder's tasks, which a drain waits for: this one waits for calls that are up
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._died)

    def _died(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("task_died", task=task.get_name(), exc_info=task.exception())

    def refused(self, asterisk: str, uniqueid: str, error: str) -> None:
        """A recording of that channel was not begun: the verdict on the call says why."""
        key, reason = (asterisk, uniqueid), error[:LONGEST_REASON]
        if key in self._calls:
            self._amend(key, reason=reason)
        elif self._required and len(self._refusals) < MOST_CALLS:
            self._refusals[key] = reason  # it is not answered yet, perhaps that is why

    def joined(self, asterisk: str, uniqueid: str, job: ActiveRecording) -> None:
        """Note that a channel has joined the conference of a recording, which covers it from now on."""
        key = (asterisk, uniqueid)
        if key in self._calls:
            self._rooms.setdefault(key, {})[job.id] = job
            before = self._calls[key].recording_id
            if not self._jobs.on_channel(*key) and (not before or self._jobs.get(before) is None):
                self._amend(key, recording_id=job.id)

    def _amend(self, key: tuple[str, str], **changes: str) -> None:
        """Keep this of a call that is up, in memory and ledger."""
        if all(getattr(self._calls[key], name) == value for name, value in changes.items()):
            return
        self._calls[key] = replace(self._calls[key], **changes)  # type: ignore[arg-type]  # texts only
        self._spawn(self._remark(key, self._noted.get(key), changes), f"remark {key[1]}")

    async def _remark(self, key: tuple[str, str], noted: asyncio.Event | None, changes: Mapping[str, str]) -> None:
        if noted is not None:
            await noted.wait()
        call = self._calls.get(key)
        if call is not None:
            await self._certain(units.remark, *key, call.epoch, **changes)

    # -- what Asterisk tells

    def event(self, pbx: Pbx, name: str, headers: Mapping[str, str], channel: LiveChannel | None) -> None:
        """Anything that the channel table hears of a channel: it may be answered, or over."""
        context = headers.get("Context", "")
        if channel is None or not (self._required or self._calls):
            return
        key = (pbx.name, channel.uniqueid)
        if key not in self._calls and channel.up and (must := self._must(channel, context)):
            self._answered(pbx, channel, must, channel.answered_at or self._clock())
        if name == "Hangup":
            self._refusals.pop(key, None)
            if key in self._calls:
                self._over(key, self._clock(), {channel.linkedid})

    def synced(self, pbx: Pbx) -> None:
        """Asterisk's channel list has come: what is not there has ended unseen, what was answered unseen is noted."""
        for (name, uniqueid), call in list(self._calls.items()):
            if name != pbx.name:
                continue
            if call_state(pbx.channels.get(uniqueid), True, call.answered_at) is CallState.GONE:
                self._over((name, uniqueid), None, set())
        for channel in pbx.channels if self._required else ():
            must = self._must(channel, "") if channel.up else ""
            if must and (pbx.name, channel.uniqueid) not in self._calls:
                self._answered(pbx, channel, must, self._clock())  # when it was answered, nobody here knows

    def _must(self, channel: LiveChannel, context: str) -> str:
        """The context for which this channel must be recorded; empty when it need not."""
        seen = (context, channel.context, channel.first_context)
        if "*" in self._required:
            return next((c for c in seen if c), "*")
        return next((c for c in seen if c in self._required), "")

    def _answered(self, pbx: Pbx, channel: LiveChannel, context: str, at: float) -> None:
        if len(self._calls) >= MOST_CALLS:
            self.unfollowed += 1
            return
        key = (pbx.name, channel.uniqueid)
        call = AnsweredCall(
            asterisk=pbx.name,
            uniqueid=channel.uniqueid,
            linkedid=channel.linkedid,
            channel=channel.name,
            context=context,
            caller=channel.caller,
            called=channel.called,
            answered_at=at,
            required=True,
            reason=self._refusals.pop(key, ""),
        )
        self._calls[key] = call
        self._noted[key] = asyncio.Event()
        self._spawn(self._note(key, call), f"answered {channel.uniqueid}")

    async def _note(self, key: tuple[str, str], call: AnsweredCall) -> None:
        noted = self._noted[key]
        try:
            if not await self._certain(units.answered, call):
                # that uniqueid was used before: by an Asterisk that restarted, or by who chose it in Originate
                call = replace(call, epoch=int(call.answered_at))
                await self._certain(units.answered, call)
                if key in self._calls:
                    self._calls[key] = replace(self._calls[key], epoch=call.epoch)
        finally:
            noted.set()

    def _over(self, key: tuple[str, str], at: float | None, linkedids: set[str]) -> None:
        call = self._calls[key]
        related = self._related(key, linkedids | {call.linkedid}, call.recording_id)
        self._spawn(self._end(key, at, linkedids, related), f"ended {key[1]}")

    def _related(self, key: tuple[str, str], linkedids: set[str], room: str) -> list[ActiveRecording]:
        """:param room: id of a conference's recording, which counts where none is made on the call's own channel"""
        linked = linkedids - {""}
        rooms = self._rooms.pop(key, {})
        if (job := self._jobs.get(room)) is not None:
            rooms[room] = job
        here = self._jobs.on_channel(*key) or list(rooms.values())
        return here + [j for j in self._jobs.on_asterisk(key[0]) if j.recording.linkedid in linked and j not in here]

    # -- what follows

    async def _end(
        self, key: tuple[str, str], at: float | None, linkedids: set[str], related: list[ActiveRecording]
    ) -> None:
        """:param at: when it hung up; None when nobody saw it: its recordings' end tells"""
        noted = self._noted.pop(key, None)
        if noted is not None:
            await noted.wait()
        call = self._calls.pop(key, None)
        if call is None:
            return
        linkedids = linkedids | {call.linkedid}
        if at is None:
            await self._finished(related)
            ends = [r.ended_at for r in await self._recordings(call, linkedids, related) if r.ended_at is not None]
            at = max([call.answered_at, *ends]) if ends else self._clock()
        await self._certain(units.ended, call.asterisk, call.uniqueid, at, call.epoch)
        await self._judge(replace(call, ended_at=at), linkedids, related)

    async def _finished(self, related: list[ActiveRecording]) -> None:
        """Until each is finished, or has ended an hour ago: a conference may go on all day without this call."""
        for job in related:
            while True:
                runs = job.phase in LIVE
                if await job.wait(FINISHING_SECONDS) or not runs:
                    break

    async def _recordings(
        self, call: AnsweredCall, linkedids: set[str], related: Sequence[ActiveRecording]
    ) -> list[Recording]:
        ids = {job.id for job in related} | {call.recording_id} - {""}
        while True:
            try:
                found: list[Recording] = await self._store.read(
                    units.recordings_of, call.asterisk, call.uniqueid, sorted(linkedids - {""}), sorted(ids)
                )
                return found
            except StoreDown:
                await asyncio.sleep(RETRY_SECONDS)

    async def _judge(self, call: AnsweredCall, linkedids: set[str], related: list[ActiveRecording]) -> None:
        await self._finished(related)
        verdict = judge(call, await self._recordings(call, linkedids, related))
        call = replace(call, verdict=verdict.verdict, reason=verdict.reason, recording_id=verdict.recording_id)
        await self._certain(
            units.judged,
            call.asterisk,
            call.uniqueid,
            call.verdict,
            recording_id=call.recording_id,
            reason=call.reason,
            epoch=call.epoch,
        )
        self.counts[call.verdict] += 1
        if call.verdict != RECORDED:
            log.error(
                "call_not_recorded",
                verdict=call.verdict,
                reason=call.reason,
                asterisk=call.asterisk,
                uniqueid=call.uniqueid,
                channel=call.channel,
                recording_id=call.recording_id,
            )
        for listener in self._listeners:
            try:
                listener(call)
            except Exception:
                log.exception(
                    "completeness_listener_failed", asterisk=call.asterisk, uniqueid=call.uniqueid, channel=call.channel
                )

    async def _certain(self, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Write it, however long the ledger is away: an end that is not noted would leave the call open for ever."""
        while True:
            try:
                return await self._store.run(unit, *args, **kwargs)
            except StoreDown:
                await asyncio.sleep(RETRY_SECONDS)
            except StoreError as exc:
                asterisk, uniqueid = (
                    (first.asterisk, first.uniqueid) if isinstance(first := args[0], AnsweredCall) else args[:2]
                )
                log.error("call_not_noted", unit=unit.__name__, asterisk=asterisk, uniqueid=uniqueid, error=str(exc))
                return False


RETRY_SECONDS = 1.0
