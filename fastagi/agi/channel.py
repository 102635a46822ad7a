"""The channel that a handler gets: the caller, the dialplan's request, and every AGI command as a method.

Facts about the call come from the header block, which never changes. Recorders come with the app's subclass.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

from fastagi.agi.codec import Reply, encode, encode_line
from fastagi.agi.commands.calling import Calling
from fastagi.agi.commands.playing import Playing
from fastagi.agi.commands.speech import Speech
from fastagi.agi.commands.variables import Variables
from fastagi.agi.session import Session
from fastagi.agi.vocabulary import command_name
from fastagi.errors import CommandFailed, FastAGIError, Hangup

FAIL_SECONDS: Final = 2.0
"""Time that `fail` gives Asterisk to write the reason to its console before the session ends without it."""

FAIL_TEXT: Final = 400
"""Most characters of the reason on Asterisk's console: at four bytes each they stay below the longest command."""

KEY: Final = "key"
"""Query parameter of the AGI URL with the secret that lets a dialplan call; reserved in every route."""

_PARAM = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)


class Channel(Calling, Playing, Variables, Speech):
    """Call in an AGI session.

    Commands of several tasks are sent one after another, in the order of the calls. Cancelling a command withdraws it
    if it was not sent. A sent command is finished by Asterisk: its reply is dropped, and later commands wait for that.
    """

    __slots__ = ("_args", "_key", "_params", "linkedid")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._key = _take_key(session.env)
        self._args: list[str] | None = None
        self._params: dict[str, str] = {}
        self.linkedid = ""
        """Asterisk's id common to all legs of a call; empty until `fetch_linkedid` or the app has set it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.channel or '?'} {self.uniqueid}>"

    # -- the header block

    @property
    def env(self) -> dict[str, str]:
        """The header block: ``agi_channel``, ``agi_uniqueid``, ... as Asterisk wrote it."""
        return self._session.env

    @property
    def uniqueid(self) -> str:
        """Asterisk's id of the channel; with its systemname in front where one is set."""
        return self._session.env.get("agi_uniqueid", "")

    @property
    def channel(self) -> str:
        """The channel's name, such as ``PJSIP/trunk-00000012``. A masquerade can change it; the uniqueid stays."""
        return self._session.env.get("agi_channel", "")

    @property
    def caller(self) -> str:
        """The caller's number, empty where there is none."""
        return self._known("agi_callerid")

    @property
    def caller_name(self) -> str:
        """The caller's name, empty where there is none."""
        return self._known("agi_calleridname")

    @property
    def extension(self) -> str:
        """Extension of the dialplan that runs AGI."""
        return self._session.env.get("agi_extension", "")

    @property
    def context(self) -> str:
        """Context of the dialplan that runs AGI."""
        return self._session.env.get("agi_context", "")

    @property
    def language(self) -> str:
        """The channel's language, such as ``en``."""
        return self._session.env.get("agi_language", "")

    @property
    def peer(self) -> str:
        """Address of the Asterisk."""
        return self._session.peer

    def _known(self, header: str) -> str:
        value = self._session.env.get(header, "")
        return "" if value == "unknown" else value

    @property
    def route(self) -> str:
        """Path of the AGI URL, without slashes around it and without its query: ``record/start``."""
        return self._session.env.get("agi_network_script", "").partition("?")[0].strip("/")

    @property
    def args(self) -> list[str]:
        """The AGI arguments that are not ``key=value``, in order."""
        if self._args is None:
            self._read_arguments()
        return self._args or []

    @property
    def params(self) -> dict[str, str]:
        """The ``key=value`` arguments as the dialplan wrote them, and the URL's query, percent-decoded.

        An argument wins over the query, a later argument over an earlier one.
        """
        if self._args is None:
            self._read_arguments()
        return self._params

    def has_key(self, expected: str) -> bool:
        """Tell whether the URL's query had that ``key``. The key is removed from headers, arguments and parameters.

        :param expected: the right key; empty where no key is required
        """
        if not expected:
            return True
        return hmac.compare_digest(self._key.encode(errors="surrogateescape"), expected.encode())

    @property
    def keyless(self) -> bool:
        """True when the URL's query had no ``key``."""
        return not self._key

    def _read_arguments(self) -> None:
        env = self._session.env
        args: list[str] = []
        params: dict[str, str] = {}
        for pair in env.get("agi_network_script", "").partition("?")[2].split("&"):
            key, _, value = pair.partition("=")
            if key:
                params[unquote(key, errors="surrogateescape")] = unquote(value, errors="surrogateescape")
        number = 1
        while (argument := env.get(f"agi_arg_{number}")) is not None:
            named = _PARAM.fullmatch(argument.lstrip())  # dialplans are written with a space after the comma
            if named:
                params[named[1]] = named[2]
            else:
                args.append(argument)
            number += 1
        self._args = args
        self._params = params

    # -- the session

    @property
    def hung_up(self) -> bool:
        """True once the HANGUP line has come or the peer has closed. Commands for dead channels may still work."""
        return self._session.hung_up

    @property
    def closed(self) -> bool:
        """True once the AGI session is over: no command works any more. The call itself may go on in the dialplan."""
        return self._session.closed

    @property
    def current_command(self) -> str | None:
        """Name of the command that Asterisk is executing now, in capitals (``STREAM FILE``, ``EXEC Playback``)."""
        return self._session.current_command

    @property
    def tones(self) -> bool:
        """True while tones of the session's ``EXEC Playtones`` sound, until a command is sent that may end them."""
        return self._session.tones

    @property
    def last_long_command(self) -> tuple[str, float]:
        """Name of the last command that took longer than 50 ms, and its end by the monotonic clock in seconds."""
        if self._session.lasted is None:
            return "", 0.0
        line, ended = self._session.lasted
        return command_name(line.decode("utf-8", "surrogateescape")), ended

    def on_hangup(self, callback: Callable[[], object]) -> None:
        """Call `callback` once, without arguments, from the event loop, when the call is hung up.

        A hangup is the HANGUP line, or an end of the session that this handler did not cause. If it has happened
        already, the callback runs soon. Its exceptions are logged. AGI cannot tell more: an AMI Redirect of the channel
        looks the same, and the call goes on.
        """
        self._session.on_hangup(callback)

    async def fetch_linkedid(self) -> str:
        """Return the linkedid. Asterisk is asked once; `linkedid` keeps the value. Works on a dead channel."""
        if not self.linkedid:
            self.linkedid = await self.get_full_variable("${CHANNEL(linkedid)}") or ""
        return self.linkedid

    async def command(self, line: str) -> Reply:
        """Send any command, as Asterisk's documentation writes it; the caller quotes the arguments.

        :raises Hangup: 511, or the session is over; :raises CommandFailed: 510 or 520; :raises BadArgument: the line
            holds CR, LF or NUL, is empty, or longer than Asterisk reads
        """
        reply = await self._session.request(encode_line(line))
        if reply.code == 511:
            raise Hangup("the call is over: " + reply.text)
        if reply.code != 200:
            raise CommandFailed(reply.code, reply.text)
        return reply

    async def raw(self, line: str) -> Reply:
        """Send any command and return its reply, whatever the code."""
        return await self._session.request(encode_line(line))

    async def fail(self, reason: str) -> None:
        """End the session with AGISTATUS=FAILURE for the dialplan, and the reason on Asterisk's console.

        Idempotent. Never raises because of the call's state. The session is over afterwards.
        """
        session = self._session
        text = re.sub(r"[\x00-\x1f\x7f]+", " ", str(reason)).encode("utf-8", "replace").decode()[:FAIL_TEXT]
        if not session.closed:
            try:
                await asyncio.wait_for(session.request(encode("VERBOSE", text, 1)), FAIL_SECONDS)
            except (TimeoutError, FastAGIError):
                pass  # only the failure must arrive, not the reason
        session.end(failed=True)


def _take_key(env: dict[str, str]) -> str:
    """Remove the key from the two headers that hold the URL, so that no output of headers shows it."""
    found = ""
    for header in ("agi_network_script", "agi_request"):
        path, mark, query = env.get(header, "").partition("?")
        if not mark:
            continue
        kept = []
        for pair in query.split("&"):
            name, _, value = pair.partition("=")
            if unquote(name) == KEY:
                found = unquote(value, errors="surrogateescape")
            else:
                kept.append(pair)
        env[header] = f"{path}?{'&'.join(kept)}" if kept else path
    return found
