"""Asterisk is asked to listen to channels: for several recordings at once, and by an AMI that is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from fastagi.ami import actions
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import Cause, Phase
from fastagi.errors import ActionRefused
from fastagi.recording.asterisk.limits import LimitWatch
from fastagi.recording.ledger.active import ActiveRecording
from fastagi.recording.monitoring import talk_detect
from fastagi.recording.monitoring.talk_detect import TalkDetectMonitor

NOW = 1_800_000_000.0


class Asterisk:
    """Channels that may be listened to, and what was asked of them.

    :param seconds: that an answer takes
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.listened: set[str] = set()
        self.app = "Wait"
        self.peers: list[Any] = []
        self.now = NOW
        self.tasks: list[asyncio.Task[Any]] = []
        book = SimpleNamespace(get=self.channel, peers=lambda uniqueid: self.peers)
        self.pbx: Any = SimpleNamespace(name="pbx", up=True, manager=object(), channels=book)
        monkeypatch.setattr(actions, "setvar", self.setvar)
        monkeypatch.setattr(actions, "getvar", self.getvar)
        self.listening = TalkDetectMonitor({"pbx": self.pbx}, self.spawn, -48.0, lambda: self.now)

    @staticmethod
    def channel(uniqueid: str) -> Any:
        return SimpleNamespace(uniqueid=uniqueid, name=uniqueid, bridge="", on_hold_music=False)

    async def setvar(self, manager: object, function: str, value: str, channel: str) -> None:
        await asyncio.sleep(self.seconds)
        if function == "TALK_DETECT(set)":
            self.listened.add(channel)
        elif channel not in self.listened:
            raise ActionRefused("Variable not set")
        else:
            self.listened.discard(channel)

    async def getvar(self, manager: object, variable: str, channel: str) -> str:
        await asyncio.sleep(self.seconds)
        return self.app

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    async def done(self) -> None:
        """All that was begun. :raises Exception: what one of them died of"""
        while self.tasks:
            await self.tasks.pop()


def silent(number: int, uniqueid: str = "1") -> tuple[ActiveRecording, LimitWatch]:
    """A recording with a silence limit of 2 s."""
    spec = RecordingSpec(file_format="s16bit", milliseconds_max_silence=2000)
    row = Recording(
        id=f"rec-{number}", node="n", asterisk="pbx", channel="a", uniqueid=uniqueid, name="x", file_path="/r/x.wav",
        spec=spec, phase=Phase.ACTIVE, requested_at=NOW, started_at=NOW,
        pieces=(Segment("a.wav", channel="a", uniqueid=uniqueid, started_at=NOW),),
    )  # fmt: skip
    return ActiveRecording(row), LimitWatch(row, None, -48.0)


async def test_who_ends_does_not_make_the_other_deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    asterisk = Asterisk(monkeypatch)
    one, two = silent(1), silent(2)
    for job, limits in (one, two):
        asterisk.listening.beside(job, limits)
        await asterisk.done()
    asterisk.listening.enough(one[0])
    await asterisk.done()
    assert asterisk.listened == {"1"}
    asterisk.listening.enough(two[0])
    await asterisk.done()
    assert asterisk.listened == set()


@pytest.mark.parametrize("after", [0.0, 0.01, 0.03, 0.05])
async def test_nothing_is_left_listening_when_it_ends_while_asterisk_is_asked(
    monkeypatch: pytest.MonkeyPatch, after: float
) -> None:
    asterisk = Asterisk(monkeypatch, seconds=0.02)
    asterisk.peers = [asterisk.channel("2"), asterisk.channel("3")]
    job, limits = silent(1)
    asterisk.listening.beside(job, limits)
    await asyncio.sleep(after)
    asterisk.listening.enough(job)
    await asterisk.done()
    assert asterisk.listened == set()


async def test_who_has_left_the_bridge_talks_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asterisk = Asterisk(monkeypatch)
    asterisk.peers = [asterisk.channel("2")]
    job, limits = silent(1)
    asterisk.listening.look(job, limits)
    await asterisk.done()
    assert asterisk.listened == {"1", "2"}
    asterisk.listening.event(asterisk.pbx, "ChannelTalkingStart", {"Uniqueid": "2"}, None)
    asterisk.now += 5
    assert asterisk.listening.look(job, limits) is Cause.NONE
    asterisk.peers = []
    asterisk.listening.look(job, limits)
    await asterisk.done()
    assert asterisk.listened == {"1"}
    asterisk.now += 2.1
    assert asterisk.listening.look(job, limits) is Cause.SILENCE
    await asterisk.done()


@pytest.mark.parametrize(("app", "known"), [("Wait", True), ("VoiceMail", False), ("AGI", False)])
async def test_an_application_that_may_play_something_is_no_silence_beside_a_file(
    monkeypatch: pytest.MonkeyPatch, app: str, known: bool
) -> None:
    asterisk = Asterisk(monkeypatch)
    asterisk.app = app
    job, limits = silent(1)
    asterisk.listening.beside(job, limits)
    await asterisk.done()
    asterisk.now += 2.1
    talk = asterisk.listening.beside(job, limits)
    assert (talk.quiet, talk.heard_until) == (known, 0.0)
    await asterisk.done()
    asterisk.listening.look(job, limits)  # without the file there is nothing else to go by
    asterisk.now += 2.1
    assert asterisk.listening.look(job, limits) is Cause.SILENCE
    await asterisk.done()


async def test_a_short_prompt_between_two_looks_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    asterisk = Asterisk(monkeypatch)
    job, limits = silent(1)
    heard = SimpleNamespace(playing=False, played_until=0.0, closed=False)
    job.agi = heard  # type: ignore[assignment]
    monkeypatch.setattr(talk_detect.time, "monotonic", lambda: asterisk.now - NOW + 100.0)
    asterisk.listening.beside(job, limits)
    asterisk.now += 1.0
    heard.played_until = 100.7
    talk = asterisk.listening.beside(job, limits)
    assert (talk.quiet, talk.since, talk.heard_until) == (False, pytest.approx(NOW + 0.7), pytest.approx(NOW + 0.7))
    asterisk.now = NOW + 2.6
    assert not asterisk.listening.beside(job, limits).quiet
    asterisk.now = NOW + 2.8
    assert asterisk.listening.beside(job, limits).quiet
    await asterisk.done()
