"""FastAGI connection: matches replies with commands, handles a hangup, and ends the session.

The protocol object that asyncio calls, over `fastagi.agi.codec`. Commands are sent one at a time, in order, each after
the reply to the one before. Asterisk replies in order, but a line that comes while Asterisk plays or says something
stops that, and the stopped command gets no reply. So at most one command is outstanding, an unexpected reply is
dropped, and the write buffer never holds more than one command. `server` runs handlers and writes the log.

A command whose caller was cancelled keeps its place until its reply has come; the reply is dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from fastagi.agi.codec import HUNG_UP, Environment, Fault, Parser, Reply
from fastagi.agi.vocabulary import command_name, sounds_after
from fastagi.errors import Error, Hangup

log = structlog.get_logger(__name__)

MAX_WAITING: Final = 256
"""Most commands that wait on one session. The tasks of a call send a few; more is a runaway loop."""

MAX_UNASKED: Final = 100
"""Most unexpected replies and HANGUP lines in a row. Asterisk sends two HANGUP lines at most."""

HANGUP_GRACE: Final = 2.0
"""Seconds for the reply of an outstanding command after the HANGUP line. Asterisk has written that line before it read
the command, so the reply (a result, or 511) follows within a round trip; two seconds allow for a few lost packets.
After that the HANGUP line counts as the reply."""

HANGUP_GRACE_EXEC: Final = 5.0
"""Seconds for the reply of EXEC: its application may still work on a dead channel (StopMixMonitor closes its file)."""

LONG_SECONDS: Final = 0.05
"""Duration in seconds from which a command counts as long: Asterisk did something on the channel."""

SETTLE: Final = 0.1
"""Seconds to wait for a second reply, when a reply given up for lost may still come before this one."""

_FAILURE: Final = b"failure\n"
"""Line that makes AGISTATUS=FAILURE: res_agi.c's "special case for inability to execute child process", which
it reads on sockets too (seen on 16.28 and 22.10). Closing without it gives SUCCESS."""


class Owner(Protocol):
    """Calls of a session to the server that made it."""

    def session_opened(self, session: Session) -> None: ...
    def session_ready(self, session: Session) -> None: ...
    def session_closed(self, session: Session) -> None: ...


class Session(asyncio.Protocol):
    """FastAGI connection.

    A session is hung up (`hung_up`, `on_hangup`) when the HANGUP line came, or when the connection ended by any cause
    but the handler. AGI cannot tell more: an AMI Redirect of the channel looks the same, and the call itself may go on.

    :ivar env: the header block; :ivar peer: the other side's address
    :ivar hung_up: HANGUP has come, or the other side is gone
    :ivar closed: the connection is over, from either side; :ivar gone: its socket is closed, too
    :ivar fault: the reason why the server closed the connection, empty otherwise
    :ivar lasted: the last command that took longer than `LONG_SECONDS`, and when it ended by the monotonic clock
    :ivar tones: ``Playtones`` was run, and no command since that may have ended its tones
    :ivar since: loop time at which the outstanding command was sent, or the connection was made
    """

    __slots__ = (
        "_answered",
        "_before",
        "_callbacks",
        "_grace",
        "_held",
        "_line",
        "_loop",
        "_lost",
        "_owner",
        "_parser",
        "_pending",
        "_transport",
        "_unasked",
        "_waiting",
        "closed",
        "env",
        "fault",
        "gone",
        "hung_up",
        "lasted",
        "peer",
        "since",
        "task",
        "tones",
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._parser = Parser()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made, before any other call
        self._pending: asyncio.Future[Reply] | None = None
        self._line = b""
        self._waiting: deque[tuple[asyncio.Future[Reply], bytes]] | None = None
        self._callbacks: list[Callable[[], object]] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._held: tuple[Reply, asyncio.TimerHandle] | None = None
        self._lost = False  # a command was given up; its reply may still come
        self._answered: Reply | None = None  # the last reply, and the line before the outstanding one
        self._before = b""
        self._unasked = 0
        self.lasted: tuple[bytes, float] | None = None
        self.env: dict[str, str] = {}
        self.peer = ""
        self.hung_up = False
        self.closed = False
        self.gone = False
        self.fault = ""
        self.since = 0.0
        self.task: asyncio.Task[None] | None = None
        self.tones = False

    # -- calls from asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self.since = self._loop.time()
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]).removeprefix("::ffff:") if name else ""
        self._owner.session_opened(self)

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        for event in self._parser.feed(data):
            if isinstance(event, Reply):
                future = self._pending
                if future is None or self._lost or self._grace is not None or event.code == 520:
                    self._replied(event)
                else:  # _replied() for nearly all replies, inlined
                    self._pending = None
                    self._answered = event
                    if not future.done():
                        future.set_result(event)
            elif event is HUNG_UP:
                self._unasked += 1
                self._hang_up()
            elif isinstance(event, Environment):
                self.env = event.env
                self._owner.session_ready(self)
            elif isinstance(event, Fault):
                self.end(event.reason)
                return
        # Only after the whole chunk: a second reply in it is not the reply to the next command.
        if self._unasked > MAX_UNASKED:
            self.end("too much that nobody asked for")
        elif self._waiting and self._pending is None:
            self._send_next()

    def eof_received(self) -> bool:
        return False  # the transport closes: Asterisk has no half-closed AGI

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed:
            unfinished = self._parser.unfinished()
            if unfinished == "header":
                self.fault = "closed before the end of its header"
            elif unfinished:
                self.fault = "closed inside a reply"
        self._finish()
        self.gone = True
        self._owner.session_closed(self)

    # -- commands

    @property
    def transport(self) -> asyncio.Transport:
        """Transport of the connection, of any event loop."""
        return self._transport

    @property
    def outstanding(self) -> bool:
        """True while a command was sent and its reply has not come."""
        return self._pending is not None

    @property
    def current_command(self) -> str | None:
        """Name of the command that Asterisk executes now (``STREAM FILE``, ``EXEC Playback``); None between commands.

        A command whose caller was cancelled counts until its reply has come.
        """
        return None if self._pending is None else command_name(self._line.decode("utf-8", "surrogateescape"))

    def request(self, line: bytes) -> asyncio.Future[Reply]:
        """Queue a command; the returned future gives its reply, whatever the code.

        Cancelling the future withdraws an unsent command. The reply to a sent one is dropped when it comes.

        :param line: one whole command as `encoder.encode` returns it
        :raises Hangup: the connection is over
        :raises Error: too many commands are waiting already
        """
        if self.closed:
            raise Hangup("the AGI session is over")
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self._pending is None and not self._waiting:
            self._send(future, line)
        else:
            if self._waiting is None:
                self._waiting = deque()
            if len(self._waiting) >= MAX_WAITING:
                raise Error(f"{MAX_WAITING} commands are waiting on this channel already")
            self._waiting.append((future, line))
        return future

    def _send_next(self) -> None:
        while self._waiting and self._pending is None and not self.closed:
            future, line = self._waiting.popleft()
            if not future.done():
                self._send(future, line)

    def _send(self, future: asyncio.Future[Reply], line: bytes) -> None:
        self._pending = future
        self._before = self._line
        self._line = line
        self._unasked = 0
        self.since = self._loop.time()
        if self.tones or line[:6].upper() == b"EXEC P":
            self.tones = sounds_after(command_name(line.decode("utf-8", "surrogateescape")), self.tones)
        self._transport.write(line)

    def _replied(self, reply: Reply) -> None:
        if self._pending is None or self._exec_usage(reply):
            self._unasked += 1
            self._lost = False
            return
        if self._lost:
            if self._held is None:
                self._held = (reply, self._loop.call_later(SETTLE, self._release))
                return
            self._held[1].cancel()  # the held reply was the lost command's, this one is ours
            self._held = None
            self._lost = False
        self._answer(reply)

    def _release(self) -> None:
        held, self._held, self._lost = self._held, None, False
        if held is not None and self._pending is not None and not self.closed:
            self._answer(held[0])
            self._send_next()

    def _answer(self, reply: Reply) -> None:
        future = self._pending
        assert future is not None
        if self._loop.time() - self.since > LONG_SECONDS:
            self.lasted = (self._line, time.monotonic())
        self._pending = None
        self._answered = reply
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        if not future.done():
            future.set_result(reply)

    def _exec_usage(self, reply: Reply) -> bool:
        """Tell whether a reply is the usage text that follows ``200 result=1`` of EXEC and answers no command.

        Asterisk's handle_exec() returns the application's result, and 1 is also RESULT_SHOWUSAGE.
        """
        before = self._answered
        if reply.code != 520 or before is None or not self._before.startswith(b"EXEC"):
            return False
        return before.result == "1" and "application" in reply.raw

    # -- hangup

    def on_hangup(self, callback: Callable[[], object]) -> None:
        """Call `callback` once the call is over; soon (from the event loop) when it is over already."""
        if self.hung_up:
            self._loop.call_soon(self._call, callback)
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def _hang_up(self) -> None:
        if not self.hung_up:
            self.hung_up = True
            callbacks, self._callbacks = self._callbacks, None
            for callback in callbacks or ():
                self._call(callback)
        self._wait_for_grace()

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            callback()
        except (Exception, SystemExit):  # sys.exit in a callback must not stop the server
            log.exception(
                "hangup_callback_failed",
                channel=self.env.get("agi_channel", ""),
                uniqueid=self.env.get("agi_uniqueid", ""),
            )

    def _wait_for_grace(self) -> None:
        if self._pending is not None and self._grace is None:
            seconds = HANGUP_GRACE_EXEC if self._line.startswith(b"EXEC") else HANGUP_GRACE
            self._grace = self._loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        self._grace = None
        future, self._pending = self._pending, None
        if future is not None:
            self._lost = True
            if not future.done():
                future.set_exception(Hangup("the call was hung up"))
            self._send_next()

    # -- the end

    def end(self, fault: str = "", *, failed: bool = False) -> None:
        """Close from this side; Asterisk continues its dialplan. Idempotent.

        :param fault: the peer's fault, for the log; a peer with a fault is not waited for
        :param failed: AGISTATUS becomes FAILURE instead of SUCCESS
        """
        if self.closed:
            return
        self.fault = fault
        if failed:
            self._transport.write(_FAILURE)
        over = bool(fault)
        self._finish(hung_up=over)
        if over and not failed:
            self._transport.abort()
        else:
            self._transport.close()

    def refuse(self) -> None:
        """Close without a reply, before anything was read."""
        self.closed = True
        self._transport.abort()

    def fail(self, before: bytes, linger_seconds: float) -> None:
        """Send the line that makes AGISTATUS=FAILURE, before anything was read, and close.

        :param before: whole commands sent before that line; their replies are dropped
        :param linger_seconds: time for the peer to close first, while its bytes are read and dropped. Closing at once
            resets the connection when its header comes, and the line may get lost
        """
        self.closed = True
        self._transport.write(before + _FAILURE)
        if linger_seconds > 0:
            self._transport.write_eof()
            self._loop.call_later(linger_seconds, self._transport.abort)
        else:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection now, with all unsent bytes."""
        self._finish()
        self._transport.abort()

    def _finish(self, *, hung_up: bool = True) -> None:
        """End all waits on this connection: it is over. Idempotent."""
        if self.closed:
            return
        self.closed = True
        for timer in (self._grace, self._held[1] if self._held else None):
            if timer is not None:
                timer.cancel()
        self._grace = self._held = None
        waiting = [self._pending] if self._pending is not None else []
        if self._waiting:
            waiting += [future for future, _ in self._waiting]
        self._pending = self._waiting = None
        for future in waiting:
            if not future.done():
                future.set_exception(Hangup("the AGI session is over"))
        if hung_up:
            self._hang_up()
        self._callbacks = None
