"""A recording that is being worked on, in this process: the ledger's row, its lock, its waiters. And the list of them.

A job lives from the request until the finished file is there (or it failed); the ledger remembers for ever. The last
recording of each call is kept a while longer, so that `state()` and `cause()` answer without waiting.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fastagi.domain.members import Members
from fastagi.domain.recording import Recording, Segment
from fastagi.domain.states import LIVE, OPEN, Phase

if TYPE_CHECKING:
    from fastagi.cipher import Cipher
    from fastagi.recording.asterisk.control import AgiPath
    from fastagi.recording.asterisk.limits import LimitWatch

REMEMBERED = 10_000
"""Ended recordings kept in memory for `state()`: a call asks within seconds, and 10,000 rows are some 20 MB."""

Key = tuple[str, str, str]
"""(asterisk name, uniqueid, recorder name): one runs at a time."""


class ActiveRecording:
    """One open recording.

    :ivar recording: its latest row; replaced, never changed
    :ivar lock: held from reading the phase to having journalled the next one
    :ivar started: monotonic seconds when Asterisk was seen to record; None before
    :ivar unseen: its call ended while nobody looked, perhaps long ago
    :ivar failed_pieces: how many further pieces Asterisk did not begin: their names are not used again
    :ivar given_up: further pieces that Asterisk is still to be told to end, and that are no part of it
    :ivar watched: the raw file that `size` is of, in bytes (-1: not there), and `largest` was; `closed` is that file
        once it was seen closed
    :ivar spool_full: there was a time when Asterisk had no room to write
    :ivar agi: the newest AGI session of its channel, a second way to Asterisk while it lasts: first that which asked
        for it
    :ivar new_way: set when another session came
    :ivar told: a route has left its id in the channel, as far as this process knows
    :ivar met: names of the channels it was connected to, in their order
    :ivar members: who was in a conference with its channel
    :ivar bridged_seconds: of an adopted one, how long its channel was in a bridge before `bridged_since`, which is when
        it came into the one where it is; None where nobody saw its beginning
    :ivar unbridged_looks: looks in a row that found it in no bridge; `grew_unbridged`: its file grew in one of them
    """

    def __init__(self, recording: Recording, cipher: Cipher | None = None, agi: AgiPath | None = None) -> None:
        self.recording = recording
        self.cipher = cipher
        self.agi = agi
        self._agi_uniqueid = recording.uniqueid
        self.new_way = asyncio.Event()
        self.told = False
        self.lock = asyncio.Lock()
        self.started: float | None = None
        self.unseen = False
        self.timer: asyncio.TimerHandle | None = None
        self.resume_timer: asyncio.TimerHandle | None = None
        self.limits: LimitWatch | None = None
        self.failed_pieces = 0
        self.given_up: list[Segment] = []
        self.watched = self.closed = ""
        self.size = -1
        self.largest = -1
        self.grew_at: float | None = None
        self.alarms: set[str] = set()
        self.spool_full = False
        self.participants: dict[str, None] = {}
        self.members = Members(recording.facts)
        self.bridged_seconds: float | None = None
        self.bridged_since: float | None = None
        self.unbridged_looks = 0
        self.grew_unbridged = False
        self._ended = asyncio.Event()

    @property
    def id(self) -> str:
        return self.recording.id

    @property
    def phase(self) -> Phase:
        return self.recording.phase

    @property
    def key(self) -> Key:
        return key_of(self.recording)

    @property
    def open(self) -> bool:
        return self.recording.phase in OPEN

    def agi_of(self, piece: Segment) -> AgiPath | None:
        """The AGI session, if it is a way to the channel of that piece."""
        return self.agi if piece.uniqueid == self._agi_uniqueid else None

    def reached_by(self, agi: AgiPath, uniqueid: str) -> None:
        """Another AGI session has begun on the channel with that uniqueid. A channel has one at a time: the newest is
        the one that Asterisk listens to."""
        self.agi = agi
        self._agi_uniqueid = uniqueid
        self.new_way.set()

    async def wait_for_a_way(self, seconds: float) -> None:
        """Until another AGI session came, since `new_way` was cleared last, or so long."""
        try:
            async with asyncio.timeout(seconds):
                await self.new_way.wait()
        except TimeoutError:
            return

    def set_ended(self) -> None:
        """The finished file is there, or it failed: wake who waits, stop the clocks."""
        self.stop_clocks()
        self.limits = None
        self._ended.set()

    def stop_clocks(self) -> None:
        """Nothing ends or resumes it by itself any more: it is over, or it is not this process's to do."""
        for timer in (self.timer, self.resume_timer):
            if timer is not None:
                timer.cancel()
        self.timer = self.resume_timer = None

    async def wait(self, seconds: float | None) -> bool:
        """True once it has ended; False when `seconds` ran out first. Cancelling the wait changes nothing."""
        if self._ended.is_set():
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True


