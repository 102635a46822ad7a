"""Smallest manager client for tests: log in, send actions, collect events.

The client shares no code with `fastagi.ami`, so that a fault there cannot hide itself here.

One object is one connection and belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from typing import Self

Row = dict[str, str]
"""Manager message: header -> value; the values of a repeated header, such as `Output`, are joined by newlines."""

MAX_LINE = 1 << 20
"""Most bytes of a line: an event's has a few kB; a megabyte without an end is not a manager interface."""

KEPT_EVENTS = 20_000


class AmiSession:
    """``async with AmiSession(host, port, user, secret) as ami: await ami.action("Ping")``.

    :param timeout: seconds for the connection, and for each action and event that names no other
    """

    _ids = itertools.count(1)

    def __init__(
        self, host: str, port: int, user: str, secret: str, *, events: str = "on", timeout: float = 20.0
    ) -> None:
        self._where = (host, port)
        self._login = {"Username": user, "Secret": secret, "Events": events}
        self.timeout = timeout
        self.banner = ""
        self.events: deque[Row] = deque(maxlen=KEPT_EVENTS)
        self.seen = 0
        """Events so far, also those that `events` has dropped again."""
        self._answers: dict[str, asyncio.Queue[Row | None]] = {}
        self._news = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Open the connection and log in.

        :raises OSError: nobody listens; :raises PermissionError: the login is refused; :raises TimeoutError: no answer
        """
        async with asyncio.timeout(self.timeout):
            self._reader, self._writer = await asyncio.open_connection(*self._where, limit=MAX_LINE)
            self.banner = (await self._reader.readline()).decode(errors="replace").strip()
        self._task = asyncio.create_task(self._read())
        try:
            answer = await self.action("Login", **self._login)
            if answer.get("Response") != "Success":
                raise PermissionError(answer.get("Message", "login refused"))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection. Idempotent; never raises."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def action(self, name: str, headers: Mapping[str, str] | None = None, /, **more: str) -> Row:
        """Send an action and return its response, also when it is an error.

        :raises TimeoutError: no response; :raises ConnectionError: the connection is gone
        """
        rows = await self._ask(name, {**(headers or {}), **more}, lambda row: "Response" in row)
        return rows[-1]

    async def listing(self, name: str, headers: Mapping[str, str] | None = None, /, **more: str) -> list[Row]:
        """Return the event rows of a list action such as CoreShowChannels, without response and `...Complete`."""

        def complete(row: Row) -> bool:
            return row.get("EventList") in ("Complete", "Cancelled") or row.get("Response") == "Error"

        rows = await self._ask(name, {**(headers or {}), **more}, complete)
        return [row for row in rows if "Event" in row and row.get("EventList") != "Complete"]

    async def wait_event(
        self, name: str, where: Callable[[Row], bool] | None = None, *, since: int = 0, timeout: float | None = None
    ) -> Row:
        """Wait for the first event of this name for which `where` holds, and return it.

        :param since: an earlier value of `seen`: only events after it count

        :param timeout: seconds
        :raises TimeoutError: no such event; :raises ConnectionError: the connection is gone
        """
        async with asyncio.timeout(self.timeout if timeout is None else timeout):
            while True:
                self._news.clear()
                skip = since - (self.seen - len(self.events))
                for row in list(self.events)[max(0, skip) :]:
                    if row["Event"] == name and (where is None or where(row)):
                        return row
                if self._closed:
                    raise ConnectionError(f"the manager connection ended while waiting for {name}")
                await self._news.wait()

    async def getvar(self, variable: str, channel: str = "") -> str:
        """Return a channel variable, or a global one; "" if it is not set."""
        headers = {"Channel": channel} if channel else {}
        return (await self.action("Getvar", headers, Variable=variable)).get("Value", "")

    async def command(self, line: str) -> str:
        """Return the output of a CLI command."""
        return (await self.action("Command", Command=line)).get("Output", "")

    async def _ask(self, name: str, headers: Mapping[str, str], last: Callable[[Row], bool]) -> list[Row]:
        if self._closed:
            raise ConnectionError("the manager connection has ended")
        action_id = f"t{next(self._ids)}"
        lines = [f"Action: {name}", f"ActionID: {action_id}"]
        for key, value in headers.items():
            # a repeated header (Variable: a=1, Variable: b=2) is written as one value with newlines
            lines += [f"{key}: {part}" for part in value.split("\n")]
        queue: asyncio.Queue[Row | None] = asyncio.Queue()
        self._answers[action_id] = queue
        try:
            async with asyncio.timeout(self.timeout):
                self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
                await self._writer.drain()
                rows: list[Row] = []
                while not rows or not last(rows[-1]):
                    row = await queue.get()
                    if row is None:
                        raise ConnectionError(f"the manager connection ended during {name}")
                    rows.append(row)
                return rows
        finally:
            del self._answers[action_id]

    async def _read(self) -> None:
        try:
            row: Row = {}
            while line := await self._reader.readline():
                text = line.decode(errors="replace").rstrip("\r\n")
                if text:
                    key, _, value = text.partition(":")
                    value = value.removeprefix(" ")
                    row[key] = f"{row[key]}\n{value}" if key in row else value
                elif row:
                    self._take(row)
                    row = {}
        except (ConnectionError, ValueError):
            pass  # the peer is gone, or sent a line without an end: both end the session
        finally:
            self._closed = True
            self._news.set()
            for queue in self._answers.values():
                queue.put_nowait(None)

    def _take(self, row: Row) -> None:
        queue = self._answers.get(row.get("ActionID", ""))
        if queue is not None:
            queue.put_nowait(row)
        if "Event" in row:
            self.seen += 1
            self.events.append(row)
            self._news.set()
