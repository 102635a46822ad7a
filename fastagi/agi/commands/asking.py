"""How a command is asked and what its reply means, whatever the command. The methods themselves are its neighbours."""

from __future__ import annotations

import asyncio
from typing import Final, NoReturn

from fastagi.agi.codec import Reply, encode
from fastagi.agi.session import Session
from fastagi.errors import CommandFailed, Error, Hangup

_STATUS: Final = encode("CHANNEL STATUS")

_STATUS_SECONDS: Final = 2.0
"""Time for that question, of which Asterisk answers thousands in a second."""

_LIVE_STATE: Final = 2
"""First channel state in which there is a call: 0 is down, 1 is down but reserved."""


class Asking:
    """What every group of commands needs."""

    __slots__ = ("_session",)

    _session: Session

    async def _ask(self, line: bytes) -> Reply:
        """A command that a dead channel refuses: not even sent once the call is over."""
        session = self._session
        if session.hung_up:
            raise Hangup("the call is over")
        reply = await session.request(line)
        return reply if reply.code == 200 else _refused(reply)

    async def _ask_dead(self, line: bytes) -> Reply:
        """A command that works on a dead channel too."""
        reply = await self._session.request(line)
        return reply if reply.code == 200 else _refused(reply)

    async def _unless_gone(self, failure: str) -> NoReturn:
        """After result=-1, which says "hung up" and "did not work" alike: find out which, by asking for the channel.

        The HANGUP line comes later than the -1, and with AGISIGHUP=no never; CHANNEL STATUS gives 511 when it is over.

        :raises Error: with this text, when the call is up; :raises Hangup: otherwise
        """
        if await self.is_alive():
            raise Error(failure)
        raise Hangup("the call is over")

    async def is_alive(self) -> bool:
        """Whether Asterisk still has the channel, up or on its way there: asks it, unless HANGUP has come. Never raises
        on account of the call."""
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
