"""Whether something is played to a channel, by its application and the packets that go out to it."""

from __future__ import annotations

from typing import Any

import pytest

from fastagi.ami import actions
from fastagi.errors import ActionRefused
from fastagi.recording.monitoring.playing import Playing


class Channel:
    """One, as Asterisk tells of it.

    :ivar packets: sent to it so far; None where Asterisk has no number
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str = "PJSIP/a-1") -> None:
        self.name = name
        self.app = "Read"
        self.packets: int | None = 0
        self.asked: list[str] = []
        self.known = Playing()
        monkeypatch.setattr(actions, "getvar", self.getvar)

    async def getvar(self, manager: object, variable: str, channel: str) -> str:
        assert channel == self.name
        self.asked.append(variable)
        if variable == "CHANNEL(appname)":
            return self.app
        assert variable == "CHANNEL(rtcp,txcount)"
        if self.packets is None:
            raise ActionRefused("no audio")
        return str(self.packets)

    async def ask(self, ours: bool = False) -> tuple[bool, bool]:
        """(plays, unknown)"""
        manager: Any = object()
        await self.known.ask(manager, self.name, ours)
        return self.known.plays, self.known.unknown


PLAYS, QUIET, UNKNOWN = (True, False), (False, False), (False, True)


async def test_packets_tell_what_a_name_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel(monkeypatch)
    assert await channel.ask() == UNKNOWN  # one number alone is none
    assert await channel.ask() == QUIET
    channel.packets = 25
    assert await channel.ask() == UNKNOWN, "they may hold silence"
    assert await channel.ask() == QUIET
    channel.app = "Queue"
    assert await channel.ask() == QUIET
    channel.packets = 50
    assert await channel.ask() == PLAYS
    assert await channel.ask() == QUIET


async def test_an_application_that_plays_nothing_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel(monkeypatch)
    await channel.ask()
    channel.app = "WaitExten"
    channel.packets = 9
    assert await channel.ask() == QUIET
    assert channel.asked[-1] == "CHANNEL(appname)"
    channel.app = "Read"
    assert await channel.ask() == UNKNOWN  # what went out before was in another application
    assert await channel.ask() == QUIET


@pytest.mark.parametrize(("ours", "found"), [(True, QUIET), (False, UNKNOWN)])
async def test_a_session_of_ours_tells_by_itself(
    monkeypatch: pytest.MonkeyPatch, ours: bool, found: tuple[bool, bool]
) -> None:
    channel = Channel(monkeypatch)
    channel.app = "AGI"
    assert await channel.ask(ours) == found


@pytest.mark.parametrize(("name", "packets"), [("IAX2/a-1", 0), ("PJSIP/a-1", None)])
async def test_without_packets_the_name_decides(
    monkeypatch: pytest.MonkeyPatch, name: str, packets: int | None
) -> None:
    channel = Channel(monkeypatch, name)
    channel.packets = packets
    for app, found in (("VoiceMail", UNKNOWN), ("Playback", PLAYS), ("SayDigits", PLAYS)):
        channel.app = app
        assert await channel.ask() == found
        assert await channel.ask() == found


async def test_a_masqueraded_channel_is_counted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel(monkeypatch)
    await channel.ask()
    channel.name = "PJSIP/b-2"
    assert await channel.ask() == UNKNOWN
    assert await channel.ask() == QUIET
    channel.known.nothing()
    assert await channel.ask() == UNKNOWN
