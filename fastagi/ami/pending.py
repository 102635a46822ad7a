"""Action that waits for its answer, and the rule for when the answer is complete. No I/O, no clock.

Answers come in three shapes:

- one response: most actions, and every error;
- a list: the response says `EventList: start` (or "... will follow"), events with the action's id follow, the last one
  says `EventList: Complete`;
- queued: the response only confirms the order, one event with the action's id has the result (`Originate` with
  `Async: true`, `AGI`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from panoramisk.message import Message

from fastagi.ami.messages import synthetic, to_message
from fastagi.ami.wire import Block, field
from fastagi.errors import AsteriskError

MAX_ROWS = 50_000
"""Most events in one list. `CoreShowChannels` of 5,000 calls with Local channels has 20,000."""

REPLY_EVENTS = {"originate": "OriginateResponse", "agi": "AsyncAGIExec"}
"""Queued actions -> the event with the result. These events go through Asterisk's event queue, and so through the event
filters."""

_LAST = {"complete", "cancelled"}


class Pending:
    """Action that was sent and has no complete answer.

    :param action: its name, in lower case
    :param as_list: None leaves it to the answer; False: the first response is all; True: always a list
    :param merge: return response and event as one response (an `Originate` that is synchronous for the caller)
    :param row: makes an item of the list from an event; None leaves it out
    """

    __slots__ = ("_items", "_queued", "_started", "action", "as_list", "future", "id", "merge", "row", "timer")

    def __init__(
        self,
        id: str,
        action: str,
        future: asyncio.Future[Any],
        *,
        as_list: bool | None = None,
        merge: bool = False,
        row: Callable[[Block], Any] = to_message,
    ) -> None:
        self.id = id
        self.action = action
        self.future = future
        self.as_list = as_list
        self.merge = merge
        self.row = row
        self.timer: asyncio.TimerHandle | None = None
        self._items: list[Any] = []
        self._started = False
        self._queued = False

    @property
    def unanswered(self) -> bool:
        """True until the response has come: Asterisk does nothing else for this connection meanwhile."""
        return not self._started and not self.future.done()

    def response(self, message: Message) -> None:
        """Take the response."""
        text = str(message.message).lower()
        if not message.success or self.as_list is False:
            self._done([message] if self.as_list else message)
            return
        self._queued = self.action in REPLY_EVENTS and ("queued" in text or text.endswith("to queue"))
        listed = str(message.eventlist).lower() == "start" or "will follow" in text
        if self._queued or listed:
            self._started = True
            self._items.append(message)
        else:
            self._done([message] if self.as_list else message)

    def event(self, block: Block) -> bool:
        """Take an event with this action's id. Return True when it is part of the answer."""
        if not self._started or self.future.done():
            return False
        if self._queued:
            if block.name != REPLY_EVENTS[self.action]:
                return False
            message = to_message(block)
            self._done(_merged(message) if self.merge else [*self._items, message])
            return True
        if is_true_event(block):
            return False
        item = self.row(block)
        if item is not None:
            self._items.append(item)
        if field(block.raw, "EventList").lower() in _LAST or block.name.endswith("Complete"):
            self._done(self._items)
        elif len(self._items) > MAX_ROWS:
            self.fail(AsteriskError(f"the answer to {self.action} has more than {MAX_ROWS} rows"))
        return True

    def gives(self, block: Block) -> bool:
        """Tell whether event callbacks get an event of this answer: they do not get rows of a list."""
        return self._queued and is_true_event(block)

    def fail(self, exc: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(exc)

    def _done(self, result: Any) -> None:
        if not self.future.done():
            self.future.set_result(result)


def is_true_event(block: Block) -> bool:
    """Tell whether an event reports something that happened; rows of a list do not.

    Events from Asterisk's event queue bear `Privilege: <classes>,all` (authority_to_str in manager.c); rows of lists
    have no such header, or `Privilege: Call` (Status).
    """
    return field(block.raw, "Privilege").endswith(",all")  # not `Call`


def _merged(event: Message) -> Message:
    """Return the response that a synchronous `Originate` would have had."""
    good = str(event.response).lower() == "success"
    headers = {
        "Response": "Success" if good else "Error",
        "ActionID": str(event.actionid),
        "Message": "Originate successfully queued" if good else "Originate failed",
    }
    for key in ("Channel", "Uniqueid", "Reason"):
        headers[key] = str(event.get(key, ""))
    return synthetic(headers)
