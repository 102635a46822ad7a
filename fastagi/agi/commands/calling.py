"""Commands about the call itself: answer, hang up, run applications, and set where the dialplan continues."""

from __future__ import annotations

from typing import Final

from fastagi.agi.codec import encode, encode_exec
from fastagi.agi.commands.base import CommandGroup
from fastagi.agi.replies import number
from fastagi.errors import BadArgument, Error, Hangup

_ANSWER: Final = encode("ANSWER")
_HANGUP: Final = encode("HANGUP")
_NOOP: Final = encode("NOOP")
_BREAK: Final = encode("ASYNCAGI BREAK")


class Calling(CommandGroup):
    """Commands about the call, ANSWER to VERBOSE."""

    __slots__ = ()

    async def answer(self) -> None:
        """Answer the channel, unless it is up already."""
        if (await self._ask(_ANSWER)).result == "-1":
            raise Hangup("the call was hung up before it was answered")

    async def hangup(self, channel: str = "") -> None:
        """Hang up this channel, or another by its name. The session goes on; its HANGUP line follows.

        :raises Error: there is no channel of that name
        """
        if not channel:
            await self._ask(_HANGUP)
        elif (await self._ask(encode("HANGUP", channel))).result == "-1":
            raise Error(f"there is no channel {channel!r}")

    async def channel_status(self, channel: str = "") -> int:
        """Return the state of this channel, or of another by its name.

        0 down, 1 reserved, 2 off hook, 3 dialled, 4 ring (it calls Asterisk), 5 ringing (Asterisk calls it), 6 up, 7
        busy; -1 when there is no channel of that name.
        """
        return number((await self._ask(encode("CHANNEL STATUS", *((channel,) if channel else ())))).result)

    async def exec(self, application: str, *arguments: str | int | float) -> str:
        """Run a dialplan application and return its result, mostly ``0``. Works on a dead channel.

        An application gives ``-1`` for wrong arguments and on a hangup; a hangup raises instead.

        :param arguments: joined with commas; a comma inside an argument splits it, as in the dialplan
        :raises Error: there is no such application
        """
        was_up = not self._session.hung_up
        reply = await self._ask_dead(encode_exec(application, arguments))
        if reply.result == "-2":
            raise Error(f"there is no application {application!r} in this Asterisk")
        if reply.result == "-1" and was_up:
            try:
                await self._unless_gone("")
            except Error:
                pass  # the call is up: this result tells that the application failed
        return reply.result

    async def gosub(self, context: str, extension: str, priority: str | int, *arguments: str | int) -> None:
        """Run a dialplan subroutine until it returns; its return value is in GOSUB_RETVAL.

        :raises Error: there is no such place in the dialplan, or the subroutine failed
        """
        rest = (",".join(map(str, arguments)),) if arguments else ()
        reply = await self._ask(encode("GOSUB", context, extension, str(priority), *rest))
        if reply.result != "0":
            await self._unless_gone(f"Gosub {context},{extension},{priority}: {reply.text.partition(' ')[2]}")

    async def set_context(self, context: str) -> None:
        """Set the context in which the dialplan continues after this session. Asterisk does not check it."""
        await self._ask(encode("SET CONTEXT", context))

    async def set_extension(self, extension: str) -> None:
        """Set the extension at which the dialplan continues after this session. Asterisk does not check it."""
        await self._ask(encode("SET EXTENSION", extension))

    async def set_priority(self, priority: str | int) -> None:
        """Set the priority or label at which the dialplan continues after this session.

        :raises CommandFailed: 520, there is no such label here
        """
        await self._ask(encode("SET PRIORITY", str(priority)))

    async def set_autohangup(self, seconds: float) -> None:
        """Hang the channel up `seconds` from now; 0 cancels that."""
        await self._ask(encode("SET AUTOHANGUP", seconds))

    async def set_callerid(self, callerid: str) -> None:
        """Set the caller id: a number, or ``"Name" <number>``."""
        await self._ask(encode("SET CALLERID", callerid))

    async def set_music(self, on: bool = True, music_class: str = "") -> None:
        """Start or stop music on hold."""
        await self._ask(encode("SET MUSIC ON" if on else "SET MUSIC OFF", *((music_class,) if music_class else ())))

    async def verbose(self, message: str, level: int = 1) -> None:
        """Write to Asterisk's console. Works on a dead channel.

        :param level: 1 to 4, how verbose the console must be to show it
        """
        if level not in (1, 2, 3, 4):
            raise BadArgument(f"level={level!r} must be 1, 2, 3 or 4")
        await self._ask_dead(encode("VERBOSE", message, level))

    async def noop(self, text: str = "") -> None:
        """Do nothing; AGI debugging shows the text. Works on a dead channel."""
        await self._ask_dead(encode("NOOP", text) if text else _NOOP)

    async def asyncagi_break(self) -> None:
        """End an AsyncAGI session; over FastAGI Asterisk only replies. Works on a dead channel."""
        await self._ask_dead(_BREAK)
