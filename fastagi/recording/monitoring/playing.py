"""Playback to a channel that is in no bridge, asked of Asterisk: which application it is in,
and whether packets go out to it. What a session of ours plays, and music on hold, is known without asking (`talking`).
"""

from __future__ import annotations

from fastagi.ami import actions
from fastagi.ami.manager import Manager
from fastagi.errors import ActionRefused
from fastagi.recording.asterisk.occupation import SOUNDING

STILL = frozenset(("wait", "waitexten", "agi"))
"""Those in which nothing is. Of any other, and of a session that is not ours (``AGI``), the name does not tell."""


class Playing:
    """The knowledge of one recording's channel.

    :ivar plays: something is played
    :ivar unknown: nobody here knows whether something is
    """

    def __init__(self) -> None:
        self.plays = self.unknown = False
        self._sent: tuple[str, str] | None = None

    def nothing(self) -> None:
        """Note that the channel is in a bridge or gone: the others in a bridge are heard by themselves."""
        self.plays = self.unknown = False
        self._sent = None

    async def ask(self, manager: Manager, channel: str, ours: bool) -> None:
        """Once a half second or so.

        :param ours: the AGI session that it may be in is ours, and tells what it plays
        :raises AsteriskError: it was not answered
        """
        name = (await actions.getvar(manager, "CHANNEL(appname)", channel)).lower()
        if name in STILL and (ours or name != "agi"):
            self.nothing()
            return
        before, self._sent = self._sent, await _sent(manager, channel)
        if self._sent is not None and before == self._sent:  # none went out
            self.plays = self.unknown = False
        else:  # what goes out may be silence (asterisk.conf, transmit_silence)
            self.plays = name in SOUNDING or name.startswith("say")
            self.unknown = not self.plays


async def _sent(manager: Manager, channel: str) -> tuple[str, str] | None:
    """(channel, RTP packets that went out to it so far), or None where it counts none that we could ask for."""
    if not channel.startswith("PJSIP/"):
        return None
    try:
        packets = await actions.getvar(manager, "CHANNEL(rtcp,txcount)", channel)
    except ActionRefused:  # it has no audio (yet)
        return None
    return (channel, packets) if packets.isdecimal() else None
