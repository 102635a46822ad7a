"""Channel variables and Asterisk's database. All of them work on a dead channel."""

from __future__ import annotations

from fastagi.agi.codec import encode
from fastagi.agi.commands.base import CommandGroup
from fastagi.errors import Error


class Variables(CommandGroup):
    """Commands GET VARIABLE to DATABASE DELTREE."""

    __slots__ = ()

    async def get_variable(self, name: str) -> str | None:
        """Return a channel variable, global, or function (``CHANNEL(linkedid)``); None when it is not set.

        Asterisk cuts the value of a function at 1023 bytes here; `get_full_variable` does not.
        """
        reply = await self._ask_dead(encode("GET VARIABLE", name))
        return (reply.data or "") if reply.result == "1" else None

    async def get_full_variable(self, expression: str, channel: str = "") -> str | None:
        """Return the value of `expression` (``${CALLERID(num)}``) as the dialplan evaluates it.

        :param channel: name of another channel; empty for this one
        :returns: None when there is no such channel
        """
        reply = await self._ask_dead(encode("GET FULL VARIABLE", expression, *((channel,) if channel else ())))
        return (reply.data or "") if reply.result == "1" else None

    async def set_variable(self, name: str, value: str | int | float) -> None:
        """Set a channel variable, or a function that takes values (``TALK_DETECT(set)``)."""
        await self._ask_dead(encode("SET VARIABLE", name, value))

    async def database_get(self, family: str, key: str) -> str | None:
        """Return an entry of Asterisk's database, None when there is none."""
        reply = await self._ask_dead(encode("DATABASE GET", family, key))
        return (reply.data or "") if reply.result == "1" else None

    async def database_put(self, family: str, key: str, value: str | int | float) -> None:
        """Set an entry of Asterisk's database.

        :raises Error: Asterisk could not write it
        """
        line = encode("DATABASE PUT", family, key, value)
        if (await self._ask_dead(line)).result != "1":
            raise Error(f"Asterisk could not write {family}/{key} to its database")

    async def database_del(self, family: str, key: str) -> bool:
        """Delete an entry. Return False when Asterisk's database refused; True also when there was no entry."""
        return (await self._ask_dead(encode("DATABASE DEL", family, key))).result == "1"

    async def database_deltree(self, family: str, tree: str = "") -> None:
        """Delete a family, or a tree in it. Asterisk's reply is ignored: it differs between versions."""
        await self._ask_dead(encode("DATABASE DELTREE", family, *((tree,) if tree else ())))
