"""One manager connection for the doctor: it logs in once and gives up at once. Retrying is `fastagi.ami.link`'s."""

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
    """What a check needs of a connection: actions, and which events came."""

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
        """The response, also where it is an error. A list action's rows are left out."""
        answer = await self._protocol.send(self.stamp({"Action": action, **headers}), seconds=ACTION_SECONDS)
        return answer[0] if isinstance(answer, list) else answer

    async def command(self, line: str) -> str:
        """What a CLI command prints; with `allowed` false, nothing."""
        answer = await self.ask("Command", Command=line)
        return str(answer.content or "") if "output follows" in str(answer.message).lower() or answer.content else ""


@contextlib.asynccontextmanager
async def connected(settings: AsteriskSettings) -> AsyncIterator[Session]:
    """Connected and logged in.

    :raises ConfigError: there is no secret; :raises AsteriskError: refused; :raises AsteriskDown: not reachable
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
    """A header's value; panoramisk gives "" or a list for what is not there or there twice."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
