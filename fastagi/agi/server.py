"""FastAGI server: checks peers, limits their number and time, and runs one task per session.

Routes and recordings are unknown here: `handler` gets a `Channel` and does the rest. `session` reads the replies.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

from fastagi.agi.channel import Channel
from fastagi.agi.descriptors import RESERVE, Descriptors
from fastagi.agi.listening import bind, bound_port, listen
from fastagi.agi.session import Session
from fastagi.errors import ConfigError, Error, FastAGIError, Hangup

log = structlog.get_logger(__name__)

ALLOW: Final = ("127.0.0.0/8", "::1/128")

BACKLOG: Final = 4096
"""Connections that the kernel may queue before they are accepted: Linux's own limit (somaxconn), for call bursts."""

CANCEL_SECONDS: Final = 5.0
"""Time for cancelled handlers to clean up when the server stops; a handler that needs longer is left, and logged."""

LINGER_SECONDS: Final = 2.0
"""Time for a refused peer to read the reason and to close: a round trip on a bad line."""

MOST_LINGERING: Final = RESERVE // 2
"""Most refused peers waited for; any further one is closed immediately, so that the reserve is not used up."""

LOGGED_PER_SECOND: Final = 20
"""Most log lines about bad peers in a second: enough to see one, too few to fill the disk. The rest is counted."""

C = TypeVar("C", bound=Channel)


@dataclass(slots=True)
class Tally:
    """Counts since the server was made, for metrics.

    :ivar accepted: connections accepted; :ivar refused: not in `allow`, too many, no descriptor left, or stopping
    :ivar faulty: sessions closed because the peer was no proper Asterisk, or silent for too long
    :ivar failed: handlers that raised
    :ivar denied: accepted sessions that were refused later because of their header block
    """

    accepted: int = 0
    refused: int = 0
    faulty: int = 0
    failed: int = 0
    denied: int = 0


