"""panoramisk's `Manager` over a connection that reconnects, with the additions that the recorder needs.

Only the API is here: `link.py` connects and hands out events, `protocol.py` reads answers, `callbacks.py` keeps the
receivers. docs/decisions/0002-ami-panoramisk-api.md tells which parts of panoramisk are kept.
"""

from __future__ import annotations

import asyncio
import random as _random
import ssl as _ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import panoramisk
import structlog

from fastagi.ami.backoff import Backoff
from fastagi.ami.callbacks import Callback, Subscriber, Subscription, Switchboard
from fastagi.ami.endpoint import Endpoint, Timing
from fastagi.ami.events import ChannelRow
from fastagi.ami.filters import expression
from fastagi.ami.link import Link
from fastagi.ami.protocol import AmiProtocol
from fastagi.ami.wire import encode
from fastagi.errors import AsteriskDown

log = structlog.get_logger(__name__)

ORIGINATE_SECONDS = 30.0
"""Asterisk's own time limit for an answer when `Originate` has no Timeout."""

_KEPT = frozenset({"ssl", "loop", "protocol_factory", "on_login", "on_connect", "on_disconnect"})
_NEEDLESS = frozenset({"encoding", "ping_delay", "reconnect_timeout", "save_stream", "forgetable_actions", "log"})


