"""Keeps one Asterisk's manager interface connected for ever, and hands out its events in order.

Each connection goes one way: connecting -> logged in -> filters set -> booted -> channels listed -> up -> lost. A lost
connection is never resumed: the next one starts anew, and no action is sent twice. `manager.py` is the API over this.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from fastagi.ami import tls
from fastagi.ami.callbacks import RAISED, Switchboard
from fastagi.ami.endpoint import Endpoint, Timing
from fastagi.ami.events import ChannelRow
from fastagi.ami.protocol import AmiProtocol, Counts
from fastagi.ami.session import ALWAYS, Refused, SourceFilters, log_in, take_snapshot
from fastagi.ami.wire import Block
from fastagi.errors import AsteriskDown, AsteriskError, BadArgument

log = structlog.get_logger(__name__)

MAX_HELD = 50_000
"""Most events kept until a connection is up: 10 s of the busiest PBX. With more the connection is given up."""

_OURS = frozenset({"FullyBooted", "Shutdown"})


class Link:
    """Link to one Asterisk: one connection after the other.

    :param name: name in logs; :param board: receives the events
    :param factory: makes an `AmiProtocol`; :param random: numbers in [0, 1); :param sleep: waits so many seconds
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        timing: Timing,
        board: Switchboard,
        *,
        factory: Callable[[], AmiProtocol],
        random: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.timing = timing
        self.protocol: AmiProtocol | None = None
        self.counts = Counts()
        self.last_error = ""
        self.nothing_listens = False
        self.peer_address = ""
        self.version = ""
        self.system = ""
        self.reconnects = 0
        self.given = 0
        self.on_connected: list[Callable[[], None]] = []
        self.on_up: list[Callable[[list[ChannelRow]], None]] = []
        self.on_down: list[Callable[[], None]] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self._ending: set[asyncio.Task[Any]] = set()
        self._board = board
        self._factory = factory
        self._random = random
        self._sleep = sleep
        self._ids = itertools.count(1)
        # OriginateResponse goes to every session with the ActionID of one: ids must differ between sessions
        self._id_prefix = "fastagi-" + os.urandom(5).hex()
        self._extra: set[str] = set()
        self._seen_before = 0
        self._up = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._up_event = asyncio.Event()
        self._holding = True
        self._held: deque[Block] = deque()
        self._boot: asyncio.Future[Any] | None = None
        self._filters: SourceFilters | None = None
        self._filters_noted = False
        self._supervisor: asyncio.Task[None] | None = None
        self._connections = 0
        self._failures = 0
        self._noted = ""
        self._context: ssl.SSLContext | None = None

    # -- for the owner

    @property
    def connected(self) -> bool:
        return self._up and self.protocol is not None and not self.protocol.closed

    @property
    def started(self) -> bool:
        return self._supervisor is not None

    @property
    def seen(self) -> int:
        return self._seen_before + (self.protocol.decoder.seen if self.protocol is not None else 0)

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Connect, and keep connecting. Idempotent."""
        if self._supervisor is None or self._supervisor.done():
            if loop is not self._loop:  # the program may have used another loop before
                self._loop, self._up_event = loop, asyncio.Event()
            self.last_error = self._noted = ""
            self._supervisor = loop.create_task(self._supervise(), name=f"ami-{self.name}")

    def aim(self, endpoint: Endpoint) -> None:
        """Use this endpoint from the next connection on."""
        if endpoint != self.endpoint:
            self.endpoint, self._context = endpoint, None
            self.nothing_listens = False
            self.version = self.system = self.peer_address = ""

    def halt(self) -> set[asyncio.Task[Any]]:
        """Disconnect at once, in any state. Idempotent.

        :return: every ending task, from this or an earlier call, for the caller to await
        """
        supervisor, self._supervisor = self._supervisor, None
        tasks = {*self.tasks, *self._board.close()}
        if supervisor is not None:
            tasks.add(supervisor)
            self.last_error = "closed here"
        for task in tasks:
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        if self.protocol is not None:
            if self.connected:
                self.protocol.farewell(self.stamp({"Action": "Logoff"}))
            self._went_down(self.protocol)
        return {task for task in self._ending if not task.done()}

    async def wait_up(self, timeout: float | None) -> None:
        if self._supervisor is None:
            raise AsteriskDown(f"asterisk {self.name}: not started")
        try:
            async with asyncio.timeout(timeout):
                while not self.connected:
                    self._up_event.clear()
                    await self._up_event.wait()
        except TimeoutError:
            why = self.last_error or f"not up within {timeout:g} s"
            raise AsteriskDown(f"asterisk {self.name}: {why}") from None

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Keep a task until it ends; `halt` cancels it."""
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def want(self, name: str) -> None:
        """Ask for an event that an action waits for, also without a subscriber."""
        if name not in self._extra:
            self._extra.add(name)
            self.wanted_changed()

    def wanted_changed(self) -> None:
        """Ask the connected Asterisk for the events of new subscriptions, too."""
        protocol = self.protocol
        if protocol is None or protocol.closed:
            return
        protocol.decoder.forget()
        if self.connected and self._filters is not None:
            answers = self._filters.extend(self._patterns())
            if answers:
                task = asyncio.get_running_loop().create_task(self._extend(protocol, self._filters, answers))
                self.keep(task)

    def stamp(self, action: Mapping[str, object]) -> dict[str, object]:
        """Return the action with `Action` and an `ActionID` in front.

        :raises BadArgument: the action has no `Action`
        """
        keys = {str(key).lower(): key for key in action}
        if "action" not in keys:
            raise BadArgument("an AMI action needs the header Action")
        action_id = action[keys["actionid"]] if "actionid" in keys else f"{self._id_prefix}-{next(self._ids)}"
        out = {"Action": action[keys["action"]], "ActionID": action_id}
        out.update((key, value) for key, value in action.items() if str(key).lower() not in ("action", "actionid"))
        return out

    # -- one connection after the other

    async def _supervise(self) -> None:
        while True:
            try:
                await self._serve()
            except Refused as exc:
                delay = self.timing.refused * (1.0 + 0.1 * self._random())
                self._note(exc, delay)
            except (OSError, AsteriskError) as exc:
                delay = self._next_delay()
                self._note(exc, delay)
            except Exception:
                delay = self._next_delay()
                log.exception("ami_connection_failed", asterisk=self.name)
            await self._sleep(delay)

    def _next_delay(self) -> float:
        self._failures += 1
        return self.timing.backoff.delay(self._failures, self._random())

    def _note(self, exc: Exception, delay: float) -> None:
        """Log why there is no connection: once, not at every attempt."""
        say = log.debug if self._noted == self.last_error else log.error if isinstance(exc, Refused) else log.warning
        self._noted = self.last_error
        event = "ami_refused" if isinstance(exc, Refused) else "ami_unreachable"
        say(event, asterisk=self.name, peer=str(self.endpoint), error=self.last_error, retry_seconds=round(delay, 1))

    async def _serve(self) -> None:
        """Serve one connection, from connect to loss. Always raises the reason of the loss."""
        protocol: AmiProtocol | None = None
        try:
            protocol = await self._open()
            _call_all(self.on_connected, self.name)
            login = self.endpoint
            await log_in(protocol, self.stamp, login.username, login.secret, login.mask, self.timing.login)
            await self._set_filters(protocol)
            await self._wait_booted(protocol)
            await self._resynchronise(protocol)
            await self._watch(protocol)
        except asyncio.CancelledError:
            self.last_error = "closed here"
            raise
        except Exception as exc:
            self.last_error = self._why(exc)
            self.nothing_listens = tls.nothing_listens(exc)
            raise
        finally:
            if protocol is not None:
                protocol.close(self.last_error)
                self._went_down(protocol)

    def _why(self, exc: Exception) -> str:
        """Return the reason as one line for an operator."""
        if isinstance(exc, AsteriskError):
            return str(exc)
        if isinstance(exc, OSError):
            return f"no connection to {self.endpoint}: {tls.why(exc)}"
        return f"a bug: {exc!r}"

    async def _open(self) -> AmiProtocol:
        loop = asyncio.get_running_loop()
        if self.endpoint.tls is True and self._context is None:
            self._context = await asyncio.to_thread(tls.trusting, None)
        context = self._context if self.endpoint.tls is True else self.endpoint.tls or None
        protocol = self._factory()
        protocol.attach(self._wants, self._event, self.counts)
        try:
            async with asyncio.timeout(self.timing.connect):
                transport, _ = await loop.create_connection(
                    lambda: protocol, self.endpoint.host, self.endpoint.port, ssl=context
                )
        except TimeoutError:
            raise AsteriskDown(f"no connection to {self.endpoint} within {self.timing.connect:g} s") from None
        self.protocol = protocol
        self.nothing_listens = False
        self.peer_address = str((transport.get_extra_info("peername") or ("",))[0])
        self._boot = loop.create_future()
        self._holding = True
        self._held.clear()
        self._connections += 1
        self.reconnects = self._connections - 1
        return protocol

    async def _set_filters(self, protocol: AmiProtocol) -> None:
        self._filters = source = SourceFilters(protocol, self.stamp, self.timing.action)
        while answers := source.extend(self._patterns()):  # new subscriptions may come meanwhile
            await source.settle(answers)
        if source.refused and not self._filters_noted:
            self._filters_noted = True
            log.warning(
                "ami_filter_refused", asterisk=self.name, error=source.refused, help="write class system allows it"
            )

    async def _extend(self, protocol: AmiProtocol, source: SourceFilters, answers: list[asyncio.Future[Any]]) -> None:
        try:
            await source.settle(answers)
        except AsteriskError as exc:  # wanted events would never come: begin again
            protocol.close(f"event filters could not be changed: {exc}")

    async def _wait_booted(self, protocol: AmiProtocol) -> None:
        """Wait for FullyBooted, at most `boot` seconds.

        A starting Asterisk takes logins before its modules are loaded. A user without read class `system` never gets
        FullyBooted.
        """
        if self._boot is not None and self.endpoint.mask.lower() not in ("off", "no", "false", "0"):
            waiting: set[asyncio.Future[Any]] = {self._boot, protocol.lost}
            await asyncio.wait(waiting, timeout=self.timing.boot, return_when=asyncio.FIRST_COMPLETED)

    async def _resynchronise(self, protocol: AmiProtocol) -> None:
        """List the channels, call `on_up`, then hand out the events that came meanwhile."""
        if self._boot is not None and self._boot.done():
            self._boot = None
        self._holding = True
        now = await take_snapshot(protocol, self.stamp, self.endpoint.username, self.timing.action)
        if protocol.closed:
            raise AsteriskDown("connection lost")
        self.version, self.system = now.version, now.system
        self._up = True
        self.last_error = self._noted = ""
        self._failures = 0
        log.info(
            "ami_up",
            asterisk=self.name,
            peer=str(self.endpoint),
            version=now.version,
            system=now.system,
            channels=len(now.rows),
        )
        _call_all(self.on_up, self.name, now.rows)
        while self._held:
            self._board.give(self._held.popleft())
        self._holding = False
        self._up_event.set()

    async def _watch(self, protocol: AmiProtocol) -> None:
        """Ping until the connection is lost; list the channels again when FullyBooted comes late."""
        while True:
            waiting: set[asyncio.Future[Any]] = {protocol.lost}
            if self._boot is not None:
                waiting.add(self._boot)
            await asyncio.wait(waiting, timeout=self.timing.ping_interval, return_when=asyncio.FIRST_COMPLETED)
            if protocol.lost.done():
                raise AsteriskDown(protocol.lost.result())
            if self._boot is not None and self._boot.done():
                await self._resynchronise(protocol)
            else:
                await protocol.ping(self.stamp({"Action": "Ping"}), self.timing.ping)

    def _went_down(self, protocol: AmiProtocol) -> None:
        """Report once that the connection is over, to the log and the `on_down` callbacks."""
        if self.protocol is not protocol:
            return
        was_up, self._up = self._up, False
        protocol.close(self.last_error)
        protocol.fail_all(self.last_error)
        self.protocol = None
        self._filters = None
        self._seen_before += protocol.decoder.seen
        self._held.clear()
        self._up_event.clear()
        if was_up:
            tell = log.info if self._supervisor is None else log.warning  # closed on purpose: no fault
            tell("ami_down", asterisk=self.name, peer=str(self.endpoint), error=self.last_error)
            self._noted = self.last_error
            _call_all(self.on_down, self.name)

    # -- events

    def _patterns(self) -> set[str]:
        return self._board.patterns() | self._extra | ALWAYS

    def _wants(self, name: str) -> bool:
        return name in _OURS or name in self._extra or self._board.wants(name)

    def _event(self, block: Block) -> None:
        name = block.name
        if name == "FullyBooted" and self._boot is not None and not self._boot.done():
            self._boot.set_result(None)
        if self._board.wants(name):  # else it came only for its ActionID
            self.given += 1
            if not self._holding:
                self._board.give(block)
            elif len(self._held) < MAX_HELD:
                self._held.append(block)
            elif self.protocol is not None:
                self.protocol.abort(f"more than {MAX_HELD} events came before the channels were listed")
        if name == "Shutdown" and self.protocol is not None:
            self.protocol.close("Asterisk is shutting down")


def _call_all(callbacks: list[Callable[..., None]], name: str, *args: Any) -> None:
    for callback in list(callbacks):
        try:
            callback(*args)
        except RAISED:
            log.exception(
                "ami_callback_raised", asterisk=name, callback=getattr(callback, "__qualname__", repr(callback))
            )
