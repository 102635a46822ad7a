"""Speech recognition: an engine must be loaded in Asterisk (res_speech and a module for it)."""

from __future__ import annotations

from fastagi.agi.codec import encode
from fastagi.agi.commands.base import CommandGroup
from fastagi.agi.replies import Recognition
from fastagi.errors import Error, Hangup


class Speech(CommandGroup):
    """Commands SPEECH CREATE to SPEECH DESTROY. One speech object per session."""

    __slots__ = ()

    async def speech_create(self, engine: str = "") -> None:
        """Make the session's speech object.

        :raises Error: there is no such engine, or a speech object exists already
        """
        await self._speech(encode("SPEECH CREATE", engine), f"no speech engine {engine!r}, or speech exists already")

    async def speech_set(self, name: str, value: str) -> None:
        """Set the engine's setting `name`.

        :raises Error: there is no speech object
        """
        await self._speech(encode("SPEECH SET", name, value), "there is no speech object: speech_create() first")

    async def speech_load_grammar(self, name: str, path: str) -> None:
        """Load a grammar.

        :raises Error: the engine refused it, or there is no speech object
        """
        await self._speech(encode("SPEECH LOAD GRAMMAR", name, path), f"the grammar {name!r} could not be loaded")

    async def speech_activate_grammar(self, name: str) -> None:
        """Activate a loaded grammar.

        :raises Error: the engine refused it, or there is no speech object
        """
        await self._speech(encode("SPEECH ACTIVATE GRAMMAR", name), f"the grammar {name!r} could not be activated")

    async def speech_deactivate_grammar(self, name: str) -> None:
        """Deactivate a grammar.

        :raises Error: the engine refused it, or there is no speech object
        """
        await self._speech(encode("SPEECH DEACTIVATE GRAMMAR", name), f"the grammar {name!r} could not be deactivated")

    async def speech_recognize(self, prompt: str, timeout_seconds: int, offset: int = 0) -> Recognition:
        """Play `prompt` and listen.

        :param timeout_seconds: time to speak after the prompt
        :param offset: first sample of the prompt to play
        :raises Error: there is no speech object
        """
        rest = (offset,) if offset else ()
        reply = await self._ask(encode("SPEECH RECOGNIZE", prompt, timeout_seconds, *rest))
        if reply.data == "hangup":
            raise Hangup("the call was hung up while it was listened to")
        if reply.result != "1":
            raise Error("speech recognition could not start: speech_create() first")
        return Recognition.of(reply)

    async def speech_unload_grammar(self, name: str) -> None:
        """Unload a grammar. Works on a dead channel.

        :raises Error: the engine refused it, or there is no speech object
        """
        reply = await self._ask_dead(encode("SPEECH UNLOAD GRAMMAR", name))
        if reply.result != "1":
            raise Error(f"the grammar {name!r} could not be unloaded")

    async def speech_destroy(self) -> bool:
        """Free the engine. Return False when there was none. Works on a dead channel. Idempotent."""
        return (await self._ask_dead(encode("SPEECH DESTROY"))).result == "1"

    async def _speech(self, line: bytes, failure: str) -> None:
        if (await self._ask(line)).result != "1":
            raise Error(failure)
