"""Channel variables and Asterisk's database. All of them work on a dead channel."""

from __future__ import annotations

from fastagi.agi.codec import encode
from fastagi.agi.commands.asking import Asking
from fastagi.errors import Error


class Variables(Asking):
    """GET VARIABLE to DATABASE DELTREE."""

    __slots__ = ()

    async def get_variable(self, name: str) -> str | None:
        """A channel variable, global, or function (``CHANNEL(linkedid)``); None when it is not set.

        Asterisk cuts what functions give at 1023 bytes here; `get_full_variable` does not.
        """
        reply = await self._ask_dead(encode("GET VARIABLE", name))
        return (reply.data or "") if reply.result == "1" else None

    async def get_full_variable(self, expression: str, channel: str = "") -> str | None:
        """What the dialplan would make of `expression` (``${CALLERID(num)}``), on this channel or another by its name;
        None when there is no such channel."""
        reply = await self._ask_dead(encode("GET FULL VARIABLE", expression, *((channel,) if channel else ())))
        return (reply.data or "") if reply.result == "1" else None

    async def set_variable(self, name: str, value: str | int | float) -> None:
        """Set a channel variable, or a function that takes values (``TALK_DETECT(set)``)."""
        await self._ask_dead(encode("SET VARIABLE", name, value))

    async def database_get(self, family: str, key: str) -> str | None:
        """An entry of Asterisk's database, None when it is not there."""
        reply = await self._ask_dead(encode("DATABASE GET", family, key))
        return (reply.data or "") if reply.result == "1" else None

    async def database_put(self, family: str, key: str, value: str | int | float) -> None:
        """Set an entry.

        :raises Error: Asterisk could not write it
        """
        line = encode("DATABASE PUT", family, key, value)
        if (await self._ask_dead(line)).result != "1":
            raise Error(f"Asterisk could not write {family}/{key} to its database")

    async def database_del(self, family: str, key: str) -> bool:
        """Delete an entry; Asterisk says True also when there was none, False when its database refused."""
        return (await self._ask_dead(encode("DATABASE DEL", family, key))).result == "1"

    async def database_deltree(self, family: str, tree: str = "") -> None:
        """Delete a family, or a tree in it. What Asterisk answers differs between versions and tells nothing."""
        await self._ask_dead(encode("DATABASE DELTREE", family, *((tree,) if tree else ())))
