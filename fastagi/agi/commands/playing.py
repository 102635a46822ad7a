"""Commands that take time on the channel: play, say, wait for digits, record."""

from __future__ import annotations

from datetime import datetime

from fastagi.agi.codec import Reply, encode
from fastagi.agi.commands.base import CommandGroup
from fastagi.agi.replies import Digits, character
from fastagi.errors import Hangup

Moment = int | float | datetime
"""Unix seconds, or a datetime (a naive one is local time, as everywhere in Python)."""


class Playing(CommandGroup):
    """Prompts, digits and RECORD FILE. File names are without suffix, relative to Asterisk's sounds directory."""

    __slots__ = ()

    async def _play(self, line: bytes, failure: str) -> Digits:
        reply = await self._ask(line)
        if reply.result == "-1":
            await self._unless_gone(failure)
        return Digits.pressed(reply)

    async def stream_file(self, filename: str, escape_digits: str = "", offset: int = 0) -> Digits:
        """Play a file. Return the digit among `escape_digits` that stopped it, '' when it played to its end.

        :param offset: first sample to play
        """
        return await self._play(encode("STREAM FILE", filename, escape_digits, offset), _unplayable(filename))

    async def control_stream_file(
        self,
        filename: str,
        escape_digits: str = "",
        skip_ms: int = 3000,
        forward: str = "#",
        rewind: str = "*",
        pause: str = "",
        offset_ms: int = 0,
    ) -> Digits:
        """Play a file that the caller can wind and pause.

        :returns: the digit that stopped it, '' when it played to its end
        """
        line = encode("CONTROL STREAM FILE", filename, escape_digits, skip_ms, forward, rewind, pause, offset_ms)
        return await self._play(line, _unplayable(filename))

    async def get_option(self, filename: str, escape_digits: str, timeout_ms: int | None = None) -> Digits:
        """Play a file, and wait after it for one of `escape_digits`. Return that digit, '' when none came.

        :param timeout_ms: wait after the file's end; None for the dialplan's digit time-out (5 s)
        """
        wait = () if timeout_ms is None else (timeout_ms,)
        return await self._play(encode("GET OPTION", filename, escape_digits, *wait), _unplayable(filename))

    async def get_data(self, filename: str, timeout_ms: int | None = None, max_digits: int | None = None) -> Digits:
        """Play a file and collect digits up to ``#``, `max_digits`, or a pause. `timed_out` is True after a pause.

        :param timeout_ms: longest pause; None for Asterisk's 6 s before the first and 2 s between digits
        :param max_digits: None for 1024
        """
        if max_digits is not None:
            line = encode("GET DATA", filename, timeout_ms or 0, max_digits)
        elif timeout_ms is not None:
            line = encode("GET DATA", filename, timeout_ms)
        else:
            line = encode("GET DATA", filename)
        reply = await self._ask(line)
        if reply.result == "-1":
            await self._unless_gone(_unplayable(filename))
        return Digits(reply.result, reply)

    async def wait_for_digit(self, timeout_ms: int = -1) -> str:
        """Return the next digit, '' when none came in time; -1 waits as long as the call lasts."""
        reply = await self._ask(encode("WAIT FOR DIGIT", timeout_ms))
        if reply.result == "-1":
            raise Hangup("the call is over")
        return character(reply.result)

    async def record_file(
        self,
        filename: str,
        file_format: str = "wav",
        escape_digits: str = "#",
        timeout_ms: int = -1,
        offset: int = 0,
        beep: bool = False,
        silence_seconds: int = 0,
    ) -> Digits:
        """Record the caller with Asterisk's own RECORD FILE (this channel's voice only; not the whole-call recorder).

        Returns the digit that ended it, with `reason` (``dtmf``; ``timeout``, also after silence) and `endpos`.

        :param timeout_ms: -1 for none
        :param offset: sample at which to go on in an existing file
        :param silence_seconds: end after so much silence; 0 for never
        """
        arguments: list[str | int] = [filename, file_format, escape_digits, timeout_ms, offset]
        if beep:
            arguments.append("BEEP")
        if silence_seconds:
            arguments.append(f"s={silence_seconds}")
        reply = await self._ask(encode("RECORD FILE", *arguments))
        if reply.result == "-1":
            if reply.data == "hangup":
                raise Hangup("the call was hung up while it was recorded")
            await self._unless_gone(f"Asterisk cannot write the recording {filename!r} as {file_format!r}")
        return Digits.pressed(reply)

    # -- saying

    async def _say(self, words: str, what: str | int, escape_digits: str, *rest: str) -> Digits:
        line = encode(words, what, escape_digits, *rest)
        return await self._play(line, f"Asterisk cannot {words.lower()} {what!r}: a sound file is missing")

    async def say_alpha(self, text: str, escape_digits: str = "", case: str = "") -> Digits:
        """Spell letters and digits.

        :param case: letters whose case is said: ``a`` all, ``l`` lower, ``n`` none, ``u`` upper
        """
        return await self._say("SAY ALPHA", text, escape_digits, *((case,) if case else ()))

    async def say_date(self, when: Moment, escape_digits: str = "") -> Digits:
        """Say a date."""
        return await self._say("SAY DATE", _unix(when), escape_digits)

    async def say_time(self, when: Moment, escape_digits: str = "") -> Digits:
        """Say a time of day."""
        return await self._say("SAY TIME", _unix(when), escape_digits)

    async def say_datetime(self, when: Moment, escape_digits: str = "", format: str = "", timezone: str = "") -> Digits:
        """Say date and time.

        :param format: as in voicemail.conf, ``ABdY 'digits/at' IMp`` by default
        :param timezone: from the system's zone files; the server's by default
        """
        rest = (format or "ABdY 'digits/at' IMp", timezone) if timezone else (format,) if format else ()
        return await self._say("SAY DATETIME", _unix(when), escape_digits, *rest)

    async def say_digits(self, digits: str | int, escape_digits: str = "") -> Digits:
        """Say digits one by one."""
        return await self._say("SAY DIGITS", str(digits), escape_digits)

    async def say_number(self, number: int, escape_digits: str = "", gender: str = "") -> Digits:
        """Say a number as a number.

        :param gender: for languages that need it: ``f``, ``m``, ``n``, ``c``
        """
        return await self._say("SAY NUMBER", number, escape_digits, *((gender,) if gender else ()))

    async def say_phonetic(self, text: str, escape_digits: str = "") -> Digits:
        """Spell with the phonetic alphabet."""
        return await self._say("SAY PHONETIC", text, escape_digits)

    # -- text and pictures

    async def receive_char(self, timeout_ms: int = 0) -> str:
        """Return one character of text, '' when none came in time; 0 waits as long as the call lasts."""
        reply = await self._ask(encode("RECEIVE CHAR", timeout_ms))
        if reply.result == "-1":  # a channel without text replies "(hangup)" too
            await self._unless_gone("this channel cannot receive text")
        return character(reply.result)

    async def receive_text(self, timeout_ms: int = 0) -> str:
        """Return a line of text; 0 waits as long as the call lasts."""
        reply = await self._ask(encode("RECEIVE TEXT", timeout_ms))
        if reply.result == "-1":
            await self._unless_gone("no text came, or this channel cannot receive any")
        return reply.data or ""

    async def send_text(self, text: str) -> None:
        """Send a line of text; channels without text take it and do nothing."""
        await self._worked(await self._ask(encode("SEND TEXT", text)), "Asterisk could not send the text")

    async def send_image(self, image: str) -> None:
        """Send a picture; channels without pictures take it and do nothing."""
        await self._worked(await self._ask(encode("SEND IMAGE", image)), f"Asterisk could not send {image!r}")

    async def tdd_mode(self, mode: str) -> bool:
        """Turn a TDD (text telephone) ``on``, ``off``, ``mate`` or ``tdd``; False when the channel has none."""
        return (await self._ask(encode("TDD MODE", mode))).result == "1"

    async def _worked(self, reply: Reply, failure: str) -> None:
        if reply.result == "-1":
            await self._unless_gone(failure)


def _unplayable(filename: str) -> str:
    return f"Asterisk cannot play {filename!r}: no such sound in this channel's language and formats"


def _unix(when: Moment) -> int:
    return int(when.timestamp()) if isinstance(when, datetime) else int(when)
