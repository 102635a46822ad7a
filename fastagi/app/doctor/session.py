"""A manager connection for the doctor, which tries once and gives up at once. `fastagi.ami.link` is the one that
retries.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

from panoramisk.message import Message

from fastagi.ami import tls
from fastagi.ami.protocol import AmiProtocol, Counts
from fastagi.ami.session import log_in
from fastagi.ami.wire import Block
from fastagi.errors import AsteriskDown
from fastagi.settings import AsteriskSettings

CONNECT_SECONDS = 5.0
ACTION_SECONDS = 5.0


class Session:
    """A manager connection: sends actions and records which events came."""

    def __init__(self, protocol: AmiProtocol) -> None:
        self._protocol = protocol
        self._ids = itertools.count(1)
        self._prefix = "doctor-" + os.urandom(4).hex()
        self.events: list[str] = []
        protocol.attach(lambda name: True, self._event, Counts())

    def _event(self, block: Block) -> None:
        if len(self.events) < 1000:
            self.events.append(block.name)

    def stamp(self, action: Mapping[str, object]) -> dict[str, object]:
        return {"Action": action["Action"], "ActionID": f"{self._prefix}-{next(self._ids)}", **action}

    async def ask(self, action: str, **headers: object) -> Message:
        """Return the response, also when it is an error. A list action's rows are left out."""
        answer = await self._protocol.send(self.stamp({"Action": action, **headers}), seconds=ACTION_SECONDS)
        return answer[0] if isinstance(answer, list) else answer

    async def command(self, line: str) -> str:
        """Return the output of a CLI command; empty when `allowed` is false."""
        answer = await self.ask("Command", Command=line)
        return str(answer.content or "") if "output follows" in str(answer.message).lower() or answer.content else ""


@contextlib.asynccontextmanager
async def connected(settings: AsteriskSettings) -> AsyncIterator[Session]:
    """Connect and log in for as long as the context lasts.

    :raises ConfigError: there is no secret
    :raises AsteriskError: the login was refused
    :raises AsteriskDown: not reachable
    """
    secret = settings.password()
    loop = asyncio.get_running_loop()
    context = await asyncio.to_thread(tls.trusting, settings.tls_ca_file) if settings.tls else None
    protocol = AmiProtocol()
    session = Session(protocol)
    where = f"{settings.host}:{settings.port}"
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await loop.create_connection(lambda: protocol, settings.host, settings.port, ssl=context)
    except TimeoutError:
        raise AsteriskDown(f"no connection to {where} within {CONNECT_SECONDS:g} s") from None
    except OSError as exc:
        raise AsteriskDown(f"no connection to {where}: {tls.why(exc)}") from None
    try:
        await log_in(protocol, session.stamp, settings.username, secret, "on", ACTION_SECONDS)
        yield session
    finally:
        with contextlib.suppress(Exception):
            protocol.farewell(session.stamp({"Action": "Logoff"}))
        protocol.close()


def text(value: Any) -> str:
    """Return a header's value; panoramisk gives "" for a missing header and a list for a repeated one."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
