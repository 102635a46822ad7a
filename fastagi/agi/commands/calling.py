"""Commands about the call itself: answering, hanging up, running applications, and where the dialplan goes on."""

from __future__ import annotations

from typing import Final

from fastagi.agi.codec import encode, encode_exec
from fastagi.agi.commands.asking import Asking
from fastagi.agi.replies import number
from fastagi.errors import BadArgument, Error, Hangup

_ANSWER: Final = encode("ANSWER")
_HANGUP: Final = encode("HANGUP")
_NOOP: Final = encode("NOOP")
_BREAK: Final = encode("ASYNCAGI BREAK")


class Calling(Asking):
    """ANSWER to VERBOSE."""

    __slots__ = ()

    async def answer(self) -> None:
        """Answer the channel, if it is not."""
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
        """State of this channel or another: 0 down, 1 reserved, 2 off hook, 3 dialled, 4 ring (it calls us), 5 ringing
        (we call it), 6 up, 7 busy; -1 when there is no channel of that name."""
        return number((await self._ask(encode("CHANNEL STATUS", *((channel,) if channel else ())))).result)

    async def exec(self, application: str, *arguments: str | int | float) -> str:
        """Run a dialplan application; its result, mostly ``0``. Works on a dead channel.

        ``-1`` is what an application gives that did not like its arguments, and on a hangup: the latter raises.

        :param arguments: put together with commas; a comma inside one splits it, as in the dialplan
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
                pass  # the call is up: the application itself failed, and says so by this result
        return reply.result

    async def gosub(self, context: str, extension: str, priority: str | int, *arguments: str | int) -> None:
        """Run a dialplan subroutine until it returns; what it returns is in GOSUB_RETVAL.

        :raises Error: there is no such place in the dialplan, or it failed
        """
        rest = (",".join(map(str, arguments)),) if arguments else ()
        reply = await self._ask(encode("GOSUB", context, extension, str(priority), *rest))
        if reply.result != "0":
            await self._unless_gone(f"Gosub {context},{extension},{priority}: {reply.text.partition(' ')[2]}")

    async def set_context(self, context: str) -> None:
        """Where the dialplan goes on after this session. Asterisk does not check it."""
        await self._ask(encode("SET CONTEXT", context))

    async def set_extension(self, extension: str) -> None:
        """Where the dialplan goes on after this session. Asterisk does not check it."""
        await self._ask(encode("SET EXTENSION", extension))

    async def set_priority(self, priority: str | int) -> None:
        """Where the dialplan goes on after this session: a priority or a label.

        :raises CommandFailed: 520, there is no such label here
        """
        await self._ask(encode("SET PRIORITY", str(priority)))

    async def set_autohangup(self, seconds: float) -> None:
        """Hang the channel up so many seconds from now; 0 takes that back."""
        await self._ask(encode("SET AUTOHANGUP", seconds))

    async def set_callerid(self, callerid: str) -> None:
        """Set number, or ``"Name" <number>``."""
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
        """Nothing, as AGI debugging shows it. Works on a dead channel."""
        await self._ask_dead(encode("NOOP", text) if text else _NOOP)

    async def asyncagi_break(self) -> None:
        """Ends an AsyncAGI session; over FastAGI Asterisk just answers. Works on a dead channel."""
        await self._ask_dead(_BREAK)