def key_of(recording: Recording) -> Key:
    return (recording.asterisk, recording.uniqueid, recording.recorder)


class ActiveRecordings:
    """All open jobs, and the last recording of each call and recorder."""

    def __init__(self) -> None:
        self._by_id: dict[str, ActiveRecording] = {}
        self._by_key: dict[Key, ActiveRecording] = {}
        self._by_channel: dict[tuple[str, str], dict[str, ActiveRecording]] = {}
        self._ended: OrderedDict[Key, Recording] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[ActiveRecording]:
        return iter(list(self._by_id.values()))

    def add(self, job: ActiveRecording) -> None:
        """One that is only being finished does not take the place of one that runs on the same call."""
        self._by_id[job.id] = job
        there = self._by_key.get(job.key)
        if there is None or job.phase in LIVE or there.phase not in LIVE:
            self._by_key[job.key] = job
        self._enter(job)

    def _enter(self, job: ActiveRecording) -> None:
        place = (job.recording.asterisk, job.recording.pieces[-1].uniqueid)
        self._by_channel.setdefault(place, {})[job.id] = job

    def on_other_channel(self, job: ActiveRecording, before: str) -> None:
        """The call moved: the job is made on the channel of its last piece now, no longer on that with uniqueid
        `before`. What the call's own `state()` asks for stays where it was."""
        self._leave(job, before)
        self._enter(job)

    def supersede(self, job: ActiveRecording) -> None:
        """Give up the recording's uniqueid: another call has it now, and may have a recording of its own."""
        if self._by_key.get(job.key) is job:
            del self._by_key[job.key]
        self._leave(job, job.recording.pieces[-1].uniqueid)

    def close(self, job: ActiveRecording) -> None:
        """Remove a recording that has ended; it is remembered as its call's last."""
        self._by_id.pop(job.id, None)
        if self._by_key.get(job.key) is job:
            del self._by_key[job.key]
        for uniqueid in {job.recording.uniqueid, *(p.uniqueid for p in job.recording.pieces)}:
            self._leave(job, uniqueid)
        self._ended[job.key] = job.recording
        self._ended.move_to_end(job.key)
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)

    def lose(self, job: ActiveRecording) -> None:
        """Another server has taken it over: not this one's any more, whoever waits for it here is let go."""
        self.close(job)
        job.set_ended()

    def _leave(self, job: ActiveRecording, uniqueid: str) -> None:
        place = (job.recording.asterisk, uniqueid)
        here = self._by_channel.get(place)
        if here is not None:
            here.pop(job.id, None)
            if not here:
                del self._by_channel[place]

    def get(self, recording_id: str) -> ActiveRecording | None:
        return self._by_id.get(recording_id)

    def current(self, key: Key) -> ActiveRecording | None:
        return self._by_key.get(key)

    def last(self, key: Key) -> Recording | None:
        """The open recording of that call and recorder, else its last one."""
        job = self._by_key.get(key)
        return job.recording if job is not None else self._ended.get(key)

    def on_channel(self, asterisk: str, uniqueid: str) -> list[ActiveRecording]:
        return list(self._by_channel.get((asterisk, uniqueid), {}).values())

    def on_asterisk(self, asterisk: str) -> list[ActiveRecording]:
        return [j for j in self._by_id.values() if j.recording.asterisk == asterisk]
