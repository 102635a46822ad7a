"""Fake Asterisk for a FastAGI session: calls a server, answers its commands, misbehaves on demand.

All bytes go out exactly as scripted: byte by byte, half a header, HANGUP in the middle of a reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Self

Reply = str | bytes | None
"""Reply line (a missing newline is added), raw bytes as they are, or None: stay silent."""

Rule = Reply | Callable[[str], Reply | Awaitable[Reply]]

MAX_LINE = 1 << 16

DEAD = "511 Command Not Permitted on a dead channel or intercept routine"

ALIVE_ONLY = (
    "ANSWER", "CHANNEL STATUS", "CONTROL STREAM FILE", "GET DATA", "GET OPTION", "RECEIVE CHAR", "RECEIVE TEXT",
    "RECORD FILE", "SAY ALPHA", "SAY DATE", "SAY DATETIME", "SAY DIGITS", "SAY NUMBER", "SAY PHONETIC", "SAY TIME",
    "SEND IMAGE", "SEND TEXT", "SET AUTOHANGUP", "SET MUSIC", "STREAM FILE", "TDD MODE", "WAIT FOR DIGIT",
)  # fmt: skip
"""Commands that Asterisk answers with 511 once the channel is hung up (`Dead: No` in ``agi show commands``)."""


class ScriptedAgi:
    """``async with ScriptedAgi(port, script="record/start", args=["filename=x"]) as call: await call.serve()``

    :param script: text after the server's address in ``AGI(agi://host/SCRIPT,...)``, query string included
    :param args: the AGI arguments
    :param env: header fields to change or add (without ``agi_``); None leaves one out
    :param rules: regular expression on the whole command -> reply; the first that matches, before the built-in answers
    :param bytewise: every byte in a write of its own

    Built in are variables (`variables`, SET VARIABLE, EXEC MSet and both GETs), CHANNEL STATUS (`state`), and
    ``200 result=0``.
    """

    def __init__(
        self,
        port: int,
        *,
        host: str = "127.0.0.1",
        script: str = "",
        args: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        rules: Mapping[str, Rule] | None = None,
        variables: Mapping[str, str] | None = None,
        bytewise: bool = False,
    ) -> None:
        self.host, self.port = host, port
        self.env = _environment(host, port, script, args, env or {})
        self.rules = {re.compile(k, re.IGNORECASE): v for k, v in (rules or {}).items()}
        self.variables = dict(variables or {})
        self.bytewise = bytewise
        self.state = "6"
        self.hung_up = False
        self.commands: list[str] = []
        """Commands received, in order."""
        self.closed = False
        """True once the server has closed the session."""
        self._news = asyncio.Event()
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def connect(self, timeout: float = 10.0) -> None:
        """Open the connection; nothing is sent yet.

        :raises OSError: no process listens; :raises TimeoutError: no connection in time
        """
        async with asyncio.timeout(timeout):
            self._reader, self._writer = await asyncio.open_connection(self.host, self.port, limit=MAX_LINE)

    async def close(self) -> None:
        """End the call by FIN. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def abort(self) -> None:
        """Reset the connection (RST), as when Asterisk's machine is gone."""
        self._writer.transport.abort()

    @property
    def header(self) -> bytes:
        """Return the header block with its empty line."""
        return "".join(f"agi_{key}: {value}\n" for key, value in self.env.items()).encode() + b"\n"

    async def send(self, data: bytes) -> None:
        """Send exactly these bytes."""
        pieces = [data[i : i + 1] for i in range(len(data))] if self.bytewise else [data]
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            if self.bytewise:
                await asyncio.sleep(0)

    async def hangup(self) -> None:
        """Hang up: send a bare HANGUP line, and answer 511 to commands that a dead channel refuses."""
        self.hung_up = True
        await self.send(b"HANGUP\n")

    async def start(self) -> None:
        """Send the header and answer commands in the background."""
        await self.send(self.header)
        self._task = asyncio.create_task(self._answer())

    async def serve(self, timeout: float = 20.0) -> list[str]:
        """Send the header (unless `start` did) and answer until the server closes the session.

        :return: the commands that came
        :raises TimeoutError: it is still open after `timeout` seconds
        """
        if self._task is None:
            await self.start()
        assert self._task is not None
        async with asyncio.timeout(timeout):
            await self._task
        return self.commands

    async def wait_command(self, pattern: str, *, count: int = 1, timeout: float = 20.0) -> str:
        """Wait for the `count`-th command that matches, and return it.

        :raises TimeoutError: no such command in time; :raises ConnectionError: the server closed the session before
        """
        async with asyncio.timeout(timeout):
            while True:
                self._news.clear()
                found = [c for c in self.commands if re.search(pattern, c, re.IGNORECASE)]
                if len(found) >= count:
                    return found[count - 1]
                if self.closed:
                    raise ConnectionError(f"the server closed the session before {pattern!r}: {self.commands}")
                await self._news.wait()

    async def _answer(self) -> None:
        try:
            while line := await self._reader.readline():
                command = line.decode(errors="replace").rstrip("\r\n")
                self.commands.append(command)
                self._news.set()
                reply = await self._reply(command)
                if isinstance(reply, str):
                    reply = (reply if reply.endswith("\n") else reply + "\n").encode()
                if reply:
                    await self.send(reply)
        except ConnectionError:
            pass  # the server is gone: `closed` tells it
        finally:
            self.closed = True
            self._news.set()

    async def _reply(self, command: str) -> Reply:
        for pattern, rule in self.rules.items():
            if pattern.search(command):
                told = rule(command) if callable(rule) else rule
                return await told if isinstance(told, Awaitable) else told
        return self._built_in(command)

    def _built_in(self, command: str) -> str:
        words = _words(command)
        two, three = " ".join(words[:2]).upper(), " ".join(words[:3]).upper()
        if self.hung_up and command.upper().startswith(ALIVE_ONLY):
            return DEAD
        if two == "SET VARIABLE" and len(words) >= 4:
            self.variables[words[2]] = words[3]
            return "200 result=1"
        if two == "EXEC MSET" and len(words) >= 3:
            for pair in words[2].split(","):
                name, _, self.variables[name] = pair.partition("=")
            return "200 result=0"
        if two == "GET VARIABLE" and len(words) >= 3:
            return _value(self.variables.get(words[2]))
        if three == "GET FULL VARIABLE" and len(words) >= 4:
            return f"200 result=1 ({self._expand(words[3])})"  # an unset one too, unlike GET VARIABLE
        if two == "CHANNEL STATUS":
            return f"200 result={self.state}"
        return "200 result=0"

    def _expand(self, expression: str) -> str:
        known = {
            "CHANNEL(linkedid)": self.env.get("uniqueid", ""),
            "CHANNEL(uniqueid)": self.env.get("uniqueid", ""),
            "CHANNEL(state)": "Up" if self.state == "6" else "Ring",
            **self.variables,
        }
        inner = re.fullmatch(r"\$\{(.*)\}", expression)
        return known.get(inner.group(1), "") if inner else expression


