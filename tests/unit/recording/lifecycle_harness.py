"""The recorder's lifecycle on fakes: a journal in memory, an Asterisk that is a list of orders, files that are real and
tiny. No thread, no socket, no ledger: a test takes milliseconds.
"""

from __future__ import annotations

import wave
from asyncio import sleep
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from fastagi.audio import Rendered
from fastagi.audio.plan import LevelFacts
from fastagi.domain.lifecycle import Decision
from fastagi.domain.recording import Recording, Segment, Span
from fastagi.domain.spec import RecordingSpec
from fastagi.domain.states import OPEN, Cause, Phase
from fastagi.recording.asterisk.channel_table import ChannelTable, LiveChannel
from fastagi.recording.asterisk.pbx import Pbx
from fastagi.recording.context import RecordingContext
from fastagi.recording.ledger.active import ActiveRecording, ActiveRecordings
from fastagi.recording.lifecycle.engine import Engine
from fastagi.recording.lifecycle.finishing import Finalizer
from fastagi.recording.lifecycle.following import TransferFollower
from fastagi.recording.lifecycle.hangups import HangupHandler
from fastagi.recording.lifecycle.participants import ParticipantTracker
from fastagi.recording.lifecycle.pausing import Pauser
from fastagi.recording.lifecycle.segments import SegmentController
from fastagi.recording.lifecycle.starting import Request, Starter
from fastagi.recording.lifecycle.stopping import Stopper
from fastagi.runtime.tasks import Tasks
from fastagi.settings import RecordingSettings

BEGAN = 1_800_000_000.0
NOW = BEGAN + 60
ID = "rec-01jd3000000000000000000001"


class MemoryJournal:
    """Keeps the names of what was journalled.

    :ivar lost: raised by the next entry; :ivar waiting: ids that the ledger does not know yet
    """

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.rows: list[Recording] = []
        self.told: list[tuple[str, str]] = []
        self.lost: Exception | None = None
        self.waiting: set[str] = set()
        self.alone = True
        self.stuck = False
        self.full = ""
        self.held: bool | Exception = True

    async def record(self, job: ActiveRecording, decision: Decision) -> None:
        if self.lost is not None:
            raise self.lost
        if decision.entry:
            self.entries.append(decision.entry)
            job.recording = decision.after

    async def enter(self, recording: Recording, detail: Any = None, key: Any = None) -> None:
        if self.lost is not None:
            raise self.lost
        self.entries.append("requested")
        self.rows.append(recording)

    def tell(self, recording: Recording, event: str, detail: dict[str, Any]) -> None:
        self.told.append((recording.id, event))

    def waits(self, recording_id: str) -> bool:
        return recording_id in self.waiting

    async def held_here(self, recording_id: str) -> bool:
        if isinstance(self.held, Exception):
            raise self.held
        return self.held


class InlineThreads:
    """Runs file work where it is asked for."""

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        await sleep(0)
        return function(*args)

    async def finish(self, function: Callable[..., Any]) -> Any:
        await sleep(0)
        return function()


class OrderBook:
    """An Asterisk: notes what it is told, and makes and closes files as it would.

    :ivar orders: (what, file name or direction, channel)
    :ivar refuse: what is raised for an order, by its name; a list is used up one by one
    :ivar makes_files: whether a start opens its file
    """

    def __init__(self) -> None:
        self.orders: list[tuple[str, str, str]] = []
        self.refuse: dict[str, Exception | list[Exception]] = {}
        self.makes_files = True
        self.channel = ""

    def _order(self, what: str, about: str) -> None:
        self.orders.append((what, about, self.channel))
        refusal = self.refuse.get(what)
        if isinstance(refusal, list):
            refusal = refusal.pop(0) if refusal else None
        if refusal is not None:
            raise refusal

    async def start(self, piece: Segment, spec: RecordingSpec) -> str:
        self._order("start", Path(piece.paths[0]).name)
        if self.makes_files:
            for path in piece.paths:
                open_file(path)
        return f"0x{len(self.orders)}"

    async def stop(self, piece: Segment, spec: RecordingSpec) -> None:
        self._order("stop", Path(piece.paths[0]).name)
        for path in piece.paths:
            closed_file(path)

    async def find_id(self, piece: Segment) -> str:
        self._order("find", Path(piece.paths[0]).name)
        return "0xfound"

    async def mute(self, piece: Segment, spec: RecordingSpec, direction: str, on: bool) -> None:
        self._order("mute" if on else "unmute", direction)

    @property
    def told(self) -> list[str]:
        """The orders, without the channels."""
        return [f"{what} {about}" for what, about, _ in self.orders]


def place(path: str | Path) -> Path:
    """A file of the scene: tiny, and looked at without a thread."""
    return Path(path)