class Manager(panoramisk.Manager):  # type: ignore[misc]  # panoramisk has no types
    """Manager connection to one Asterisk. All times are seconds.

    :param name: name in logs
    :param secret: text, or pydantic's SecretStr; in no log and no repr
    :param tls: True verifies the peer against the system's authorities; or an `ssl.SSLContext`
    :param events: names or patterns (``Queue*``) of events that are wanted without a subscriber, too. A plain string
        is panoramisk's event mask of the login
    :param action_seconds: time limit of an action whose caller gives none
    :param boot_seconds: wait for FullyBooted after a login; if it comes later, the channels are listed again
    :param ping_interval: time between pings; :param ping_seconds: time for the answer to a ping
    :param refused_seconds: delay after a refused login (a wrong secret stays wrong, and fail2ban counts)
    :param backoff: the waits after any other failure
    :param random: numbers in [0, 1); :param sleep: waits so many seconds (both for tests)
    :param config: panoramisk's own: ssl, loop, protocol_factory, on_login, on_connect, on_disconnect; those without a
        meaning here are ignored
    """

    def __init__(
        self,
        *,
        name: str = "asterisk",
        host: str = "127.0.0.1",
        port: int = 5038,
        username: str = "",
        secret: Any = "",
        tls: bool | _ssl.SSLContext = False,
        events: Iterable[str] | str = (),
        action_seconds: float = 10.0,
        connect_seconds: float = 10.0,
        login_seconds: float = 10.0,
        boot_seconds: float = 3.0,
        ping_interval: float = 10.0,
        ping_seconds: float = 5.0,
        refused_seconds: float = 60.0,
        backoff: Backoff | None = None,
        random: Callable[[], float] = _random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        **config: Any,
    ) -> None:
        for key in config:
            if key not in _KEPT | _NEEDLESS:
                raise TypeError(f"Manager() has no parameter {key!r}")
        config = {"protocol_factory": AmiProtocol, **{k: v for k, v in config.items() if k in _KEPT}}
        super().__init__(host=host, port=int(port), username=username, **config)
        self.log = log.bind(asterisk=name)
        self.name = name
        reveal = getattr(secret, "get_secret_value", None)
        mask = events if isinstance(events, str) else "on"
        names = () if isinstance(events, str) else tuple(events)
        self._board = Switchboard(self, name, names)
        self._link = Link(
            name,
            Endpoint(
                host, int(port), username, reveal() if reveal else str(secret), tls or config.get("ssl", False), mask
            ),
            Timing(
                action=action_seconds,
                connect=connect_seconds,
                login=login_seconds,
                boot=boot_seconds,
                ping_interval=float(ping_interval),
                ping=ping_seconds,
                refused=refused_seconds,
                backoff=backoff or Backoff(),
            ),
            self._board,
            factory=self.config["protocol_factory"],
            random=random,
            sleep=sleep,
        )
        self._link.on_connected.append(lambda: self.on_connect(self))
        self._link.on_up.append(self._came_up)
        self._link.on_down.append(self._went_down)

    def aim(self, *, host: str, port: int, username: str, secret: str, tls: bool | _ssl.SSLContext = False) -> None:
        """Connect to this address from the next `start` on; all registered callbacks stay."""
        self.config.update(host=host, port=port, username=username)
        self._link.aim(Endpoint(host, port, username, secret, tls, self._link.endpoint.mask))

    def __repr__(self) -> str:
        return f"<Manager {self.name} {self._link.endpoint} {'up' if self.connected else 'down'}>"

    def _came_up(self, rows: list[ChannelRow]) -> None:
        self.protocol, self.authenticated = self._link.protocol, True  # panoramisk's attributes
        self.on_login(self)

    def _went_down(self) -> None:
        self.protocol, self.authenticated = None, False
        self.on_disconnect(self, AsteriskDown(self.last_error))

    # -- state and numbers

    @property
    def connected(self) -> bool:
        """True while the connection is logged in and resynchronised."""
        return self._link.connected

    @property
    def last_error(self) -> str:
        """Reason for the missing connection; "" while connected, or before the first attempt has failed."""
        return self._link.last_error

    @property
    def peer_address(self) -> str:
        """Address of the last connection's peer; empty before the first one and after `aim`."""
        return self._link.peer_address

    @property
    def gone_from_here(self) -> bool:
        """True if the address is a loopback one and the last attempt found no process listening there."""
        return self._link.nothing_listens and self._link.endpoint.loopback

    @property
    def version(self) -> str:
        """Asterisk's version (``22.10.1``...), kept while it is down; "" when never seen or the user may not ask."""
        return self._link.version

    @property
    def system_name(self) -> str:
        """asterisk.conf's systemname: with it a uniqueid is unique among several Asterisks. "" when not set."""
        return self._link.system

    @property
    def event_names(self) -> set[str]:
        """Names and patterns of all wanted events."""
        return self._board.patterns()

    @property
    def events_seen(self) -> int:
        """Events that arrived, wanted or not."""
        return self._link.seen

    @property
    def events_parsed(self) -> int:
        """Events that arrived and were wanted."""
        return self._link.given

    @property
    def actions_sent(self) -> int:
        return self._link.counts.sent

    @property
    def actions_failed(self) -> int:
        """Actions that Asterisk answered with an error."""
        return self._link.counts.refused

    @property
    def actions_timed_out(self) -> int:
        return self._link.counts.timed_out

    @property
    def reconnects(self) -> int:
        """Connections after the first."""
        return self._link.reconnects

    @property
    def callback_errors(self) -> int:
        """Event callbacks that raised."""
        return self._board.errors

    @property
    def callback_dropped(self) -> int:
        """Events dropped because an async callback was too slow."""
        return self._board.dropped

    # -- life

    async def start(self) -> None:
        """Begin to connect, and keep connecting until `stop`. Returns at once; idempotent."""
        self.loop = asyncio.get_running_loop()
        self._link.begin(self.loop)

    async def stop(self) -> None:
        """Disconnect, and wait until every task has ended. Idempotent; `start` may follow."""
        tasks = self._link.halt() - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=5.0)

    def close(self) -> None:
        """Disconnect at once, also between attempts. Not a coroutine, as in panoramisk; `stop` also waits."""
        self._link.halt()

    async def wait_up(self, timeout: float | None = None) -> None:
        """Wait until the connection is up.

        :raises AsteriskDown: not up within `timeout` seconds (with the last error), or `start` was not called
        """
        await self._link.wait_up(timeout)

    def connect(self, run_forever: bool = False, on_startup: Any = None, on_shutdown: Any = None) -> asyncio.Task[None]:
        """Begin to connect (panoramisk's API).

        The returned task ends when the connection is up. It raises AsteriskDown after the time of the first attempt;
        the attempts go on.
        """
        if self.loop is None:
            try:
                self.loop = asyncio.get_running_loop()
            except RuntimeError:
                self.loop = asyncio.new_event_loop()
                asyncio.set_event_loop(self.loop)
        self._link.begin(self.loop)
        timing = self._link.timing
        task = self.loop.create_task(self.wait_up(timing.connect + timing.login + timing.boot), name="ami-connect")
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # the caller need not await it
        self._link.keep(task)
        if run_forever:
            self.run_forever(on_startup, on_shutdown)
        return task

    # -- receivers

    def subscribe(self, callback: Subscriber, *names: str) -> Subscription:
        """Call `callback(AmiEvent)` for these events, at once and in the order of arrival.

        The callback must return fast and not wait; its exceptions are logged.

        :param names: names or patterns; without any, those of `events=`

        :raises BadArgument: a name that no event can have, or no name at all
        """
        subscription = self._board.subscribe(callback, names)
        self._link.wanted_changed()
        return subscription

    def on_up(self, callback: Callable[[list[ChannelRow]], None]) -> Callable[[], None]:
        """Call `callback` with all channels each time the connection is up, before any event of that connection.

        Events that came while the list was made follow it. Some may be older than the list and tell known facts. Two
        calls may come without `on_down` between them (Asterisk had not finished booting).

        :returns: function that ends the registration
        """
        self._link.on_up.append(callback)
        return partial(_forget, self._link.on_up, callback)

    def on_down(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` each time a connection that was up is lost; `last_error` tells why.

        :returns: function that ends the registration
        """
        self._link.on_down.append(callback)
        return partial(_forget, self._link.on_down, callback)

    def register_event(self, pattern: str, callback: Callback | None = None) -> Any:
        """Call `callback(manager, Message)` for events whose name matches; also a decorator (panoramisk's API).

        A coroutine function is awaited for one event after the other.

        :raises BadArgument: a pattern that no event name can match
        """
        if callback == self.send_awaiting_actions:
            # panoramisk's constructor registers a resend of unanswered actions at FullyBooted: an Originate twice
            return callback
        expression(pattern)

        def keep(function: Callback) -> Callback:
            panoramisk.Manager.register_event(self, pattern, function)
            self._board.register(pattern, function)
            self._link.wanted_changed()
            return function

        return keep if callback is None else keep(callback)

    def dispatch(self, event: Any) -> list[str]:
        """Hand a Message to its `register_event` callbacks and return the matching patterns (panoramisk's API)."""
        return self._board.dispatch(event)

    # -- actions

    def send_action(
        self, action: Mapping[str, Any], as_list: bool | None = None, *, timeout: float | None = None, **kwargs: Any
    ) -> asyncio.Future[Any]:
        """Send one action. The future's result is a Message, or a list of them for list actions.

        An answer `Response: Error` is a result, as in panoramisk (`message.success` is False); `actions.py` raises.
        `Originate` without `Async` is sent with it, because Asterisk would stop this connection's events and answers
        until somebody picks up; its result still comes when the call was answered or has failed.

        :param as_list: None leaves it to the answer; False: the first response only; True: a list in any case
        :param timeout: seconds for the whole answer; `action_seconds` when None, for `Originate` its Timeout on top
        :raises AsteriskDown: not connected now (nothing is queued)
        :raises BadArgument: CR, LF or NUL in a value, or another header that Asterisk would not read
        The future fails with ActionTimeout or AsteriskDown. Cancelling it leaves nothing behind.
        """
        if as_list is None:
            as_list = getattr(action, "as_list", None) if isinstance(action, panoramisk.actions.Action) else None
        lines = self._link.stamp({**dict(action.items()), **kwargs})
        protocol = self._link.protocol
        if not self.connected or protocol is None:
            raise AsteriskDown(f"asterisk {self.name}: {self.last_error or 'not connected'}")
        keys = {key.lower(): key for key in lines}
        seconds = self._link.timing.action if timeout is None else timeout
        merge = False
        name = str(lines["Action"]).lower()
        if name == "originate":
            if timeout is None:
                seconds += _seconds(lines.get(keys.get("timeout", "")))
            if "async" not in keys:
                lines["Async"] = "true"
                merge = True
        elif name == "agi":
            lines.setdefault(keys.get("commandid", "CommandID"), lines["ActionID"])
            self._link.want("AsyncAGIExec")
        return protocol.send(lines, seconds=seconds, as_list=as_list, merge=merge)

    def publish(
        self, name: str, events: Sequence[Mapping[str, object]], *, timeout: float | None = None
    ) -> asyncio.Future[Any]:
        """Send several UserEvents in one write: action `UserEvent`, write class user.

        Asterisk answers in order, and a refusal of one event is a refusal of all. So the future has the last one's
        answer. Raises and fails as `send_action`.
        """
        protocol = self._link.protocol
        if not self.connected or protocol is None:
            raise AsteriskDown(f"asterisk {self.name}: {self.last_error or 'not connected'}")
        head = {"Action": "UserEvent", "UserEvent": name}
        *first, last = events
        before = b"".join(encode({**head, **event}) for event in first)
        seconds = self._link.timing.action if timeout is None else timeout
        return protocol.send(self._link.stamp({**head, **last}), seconds=seconds, before=before)

    def send_command(self, command: str, as_list: bool | None = None) -> asyncio.Future[Any]:
        """Run a CLI command; the Message's `content` and `iter_lines()` have its output (panoramisk's API)."""
        return self.send_action({"Action": "Command", "Command": command}, as_list=as_list)

    def send_agi_command(self, channel: str, command: str, as_list: bool | None = None) -> asyncio.Future[Any]:
        """Run an AGI command on a channel in `AGI(agi:async)`: response and `AsyncAGIExec` (panoramisk's API)."""
        return self.send_action({"Action": "AGI", "Channel": channel, "Command": command}, as_list=as_list)

    async def send_awaiting_actions(self, *_: Any) -> None:
        """Do nothing: no action waits to be sent again (panoramisk's API)."""


def _seconds(milliseconds: object) -> float:
    """Return an Originate's Timeout in seconds; Asterisk has milliseconds."""
    try:
        return max(0.0, float(str(milliseconds)) / 1000.0)
    except ValueError:
        return ORIGINATE_SECONDS


def _forget(callbacks: list[Any], callback: Any) -> None:
    if callback in callbacks:
        callbacks.remove(callback)
