"""Start of a new connection: login, event filters, and the list of channels.

Functions over one `AmiProtocol`; `link.py` keeps the connection and makes the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog
from panoramisk.message import Message

from fastagi.ami.events import ChannelRow, Headers
from fastagi.ami.filters import EVERYTHING, filters
from fastagi.ami.protocol import AmiProtocol
from fastagi.ami.wire import Block, fields
from fastagi.errors import AsteriskError

log = structlog.get_logger(__name__)

ALWAYS = frozenset({"FullyBooted", "Shutdown", "OriginateResponse"})
"""Events that the connection needs: to list the channels again, to disconnect, and to answer `Originate`."""

Stamp = Callable[[Mapping[str, object]], dict[str, object]]
"""Adds an ActionID to an action."""


class Refused(AsteriskError):
    """The manager user may not log in, or lacks a right that the recorder needs: an operator must mend it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of Asterisk at one moment.

    :param version: ``22.10.1...``; :param system: systemname; both "" when the user may not ask
    """

    version: str
    system: str
    rows: list[ChannelRow]


async def log_in(protocol: AmiProtocol, stamp: Stamp, username: str, secret: str, mask: str, seconds: float) -> None:
    """Log in.

    :raises Refused: wrong name or secret, or an address that manager.conf does not permit
    :raises AsteriskError: Asterisk does not take logins now
    """
    login = stamp({"Action": "Login", "Username": username, "Secret": secret, "Events": mask})
    answer = await protocol.send(login, seconds=seconds)
    if answer.success:
        return
    text = str(answer.message)
    if "shutting down" in text.lower():  # a restart, not a fault of the settings
        raise AsteriskError(text)
    raise Refused(f"login of {username!r} refused: {text}")


async def take_snapshot(protocol: AmiProtocol, stamp: Stamp, username: str, seconds: float) -> Snapshot:
    """Ask for version, name and channels.

    :raises Refused: the user may not list channels
    """
    loop = asyncio.get_running_loop()
    asked = loop.time()
    settings = protocol.send(stamp({"Action": "CoreSettings"}), seconds=seconds)
    channels = protocol.send(stamp({"Action": "CoreShowChannels"}), seconds=seconds, row=channel_row)
    about: Message = await settings
    rows = await channels
    if isinstance(rows, Message) and not rows.success:
        # write class `call` is enough for Status, CoreShowChannels needs `system` or `reporting`
        asked = loop.time()
        rows = await protocol.send(stamp({"Action": "Status"}), seconds=seconds, row=channel_row)
    if isinstance(rows, Message) and not rows.success:
        raise Refused(
            f"user {username!r} may not list channels: {rows.message}; in manager.conf give it write = system,call"
        )
    late = int(loop.time() - asked)  # a busy Asterisk's list is seconds old when it comes
    return Snapshot(
        version=str(about.asteriskversion),
        system=str(about.systemname),
        rows=[
            replace(row, duration=row.duration + late) if late else row
            for row in (rows if isinstance(rows, list) else ())
            if isinstance(row, ChannelRow)
        ],
    )


def channel_row(block: Block) -> ChannelRow | None:
    """Return a row of CoreShowChannels or Status; None for the event that ends the list."""
    if block.name not in ("CoreShowChannel", "Status"):
        return None
    return ChannelRow.parse(Headers(fields(block.raw)))


class SourceFilters:
    """Event filters set on this connection.

    `refused`: the user lacks write class `system`, so that all events come and unwanted ones are dropped here.
    """

    def __init__(self, protocol: AmiProtocol, stamp: Stamp, seconds: float) -> None:
        self.refused = ""
        self._protocol = protocol
        self._stamp = stamp
        self._seconds = seconds
        self._covered: set[str] = set()
        self._active = False

    def extend(self, patterns: Iterable[str]) -> list[asyncio.Future[Any]]:
        """Ask for these events too; give the result to `settle`.

        Written at once, so that an action sent next finds the filters in place.
        """
        missing = set(patterns) - self._covered
        if self.refused or not missing or "*" in self._covered:
            return []
        self._covered |= missing
        if "*" in missing and not self._active:
            return []  # without a filter all events come
        return [self._add(expression) for expression in filters(missing)]

    async def settle(self, answers: list[asyncio.Future[Any]]) -> None:
        """Wait for Asterisk's answers.

        :raises AsteriskError: some filters are in place and others are not, so that wanted events would be lost
        """
        replies = [await answer for answer in answers]
        bad = [reply for reply in replies if not reply.success]
        self._active = self._active or len(bad) < len(replies)
        if not bad:
            return
        self.refused = str(bad[0].message)
        if self._active:
            reply = await self._add(EVERYTHING)
            if not reply.success:
                raise AsteriskError(f"event filters are half in place: {reply.message}")

    def _add(self, expression: str) -> asyncio.Future[Any]:
        action = self._stamp({"Action": "Filter", "Operation": "Add", "Filter": expression})
        return self._protocol.send(action, seconds=self._seconds)
