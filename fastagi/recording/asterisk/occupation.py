"""The occupation of a channel that is in no bridge: playing, joining a conference, or neither.

A command or application is known by its name. What the name does not tell is asked of Asterisk: which application runs
(``ExecIf`` and ``Gosub`` only lead to it), and whether RTP packets go out. A channel that nobody can ask about counts
as free: a recording that is refused is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fastagi.ami import actions
from fastagi.errors import AsteriskError, Error, Hangup
from fastagi.recording.asterisk.pbx import Pbx

PLAYING = "playing"
CONFERENCE = "in a conference"

SOUNDING = frozenset(
    ("playback", "background", "controlplayback", "musiconhold", "milliwatt", "playtones", "queue", "morsecode")
)
"""Dialplan applications in which something is played; and all whose names begin with ``Say``."""

_PROMPTING = frozenset(
    ("read", "readexten", "senddtmf", "festival", "mp3player", "speechbackground", "backgrounddetect", "directory")
) | frozenset(("voicemail", "voicemailmain", "minivmgreet", "echo", "zapateller", "disa", "chanspy", "extenspy"))
"""Applications that may also wait in silence, but play for most of their time."""

_CONFERENCES = frozenset(("confbridge", "meetme", "page"))

_STILL = frozenset(
    ("wait", "waitexten", "waituntil", "waitforcond", "waitdigit", "waitforring", "waitfornoise", "waitforsilence")
) | frozenset(("record", "dial", "noop", "set", "mset", "verbose", "stopplaytones", "stopmusiconhold"))
"""Applications that play nothing. A bridge that ``Dial`` makes is known by its event."""

_LEADING = frozenset(
    ("agi", "execif", "execiftime", "exec", "tryexec", "gosub", "gosubif", "macro", "macroif", "while", "if")
)
"""Applications that run others: what they run is seen a moment later."""

COMMANDS = ("STREAM FILE", "CONTROL STREAM FILE", "GET DATA", "GET OPTION", "SAY ", "SPEECH RECOGNIZE")
"""AGI commands that take as long as they play."""

LOOKS = 5

LOOK_SECONDS = 0.01
"""An application that was asked for begins within a millisecond; a busy Asterisk may take some."""

PACKETS_SECONDS = 0.045
"""Asterisk sends a packet every 20 ms while it plays."""

ANSWER_SECONDS = 2.0
"""Another task's command may take the session meanwhile."""

_FORMATS = "${CHANNEL(audiowriteformat)}|${CHANNEL(audionativeformat)}"
_PACKETS = "CHANNEL(rtcp,txcount)"

Ask = Callable[[str], Awaitable[str | None]]


def plays(command: str) -> bool:
    """Return whether an AGI command (of EXEC: its application) plays to the channel."""
    name = command.upper()
    return name.startswith(COMMANDS) or (name.startswith("EXEC ") and of_application(name[5:]) == PLAYING)


def of_application(name: str) -> str | None:
    """Return the occupation that an application means for its channel; "" for none, None where its name does not
    tell.
    """
    name = name.lower()
    if name in SOUNDING or name in _PROMPTING or name.startswith("say"):
        return PLAYING
    if name in _CONFERENCES:
        return CONFERENCE
    return "" if name in _STILL else None


async def in_session(command: str, pbx: Pbx, channel: str) -> str:
    """Return the occupation of a channel whose AGI session is at this command.

    :param command: as `Channel.current_command` names it
    """
    if plays(command):
        return PLAYING
    verb, _, application = command.partition(" ")
    if verb.upper() not in ("EXEC", "GOSUB"):
        return ""
    found = of_application(application)
    return await in_dialplan(pbx, channel) if found is None else found


async def in_dialplan(pbx: Pbx, channel: str) -> str:
    """Return the occupation of a channel, asked for through the manager interface."""
    manager = pbx.manager
    if manager is None or not pbx.up:
        return ""

    async def ask(variable: str) -> str:
        return await actions.getvar(manager, variable, channel)

    try:
        for _ in range(LOOKS):
            name = (await ask("CHANNEL(appname)")).lower()
            if name not in _LEADING:
                break
            await asyncio.sleep(LOOK_SECONDS)
        found = of_application(name)
        return await _by_packets(ask, channel) if found is None else found
    except AsteriskError:
        return ""


async def between_commands(get: Ask, get_full: Ask, channel: str) -> str:
    """Return the occupation of a channel whose AGI session waits for a command: tones of ``Playtones`` sound on behind
    it.

    :param get: asks the session for a variable; :param get_full: for an expression
    """
    if not channel.startswith("PJSIP/"):
        return ""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            written, _, native = (await get_full(_FORMATS) or "").partition("|")
            if written in native.strip("()").split("|"):
                return ""  # a tone is written as slin
            return await _by_packets(get, channel)
    except (TimeoutError, AsteriskError, Error, Hangup):
        return ""


async def _by_packets(ask: Ask, channel: str) -> str:
    if not channel.startswith("PJSIP/"):
        return ""
    before = await ask(_PACKETS)
    if not before:
        return ""
    await asyncio.sleep(PACKETS_SECONDS)
    return PLAYING if await ask(_PACKETS) != before else ""
