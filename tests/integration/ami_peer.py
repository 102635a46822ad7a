"""Plays Asterisk's manager for tests of `fastagi.ami`: answers like it, and misbehaves on demand. One loop, no threads.

It carries out event filters with Python's `re`, so that a test that passes here says something about filters; what it
says and in which order was copied from Asterisk 22.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Callable
from typing import Self

Action = dict[str, list[str]]
"""Header in lower case -> its values."""


class Session:
    """One connection from a client."""

    def __init__(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer = peer
        self.reader = reader
        self.writer = writer
        self.logged_in = False
        self.filters: list[re.Pattern[str]] = []

    def send(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        step = self.peer.chunk or max(1, len(data))
        for at in range(0, len(data), step):
            self.writer.write(data[at : at + step])

    def answer(self, action: Action, response: str, *lines: str) -> None:
        self.send(message(f"Response: {response}", *_id(action), *lines))

    def event(self, name: str, *lines: str, true: bool = True) -> None:
        text = message(f"Event: {name}", *(["Privilege: call,all"] if true else []), *lines)
        if not true or not self.filters or any(f.search(text) for f in self.filters):
            self.send(text)


def message(*lines: str) -> str:
    return "".join(f"{line}\r\n" for line in lines) + "\r\n"


def _id(action: Action) -> list[str]:
    return [f"ActionID: {action['actionid'][0]}"] if "actionid" in action else []


class Peer:
    """`async with Peer() as peer: Manager(port=peer.port, ...)`.

    `actions` has every action of every connection, in order. The flags say how it misbehaves.
    """

    def __init__(self) -> None:
        self.port = 0
        self.actions: list[Action] = []
        self.sessions: list[Session] = []
        self.connections = 0
        self.rows: list[str] = []  # uniqueids of the channels it has
        self.secret = "s3cret"
        self.banner = "Asterisk Call Manager/11.0.0\r\n"
        self.chunk = 0
        self.deaf = False  # reads, and answers nothing
        self.boots = True  # says FullyBooted after the login
        self.forbidden: set[str] = set()  # actions the user has no rights for
        self.silent: set[str] = set()  # actions that are never answered
        self.handlers: dict[str, Callable[[Session, Action], None]] = {}
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.vanish()

    async def listen(self, tls: ssl.SSLContext | None = None) -> None:
        """Be there, on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def vanish(self) -> None:
        """Be gone: no listener, no connection."""
        if self._server is not None:
            self._server.close()
        self.drop()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def drop(self) -> None:
        """Reset every connection; the listener stays."""
        for session in self.sessions:
            session.writer.transport.abort()
        self.sessions.clear()

    def emit(self, name: str, *lines: str, true: bool = True) -> None:
        """An event to everybody who is logged in and whose filters let it pass."""
        for session in self.sessions:
            if session.logged_in:
                session.event(name, *lines, true=true)

    def sent(self, name: str) -> list[Action]:
        return [a for a in self.actions if a.get("action", [""])[0].lower() == name.lower()]

    async def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until something that came makes `condition` true."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(condition)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session(self, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.sessions.append(session)
        self.connections += 1
        try:
            session.send(self.banner)
            while block := await reader.readuntil(b"\r\n\r\n"):
                action: Action = {}
                for line in block.decode().strip("\r\n").split("\r\n"):
                    key, _, value = line.partition(":")
                    action.setdefault(key.strip().lower(), []).append(value.strip())
                self.actions.append(action)
                self._handle(session, action)
                async with self._changed:
                    self._changed.notify_all()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(ValueError):
                self.sessions.remove(session)
            writer.transport.abort()

    def _handle(self, session: Session, action: Action) -> None:
        name = action["action"][0].lower()
        if self.deaf or name in self.silent:
            return
        if name in self.handlers:
            self.handlers[name](session, action)
        elif name == "login":
            self._login(session, action)
        elif name in self.forbidden:
            session.answer(action, "Error", "Message: Permission denied")
        else:
            getattr(self, f"_{name}", self._unknown)(session, action)

    def _unknown(self, session: Session, action: Action) -> None:
        session.answer(action, "Error", f"Message: Invalid/unknown command: {action['action'][0]}.")

    def _login(self, session: Session, action: Action) -> None:
        if action["secret"] != [self.secret]:
            session.answer(action, "Error", "Message: Authentication failed")
            session.writer.close()
            return
        session.logged_in = True
        session.answer(action, "Success", "Message: Authentication accepted")
        if self.boots:
            session.event("FullyBooted", "Status: Fully Booted")

    def _filter(self, session: Session, action: Action) -> None:
        expression = action["filter"][0].replace("[^[:space:]]", r"[^\s]").replace("[[:space:]]", r"\s")
        session.filters.append(re.compile(expression))
        session.answer(action, "Success", "Message: Success")

    def _ping(self, session: Session, action: Action) -> None:
        session.answer(action, "Success", "Ping: Pong")

    def _coresettings(self, session: Session, action: Action) -> None:
        session.answer(action, "Success", "AsteriskVersion: 22.0.0-scripted", "SystemName: scripted")

    def _coreshowchannels(self, session: Session, action: Action) -> None:
        session.answer(action, "Success", "EventList: start", "Message: Channels will follow")
        for uniqueid in self.rows:
            self.row(session, action, "CoreShowChannel", uniqueid)
        last = f"ListItems: {len(self.rows)}"
        session.event("CoreShowChannelsComplete", *_id(action), "EventList: Complete", last, true=False)

    def _status(self, session: Session, action: Action) -> None:
        session.answer(action, "Success", "EventList: start", "Message: Channel status will follow")
        for uniqueid in self.rows:
            self.row(session, action, "Status", uniqueid, "Privilege: Call")
        session.event("StatusComplete", *_id(action), "EventList: Complete", true=False)

    def row(self, session: Session, action: Action, name: str, uniqueid: str, *more: str) -> None:
        facts = (f"Channel: Local/{uniqueid}", "ChannelState: 6", "ChannelStateDesc: Up", f"Uniqueid: {uniqueid}")
        session.event(name, *more, *_id(action), *facts, "Duration: 00:00:07", true=False)

    def _userevent(self, session: Session, action: Action) -> None:
        session.answer(action, "Success", "Message: Event Sent")
        taken = ("action", "actionid")
        self.emit("UserEvent", *(f"{k}: {v}" for k, vs in action.items() if k not in taken for v in vs), *_id(action))

    def _originate(self, session: Session, action: Action) -> None:
        session.answer(action, "Success", "Message: Originate successfully queued")
        if "async" in action:
            channel = f"Channel: {action['channel'][0]}"
            self.emit("OriginateResponse", *_id(action), "Response: Success", channel, "Uniqueid: 1.1", "Reason: 4")

    def _getvar(self, session: Session, action: Action) -> None:
        session.answer(action, "Error", "Message: No such channel")

    def _command(self, session: Session, action: Action) -> None:
        said = f"Output: {action['command'][0]}"
        session.answer(action, "Success", "Message: Command output follows", said, "Output: second line")

    def _logoff(self, session: Session, action: Action) -> None:
        session.answer(action, "Goodbye", "Message: Thanks for all the fish.")
        session.writer.close()