def _value(value: str | None) -> str:
    return "200 result=0" if value is None else f"200 result=1 ({value})"


def _words(command: str) -> list[str]:
    """Split a command as res_agi does: blanks separate, quotes join, a backslash escapes the next character."""
    words: list[str] = []
    word, quoted, escaped, started = "", False, False, False
    for char in command:
        if escaped:
            word, escaped = word + char, False
        elif char == "\\":
            escaped = started = True
        elif char == '"':
            quoted, started = not quoted, True
        elif char in " \t" and not quoted:
            if started:
                words.append(word)
            word, started = "", False
        else:
            word, started = word + char, True
    return [*words, word] if started else words


def _environment(
    host: str, port: int, script: str, args: Sequence[str], env: Mapping[str, str | None]
) -> dict[str, str]:
    """Return the header block in Asterisk's order."""
    known: dict[str, str | None] = {
        "network": "yes",
        "network_script": script,
        "request": f"agi://{host}:{port}/{script}",
        "channel": "PJSIP/sipp-00000001",
        "language": "en",
        "type": "PJSIP",
        "uniqueid": "1700000000.1",
        "version": "22.10.1",
        "callerid": "1001",
        "calleridname": "unknown",
        "callingpres": "0",
        "callingani2": "0",
        "callington": "0",
        "callingtns": "0",
        "dnid": "unknown",
        "rdnis": "unknown",
        "context": "from-sipp",
        "extension": "100",
        "priority": "2",
        "enhanced": "0.0",
        "accountcode": "",
        "threadid": "140000000000000",
    }
    known |= {f"arg_{number}": value for number, value in enumerate(args, 1)}
    known |= env
    return {key: value for key, value in known.items() if value is not None}
