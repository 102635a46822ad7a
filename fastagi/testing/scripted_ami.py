"""Fake manager server that plays Asterisk's part, and misbehaves on demand.

The server answers as Asterisk does unless told otherwise (tests/asterisk/test_testing_contract.py checks that). It
keeps the calls of `fake_calls`, whose recordings really grow. `scripted_actions` has the answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Self

from fastagi.testing.fake_calls import FakeCalls, FakeChannel, FakeMonitor
from fastagi.testing.scripted_actions import Answer, Row, error, perform

MAX_ACTION = 1 << 16
MAX_UNSENT = 1 << 24
"""Most unsent bytes; a slower reader is cut off, as Asterisk does after its writetimeout."""


class _Session:
    """Connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.logged_in = False
        self.events = True
        self.filters: list[tuple[bool, re.Pattern[str]]] = []
        self.outbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.unsent = 0

    def wants(self, text: str) -> bool:
        if not (self.logged_in and self.events):
            return False
        wanted = [p for white, p in self.filters if white]
        return (not wanted or any(p.search(text) for p in wanted)) and not any(
            p.search(text) for white, p in self.filters if not white
        )


class ScriptedAmi:
    """``async with ScriptedAmi(spool=tmp_path) as ami: channel = ami.call(); ...``

    :param spool: folder of recordings with relative names
    :param major: 22 or 16: version to imitate
    :param speed: seconds of audio per second
    :param close_seconds: delay from the Hangup event to the completion of a recording's header
    :param ssl_context: speak TLS

    Faults can be set at any time: `muted` (reads, never answers), `refusing` (closes new connections at once),
    `denying` (refuses logins), `split` (writes so many bytes at a time), `delay` (seconds before an answer), and
    `script` (action name -> answer to give instead).
    """

    def __init__(
        self,
        *,
        spool: Path,
        user: str = "fastagi",
        secret: str = "scripted-secret",
        major: int = 22,
        speed: float = 1.0,
        close_seconds: float = 0.005,
        system_name: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.user, self.secret, self.host, self.port = user, secret, host, port
        self.major = major
        self.system_name = system_name
        self.close_seconds = close_seconds
        self.calls = FakeCalls(spool, major=major, speed=speed, system_name=system_name)
        self.muted = False
        self.refusing = False
        self.denying = False
        self.split = 0
        self.delay = 0.0
        self.script: dict[str, Callable[[Row], Answer | Awaitable[Answer]]] = {}
        self.actions: list[Row] = []
        """Actions received, in order, with logins."""
        self.modules = {"app_mixmonitor", "app_stack", "res_agi", "func_talkdetect", "res_monitor"}
        """Modules that ModuleCheck finds; `res_monitor` up to 20 only."""
        self.connections = 0
        """Connections accepted so far."""
        self._ssl = ssl_context
        self._sessions: set[_Session] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.variables: dict[str, str] = {}
        """Global variables."""

    # -- life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; a second start after a `stop` takes the same port again, as a restarted Asterisk does."""
        self._server = await asyncio.start_server(
            self._serve, self.host, self.port, ssl=self._ssl, limit=MAX_ACTION, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self.calls.start()

    async def stop(self) -> None:
        """Cut every connection and stop listening. Recordings stay as they are: headers without sizes."""
        if self._server is not None:
            self._server.close()
        self.drop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.calls.stop()

    def drop(self) -> None:
        """Reset every connection (RST)."""
        for session in list(self._sessions):
            session.writer.transport.abort()
        self._sessions.clear()

    # -- calls

    @property
    def channels(self) -> dict[str, FakeChannel]:
        return self.calls.channels

    def call(
        self,
        name: str = "",
        *,
        uniqueid: str = "",
        linkedid: str = "",
        caller: str = "1001",
        context: str = "from-sipp",
        exten: str = "s",
    ) -> FakeChannel:
        """Begin a call that comes in and is answered: Newchannel, Newstate.

        :param name: made up when not given; :param linkedid: the same as `uniqueid` when not given
        """
        uniqueid = uniqueid or self.calls.new_uniqueid()
        name = name or f"PJSIP/sipp-{self.calls.next_number():08x}"
        channel = FakeChannel(name, uniqueid, linkedid or uniqueid, caller, context, exten)
        self.calls.add(channel)
        channel.state = "4"
        self.event("Newchannel", channel.headers())
        channel.state = "6"
        self.event("Newstate", channel.headers())
        return channel

    def hangup(self, channel: FakeChannel, cause: str = "16") -> None:
        """Hang up: send Hangup at once (MonitorStop before it, no MixMonitorStop); files complete `close_seconds`
        later.

        A Local channel's other half goes with it. Does nothing for a channel that is gone.
        """
        if self.channels.get(channel.name) is not channel:
            return
        monitors = self.calls.remove(channel)
        if any(m.id == "monitor" for m in monitors):
            self.event("MonitorStop", channel.headers())
        self.event("Hangup", {**channel.headers(), "Cause": cause, "Cause-txt": "Normal Clearing"})
        self._spawn(self._close_later(monitors))
        half = channel.name[-2:]
        if half in (";1", ";2"):
            other = self.channels.get(channel.name[:-1] + ("2" if half == ";1" else "1"))
            if other is not None:
                self.hangup(other, cause)

    async def _close_later(self, monitors: list[FakeMonitor]) -> None:
        await asyncio.sleep(self.close_seconds)
        for monitor in monitors:
            monitor.close()

    # -- events and what was asked

    def event(self, name: str, headers: Mapping[str, str] | None = None, /, **more: str) -> None:
        """Send an event to everyone who is logged in and has not filtered it out."""
        row = {"Event": name, "Privilege": "call,all"}
        if self.system_name:
            row["SystemName"] = self.system_name
        row |= {**(headers or {}), **more}
        text = _text(row)
        for session in list(self._sessions):
            if session.wants(text):
                self._send(session, text)

    def send_raw(self, data: bytes) -> None:
        """Send exactly these bytes to every client."""
        for session in list(self._sessions):
            session.writer.write(data)

    async def wait_action(self, name: str, *, count: int = 1, timeout: float = 20.0) -> Row:
        """Wait for the `count`-th action of this name, and return it.

        :raises TimeoutError: no such action in time
        """
        async with asyncio.timeout(timeout):
            while True:
                self._news.clear()
                found = [row for row in self.actions if row.get("Action", "").lower() == name.lower()]
                if len(found) >= count:
                    return found[count - 1]
                await self._news.wait()

    # -- the wire

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._news.set()
        session = _Session(reader, writer)
        if self.refusing:
            writer.transport.abort()
            return
        self._sessions.add(session)
        self._spawn(self._pump(session))
        try:
            if not self.muted:
                version = "11.0.0" if self.major >= 20 else "5.0.4"
                self._send(session, f"Asterisk Call Manager/{version}\r\n")
            while (row := await _read_action(reader)) is not None:
                self.actions.append(row)
                self._news.set()
                if not self.muted:
                    await self._answer(session, row)
        except (ConnectionError, ValueError):
            pass  # gone, or no manager client: this connection is over
        finally:
            self._sessions.discard(session)
            session.outbox.put_nowait(None)

    async def _answer(self, session: _Session, row: Row) -> None:
        name = row.get("Action", "").lower()
        if self.delay:
            await asyncio.sleep(self.delay)
        scripted = next((v for k, v in self.script.items() if k.lower() == name), None)
        after: Callable[[], None] | None = None
        answer: Answer
        if scripted is not None:
            told = scripted(row)
            answer = await told if inspect.isawaitable(told) else told
        elif name in ("login", "filter", "events", "logoff"):
            answer = self._session_action(session, name, row)
        elif not session.logged_in:
            answer = error("Permission denied")
        else:
            answer, after = perform(self, name, row)
        rows = [] if answer is None else answer if isinstance(answer, list) else [answer]
        action_id = {"ActionID": row["ActionID"]} if "ActionID" in row else {}
        for out in rows:
            first = next(iter(out.items()), ("Response", "Success"))
            self._send(session, _text({first[0]: first[1], **action_id, **out}))
        if name == "login" and session.logged_in:
            self._send(session, _text({"Event": "FullyBooted", "Privilege": "system,all", "Status": "Fully Booted"}))
        if name == "logoff":
            session.outbox.put_nowait(None)
        if after is not None:
            after()

    def _session_action(self, session: _Session, name: str, row: Row) -> Row:
        if name == "login":
            good = (row.get("Username"), row.get("Secret")) == (self.user, self.secret) and not self.denying
            if not good:
                return error("Authentication failed")
            session.logged_in = True
            session.events = row.get("Events", "on").lower() not in ("off", "0", "false")
            return {"Response": "Success", "Message": "Authentication accepted"}
        if not session.logged_in:
            return error("Permission denied")
        if name == "filter":
            text = row.get("Filter", "")
            try:
                session.filters.append((not text.startswith("!"), re.compile(_posix(text.removeprefix("!")))))
            except re.error:
                return error("Filter did not compile.  Check the syntax of the filter given.")
            return {"Response": "Success", "Message": "Success"}
        if name == "events":
            session.events = row.get("EventMask", "").lower() not in ("off", "0", "false", "no")
            return {"Response": "Success", "Events": "On" if session.events else "Off"}
        return {"Response": "Goodbye", "Message": "Thanks for all the fish."}

    def _send(self, session: _Session, text: str) -> None:
        if self.muted:
            return
        data = text.encode()
        session.unsent += len(data)
        if session.unsent > MAX_UNSENT:
            session.writer.transport.abort()
            return
        session.outbox.put_nowait(data)

    async def _pump(self, session: _Session) -> None:
        """Write the outbox, whole or in parts that TCP has no reason to join."""
        with contextlib.suppress(ConnectionError):
            while (data := await session.outbox.get()) is not None:
                session.unsent -= len(data)
                step = self.split or len(data)
                for at in range(0, len(data), step):
                    session.writer.write(data[at : at + step])
                    await session.writer.drain()
                    if self.split:
                        await asyncio.sleep(0)
            session.writer.close()

    def _spawn(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _read_action(reader: asyncio.StreamReader) -> Row | None:
    """Read the next action; None at the end of the connection. Values of a repeated header are joined by newlines."""
    row: Row = {}
    while line := await reader.readline():
        text = line.decode(errors="replace").rstrip("\r\n")
        if not text:
            if row:
                return row
            continue
        key, _, value = text.partition(":")
        key, value = _canonical(key), value.strip()
        row[key] = f"{row[key]}\n{value}" if key in row else value
    return None


_NAMES = {
    n.lower(): n
    for n in (
        "Action", "ActionID", "Username", "Secret", "Events", "EventMask", "Filter", "Operation", "Channel", "File",
        "Options", "MixMonitorID", "Direction", "State", "Variable", "Value", "Command", "UserEvent", "Cause", "Async",
        "Application", "Data", "Context", "Exten", "Priority", "ChannelId", "OtherChannelId", "CallerID", "Timeout",
        "Format", "Mix", "Module",
    )
}  # fmt: skip


def _canonical(key: str) -> str:
    """Return a header's usual spelling: Asterisk ignores the case."""
    key = key.strip()
    return _NAMES.get(key.lower(), key)


_CLASSES = {"alnum": "A-Za-z0-9", "alpha": "A-Za-z", "digit": "0-9", "space": r"\s", "upper": "A-Z", "lower": "a-z"}


def _posix(pattern: str) -> str:
    """Translate a POSIX expression to Python's: Asterisk's filters may hold ``[[:space:]]``."""
    for name, members in _CLASSES.items():
        pattern = pattern.replace(f"[:{name}:]", members)
    return pattern


def _text(row: Row) -> str:
    lines = [f"{key}: {part}" for key, value in row.items() for part in value.split("\n")]
    return "\r\n".join(lines) + "\r\n\r\n"