def closed_file(path: str | Path, frames: int = 800) -> None:
    """Write a raw file that Asterisk has closed."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\1\0" * frames)


def open_file(path: str | Path, frames: int = 800) -> None:
    """Write a raw file that Asterisk still writes: its header has no sizes."""
    closed_file(path, frames)
    data = bytearray(Path(path).read_bytes())
    data[4:8] = data[40:44] = b"\0\0\0\0"
    Path(path).write_bytes(bytes(data))


def rendered(**changes: Any) -> Rendered:
    """What a renderer says that made a tenth of a second."""
    facts: dict[str, Any] = {
        "audio_seconds": 0.1,
        "frames": 800,
        "bytes": 1644,
        "sha256": "ab" * 32,
        "level": LevelFacts(-6.0, -12.0, 0.1),
    }
    return Rendered(**{**facts, **changes})


class Scene:
    """One server, one Asterisk, and the parts that carry a recording from its request to its finished file."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.spool, self.directory = folder / "spool", folder / "recordings"
        self.spool.mkdir()
        self.directory.mkdir()
        self.now = NOW
        self.journal = MemoryJournal()
        self.jobs = ActiveRecordings()
        self.tasks = Tasks()
        self.asterisk = OrderBook()
        self.channels = ChannelTable()
        self.pbx = SimpleNamespace(
            name="pbx", system="", spool=self.spool, channels=self.channels, major=22, up=True, control=self._control
        )
        self.down: Exception | None = None
        self.keys = SimpleNamespace(load=self._load, wrap=lambda recording_id, cipher: ("scheme", b"wrapped"))
        self.key: Any = None
        self.context = RecordingContext(
            settings=RecordingSettings(
                directory=self.directory, **{"start_seconds": 0.05, "close_seconds": 0.05, **settings}
            ),
            store=cast(Any, None),
            journal=cast(Any, self.journal),
            jobs=self.jobs,
            keys=cast(Any, self.keys),
            tasks=self.tasks,
            threads=cast(Any, InlineThreads()),
            pbxs={"pbx": cast(Pbx, self.pbx)},
            node="one",
            clock=lambda: self.now,
        )
        self.engine = Engine(self.context)
        self.starter = Starter(self.context, self.engine)
        self.finalizer = Finalizer(self.context, self.engine)
        self.stopper = Stopper(self.context, self.engine, self.finalizer)
        self.segments = SegmentController(self.context, self.engine, self.starter)
        self.pauser = Pauser(self.context, self.engine, self.segments)
        self.follower = TransferFollower(self.context, self.engine, self.segments)
        self.hangups = HangupHandler(self.context, self.stopper, self.follower)
        self.joined: list[str] = []
        self.participants = ParticipantTracker(
            self.context, self.engine, lambda asterisk, uniqueid, job: self.joined.append(uniqueid)
        )

    def _control(self, channel: str, agi: Any = None) -> Any:
        if self.down is not None:
            raise self.down
        self.asterisk.channel = channel
        return self.asterisk

    async def _load(self, recording_id: str) -> Any:
        found = self.key.pop(0) if isinstance(self.key, list) else self.key
        if isinstance(found, Exception):
            raise found
        return found

    def live(self, uniqueid: str, name: str = "", **facts: Any) -> LiveChannel:
        """Add a channel that is up."""
        channel = LiveChannel(uniqueid, name or f"PJSIP/{uniqueid}", **{"state": "6", **facts})
        self.channels.replace([*self.channels, channel])
        return channel

    def part(self, uniqueid: str) -> LiveChannel:
        """A channel hangs up; returns it as it was."""
        gone = self.channels.feed("Hangup", {"Uniqueid": uniqueid}, self.now)
        assert gone is not None
        return gone

    def job(self, phase: Phase = Phase.ACTIVE, *, files: bool = True, **changes: Any) -> ActiveRecording:
        """Add a recording in that phase, one minute old, with an open raw file."""
        path = str(self.spool / f"{ID}.wav")
        ended = phase not in (Phase.REQUESTED, Phase.ACTIVE, Phase.PAUSED)
        begun = phase is not Phase.REQUESTED
        reserved = self.directory / "x.wav"
        reserved.touch()
        row = Recording(
            id=ID,
            node="one",
            asterisk="pbx",
            channel="PJSIP/a-1",
            uniqueid="1.1",
            name="x",
            file_path=str(reserved),
            phase=phase,
            cause=Cause.ABORTED if ended else Cause.NONE,
            pieces=(
                Segment(
                    path,
                    channel="PJSIP/a-1",
                    uniqueid="1.1",
                    started_at=BEGAN if begun else 0.0,
                    monitor_id="0x1",
                    ended_at=BEGAN + 10 if phase is Phase.PAUSED else 0.0,
                ),
            ),
            pauses=(Span(10.0),) if phase is Phase.PAUSED else (),
            sinks=("crm",),
            requested_at=BEGAN,
            started_at=BEGAN if begun else None,
            ended_at=NOW - 5 if ended else None,
        ).changed(**changes)
        if files:
            for piece in row.pieces:
                for file in piece.paths:
                    open_file(file)
        job = ActiveRecording(row)
        if row.phase in OPEN:
            self.jobs.add(job)
        return job

    def request(self, **changes: Any) -> Request:
        """A request to record the channel 1.1."""
        asked: dict[str, Any] = {
            "pbx": self.pbx,
            "channel": "PJSIP/a-1",
            "uniqueid": "1.1",
            "filename": "x.wav",
            "spec": RecordingSpec(),
        }
        return Request(**{**asked, **changes})

    async def settled(self) -> None:
        """Wait until nothing is under way."""
        assert await self.tasks.drain(5)
        assert self.tasks.died == 0

    def files(self, paths: Iterable[str]) -> list[bool]:
        """Which of these are there."""
        return [Path(path).exists() for path in paths]
