"""panoramisk's `Manager` over a connection that holds: the API users know, and what the recorder needs beyond it.

Nothing happens here: connecting and handing out is `link.py`'s, answers `protocol.py`'s, receivers `callbacks.py`'s.
What is kept of panoramisk and what is not: docs/decisions/0002-ami-panoramisk-api.md.
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
"""What Asterisk waits for somebody to pick up when `Originate` has no Timeout."""

_KEPT = frozenset({"ssl", "loop", "protocol_factory", "on_login", "on_connect", "on_disconnect"})
_NEEDLESS = frozenset({"encoding", "ping_delay", "reconnect_timeout", "save_stream", "forgetable_actions", "log"})


class Manager(panoramisk.Manager):  # type: ignore[misc]  # panoramisk has no types
    """One Asterisk. All times are seconds.

    :param name: how it is called in logs
    :param secret: text, or pydantic's SecretStr; in no log and no repr
    :param tls: True verifies the peer against the system's authorities; or an `ssl.SSLContext`
    :param events: names or patterns (``Queue*``) of events that are wanted whoever subscribes. A plain string is
        panoramisk's: the event mask of the login
    :param action_seconds: time limit of an action whose caller gives none
    :param boot_seconds: wait for FullyBooted after a login; when it comes later, the channels are listed again
    :param ping_interval: between pings; :param ping_seconds: what the peer has to answer one
    :param refused_seconds: until the next attempt after a refused login (it stays wrong, and fail2ban counts)
    :param backoff: the waits after any other failure
    :param random: numbers in [0, 1); :param sleep: waits so many seconds (both for tests)
    :param config: panoramisk's own: ssl, loop, protocol_factory, on_login, on_connect, on_disconnect; those that have
        lost their meaning are taken and ignored
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
        """Connect there, with what has been registered here, from the next `start` on."""
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
        """Logged in and resynchronised, now."""
        return self._link.connected

    @property
    def last_error(self) -> str:
        """Why it is not connected; "" while it is, or before the first attempt has failed."""
        return self._link.last_error

    @property
    def peer_address(self) -> str:
        """Address of the last connection's other end; empty before the first, and once it is aimed elsewhere."""
        return self._link.peer_address

    @property
    def gone_from_here(self) -> bool:
        """Is it on this machine (a loopback address), and did the last attempt find that no process listens there?"""
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
        """Names and patterns of the events that somebody wants."""
        return self._board.patterns()

    @property
    def events_seen(self) -> int:
        """Events that arrived, wanted or not."""
        return self._link.seen

    @property
    def events_parsed(self) -> int:
        """Events that somebody wanted."""
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
        """Events that an async callback was too slow for."""
        return self._board.dropped

    # -- life

    async def start(self) -> None:
        """Begin to connect, and keep connecting until `stop`. Returns at once; idempotent."""
        self.loop = asyncio.get_running_loop()
        self._link.begin(self.loop)

    async def stop(self) -> None:
        """Leave, and wait until every task is gone. Idempotent; `start` may follow."""
        tasks = self._link.halt() - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=5.0)

    def close(self) -> None:
        """Leave at once, also while waiting for the next attempt. No coroutine, as in panoramisk; `stop` also waits."""
        self._link.halt()

    async def wait_up(self, timeout: float | None = None) -> None:
        """:raises AsteriskDown: not up within `timeout` seconds (with the last error), or nobody has called `start`."""
        await self._link.wait_up(timeout)

    def connect(self, run_forever: bool = False, on_startup: Any = None, on_shutdown: Any = None) -> asyncio.Task[None]:
        """panoramisk's: begin to connect. The task ends when the connection is up; it raises AsteriskDown when the
        first attempt has had its time, and the attempts go on."""
        if self.loop is None:
            try:
                self.loop = asyncio.get_running_loop()
            except RuntimeError:
                self.loop = asyncio.new_event_loop()
                asyncio.set_event_loop(self.loop)
        self._link.begin(self.loop)
        timing = self._link.timing
        task = self.loop.create_task(self.wait_up(timing.connect + timing.login + timing.boot), name="ami-connect")
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody has to wait for it
        self._link.keep(task)
        if run_forever:
            self.run_forever(on_startup, on_shutdown)
        return task

    # -- receivers

    def subscribe(self, callback: Subscriber, *names: str) -> Subscription:
        """Call `callback(AmiEvent)` for those events (names or patterns; without any, those of `events=`), at once and
        in the order of arrival. It must return fast and not wait; what it raises is logged.

        :raises BadArgument: a name that no event can have, or no name at all
        """
        subscription = self._board.subscribe(callback, names)
        self._link.wanted_changed()
        return subscription

    def on_up(self, callback: Callable[[list[ChannelRow]], None]) -> Callable[[], None]:
        """Call it with all channels each time the connection is up, before any event of that connection is given out.

        Events that came while the list was made follow it: some may be older than the list, so that what they say may
        be known already. It may come twice without `on_down` between them (Asterisk had not finished booting).

        :returns: to be called when it is not to be called any more
        """
        self._link.on_up.append(callback)
        return partial(_forget, self._link.on_up, callback)

    def on_down(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call it each time a connection that was up is lost; `last_error` says why.

        :returns: to be called when it is not to be called any more
        """
        self._link.on_down.append(callback)
        return partial(_forget, self._link.on_down, callback)

    def register_event(self, pattern: str, callback: Callback | None = None) -> Any:
        """panoramisk's: `callback(manager, Message)` for events whose name matches; also a decorator. A coroutine
        function is awaited for one event after the other.

        :raises BadArgument: a pattern that no event name can match
        """
        if callback == self.send_awaiting_actions:
            # panoramisk's constructor, to send again at FullyBooted what was not answered: an Originate twice
            return callback
        expression(pattern)

        def keep(function: Callback) -> Callback:
            panoramisk.Manager.register_event(self, pattern, function)
            self._board.register(pattern, function)
            self._link.wanted_changed()
            return function

        return keep if callback is None else keep(callback)

    def dispatch(self, event: Any) -> list[str]:
        """panoramisk's: hand a Message to the callbacks that `register_event` has for it; the patterns that matched."""
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

        Asterisk answers in order, and what it refuses of one it refuses of all: only the last one's answer is waited
        for, and is the future's. Raises and fails as `send_action`.
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
        """panoramisk's: run a CLI command. What it printed is in the Message's `content` and `iter_lines()`."""
        return self.send_action({"Action": "Command", "Command": command}, as_list=as_list)

    def send_agi_command(self, channel: str, command: str, as_list: bool | None = None) -> asyncio.Future[Any]:
        """panoramisk's: run an AGI command on a channel that waits in `AGI(agi:async)`: response and `AsyncAGIExec`."""
        return self.send_action({"Action": "AGI", "Channel": channel, "Command": command}, as_list=as_list)

    async def send_awaiting_actions(self, *_: Any) -> None:
        """panoramisk's, and empty: nothing waits to be sent again."""


def _seconds(milliseconds: object) -> float:
    """An Originate's Timeout, which is in milliseconds."""
    try:
        return max(0.0, float(str(milliseconds)) / 1000.0)
    except ValueError:
        return ORIGINATE_SECONDS


def _forget(callbacks: list[Any], callback: Any) -> None:
    if callback in callbacks:
        callbacks.remove(callback)
