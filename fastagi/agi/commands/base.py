"""Base of the command groups: sends a command and reads its reply. The commands are in the modules beside this one."""

from __future__ import annotations

import asyncio
from typing import Final, NoReturn

from fastagi.agi.codec import Reply, encode
from fastagi.agi.session import Session
from fastagi.errors import CommandFailed, Error, Hangup

_STATUS: Final = encode("CHANNEL STATUS")

_STATUS_SECONDS: Final = 2.0
"""Time for CHANNEL STATUS; Asterisk answers thousands in a second."""

_LIVE_STATE: Final = 2
"""First channel state in which there is a call: 0 is down, 1 is down but reserved."""


class CommandGroup:
    """Base of every group of commands."""

    __slots__ = ("_session",)

    _session: Session

    async def _ask(self, line: bytes) -> Reply:
        """Send a command that a dead channel refuses; raise `Hangup` without sending it once the call is over."""
        session = self._session
        if session.hung_up:
            raise Hangup("the call is over")
        reply = await session.request(line)
        return reply if reply.code == 200 else _refused(reply)

    async def _ask_dead(self, line: bytes) -> Reply:
        """Send a command that works on a dead channel too."""
        reply = await self._session.request(line)
        return reply if reply.code == 200 else _refused(reply)

    async def _unless_gone(self, failure: str) -> NoReturn:
        """Find out by CHANNEL STATUS whether result=-1 meant a hangup or a failure.

        The HANGUP line comes later than the -1, and with AGISIGHUP=no never. After a hangup CHANNEL STATUS gives 511.

        :raises Error: the call is up (with the text `failure`); :raises Hangup: the call is over
        """
        if await self.is_alive():
            raise Error(failure)
        raise Hangup("the call is over")

    async def is_alive(self) -> bool:
        """Tell whether Asterisk still has the channel, up or on its way there.

        Asks Asterisk unless HANGUP has come. Never raises because of the call's state.
        """
        if self._session.hung_up:
            return False
        try:
            reply = await asyncio.wait_for(self._session.request(_STATUS), _STATUS_SECONDS)
        except (TimeoutError, Hangup):
            return False
        return reply.code == 200 and reply.result.isdigit() and int(reply.result) >= _LIVE_STATE


def _refused(reply: Reply) -> NoReturn:
    if reply.code == 511:
        raise Hangup("the call is over: " + reply.text)
    raise CommandFailed(reply.code, reply.text)
