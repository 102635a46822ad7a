"""Connection to a manager: bytes through the codec, actions to their answers, events to the owner.

A connection lives from one connect to one loss and never reconnects (`link.py` makes the next one). At the loss all
pending actions fail, and none is sent again. Every action has a time limit, and leaves nothing behind when it ends or
is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import structlog

from fastagi.ami.messages import to_message
from fastagi.ami.pending import Pending
from fastagi.ami.wire import Block, Decoder, WireError, encode, field
from fastagi.errors import ActionTimeout, AsteriskDown, AsteriskError, BadArgument

log = structlog.get_logger(__name__)

MAX_PENDING = 5000
"""Most pending actions: one for each call the recorder is made for. More means that Asterisk does not answer."""

READ_BYTES = 64 * 1024
"""Bytes read at once: about 100 events. More would leave the processor's cache: measured, 256 kB at once cost half as
much again per event."""

PING_PATIENCE = 6
"""Most deadlines that a ping may wait while other bytes come in: a busy link is slow, but alive."""


@dataclass(slots=True)
class Counts:
    """Counts over an owner's connections. `refused`: actions answered with an error."""

    sent: int = 0
    refused: int = 0
    timed_out: int = 0


class AmiProtocol(asyncio.BufferedProtocol):
    """Protocol of one connection. Made without arguments (panoramisk's `protocol_factory`); call `attach` before
    connecting.

    `lost`: future with the reason once the connection is gone. `heard`: bytes came since it was last set to False.
    """

    def __init__(self) -> None:
        self.decoder = Decoder(lambda name: True)
        self.pending: dict[str, Pending] = {}
        self.closed = False
        self.heard = False
        self.counts = Counts()
        self._give: Callable[[Block], None] = lambda block: None
        self._transport: asyncio.Transport | None = None
        self._reason = ""
        self._read = memoryview(bytearray(READ_BYTES))
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()

    def attach(self, wants: Callable[[str], bool], give: Callable[[Block], None], counts: Counts) -> None:
        """Connect the protocol to its owner.

        :param wants: tells whether an event of a name is wanted; :param give: takes each event outside answers
        """
        self.decoder = Decoder(wants)
        self.counts = counts
        self._give = give

    # -- asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.closed:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._read

    def buffer_updated(self, nbytes: int) -> None:
        self.heard = True
        try:
            blocks = self.decoder.feed(bytes(self._read[:nbytes]))
        except WireError as exc:
            self.abort(str(exc))
            return
        for block in blocks:
            if self.closed:
                return
            if block.name:
                self._event(block)
            else:
                self._response(block)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        reason = self._reason or (f"connection lost: {exc}" if exc else "Asterisk closed the connection")
        self.fail_all(reason)
        if not self.lost.done():
            self.lost.set_result(reason)

    # -- for the owner

    def close(self, reason: str = "closed here") -> None:
        """End the connection once all written bytes are sent; idempotent."""
        self._end(reason, abort=False)

    def abort(self, reason: str) -> None:
        """End the connection at once; idempotent."""
        self._end(reason, abort=True)

    def fail_all(self, reason: str) -> None:
        """Fail the futures of all pending actions with AsteriskDown. Idempotent."""
        for pending in list(self.pending.values()):
            pending.fail(AsteriskDown(f"{pending.action}: {reason}; it may or may not have been done"))

    def farewell(self, action: Mapping[str, object]) -> None:
        """Send Logoff without waiting for the answer; call `close` next."""
        if not self.closed and self._transport is not None:
            self._transport.write(encode(action))

    def _end(self, reason: str, *, abort: bool) -> None:
        if self.closed:
            return
        self.closed = True
        self._reason = reason
        if self._transport is not None:
            if abort:
                self._transport.abort()
            else:
                self._transport.close()

    def send(
        self,
        action: Mapping[str, object],
        *,
        seconds: float,
        as_list: bool | None = None,
        merge: bool = False,
        row: Callable[[Block], Any] = to_message,
        before: bytes = b"",
    ) -> asyncio.Future[Any]:
        """Write one action; the future's result is a Message, or a list of them.

        :param action: header names to values, `Action` and `ActionID` among them
        :param before: actions in the same write, whose answers are dropped
        :param seconds: time limit of the whole answer
        :param row, as_list, merge: see `Pending`
        :raises AsteriskDown: the connection is gone
        :raises BadArgument: a header would break out of its line, or the ActionID is under way already
        The future fails with ActionTimeout, or AsteriskDown when the connection is lost before the answer is whole.
        """
        action_id, name = str(action["ActionID"]), str(action["Action"]).lower()
        data = encode(action)
        if self.closed or self._transport is None:
            raise AsteriskDown(f"{name}: {self._reason or 'no connection'}")
        if action_id in self.pending:
            raise BadArgument(f"ActionID={action_id!r} is under way already")
        if len(self.pending) >= MAX_PENDING:
            raise AsteriskError(f"{name}: {MAX_PENDING} actions wait for an answer already")
        future: asyncio.Future[Any] = self._loop.create_future()
        pending = Pending(action_id, name, future, as_list=as_list, merge=merge, row=row)
        pending.timer = self._loop.call_later(seconds, self._expire, pending, seconds)
        self.pending[action_id] = pending
        self.decoder.expecting = True
        future.add_done_callback(lambda _: self._settled(pending))
        self.counts.sent += 1
        self._transport.write(before + data)
        return future

    async def ping(self, action: Mapping[str, object], seconds: float) -> None:
        """Check that the peer is alive; return when it answers.

        Asterisk handles a session's actions one after the other, so that a ping cannot be answered before an action
        sent earlier; such an action has its own time limit, and the ping's deadline starts when it is done.

        :param seconds: deadline
        :raises AsteriskDown: no answer, or the connection is lost
        """
        earlier = [p for p in self.pending.values() if p.unanswered]
        self.heard = False
        answer = self.send(action, seconds=3600)
        try:
            patience = PING_PATIENCE
            while not answer.done():
                done, _ = await asyncio.wait({answer, self.lost}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                if self.lost in done:
                    raise AsteriskDown(self.lost.result())
                if done or any(p.unanswered for p in earlier):
                    continue
                if earlier:  # they are answered by now: the deadline starts
                    earlier.clear()
                elif self.heard and patience > 0:
                    self.heard = False
                    patience -= 1
                else:
                    raise AsteriskDown(f"no answer to a ping within {seconds:g} s")
        finally:
            answer.cancel()

    # -- answers

    def _response(self, block: Block) -> None:
        pending = self.pending.get(field(block.raw, "ActionID"))
        if pending is not None:
            message = to_message(block)
            if not message.success:
                self.counts.refused += 1
            pending.response(message)
        elif block.raw.startswith(b"Response: Error"):
            # the answer to an action that timed out, or a complaint that Asterisk cannot match to an action
            log.warning("ami_error_unmatched", error=field(block.raw, "Message"))

    def _event(self, block: Block) -> None:
        if self.pending:
            pending = self.pending.get(field(block.raw, "ActionID"))
            if pending is None and block.name == "AsyncAGIExec":
                pending = self.pending.get(field(block.raw, "CommandId"))
            if pending is not None and pending.event(block) and not pending.gives(block):
                return
        self._give(block)

    def _expire(self, pending: Pending, seconds: float) -> None:
        if not pending.future.done():
            self.counts.timed_out += 1
            pending.fail(ActionTimeout(f"{pending.action}: Asterisk did not answer within {seconds:g} s"))

    def _settled(self, pending: Pending) -> None:
        self.pending.pop(pending.id, None)
        if pending.timer is not None:
            pending.timer.cancel()
        self.decoder.expecting = bool(self.pending)
        if not pending.future.cancelled():
            pending.future.exception()  # mark as retrieved: a caller may drop the future