class AgiServer(Generic[C]):
    """Server of FastAGI, until it is stopped. Works on uvloop and on asyncio's own loop.

    A handler that returns leaves the call to the dialplan. An exception of a handler is logged, and the dialplan sees
    AGISTATUS=FAILURE. `Hangup` is the normal end of a call and is not logged.

    :param handler: awaited once per session, in a task of its own
    :param host: address or name to listen on; empty for all
    :param port: TCP port; 0 picks a free one, see `port`
    :param allow: networks that may connect; empty refuses everybody
    :param max_sessions: sessions at once, with those whose handler still runs; more get AGISTATUS=FAILURE
    :param header_seconds: time from connecting to the end of the header block
    :param idle_seconds: longest wait for the reply to one command
    :param channel_factory: makes the channel of a session; for subclasses of `Channel`
    :param descriptors: descriptors of the process; near their limit sessions get AGISTATUS=FAILURE
    :param refusal: returns whole commands that tell a refused call the reason; sent before the line for
        AGISTATUS=FAILURE
    """

    def __init__(
        self,
        handler: Callable[[C], Awaitable[object]],
        *,
        host: str = "127.0.0.1",
        port: int = 4573,
        allow: Iterable[str] = ALLOW,
        max_sessions: int = 5000,
        header_seconds: float = 5.0,
        idle_seconds: float = 86_400.0,
        channel_factory: Callable[[Session], C] = Channel,  # type: ignore[assignment]  # what C then is
        descriptors: Descriptors | None = None,
        refusal: Callable[[str], bytes] = lambda reason: b"",
    ) -> None:
        self._handler = handler
        self._host = host
        self._port = port
        try:
            self._allow = [ipaddress.ip_network(network, strict=False) for network in allow]
        except ValueError as exc:
            raise ConfigError(f"agi.allow: {exc}; write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32") from None
        self._allowed: dict[str, bool] = {}
        self._max_sessions = max_sessions
        self._header_seconds = header_seconds
        self._idle_seconds = idle_seconds
        self._factory = channel_factory
        self._descriptors = descriptors or Descriptors()
        self._refusal = refusal
        self._loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment]  # set by start()
        self._servers: list[asyncio.Server] = []
        self._sessions: set[Session] = set()
        self._refused: set[Session] = set()  # refused sessions whose peer has not closed yet
        self._nameless: dict[Session, None] = {}  # sessions without a complete header block, oldest first
        self._timer: asyncio.TimerHandle | None = None
        self._last_sweep = 0.0
        self._stopping = False
        self._open = 0  # accepted connections whose socket is open
        self._quiet = asyncio.Event()  # set while stopping, once no connection is open
        self._logged = 0
        self._unlogged = 0
        self.tally = Tally()

    # -- life

    @property
    def port(self) -> int:
        """Port that the server listens on; before the start the configured one."""
        return self._port

    @property
    def max_sessions(self) -> int:
        """Most sessions at once."""
        return self._max_sessions

    @property
    def sessions(self) -> int:
        """Sessions now: connections, and handlers that still run after their connection."""
        return len(self._sessions)

    async def start(self) -> None:
        """Listen. Returns when peers can connect.

        :raises ConfigError: the address cannot be used (taken, not of this machine, unknown name)
        """
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._quiet.clear()
        try:
            sockets = await bind(self._host, self._port)
            self._port = bound_port(sockets)
            await listen(sockets, lambda: Session(self, self._loop), backlog=BACKLOG, servers=self._servers)
        except OSError as exc:
            await self.stop(0)
            raise ConfigError(
                f"agi: cannot listen on {self._host or '*'}:{self._port}: {exc.strerror or exc}"
            ) from None
        self._last_sweep = self._loop.time()
        self._sweep()

    async def drain(self, seconds: float) -> None:
        """Wait until the sessions of this moment have ended, at most `seconds`.

        New sessions are still accepted meanwhile; their handler decides about them.
        """
        await self._tasks_end(seconds)

    async def stop(self, drain_seconds: float) -> None:
        """Refuse new calls, let sessions end for `drain_seconds`, then cancel their handlers. Idempotent.

        Takes `drain_seconds` + `CANCEL_SECONDS` + 1 s at most, even if handlers hang.
        """
        self._stopping = True
        for server in self._servers:
            server.close()
        self._servers.clear()
        for session in list(self._nameless):
            session.abort()
        try:
            if drain_seconds > 0:
                await self._tasks_end(drain_seconds)
        finally:
            for task in self._tasks():
                task.cancel()
        await self._tasks_end(CANCEL_SECONDS)
        left = self._tasks()
        if left:
            log.error("agi_handlers_left_behind", count=len(left))
        for session in [*self._sessions, *self._refused]:
            session.abort()
        if self._open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), 1.0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [s.task for s in self._sessions if s.task is not None and not s.task.done()]

    async def _tasks_end(self, seconds: float) -> None:
        tasks = self._tasks()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    # -- calls from sessions

    def session_opened(self, session: Session) -> None:
        """Accept or refuse a peer that has connected."""
        tally = self.tally
        if not self._may(session.peer):
            tally.refused += 1
            self._bad_peer("agi_peer_refused", peer=session.peer, reason="not in agi.allow")
            session.refuse()
            return
        reason = self._full(session)
        if reason:
            tally.refused += 1
            self._bad_peer("agi_session_refused", peer=session.peer, reason=reason)
            linger = len(self._refused) < MOST_LINGERING
            if linger:
                self._refused.add(session)
            session.fail(self._refusal(reason), LINGER_SECONDS if linger else 0.0)
            return
        tally.accepted += 1
        self._open += 1
        self._sessions.add(session)
        self._nameless[session] = None

    def session_ready(self, session: Session) -> None:
        """Start the handler of a session whose header block is complete."""
        del self._nameless[session]
        session.task = self._loop.create_task(self._run(session))

    def session_closed(self, session: Session) -> None:
        """Forget a session whose connection is gone."""
        self._refused.discard(session)
        if session in self._sessions:
            self._open -= 1
            if self._stopping and not self._open:
                self._quiet.set()
        self._nameless.pop(session, None)
        if session.fault:
            self.tally.faulty += 1
            env = session.env
            self._bad_peer(
                "agi_session_broken",
                peer=session.peer,
                reason=session.fault,
                channel=env.get("agi_channel", ""),
                uniqueid=env.get("agi_uniqueid", ""),
            )
        if session.task is None or session.task.done():
            self._sessions.discard(session)

    async def _run(self, session: Session) -> None:
        try:
            await self._handler(self._factory(session))
        except asyncio.CancelledError as exc:
            session.end(failed=True)  # the handler did not do as the dialplan asked
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._report(session, exc)  # the handler awaited something that was cancelled
        except SystemExit as exc:  # sys.exit in a handler (as in `threads`) ends one call, not the server
            if exc.code not in (None, 0):
                self._report(session, Error(f"the handler exited with {exc.code!r}"))
                session.end(failed=True)
        except Exception as exc:
            if not _only_hangup(exc):
                self._report(session, exc)
                session.end(failed=True)
        finally:
            session.end()
            if session.gone:
                self._sessions.discard(session)

    def _report(self, session: Session, exc: BaseException) -> None:
        self.tally.failed += 1
        env = session.env
        fields: dict[str, object] = {
            "channel": env.get("agi_channel", ""),
            "uniqueid": env.get("agi_uniqueid", ""),
            "script": env.get("agi_network_script", ""),
            "error": str(exc) or type(exc).__name__,
            "error_type": type(exc).__name__,
        }
        if not isinstance(exc, FastAGIError):
            fields["exc_info"] = exc  # fastagi's errors explain themselves; others need the traceback
        else:
            fields["at"] = _place(exc)
        log.error("agi_handler_failed", **fields)

    # -- limits

    def _full(self, session: Session) -> str:
        """Return the reason against a further session; empty where there is room."""
        if self._stopping:
            return "stopping"
        if len(self._sessions) >= self._max_sessions:
            return f"{self._max_sessions} sessions already (agi.max_sessions)"
        if self._descriptors.refuses_agi(session.transport):
            return f"nearly all {self._descriptors.limit} file descriptors are in use (LimitNOFILE, ulimit -n)"
        return ""

    def _may(self, peer: str) -> bool:
        allowed = self._allowed.get(peer)
        if allowed is None:
            try:
                address = ipaddress.ip_address(peer.partition("%")[0])
            except ValueError:
                return False
            allowed = any(address in network for network in self._allow)
            if len(self._allowed) >= 1024:  # scanners have many addresses, PBXs few
                self._allowed.clear()
            self._allowed[peer] = allowed
        return allowed

    def _sweep(self) -> None:
        """End sessions whose header block or reply takes too long. The only timer of all sessions.

        Headers are checked oldest first, up to the first one that still has time.
        """
        now = self._loop.time()
        for session in list(self._nameless):
            if now - session.since < self._header_seconds:
                break
            session.end("no whole header in time")
        if now - self._last_sweep >= min(60.0, self._idle_seconds / 4):
            self._last_sweep = now
            for session in list(self._sessions):
                if session.outstanding and now - session.since >= self._idle_seconds:
                    session.end("no reply in time")
        self._descriptors.look()
        if self._unlogged:
            log.warning("agi_bad_peers_not_logged", count=self._unlogged)
        self._logged = self._unlogged = 0
        period = min(1.0, self._header_seconds / 4, self._idle_seconds / 4)
        self._timer = self._loop.call_later(period, self._sweep)

    def note_denied(self, **fields: object) -> None:
        """Count and log a session that its handler refuses. The log has the same limit as for bad peers."""
        self.tally.denied += 1
        self._bad_peer("agi_session_denied", **fields)

    def _bad_peer(self, event: str, **fields: object) -> None:
        if self._logged < LOGGED_PER_SECOND:
            self._logged += 1
            log.warning(event, **fields)
        else:
            self._unlogged += 1


def _only_hangup(exc: Exception) -> bool:
    """Tell whether the exception is only `Hangup`, also from the tasks of a TaskGroup."""
    if isinstance(exc, ExceptionGroup):
        return exc.split(Hangup)[1] is None
    return isinstance(exc, Hangup)


def _place(exc: Exception) -> str:
    """Return the line of the handler's own code that raised the exception; empty where there is none."""
    found = ""
    for frame, number in traceback.walk_tb(exc.__traceback__):
        file = frame.f_code.co_filename
        if not file.startswith(_PACKAGE):
            found = f"{file}:{number}"
        elif found:
            break  # fastagi's code that the handler called
    return found


_PACKAGE = str(Path(__file__).parents[1]) + os.sep
