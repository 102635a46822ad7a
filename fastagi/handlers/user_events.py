"""`UserEvent: FastAGIRecord`: recordings commanded by any AMI client or dialplan line.

    Action: UserEvent                         UserEvent(FastAGIRecord,Command: start,filename: calls/1)
    UserEvent: FastAGIRecord
    Command: start
    Channel: PJSIP/100-00000001
    filename: calls/{uniqueid}

The keys are those of the AGI routes. Every client that may send a UserEvent may command, so each value is typed and
checked like a caller's text. A wrong command is answered by an announcement (`Change: refused`) and logged.

A dialplan's UserEvent commands only its own channel, because a comma in a caller's name could add a `Channel` or a
`RecordingID`. Asterisk (16 and 22) writes the channel of a dialplan's UserEvent in front of the header `UserEvent`, and
only `Event` and `Privilege` in front of a manager's. No value that follows can change that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from fastagi.ami.events import Headers
from fastagi.errors import BadArgument, FastAGIError, HeldElsewhere, StoreError
from fastagi.handlers.arguments import flag, options, seconds
from fastagi.recording.announcing import one_line
from fastagi.recording.asterisk.channel_table import LiveChannel
from fastagi.recording.asterisk.pbx import EventHandler, Pbx
from fastagi.recording.commands import Commands
from fastagi.recording.service import RecordingService

log = structlog.get_logger(__name__)

NAME = "FastAGIRecord"

COMMANDS = ("start", "stop", "pause", "resume", "mute", "unmute")

MOST_WAITING = 1000
"""Most commands that may wait. Each takes milliseconds; a longer queue is a fault or an attack."""

LONGEST = 1000
"""Most characters of one value: Asterisk itself reads no longer line."""

_ASTERISKS = frozenset(
    (
        *("event", "privilege", "userevent", "systemname", "timestamp", "sequencenumber", "actionid"),
        *("file", "line", "func", "channel", "channelstate", "channelstatedesc", "language", "accountcode"),
        *("calleridnum", "calleridname", "connectedlinenum", "connectedlinename", "context", "exten", "priority"),
        *("uniqueid", "linkedid"),
    )
)
"""Headers that Asterisk itself adds; `Channel` is read from the first occurrence."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command, its words checked.

    :param own: uniqueid of the channel whose dialplan sent the command; empty for a manager, which may name any channel
    :param arguments: parameters of `RecordingSpec`, typed
    """

    name: str
    channel: str = ""
    own: str = ""
    recording_id: str = ""
    recorder: str = ""
    filename: str = ""
    sink: str | None = None
    mid_call: bool = True
    seconds: float | None = None
    direction: str = "received"
    arguments: Mapping[str, Any] = field(default_factory=dict)


def parse(headers: Headers) -> Command:
    """Parse the command in a UserEvent.

    :raises BadArgument: an unknown command or key, a value of the wrong type, or a repeated key
    """
    words: dict[str, str] = {}
    own, in_front = "", True
    for key, value in headers.items_all():
        low = key.lower()
        in_front = in_front and low != "userevent"
        if in_front and low == "uniqueid":
            own = own or value
        if low == "channel" and low in words and words[low] != value:
            raise BadArgument("Channel is there twice: a UserEvent of the dialplan commands its own channel only")
        if low in _ASTERISKS and low != "channel":
            continue
        if low in words and low != "channel":
            raise BadArgument(f"{low[:80]} is there twice")
        if len(value) > LONGEST or not value.isprintable():
            raise BadArgument(f"{low[:80]} is longer than {LONGEST} characters, or has a control character")
        words[low] = value.strip()
    name = words.pop("command", "")
    if name not in COMMANDS:
        raise BadArgument(f"Command: {name[:80]!r} is not known: there are {', '.join(COMMANDS)}")
    channel, recording_id = words.pop("channel", ""), words.pop("recordingid", "")
    if name == "start" and recording_id:
        raise BadArgument("RecordingID has no meaning with start: it gets a new one")
    also = {"pause": ("seconds",), "mute": ("direction",), "unmute": ("direction",)}.get(name, ())
    arguments = options(words, also)
    if name != "start" and arguments:
        raise BadArgument(f"{next(iter(arguments))} has no meaning with {name}")
    return Command(
        name,
        channel=channel,
        own=own,
        recording_id=recording_id,
        recorder=words.get("recorder", ""),
        filename=words.get("filename", ""),
        sink=words.get("sink") or None,
        mid_call=flag("mid_call", words.get("mid_call", "yes")),
        seconds=seconds("seconds", words.get("seconds")),
        direction=words.get("direction", "received"),
        arguments=arguments,
    )


class UserEvents:
    """Carries out commands; those for one channel run one after the other.

    :ivar taken: commands carried out; a metric
    :ivar refused: wrong commands, and those that could not be carried out; a metric
    """

    def __init__(self, recorder: RecordingService, commands: Commands) -> None:
        self._recorder = recorder
        self._commands = commands
        self._lanes: dict[tuple[str, str], deque[Command]] = {}
        self._waiting = 0
        self.taken = 0
        self.refused = 0

    @property
    def event_handler(self) -> EventHandler:
        """Return the declared handler of the AMI event that carries commands."""
        return EventHandler(("UserEvent",), self._event)

    def _event(self, pbx: Pbx, name: str, headers: Mapping[str, str], channel: LiveChannel | None) -> None:
        if headers.get("UserEvent", "").lower() != NAME.lower():
            return
        assert isinstance(headers, Headers)
        try:
            command = parse(headers)
            if self._waiting >= MOST_WAITING:
                raise BadArgument(f"{MOST_WAITING} commands wait already")
        except BadArgument as exc:
            self._refuse(pbx, headers.get("Command", ""), headers.get("Channel", ""), str(exc))
            return
        live = pbx.channels.find(command.own or command.channel)
        lane = (pbx.name, live.uniqueid if live is not None else command.channel or command.recording_id)
        self._waiting += 1
        if lane in self._lanes:
            self._lanes[lane].append(command)
        else:
            self._lanes[lane] = deque([command])
            self._recorder.spawn(self._work(pbx, lane), f"user events {lane[1][:80]}")

    async def _work(self, pbx: Pbx, lane: tuple[str, str]) -> None:
        waiting = self._lanes[lane]
        try:
            while waiting:
                command = waiting.popleft()
                self._waiting -= 1
                try:
                    await self._carry_out(pbx, command)
                    self.taken += 1
                except FastAGIError as exc:
                    if isinstance(exc, HeldElsewhere) or await self._anothers(pbx, command):
                        log.info("user_event_left", asterisk=pbx.name, command=command.name, channel=command.channel)
                        continue  # the other server got the event too, and answers it
                    self._refuse(pbx, command.name, command.channel, str(exc), command.recording_id)
        finally:
            self._waiting -= len(waiting)
            del self._lanes[lane]

    async def _anothers(self, pbx: Pbx, command: Command) -> bool:
        """Return whether the recording belongs to another server: several on one ledger may be connected to the same
        Asterisk.
        """
        live = pbx.channels.find(command.own or command.channel)
        uniqueid = live.uniqueid if live is not None else ""
        try:
            return await self._recorder.held_elsewhere(pbx.name, uniqueid, command.recording_id)
        except StoreError:
            return False

    async def _carry_out(self, pbx: Pbx, command: Command) -> None:
        do = self._commands
        channel = command.own or command.channel
        if command.name == "start":
            await do.start_on_channel(
                channel,
                command.filename,
                command.arguments,
                asterisk=pbx.name,
                recorder=command.recorder,
                sink=command.sink,
                mid_call=command.mid_call,
            )
            return  # a recording that could not be started is announced as failed
        if command.recording_id:
            job = do.of_id(command.recording_id)
            if job.recording.asterisk != pbx.name:
                raise BadArgument(f"recording {command.recording_id[:80]!r} is not on {pbx.name}")
            if command.own not in ("", job.recording.uniqueid, job.recording.pieces[-1].uniqueid):
                raise BadArgument(
                    f"recording {command.recording_id[:80]!r} is another channel's: "
                    "a UserEvent of the dialplan commands its own channel only"
                )
        else:
            job = do.on_channel(channel, pbx.name, command.recorder)
        if command.name == "stop":
            await do.stop(job, wait=False)
        elif command.name == "pause":
            await do.pause(job, command.seconds)
        elif command.name == "resume":
            await do.resume(job)
        else:
            await do.mute(job, command.direction, command.name == "mute")

    def _refuse(self, pbx: Pbx, command: str, channel: str, error: str, recording_id: str = "") -> None:
        self.refused += 1
        command, channel = one_line(command)[:80], one_line(channel)[:200]
        log.warning("user_event_refused", asterisk=pbx.name, command=command, channel=channel, error=one_line(error))
        self._recorder.announce_refused(pbx.name, command, channel, error, recording_id)
