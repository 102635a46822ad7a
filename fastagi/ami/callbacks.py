"""Subscriptions to events and their delivery: in order, with a bound, and unharmed by faulty callbacks.

Two kinds of receivers: `subscribe`d ones are called at once with an `AmiEvent`; panoramisk's (`register_event`) are
called with `(manager, Message)` and may be coroutine functions, each of which has its own queue and runs one event at a
time.
The connection is unknown here.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog

from fastagi.ami.events import AmiEvent
from fastagi.ami.filters import expression, matcher
from fastagi.ami.messages import to_message
from fastagi.ami.wire import MAX_NAMES, Block
from fastagi.errors import BadArgument

log = structlog.get_logger(__name__)

MAX_QUEUED = 10_000
"""Most events that wait for one async callback: about 10 s of a busy PBX, 30 MB. Newer ones are dropped and counted: a
callback that hangs must not take the recorder down."""

RAISED = (Exception, SystemExit)
"""Exceptions of a callback that are logged only. SystemExit is how a script ends; it must not end the server."""

Subscriber = Callable[[AmiEvent], None]
Callback = Callable[[Any, Any], Any]


class Subscription:
    """Handle of one `subscribe`; `cancel` ends it (idempotent)."""

    __slots__ = ("_matchers", "_switchboard", "callback", "names")

    def __init__(self, switchboard: Switchboard, callback: Subscriber, names: tuple[str, ...]) -> None:
        self._switchboard = switchboard
        self._matchers = [matcher(name) for name in names]
        self.callback = callback
        self.names = names

    def wants(self, name: str) -> bool:
        return any(m.match(name) for m in self._matchers)

    def cancel(self) -> None:
        """End the subscription. Asterisk sends these events until the next connection; they are dropped unread."""
        self._switchboard.drop(self)


class Mailbox:
    """Queue of one async callback's events, handled one after the other by a task that ends when the queue is empty."""

    def __init__(self, switchboard: Switchboard) -> None:
        self._switchboard = switchboard
        self._waiting: deque[tuple[str, Callable[[], Awaitable[Any]], Any]] = deque()
        self._task: asyncio.Task[None] | None = None

    def post(self, name: str, call: Callable[[], Awaitable[Any]], started: Any = None) -> None:
        """Queue a call; drop it when the queue is full.

        :param started: awaitable that the callback has made already; closed when the queue is full
        """
        board = self._switchboard
        if len(self._waiting) >= board.max_queued:
            board.dropped += 1
            if board.dropped == 1 or board.dropped % 1000 == 0:
                log.error("ami_callback_too_slow", asterisk=board.name, ami_event=name, dropped=board.dropped)
            if inspect.iscoroutine(started):
                started.close()
            return
        self._waiting.append((name, call, started))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work(), name=f"ami-callback-{board.name}")

    async def _work(self) -> None:
        while self._waiting:
            name, call, _ = self._waiting.popleft()
            try:
                await call()
            except RAISED:
                self._switchboard.raised(name)

    def close(self) -> asyncio.Task[None] | None:
        """Drop the waiting events. Return the cancelled task, for the caller to await."""
        for _, _, started in self._waiting:
            if inspect.iscoroutine(started):
                started.close()
        self._waiting.clear()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            return self._task
        return None


class Switchboard:
    """Router from event names to receivers.

    :param owner: given to panoramisk callbacks as their first argument
    :param name: which Asterisk, for the log
    """

    def __init__(self, owner: Any, name: str, base: Iterable[str], *, max_queued: int = MAX_QUEUED) -> None:
        self.name = name
        self.max_queued = max_queued
        self.errors = 0
        self.dropped = 0
        self._owner = owner
        self.base = tuple(base)
        for pattern in self.base:
            expression(pattern)
        self._subscriptions: list[Subscription] = []
        self._registered: list[tuple[str, Any, Callback]] = []
        self._routes: dict[str, tuple[tuple[Subscriber, ...], tuple[Callback, ...]]] = {}
        self._mailboxes: dict[int, Mailbox] = {}

    def subscribe(self, callback: Subscriber, names: tuple[str, ...]) -> Subscription:
        """Call `callback` for events of these names or patterns.

        :raises BadArgument: a name or pattern no event can have, or no name at all
        """
        if not (names or self.base):
            raise BadArgument("subscribe to which events? Name some, or give the Manager `events`")
        for name in names:
            expression(name)
        subscription = Subscription(self, callback, names or self.base)
        self._subscriptions.append(subscription)
        self._routes.clear()
        return subscription

    def drop(self, subscription: Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
            self._routes.clear()

    def register(self, pattern: str, callback: Callback) -> None:
        self._registered.append((pattern, matcher(pattern), callback))
        self._routes.clear()

    def patterns(self) -> set[str]:
        """Return every name and pattern that has a receiver."""
        wanted = set(self.base)
        for subscription in self._subscriptions:
            wanted.update(subscription.names)
        wanted.update(pattern for pattern, _, _ in self._registered)
        return wanted

    def wants(self, name: str) -> bool:
        return any(self._route(name))

    def give(self, block: Block) -> None:
        """Hand an event to all its receivers. Their exceptions are logged and counted, not raised."""
        subscribers, callbacks = self._route(block.name)
        if subscribers:
            event = AmiEvent(block.name, block.raw)
            for subscriber in subscribers:
                try:
                    subscriber(event)
                except RAISED:
                    self.raised(block.name)
        if callbacks:
            message = to_message(block)
            message.manager = self._owner
            self._call(callbacks, message, block.name)

    def dispatch(self, message: Any) -> list[str]:
        """Call the callbacks of a Message and return the patterns that matched (panoramisk's `dispatch`)."""
        message.manager = self._owner
        name = str(message.event)
        self._call(self._route(name)[1], message, name)
        return list(dict.fromkeys(pattern for pattern, match, _ in self._registered if match.match(name)))

    def _call(self, callbacks: Iterable[Callback], message: Any, name: str) -> None:
        for callback in callbacks:
            try:
                if inspect.iscoroutinefunction(callback):
                    self._mailbox(callback).post(name, _later(callback, self._owner, message))
                    continue
                result = callback(self._owner, message)
                if inspect.isawaitable(result):
                    self._mailbox(callback).post(name, _given(result), result)
            except RAISED:
                self.raised(name)

    def raised(self, name: str) -> None:
        """Log and count a callback's exception; call it in an except block."""
        self.errors += 1
        log.exception("ami_callback_raised", asterisk=self.name, ami_event=name)

    def close(self) -> list[asyncio.Task[None]]:
        """Stop the async callbacks. Return the ending tasks, for the caller to await."""
        return [task for mailbox in self._mailboxes.values() if (task := mailbox.close())]

    def _mailbox(self, callback: Callback) -> Mailbox:
        return self._mailboxes.setdefault(id(callback), Mailbox(self))  # callbacks are kept: their ids stay unique

    def _route(self, name: str) -> tuple[tuple[Subscriber, ...], tuple[Callback, ...]]:
        route = self._routes.get(name)
        if route is None:
            route = (
                tuple(s.callback for s in self._subscriptions if s.wants(name)),
                tuple(callback for _, match, callback in self._registered if match.match(name)),
            )
            if len(self._routes) < MAX_NAMES:
                self._routes[name] = route
        return route


def _later(callback: Callback, owner: Any, message: Any) -> Callable[[], Awaitable[Any]]:
    return lambda: callback(owner, message)


def _given(result: Awaitable[Any]) -> Callable[[], Awaitable[Any]]:
    return lambda: result
